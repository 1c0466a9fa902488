package replica

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// peers asks n, which leads, for its peers, by id.
func (c *cluster) peers(n *node) map[uint64]Peer {
	c.t.Helper()
	all := map[uint64]Peer{}
	c.until("peers of the leader", func() bool {
		p, err := n.r.Peers(context.Background())
		if err != nil {
			c.t.Fatal(err)
		}
		for _, peer := range p.List {
			all[peer.ID] = peer
		}
		return p.Term != 0
	})
	return all
}

// between checks how long a member has been silent.
func (c *cluster) between(n *node, id uint64, least, most time.Duration) {
	c.t.Helper()
	if p, ok := c.peers(n)[id]; !ok || p.Silent < least || p.Silent > most {
		c.t.Errorf("member %d has been silent for %v (%v), want %v to %v", id, p.Silent, ok, least, most)
	}
}

// TestPeers: what a leader knows of the others, and since when.
func TestPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		var skipped atomic.Int64 // time that passes while a process does not run
		now := c.now
		c.now = func() int64 { return now() + skipped.Load() }
		for _, n := range c.nodes {
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			n.now, n.m = c.now, newMachine()
			n.start(t)
		}
		lead := c.leader()
		c.propose(lead, "x")
		follower, other := c.nodes[lead.id%3+1], c.nodes[(lead.id+1)%3+1]
		if got, err := follower.r.Peers(context.Background()); err != nil || got.Term != 0 || len(got.List) != 0 {
			t.Errorf("a follower knows %v, %v", got, err)
		}
		<-time.After(30 * time.Second)
		c.between(lead, follower.id, 0, 200*time.Millisecond)
		if err := follower.stop(); err != nil {
			t.Fatal(err)
		}
		<-time.After(20 * time.Second)
		c.between(lead, follower.id, 20*time.Second, 21*time.Second)
		c.between(lead, other.id, 0, 200*time.Millisecond)
		c.propose(lead, "y")
		if p := c.peers(lead); p[follower.id].CaughtUp || p[follower.id].Behind == 0 || !p[other.id].CaughtUp || p[other.id].Behind != 0 {
			t.Errorf("peers %+v", p)
		}
		// A pause is nobody's silence.
		skipped.Add(int64(10 * time.Minute))
		<-time.After(time.Second)
		lead = c.leader()
		c.propose(lead, "z")
		c.between(lead, follower.id, time.Second, 25*time.Second)
		// Who is new is out of contact, but has not been so for long.
		c.change(lead, nil, "add 4", MemberChange{AddLearner, 4})
		c.until("the change", func() bool {
			p, _ := lead.r.Peers(context.Background())
			return p.Term == lead.r.Status().Term && !p.Changing && len(p.List) == 3
		})
		c.between(lead, 4, time.Second, 2*time.Second)
		// A new leader begins to count.
		<-time.After(10 * time.Second)
		if err := lead.r.TransferLeader(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		lead = c.leader()
		c.propose(lead, "w")
		c.between(lead, follower.id, time.Second, 2*time.Second)
		c.between(lead, 4, time.Second, 2*time.Second)
	})
}

// TestChangeOfOneTerm: a change for a term is made in no other, and by nobody
// else.
func TestChangeOfOneTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		lead := c.leader()
		c.propose(lead, "x")
		term := lead.r.Status().Term
		try := func(n *node, term uint64) error {
			_, err := n.r.ProposeConfChange(context.Background(), ConfChange{Term: term, Context: []byte("bye"), Members: []MemberChange{{RemoveMember, lead.id%3 + 1}}})
			return err
		}
		for _, n := range c.nodes {
			if err := try(n, term+uint64(map[bool]int{true: 1}[n == lead])); !errors.Is(err, ErrNotLeader) {
				t.Errorf("member %d: %v", n.id, err)
			}
		}
		if err := try(lead, term); err != nil {
			t.Errorf("by the leader: %v", err)
		}
		c.until("two voters", func() bool { return len(lead.r.Status().Voters) == 2 })
	})
}

// slow makes each write of a node's log take that long.
func (n *node) slow(d time.Duration) {
	n.log.(*memLog).setHook(func() error { <-time.After(d); return nil })
}

// TestSlowDisk: leadership leaves a member whose disk is many times slower than
// others, and does not go to and fro when all are slow, or in turns.
func TestSlowDisk(t *testing.T) {
	const slow = 300 * time.Millisecond
	for name, c := range map[string]struct {
		disk  func(i int, n *node) // i is 0 for the first leader
		moves int                  // in a minute, at most
		stays bool
	}{
		"one is slow":            {func(i int, n *node) { n.slow([]time.Duration{slow, 0, 0}[i]) }, 1, false},
		"one is quick":           {func(i int, n *node) { n.slow([]time.Duration{slow, slow, 0}[i]) }, 1, false},
		"all are slow":           {func(i int, n *node) { n.slow(slow) }, 0, true},
		"none is":                {func(i int, n *node) { n.slow(20 * time.Millisecond) }, 0, true},
		"now and then":           {func(i int, n *node) { n.log.(*memLog).setHook(everyThird(slow)) }, 0, true},
		"whoever leads is slow":  {func(i int, n *node) { n.log.(*memLog).setHook(slowLeader(n, slow)) }, 6, false},
		"others are a bit quick": {func(i int, n *node) { n.slow([]time.Duration{slow, slow / 4, slow / 4}[i]) }, 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cl := newCluster(t, 3, Options{})
				defer cl.stop()
				first := cl.leader()
				cl.propose(first, "fine")
				<-time.After(15 * time.Second)
				for i := range 3 {
					c.disk(i, cl.nodes[(first.id+uint64(i)-1)%3+1])
				}
				stop := cl.load(2)
				moves, last := 0, first.id
				for range 60 * 100 {
					<-time.After(10 * time.Millisecond)
					cl.net.each(0, func(n *node) {
						if s := n.r.Status(); s.Role == Leader && s.Leader != last && s.Leader == n.id {
							moves, last = moves+1, n.id
						}
					})
				}
				_, acked := stop()
				for _, n := range cl.nodes { // behind all calls that were given up
					cl.propose(n, fmt.Sprint("end ", n.id))
				}
				cl.checkSame(append(acked, "fine"))
				if moves > c.moves || c.stays != (last == first.id && moves == 0) {
					t.Errorf("leadership moved %d times, from %d to %d", moves, first.id, last)
				}
			})
		})
	}
}

// everyThird write takes so long.
func everyThird(d time.Duration) func() error {
	i := 0
	return func() error {
		if i++; i%3 == 0 {
			<-time.After(d)
		}
		return nil
	}
}

// slowLeader makes writes slow while n leads.
func slowLeader(n *node, d time.Duration) func() error {
	return func() error {
		if n.r.Status().Role == Leader {
			<-time.After(d)
		}
		return nil
	}
}
