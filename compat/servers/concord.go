package servers

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// Concord starts a cluster of Concord.
func Concord(tb testing.TB, members int, opts ...Option) *Cluster {
	tb.Helper()
	dir, limits := dataDir(tb), kv.Limits{Ops: MaxTxnOps, RequestBytes: MaxRequestBytes, KeyBytes: 64 << 10, Depth: 200}
	peers, clients, names := make([]net.Listener, members), make([]net.Listener, members), map[string]string{}
	for i := range members {
		peers[i], clients[i] = listen(tb), listen(tb)
		names[fmt.Sprintf("m%d", i)] = peers[i].Addr().String()
	}
	nodes := make([]*concord.Node, members)
	var opening errgroup.Group
	for i := range members {
		own := []concord.Option{
			concord.Name(fmt.Sprintf("m%d", i)), concord.Limits(limits), concord.ClientAddrs(clients[i].Addr().String()),
			concord.PeerListener(peers[i]),
		}
		if members > 1 {
			own = append(own, concord.Peers(peers[i].Addr().String(), names))
		} else if err := peers[i].Close(); err != nil {
			tb.Fatal(err)
		}
		opening.Go(func() (err error) {
			ctx := startContext(tb)
			if nodes[i], err = concord.Open(ctx, filepath.Join(dir, fmt.Sprint(i)), own...); err != nil {
				return err
			}
			return nodes[i].Ready(ctx)
		})
	}
	if err := opening.Wait(); err != nil {
		tb.Fatal(err)
	}
	c := &Cluster{Name: "concord"}
	for i, node := range nodes {
		tb.Cleanup(func() {
			if err := node.Close(); err != nil {
				tb.Error(err)
			}
		})
		serve(tb, node, server.Config{
			Listeners: []net.Listener{clients[i]}, Limits: limits, Auth: server.AuthConfig{Token: apply(opts).authToken},
			HTTP: server.HTTPConfig{Hosts: []string{"*"}, Origins: []string{"*"}}, // as etcd's
		})
		c.Endpoints = append(c.Endpoints, clients[i].Addr().String())
	}
	// No compaction by age, which etcd does not have by default.
	if err := nodes[0].SetSettings(startContext(tb), concord.Settings{Retention: 24 * time.Hour, HistoryBytes: 8 << 30}); err != nil {
		tb.Fatal(err)
	}
	c.dial(tb)
	return c
}

func serve(tb testing.TB, node *concord.Node, cfg server.Config) {
	tb.Helper()
	s, err := server.New(node, node, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
	})
}
