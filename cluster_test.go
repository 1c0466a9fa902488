package concord

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/loopback"
)

// testCluster is members in one process that can be closed and opened again.
type testCluster struct {
	t     *testing.T
	opts  []Option
	peers map[string]string
	dirs  []string
	nodes []*Node
}

func newTestCluster(t *testing.T, size int, opts ...Option) *testCluster {
	t.Helper()
	c := &testCluster{t: t, opts: opts, peers: map[string]string{}, nodes: make([]*Node, size)}
	for i := range size {
		addr, release, err := loopback.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(release)
		c.peers[c.name(i)] = addr
		c.dirs = append(c.dirs, filepath.Join(t.TempDir(), "data"))
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.close(i)
		}
	})
	return c
}

func (c *testCluster) name(i int) string { return fmt.Sprintf("n%d", i+1) }

func (c *testCluster) options(i int, more ...Option) []Option {
	name := c.name(i)
	opts := []Option{
		Name(name), Peers(c.peers[name], c.peers),
		Logger(slog.New(slog.NewTextHandler(testWriter{c.t}, nil)).With("member", name)),
	}
	return append(append(opts, c.opts...), more...)
}

// openAll opens all members at once, as a cluster is founded.
func (c *testCluster) openAll() {
	c.t.Helper()
	var group sync.WaitGroup
	for i := range c.nodes {
		group.Go(func() { c.start(i) })
	}
	group.Wait()
	for i := range c.nodes {
		c.ready(i)
	}
}

// open opens one member and waits until it serves.
func (c *testCluster) open(i int, more ...Option) {
	c.t.Helper()
	c.start(i, more...)
	c.ready(i)
}

func (c *testCluster) start(i int, more ...Option) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	n, err := Open(ctx, c.dirs[i], c.options(i, more...)...)
	if err != nil {
		c.t.Error(err)
		return
	}
	c.nodes[i] = n
}

func (c *testCluster) ready(i int) {
	c.t.Helper()
	if c.nodes[i] == nil {
		c.t.FailNow()
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	if err := c.nodes[i].Ready(ctx); err != nil {
		c.t.Fatalf("member %s: %v", c.name(i), err)
	}
}

func (c *testCluster) close(i int) {
	if c.nodes[i] == nil {
		return
	}
	if err := c.nodes[i].Close(); err != nil {
		c.t.Errorf("close %s: %v", c.name(i), err)
	}
	c.nodes[i] = nil
}

// damageLog flips one bit in the first entries of a closed member's log.
func (c *testCluster) damageLog(i int) {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(c.dirs[i], "wal", "*.wal"))
	if err != nil || len(files) == 0 {
		c.t.Fatalf("log files %q: %v", files, err)
	}
	f, err := os.OpenFile(files[0], os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	const at = 600 // behind the header's sector
	if _, err := f.ReadAt(b[:], at); err != nil {
		c.t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], at); err != nil {
		c.t.Fatal(err)
	}
}

// waitFor repeats check until it returns nil.
func (c *testCluster) waitFor(check func() error) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatal(err)
		}
		<-time.After(10 * time.Millisecond)
	}
}
