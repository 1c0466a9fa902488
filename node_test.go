package concord

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
	peers := map[string]string{}
	listeners := make([]net.Listener, size)
	for i := range size {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = l
		peers[fmt.Sprintf("n%d", i+1)] = l.Addr().String()
	}
	nodes := make([]*Node, size)
	errs := make(chan error, size)
	for i := range size {
		name := fmt.Sprintf("n%d", i+1)
		dir := t.TempDir()
		go func() {
			var err error
			all := append([]Option{Name(name), Peers(peers[name], peers), PeerListener(listeners[i]),
				Logger(slog.New(slog.NewTextHandler(testWriter{t}, nil)).With("member", name))}, opts...)
			nodes[i], err = Open(t.Context(), dir, all...)
			errs <- err
		}()
	}
	for range size {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, n := range nodes {
		if n == nil {
			continue
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	if t.Failed() {
		t.FailNow()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, n := range nodes {
		if err := n.Ready(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return nodes
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
	kvtest.Run(t, func(t *testing.T) kv.Store { return openCluster(t, 3)[1] }, kvtest.Options{})
}
