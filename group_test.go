package concord

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/loopback"
	"github.com/concord-kv/concord/kv"
)

// flock is processes that find each other by seeds on loopback.
type flock struct {
	t      *testing.T
	secret string
	size   int
	addrs  []string // where each listens
	dirs   []string
	nodes  []*Node
}

func newFlock(t *testing.T, processes, size int) *flock {
	f := &flock{t: t, secret: NewSecret(), size: size, nodes: make([]*Node, processes)}
	for range processes {
		f.addrs = append(f.addrs, f.reserve())
		f.dirs = append(f.dirs, filepath.Join(t.TempDir(), "data"))
	}
	t.Cleanup(func() {
		for i := range f.nodes {
			f.close(i)
		}
	})
	return f
}

func (f *flock) reserve() string {
	addr, release, err := loopback.Reserve()
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(release)
	return addr
}

// tryOpen opens a process, which may fail.
func (f *flock) tryOpen(ctx context.Context, i int, more ...Option) (*Node, error) {
	name := fmt.Sprintf("n%d", i+1)
	opts := []Option{
		Name(name), Secret(f.secret), Timing(20*time.Millisecond, 200*time.Millisecond),
		Logger(slog.New(slog.NewTextHandler(testWriter{f.t}, nil)).With("member", name)),
		Cluster("test", Size(f.size), Join(f.addrs...), Listen(f.addrs[i]), Gossip("127.0.0.1:0"), NoMulticast()),
	}
	return Open(ctx, f.dirs[i], append(opts, more...)...)
}

func (f *flock) open(indexes ...int) {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 2*time.Minute)
	defer cancel()
	var group sync.WaitGroup
	for _, i := range indexes {
		group.Go(func() {
			n, err := f.tryOpen(ctx, i)
			if err == nil {
				f.nodes[i] = n
				err = n.Ready(ctx)
			}
			if err != nil {
				f.t.Errorf("process %d: %v", i+1, err)
			}
		})
	}
	group.Wait()
	if f.t.Failed() {
		f.t.FailNow()
	}
}

func (f *flock) close(i int) {
	if f.nodes[i] != nil {
		if err := f.nodes[i].Close(); err != nil {
			f.t.Errorf("close process %d: %v", i+1, err)
		}
		f.nodes[i] = nil
	}
}

func (f *flock) wipe(i int) {
	if err := os.RemoveAll(f.dirs[i]); err != nil {
		f.t.Fatal(err)
	}
}

// members waits until the member list, as process at has it, is as check wants.
func (f *flock) members(at int, check func([]kv.Member) error) {
	f.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		members := f.nodes[at].machine.Members()
		err := check(members)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%v: %+v", err, members)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func voters(want int) func([]kv.Member) error {
	return func(members []kv.Member) error {
		n := 0
		for _, m := range members {
			if !m.Learner {
				n++
			}
		}
		if n != want {
			return fmt.Errorf("%d of %d members vote, not %d", n, len(members), want)
		}
		return nil
	}
}

func (f *flock) put(i int, key string) {
	f.t.Helper()
	if _, err := f.nodes[i].Put(f.t.Context(), key, "1"); err != nil {
		f.t.Fatalf("put by process %d: %v", i+1, err)
	}
}

func (f *flock) has(i int, keys ...string) {
	f.t.Helper()
	for _, key := range keys {
		if _, err := f.nodes[i].Get(f.t.Context(), key, kv.Strong); err != nil {
			f.t.Errorf("process %d reads %s: %v", i+1, key, err)
		}
	}
}

// TestClusterForms: processes that have a name and a secret in common found one
// cluster, two more join it, and one that has lost its disk comes back.
func TestClusterForms(t *testing.T) {
	f := newFlock(t, 5, 3)
	f.open(0, 1, 2)
	f.put(0, "a")
	f.open(3, 4)
	f.put(4, "b")
	f.has(3, "a", "b")
	f.members(0, voters(3))
	cluster := f.nodes[0].Status().Cluster

	old := f.nodes[1].id
	f.close(1)
	f.wipe(1)
	f.open(1)
	if s := f.nodes[1].Status(); s.Member == old || s.Cluster != cluster {
		t.Fatalf("%v of cluster %v came back as %v of %v", old, cluster, s.Member, s.Cluster)
	}
	f.members(1, func(members []kv.Member) error {
		for _, m := range members {
			if m.ID == old || m.ID == f.nodes[1].id && m.Learner {
				return errors.New("the old is there, or the new is a learner")
			}
		}
		return nil
	})
	f.members(1, voters(3))
	f.put(1, "c")
	f.has(0, "a", "b", "c")
}

// TestClusterMoves: all members are started again at other addresses, and find
// each other by where they are now.
func TestClusterMoves(t *testing.T) {
	f := newFlock(t, 3, 3)
	f.open(0, 1, 2)
	f.put(0, "a")
	for i := range f.nodes {
		f.close(i)
		f.addrs[i] = f.reserve()
	}
	f.open(2, 1, 0)
	f.put(1, "b")
	f.has(2, "a", "b")
	f.members(0, func(members []kv.Member) error {
		for i, n := range f.nodes {
			for _, m := range members {
				if m.ID == n.id && (len(m.PeerAddrs) != 1 || m.PeerAddrs[0] != f.addrs[i]) {
					return fmt.Errorf("%s is told to be at %q, and is at %s", m.Name, m.PeerAddrs, f.addrs[i])
				}
			}
		}
		return nil
	})
}

// TestClusterOfOne: a process that expects nobody founds its cluster, others join,
// and with the second of them there are three voters.
func TestClusterOfOne(t *testing.T) {
	f := newFlock(t, 3, 1)
	f.open(0)
	f.put(0, "a")
	f.open(1)
	f.open(2)
	f.members(2, voters(3))
	f.has(2, "a")
}

// TestClusterRemoved: a member that was removed while it was away is told so when
// it comes back, and joins as a new one when it is opened again.
func TestClusterRemoved(t *testing.T) {
	f := newFlock(t, 4, 3)
	f.open(0, 1, 2, 3)
	old := f.nodes[3].id
	f.close(3)
	if err := f.nodes[0].RemoveMember(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	n, err := f.tryOpen(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	<-n.Done()
	if err := n.Err(); !errors.Is(err, ErrRemoved) || !strings.Contains(err.Error(), "joins as a new one") {
		t.Fatalf("the removed member ends with: %v", err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(3)
	if f.nodes[3].id == old {
		t.Error("it has its old identity")
	}
	if aside, _ := filepath.Glob(f.dirs[3] + ".*"); len(aside) != 1 {
		t.Errorf("set aside: %q", aside)
	}
}

// TestClusterStrangers: who has another secret, another name or another size is
// no part of the cluster.
func TestClusterStrangers(t *testing.T) {
	f := newFlock(t, 4, 3)
	f.open(0, 1, 2)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if n, err := f.tryOpen(ctx, 3, Secret(NewSecret())); err == nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with another secret: %v, %v", n, err)
	}
	f.members(0, func(members []kv.Member) error {
		if len(members) != 3 {
			return errors.New("a stranger was let in")
		}
		return nil
	})
	f.close(2)
	for what, opts := range map[string][]Option{
		"another cluster's directory": {Cluster("other", Listen(f.addrs[2]), NoMulticast())},
		"no cluster":                  {func(c *config) { c.group = group{} }},
	} {
		if n, err := f.tryOpen(t.Context(), 2, opts...); kv.CodeOf(err) != kv.FailedPrecondition {
			t.Errorf("%s: %v, %v", what, n, err)
		}
	}
}

// TestClusterListenerIsClosed: a member that cannot be opened does not keep others
// from its address.
func TestClusterListenerIsClosed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	holder := open(t, dir)
	defer holder.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Open(t.Context(), dir, PeerListener(l), Secret(NewSecret()), Cluster("a", NoMulticast())); err == nil {
		t.Fatalf("opened twice: %v", n.Close())
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener is open: %v", err)
	}
}

// TestClusterOptions: what cannot be is refused with the next step.
func TestClusterOptions(t *testing.T) {
	good := NewSecret()
	for want, opts := range map[string][]Option{
		"has no secret":        {Cluster("a")},
		"at least 16 bytes":    {Cluster("a"), Secret("short")},
		"out of range":         {Cluster("a", Size(100)), Secret(good)},
		"is no name":           {Cluster("a b"), Secret(good)},
		"not both":             {Cluster("a"), Secret(good), Peers("127.0.0.1:1", map[string]string{"n1": "127.0.0.1:1"})},
		"not run by hand":      {Cluster("a"), Secret(good), ByHand()},
		"is no HOST:PORT":      {Cluster("a", Listen("127.0.0.1:0", "host")), Secret(good)},
		"listen for members":   {Cluster("a", Listen("256.0.0.1:0")), Secret(good)},
		"no HOST or HOST:PORT": {Cluster("a", Listen("127.0.0.1:0"), Join("a:b:c")), Secret(good)},
		"gossip address":       {Cluster("a", Listen("127.0.0.1:0"), Gossip("nowhere")), Secret(good)},
	} {
		n, err := Open(t.Context(), filepath.Join(t.TempDir(), "data"), opts...)
		if n != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}
