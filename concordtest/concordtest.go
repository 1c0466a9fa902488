// Package concordtest runs whole clusters inside a test, for programs that use
// Concord: how does yours behave when the leader is lost, a majority is out of
// reach, a lease ends, a disk is gone?
//
//	c := concordtest.Start(t, 3)
//	lock := NewLock(c.Node(0))
//	c.Kill(c.Leader())
//	// is the lock still held, and by one only?
//
// The members are real: the engine, log, elections and snapshots of package
// concord, in this process. Around them the disks are in memory, and lose at
// [Cluster.Kill] what was not synced; the network between them is in memory, and
// silent where [Cluster.Partition] cuts it; and cluster time is moved by
// [Cluster.Advance]. No port, file or process is used, so that any number of
// clusters may run at once. Best start them in a bubble of testing/synctest:
// there elections and timeouts take no time, and come only when the test makes
// them come, however busy the machine is.
//
// It is no simulator: goroutines run as the scheduler has it, so that two runs
// differ; messages are not reordered, doubled or damaged, and clocks do not
// drift. Nor does it measure: there is no disk or network to wait for.
package concordtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
)

// Cluster is members in one process, numbered from 0; their names are n1, n2 and
// so on. Whatever a method waits for, it waits a minute for; then it ends the
// test, and says how the members are.
//
// Node may be called from any goroutine. The other methods are for the test's
// own, as they may end the test.
type Cluster struct {
	t     testing.TB
	opts  []concord.Option
	net   *network
	began time.Time

	mu      sync.Mutex // guards what follows, and the fields of members
	members []*member
}

// Heartbeats and elections come sooner than by default, and leave room for a
// busy machine under the race detector.
const (
	heartbeat = 20 * time.Millisecond
	election  = 500 * time.Millisecond
)

// patience is how long is waited for what should be there soon, and look how
// often it is looked for.
const (
	patience = time.Minute
	look     = 2 * time.Millisecond
)

// Start founds a cluster of n members and returns when all of them serve. opts
// are for all members, as for [concord.Open]; names, addresses and peers are not
// theirs to set. The default [concord.Timing] is 20 ms and 500 ms, and members
// log to the test's output. All of it ends with the test, which fails if a member
// has ended by itself.
func Start(t testing.TB, n int, opts ...concord.Option) *Cluster {
	t.Helper()
	if n < 1 {
		t.Fatalf("concordtest: a cluster has at least one member, not %d", n)
	}
	c := &Cluster{t: t, opts: opts, net: newNetwork(), began: time.Now()}
	t.Cleanup(c.end)
	for range n {
		c.recruit()
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	errs := make([]error, n)
	var group sync.WaitGroup
	for i, m := range c.members {
		m.empty = false // it founds
		group.Go(func() { errs[i] = c.open(ctx, m) })
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("concordtest: found a cluster of %d members: %v", n, err)
	}
	c.WaitReady()
	return c
}

// recruit makes a further member, which is not open.
func (c *Cluster) recruit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := len(c.members)
	name := fmt.Sprintf("n%d", i+1)
	c.members = append(c.members, &member{name: name, addr: name + ":2380", disk: newDisk(), empty: true})
	return i
}

// member is the one of that number. It ends the test where there is none.
func (c *Cluster) member(i int) *member {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if i < 0 || i >= len(c.members) {
		c.t.Fatalf("concordtest: there is no member %d; there are %d, from 0", i, len(c.members))
	}
	return c.members[i]
}

// Node is member i. After [Cluster.Kill] it is the one that was killed, whose
// calls return kv.ErrClosed; after [Cluster.Restart] it is another.
func (c *Cluster) Node(i int) *concord.Node {
	c.t.Helper()
	node, _ := c.life(c.member(i))
	return node
}

// life is a member's node, and whether it runs.
func (c *Cluster) life(m *member) (*concord.Node, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return m.node, m.running
}

// running are the members that run, by number.
func (c *Cluster) running() map[int]*concord.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	nodes := map[int]*concord.Node{}
	for i, m := range c.members {
		if m.running {
			nodes[i] = m.node
		}
	}
	return nodes
}

// Leader waits until a member leads with a majority behind it, and returns its
// number: during a partition never one that only believes that it leads.
func (c *Cluster) Leader() int {
	c.t.Helper()
	leader := -1
	c.await("a leader", func(ctx context.Context) (err error) {
		leader, err = c.leader(ctx)
		return err
	})
	return leader
}

// askLeader is how long a member that believes that it leads is asked to prove
// it, before another is looked for.
const askLeader = 100 * time.Millisecond

// leader is who leads, if that can be said now.
func (c *Cluster) leader(ctx context.Context) (int, error) {
	nodes := c.running()
	terms := map[int]kv.Term{}
	var claims []int
	for i, node := range nodes {
		if s := node.Status(); s.Leader == s.Member {
			claims, terms[i] = append(claims, i), s.Term
		}
	}
	// The newest first, so the order of the map makes no difference.
	slices.SortFunc(claims, func(a, b int) int { return cmp.Compare(terms[b], terms[a]) })
	for _, i := range claims {
		ctx, cancel := context.WithTimeout(ctx, askLeader)
		err := nodes[i].Ready(ctx)
		cancel()
		if s := nodes[i].Status(); err == nil && s.Leader == s.Member && s.Term == terms[i] {
			return i, nil
		}
	}
	return 0, errNoLeader
}

var (
	errNoLeader = errors.New("no member leads a majority")
	errNoVote   = errors.New("it has come back without its data, and has no vote yet")
	errStopped  = errors.New("it does not run")
	errChanging = errors.New("one is under way")
)

// WaitReady waits until the given members serve, or all that run where none is
// given: they have a leader and have caught up with it, and those that lost
// their data have their vote back. Members that a partition keeps from a majority
// do not get there.
func (c *Cluster) WaitReady(members ...int) {
	c.t.Helper()
	if len(members) == 0 {
		for i := range c.running() {
			members = append(members, i)
		}
		slices.Sort(members)
	}
	serve := func() {
		c.t.Helper()
		for _, i := range members {
			m := c.member(i)
			c.await(m.name+" to serve", func(ctx context.Context) error {
				node, runs := c.life(m)
				if !runs {
					return errStopped
				}
				return ready(ctx, node)
			})
		}
	}
	serve()
	c.await("changes of the membership to end", func(ctx context.Context) error {
		i, err := c.leader(ctx)
		if err == nil && !c.member(i).lab.Member.Settled(ctx) {
			err = errChanging
		}
		return err
	})
	serve() // all have applied the last change
}

// ready tells why a member does not serve as WaitReady wants it.
func ready(ctx context.Context, node *concord.Node) error {
	if err := node.Ready(ctx); err != nil {
		return err
	}
	all, err := node.Members(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.Name == node.Name() && !m.Learner && m.ID != node.Status().Member {
			return errNoVote
		}
	}
	return nil
}

// await waits until check returns nil.
func (c *Cluster) await(what string, check func(context.Context) error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			c.t.Fatalf("concordtest: waited %v for %s: %v\n%s", patience, what, err, c.describe())
		case <-time.After(look):
		}
	}
}

// describe says how each member is.
func (c *Cluster) describe() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all strings.Builder
	for i, m := range c.members {
		fmt.Fprintf(&all, "  member %d (%s): ", i, m.name)
		switch {
		case !m.running:
			all.WriteString("does not run")
		case m.node.Err() != nil:
			fmt.Fprintf(&all, "has ended: %v", m.node.Err())
		default:
			s := m.node.Status()
			fmt.Fprintf(&all, "%v of term %d, leader %v, applied %d of %d", s.Role, s.Term, s.Leader, s.Applied, s.Committed)
		}
		fmt.Fprintf(&all, "%s\n", c.net.describe(m.addr))
	}
	return all.String()
}
