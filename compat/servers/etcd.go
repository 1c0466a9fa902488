package servers

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"
	"golang.org/x/crypto/bcrypt"
)

// Etcd starts a cluster of etcd's embed server.
func Etcd(tb testing.TB, members int, opts ...Option) *Cluster {
	tb.Helper()
	dir := dataDir(tb)
	cfgs, initial := make([]*embed.Config, members), make([]string, members)
	for i := range members {
		cfg := embed.NewConfig()
		cfg.Name = fmt.Sprintf("m%d", i)
		cfg.Dir = filepath.Join(dir, cfg.Name)
		cfg.LogLevel = "fatal"
		cfg.UnsafeNoFsync = true
		cfg.BcryptCost = uint(bcrypt.MinCost) // what passwords cost is not compared
		if o := apply(opts); o.authToken != "" {
			cfg.AuthToken = o.authToken
		}
		client, peer := url.URL{Scheme: "http", Host: freePort(tb)}, url.URL{Scheme: "http", Host: freePort(tb)}
		cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
		cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		cfgs[i], initial[i] = cfg, cfg.Name+"="+peer.String()
	}
	c := &Cluster{Name: "etcd"}
	var started []*embed.Etcd
	for _, cfg := range cfgs {
		cfg.InitialCluster = strings.Join(initial, ",")
		e, err := embed.StartEtcd(cfg)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(e.Close)
		started = append(started, e)
		c.Endpoints = append(c.Endpoints, cfg.ListenClientUrls[0].Host)
	}
	ctx := startContext(tb)
	for _, e := range started {
		select {
		case <-e.Server.ReadyNotify():
		case <-ctx.Done():
			tb.Fatal("etcd did not get ready")
		}
	}
	c.dial(tb)
	return c
}
