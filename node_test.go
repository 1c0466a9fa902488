package concord

import (
	"fmt"
	"log/slog"
	"strings"

	"testing"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// TestMain looks for goroutines that were left, but for those of memberlist that
// wait for the answer to a probe: they end by themselves, within a second of its
// shutdown.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// open opens a member and closes it with the test.
func open(t *testing.T, dir string, opts ...Option) *Node {
	t.Helper()
	opts = append([]Option{Logger(slog.New(slog.NewTextHandler(testWriter{t}, nil)))}, opts...)
	n, err := Open(t.Context(), dir, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// openCluster opens members that know each other, and waits until they serve.
func openCluster(t *testing.T, size int, opts ...Option) []*Node {
	t.Helper()
	c := newTestCluster(t, size, opts...)
	c.openAll()
	return c.nodes
}

// testWriter sends a member's log to the test's.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

func TestPutSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	n := open(t, dir)
	put, err := n.Put(ctx, "greeting", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if put.Revision != 2 {
		t.Fatalf("the first put is at revision %d, want 2", put.Revision)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Put(ctx, "a", "b"); kv.CodeOf(err) != kv.Unavailable {
		t.Fatalf("put after Close: %v", err)
	}
	n = open(t, dir)
	got, err := n.Get(ctx, "greeting", kv.Strong)
	if err != nil || string(got.Value) != "hello" || got.ModRevision != 2 {
		t.Fatalf("after reopening: %+v, %v", got, err)
	}
}

func TestSingleMemberIsAStore(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kv.Store { return open(t, t.TempDir()) }, kvtest.Options{})
}

func TestEveryMemberIsAStore(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kv.Store {
		t.Parallel() // most of the time is waiting for elections
		return openCluster(t, 3)[1]
	}, kvtest.Options{})
}

// A member whose log is damaged ends by name, and gets its data back from the
// others with Rejoin, as a voter again.
func TestRejoinReplacesADamagedMember(t *testing.T) {
	c := newTestCluster(t, 3)
	c.openAll()
	ctx := t.Context()
	if _, err := c.nodes[0].Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.nodes[2].Get(ctx, "a", kv.Strong); err != nil { // its log has entries
		t.Fatal(err)
	}
	c.close(2)
	c.damageLog(2)
	_, err := Open(ctx, c.dirs[2], c.options(2)...)
	if kv.CodeOf(err) != kv.DataLoss {
		t.Fatalf("open on a damaged log: %v", err)
	}
	for _, want := range []string{".wal", "rejoin"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not name %q: %v", want, err)
		}
	}
	c.open(2, Rejoin())
	c.votersAre(0, 1, 2)
	k, err := c.nodes[2].Get(ctx, "a", kv.Strong)
	if err != nil || string(k.Value) != "1" {
		t.Fatalf("after rejoining: %v, %v", k, err)
	}
}

// Leader reads are switched by a replicated setting, and hold over a restart.
func TestLeaderReadsFollowTheSetting(t *testing.T) {
	c := newTestCluster(t, 3)
	c.openAll()
	ctx := t.Context()
	leases := func() int {
		n := 0
		for _, node := range c.nodes {
			if node.replica.LeaderRead() {
				n++
			}
		}
		return n
	}
	wait := func(want int) {
		t.Helper()
		c.waitFor(func() error {
			if n := leases(); n != want {
				return fmt.Errorf("%d members hold a read lease, want %d", n, want)
			}
			return nil
		})
	}
	if leases() != 0 {
		t.Fatal("a read lease without the setting")
	}
	s := c.nodes[1].Settings()
	s.LeaderReads = true
	if err := c.nodes[1].SetSettings(ctx, s); err != nil {
		t.Fatal(err)
	}
	wait(1)
	for i, node := range c.nodes {
		if _, err := node.Put(ctx, "k", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		k, err := node.Get(ctx, "k", kv.Leader)
		if err != nil || string(k.Value) != fmt.Sprint(i) {
			t.Fatalf("leader read on member %d: %q, %v", i, k.Value, err)
		}
	}
	for i := range c.nodes {
		c.close(i)
	}
	c.openAll()
	wait(1)
	s.LeaderReads = false
	if err := c.nodes[0].SetSettings(ctx, s); err != nil {
		t.Fatal(err)
	}
	wait(0)
}
