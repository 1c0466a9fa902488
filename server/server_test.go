package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(benchServer); kind != "" {
		if err := runBenchServer(kind); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// lone is a cluster of one member.
type lone struct {
	kv.Cluster
	leader atomic.Uint64
}

func (l *lone) Status() kv.Status {
	return kv.Status{Cluster: 1, Member: 1, Leader: kv.MemberID(l.leader.Load()), Revision: 1}
}

func start(t *testing.T, store kv.Store, cluster kv.Cluster, cfg server.Config) (addrs []net.Addr, stop func()) {
	t.Helper()
	if cfg.Addrs == nil {
		cfg.Addrs = []string{"127.0.0.1:0"}
	}
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
	return s.Addrs(), stop
}

func fetch(t *testing.T, c *http.Client, url string) (code int, body string) {
	t.Helper()
	defer c.CloseIdleConnections()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func dial(t *testing.T, target string, creds credentials.TransportCredentials, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(creds))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// speak puts a key over gRPC and reads /version over HTTP/1, both at addr.
func speak(t *testing.T, conn *grpc.ClientConn, web *http.Client, base string) {
	t.Helper()
	if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: []byte("b")}); err != nil {
		t.Errorf("put: %v", err)
	}
	h, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil || h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", h, err)
	}
	code, body := fetch(t, web, base+"/version")
	if code != 200 || body != `{"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"}` {
		t.Errorf("version: %d %s", code, body)
	}
}

func TestOnePort(t *testing.T) {
	store, cluster := kvtest.NewModel(kv.Limits{}), new(lone)
	cluster.leader.Store(1)
	t.Run("tcp", func(t *testing.T) {
		addrs, _ := start(t, store, cluster, server.Config{})
		a := addrs[0].String()
		speak(t, dial(t, a, insecure.NewCredentials()), new(http.Client), "http://"+a)
	})
	t.Run("unix", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s")
		start(t, store, cluster, server.Config{Addrs: []string{"unix://" + path}})
		web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		speak(t, dial(t, "unix://"+path, insecure.NewCredentials()), web, "http://x")
	})
	t.Run("tls", func(t *testing.T) {
		cert, pool := certstest.New(t, "test")
		addrs, _ := start(t, store, cluster, server.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
		a, cfg := addrs[0].String(), &tls.Config{RootCAs: pool}
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
		speak(t, dial(t, a, credentials.NewTLS(cfg)), web, "https://"+a)
	})
}

// noRange fails strong reads.
type noRange struct{ kv.Store }

func (s noRange) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	if r.Level == kv.Strong {
		return kv.RangeResult{}, kv.ErrNoLeader
	}
	return s.Store.Range(ctx, r)
}

func TestHealth(t *testing.T) {
	model, cluster := kvtest.NewModel(kv.Limits{}), new(lone)
	cluster.leader.Store(1)
	good, _ := start(t, model, cluster, server.Config{})
	bad, _ := start(t, noRange{model}, new(lone), server.Config{})
	for _, c := range []struct {
		addr net.Addr
		path string
		code int
		body string
	}{
		{good[0], "/health", 200, `{"health":"true","reason":""}`},
		{bad[0], "/health", 503, `{"health":"false","reason":"RAFT NO LEADER"}` + "\n"},
		{bad[0], "/health?serializable=true", 200, `{"health":"true","reason":""}`},
		{good[0], "/livez", 200, "ok\n"},
		{bad[0], "/livez/serializable_read", 200, "ok\n"},
		{good[0], "/readyz?verbose", 200, "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]running ok\nok\n"},
		{bad[0], "/readyz", 503, "[+]data_corruption ok\n[+]serializable_read ok\n[-]linearizable_read failed: " + kv.ErrNoLeader.Message + "\n[+]non_learner ok\n[+]running ok\n\n"},
		{bad[0], "/readyz?exclude=linearizable_read", 200, "ok\n"},
		{bad[0], "/readyz/linearizable_read", 503, "[-]linearizable_read failed: " + kv.ErrNoLeader.Message + "\n\n"},
		{good[0], "/nothing", 404, "404 page not found\n"},
	} {
		if code, body := fetch(t, new(http.Client), "http://"+c.addr.String()+c.path); code != c.code || body != c.body {
			t.Errorf("%s: %d %q, want %d %q", c.path, code, body, c.code, c.body)
		}
	}
}

// TestSilentClients checks that a connection that says nothing, or not enough,
// is closed after the handshake time.
func TestSilentClients(t *testing.T) {
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{Handshake: 50 * time.Millisecond})
	for _, text := range []string{"", "PR", "PRI * HTTP/2.0\r\n", "GET / HT"} {
		c, err := net.Dial("tcp", addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, c)
		if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("after %q the connection stayed open", text)
		}
	}
}

func TestConnectionLimit(t *testing.T) {
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{Connections: 1})
	first, err := net.Dial("tcp", addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	// An answer shows that the first is counted.
	if _, err := io.WriteString(first, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	second, err := net.Dial("tcp", addrs[0].String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if n, err := second.Read(make([]byte, 1)); err == nil {
		t.Errorf("a second connection was served: %d bytes", n)
	}
}

func TestSizeLimits(t *testing.T) {
	limits := kv.Limits{RequestBytes: 1000, Ops: 2}
	addrs, _ := start(t, kvtest.NewModel(limits), new(lone), server.Config{Limits: limits})
	c := pb.NewKVClient(dial(t, addrs[0].String(), insecure.NewCredentials()))
	put := func(n int) error {
		_, err := c.Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: make([]byte, n)})
		return err
	}
	if err := put(900); err != nil {
		t.Errorf("under the limit: %v", err)
	}
	if err := put(1000); status.Convert(err).Message() != "etcdserver: request is too large" {
		t.Errorf("over the limit: %v", err)
	}
	if err := put(1 << 20); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("over gRPC's limit: %v", err)
	}
	one := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}}
	if _, err := c.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{one, one, one}}); status.Convert(err).Message() != "etcdserver: too many operations in txn request" {
		t.Errorf("three operations: %v", err)
	}
}

// TestStop ends streams with etcd's word for it, and lets calls finish.
func TestStop(t *testing.T) {
	store := &slow{Store: kvtest.NewModel(kv.Limits{}), entered: make(chan struct{}), leave: make(chan struct{})}
	addrs, stop := start(t, store, new(lone), server.Config{})
	conn := dial(t, addrs[0].String(), insecure.NewCredentials())
	watch, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}); err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || !r.Created {
		t.Fatalf("%v, %v", r, err)
	}
	put := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(conn).Put(context.Background(), &pb.PutRequest{Key: []byte("a")})
		put <- err
	}()
	<-store.entered
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "server stopped") {
		t.Errorf("the watch ended with %v", err)
	}
	close(store.leave)
	if err := <-put; err != nil {
		t.Errorf("the put that was under way: %v", err)
	}
	<-stopped
}

// slow holds transactions up.
type slow struct {
	kv.Store
	entered, leave chan struct{}
}

func (s *slow) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	close(s.entered)
	<-s.leave
	return s.Store.Txn(ctx, t)
}

// TestStopAtOnce ends servers before, or while, they begin to serve.
func TestStopAtOnce(t *testing.T) {
	for range 50 {
		_, stop := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{})
		stop()
	}
}

// TestUnixSockets takes the place of a socket that was left behind, and of no
// other file.
func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	left, err := net.Listen("unix", filepath.Join(dir, "left"))
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, stop := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{Addrs: []string{"unix:" + filepath.Join(dir, "left")}})
	for _, name := range []string{"left", "file"} {
		if s, err := server.New(kvtest.NewModel(kv.Limits{}), new(lone), server.Config{Addrs: []string{"unix://" + filepath.Join(dir, name)}}); err == nil {
			t.Errorf("%s was taken away: %v", name, s.Addrs())
		}
	}
	stop()
	if _, err := os.Stat(filepath.Join(dir, "left")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestBadAddress(t *testing.T) {
	_, err := server.New(kvtest.NewModel(kv.Limits{}), new(lone), server.Config{Addrs: []string{"127.0.0.1:0", "256.0.0.1:1"}})
	if err == nil || !strings.Contains(err.Error(), "256.0.0.1:1") {
		t.Errorf("%v", err)
	}
	if _, err := server.New(kvtest.NewModel(kv.Limits{}), new(lone), server.Config{}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("without an address: %v", err)
	}
}
