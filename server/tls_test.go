package server_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// TestListeners: each address serves what it is for, with TLS of its own.
func TestListeners(t *testing.T) {
	cert, pool := certstest.New(t, "test")
	secure, trusting := &tls.Config{Certificates: []tls.Certificate{cert}}, &tls.Config{RootCAs: pool}
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	tcp := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	plain, both, calls, pages, health := tcp(), tcp(), tcp(), tcp(), tcp()
	cluster := new(lone)
	cluster.leader.Store(1)
	start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{Addrs: []string{}, TLS: secure, HTTP: server.HTTPConfig{Profiles: true}, Listeners: []net.Listener{
		both, server.Listen(plain, nil, server.Everything), server.Listen(calls, secure, server.OnlyGRPC),
		server.Listen(pages, nil, server.OnlyHTTP), server.Listen(health, secure, server.OnlyHealth),
		server.Listen(socket, nil, server.Everything),
	}})
	for name, c := range map[string]struct {
		target      string
		tls         bool
		grpc, http  bool
		restOfPages int
	}{
		"default":     {target: both.Addr().String(), tls: true, grpc: true, http: true, restOfPages: 200},
		"plain":       {target: plain.Addr().String(), grpc: true, http: true, restOfPages: 200},
		"calls":       {target: calls.Addr().String(), tls: true, grpc: true},
		"pages":       {target: pages.Addr().String(), http: true, restOfPages: 200},
		"health":      {target: health.Addr().String(), tls: true, http: true, restOfPages: 404},
		"wrong plain": {target: both.Addr().String()},
		"wrong tls":   {target: plain.Addr().String(), tls: true},
		"socket":      {target: "unix://" + socket.Addr().String(), grpc: true},
	} {
		if got := ranges(t, c.target, c.tls, trusting); got != c.grpc {
			t.Errorf("%s: gRPC is served: %v", name, got)
		}
		if name == "socket" {
			continue
		}
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting.Clone(), DisableKeepAlives: true}}
		scheme := "http://"
		if c.tls {
			scheme = "https://"
		}
		if status := page(web, scheme+c.target+"/health"); (status == 200) != c.http {
			t.Errorf("%s: /health is %d", name, status)
		}
		for _, path := range []string{"/version", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/symbol"} {
			if status := page(web, scheme+c.target+path); c.http && status != c.restOfPages {
				t.Errorf("%s: %s is %d", name, path, status)
			}
		}
		if status := page(web, scheme+c.target+"/debug/pprof/cmdline"); c.http && status != 404 {
			t.Errorf("%s: the command line is %d", name, status)
		}
	}
}

// page is the status of a page, 0 when there is no answer.
func page(c *http.Client, url string) int {
	r, err := c.Get(url)
	if err != nil {
		return 0
	}
	defer r.Body.Close()
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return 0
	}
	return r.StatusCode
}

// ranges reports whether a gRPC call is answered.
func ranges(t *testing.T, target string, secured bool, cfg *tls.Config) bool {
	t.Helper()
	security := insecure.NewCredentials()
	if secured {
		security = credentials.NewTLS(cfg)
	}
	conn := dial(t, target, security)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
	return err == nil
}
