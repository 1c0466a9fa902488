package client_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lone is a cluster of one member that always leads.
type lone struct {
	kv.Cluster
	store kv.Store
	id    kv.MemberID
}

func (l lone) Status() kv.Status {
	res, err := l.store.Range(context.Background(), kv.Range{Key: []byte("a"), Level: kv.Eventual})
	if err != nil {
		panic(err)
	}
	return kv.Status{
		Cluster: 1, Member: l.id, Leader: l.id, Role: kv.LeaderRole, Term: 1,
		Revision: res.Revision, Time: res.Time, Version: "1.2.3", Hash: 42, Keys: 7,
	}
}

func (l lone) Members(context.Context) ([]kv.Member, error) {
	return []kv.Member{{ID: l.id, Name: "n", PeerAddrs: []string{"127.0.0.1:1"}, ClientAddrs: []string{"127.0.0.1:2"}}}, nil
}

// serve serves store until the test ends or stop is called, and gives its address.
func serve(t testing.TB, store kv.Store, cfg server.Config) (addr string, stop func()) {
	t.Helper()
	return serveCluster(t, store, lone{store: store, id: 1}, cfg)
}

func serveCluster(t testing.TB, store kv.Store, cluster kv.Cluster, cfg server.Config) (addr string, stop func()) {
	t.Helper()
	if cfg.Listeners == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Listeners = []net.Listener{l}
	}
	cfg.Drain = 200 * time.Millisecond
	s, err := server.New(store, cluster, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return s.Addrs()[0].String(), stop
}

func open(t testing.TB, cfg client.Config) *client.Client {
	t.Helper()
	c, err := client.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// patiently tries again, with more time, what a busy machine does not do in a
// little: a failure counts only with more than enough.
func patiently(t testing.TB, try func(timeout time.Duration) error) {
	t.Helper()
	for timeout := 300 * time.Millisecond; ; timeout *= 4 {
		err := try(timeout)
		if err == nil {
			return
		}
		if timeout > 30*time.Second {
			t.Errorf("within %v: %v", timeout, err)
			return
		}
	}
}

// TestStore holds the client, with a server and the reference store behind it,
// to what every store must do.
func TestStore(t *testing.T) {
	models := map[kv.Store]*kvtest.Model{}
	kvtest.Run(t, func(t *testing.T) kv.Store {
		m := kvtest.NewModel(kv.Limits{})
		addr, _ := serve(t, m, server.Config{})
		c := open(t, client.Config{Endpoints: []string{addr}})
		models[c] = m
		return c
	}, kvtest.Options{Advance: func(s kv.Store, d time.Duration) { models[s].Advance(d) }})
}
