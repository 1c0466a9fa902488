package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// TestNode holds the client to the store's behaviour with a real member behind
// the server.
func TestNode(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kv.Store {
		n, err := concord.Open(t.Context(), t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		})
		addr, _ := serveCluster(t, n, n, server.Config{})
		return open(t, client.Config{Endpoints: []string{addr}})
	}, kvtest.Options{Seeds: 4})
}

// TestNodeRestart restarts the member under a client that writes, reads and
// watches: no call fails for good, and the watch misses nothing.
func TestNodeRestart(t *testing.T) {
	dir := t.TempDir()
	up := func() (*concord.Node, string, func()) {
		n, err := concord.Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		addr, stop := serveCluster(t, n, n, server.Config{})
		return n, addr, func() {
			stop()
			if err := n.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	_, addr, down := up()
	p := newProxy(t, addr)
	c := open(t, client.Config{Endpoints: []string{p.addr()}, Timeout: 2 * time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	seen := make(chan int64, 100)
	go func() {
		defer close(seen)
		for b, err := range c.Watch(ctx, kv.WatchRequest{Key: []byte("k")}) {
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("the watch ended: %v", err)
			}
			for _, e := range b.Events {
				seen <- e.KV.Version
			}
			if len(b.Events) == 0 && err == nil {
				seen <- 0
			}
		}
	}()
	if v := <-seen; v != 0 {
		t.Fatalf("the watch began with version %d", v)
	}
	for i := range 3 {
		for n := range 10 {
			want := int64(i*10 + n + 1)
			if _, err := kv.Put(ctx, c, "k", "v"); err != nil {
				t.Fatalf("put after %d restarts: %v", i, err)
			}
			if v := <-seen; v != want {
				t.Fatalf("the watch saw version %d, want %d", v, want)
			}
		}
		down()
		_, addr, down = up()
		p.setTarget(addr)
	}
	down()
	cancel()
	for range seen {
	}
}
