package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// A caller has its burst, over gRPC, the gateway and pages together, and health
// is told above it too.
func TestRateLimit(t *testing.T) {
	const burst = 7
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), led(), server.Config{Clients: server.ClientLimits{Rate: 1e-6, Burst: burst}})
	conn := dial(t, addrs[0].String(), insecure.NewCredentials())
	put := func() error {
		_, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a")})
		return err
	}
	base := "http://" + addrs[0].String()
	for range burst - 2 {
		if err := put(); err != nil {
			t.Fatal(err)
		}
	}
	if code, body := fetch(t, new(http.Client), base+"/version"); code != http.StatusOK {
		t.Errorf("page: %d %s", code, body)
	}
	ask := func() (int, string) {
		resp, err := http.Post(base+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"YQ=="}`))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	if code, body := ask(); code != http.StatusOK {
		t.Errorf("gateway: %d %s", code, body)
	}
	if err := put(); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "etcdserver: too many requests") {
		t.Errorf("put above the burst: %v", err)
	}
	if code, body := ask(); code != http.StatusTooManyRequests {
		t.Errorf("gateway above the burst: %d %s", code, body)
	}
	if code, body := fetch(t, new(http.Client), base+"/version"); code != http.StatusTooManyRequests || !strings.Contains(body, "resource_exhausted") {
		t.Errorf("page above the burst: %d %s", code, body)
	}
	if code, body := fetch(t, new(http.Client), base+"/livez"); code != http.StatusOK {
		t.Errorf("livez above the burst: %d %s", code, body)
	}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("health above the burst: %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func led() *lone {
	l := new(lone)
	l.leader.Store(1)
	return l
}

// A caller has as many streams and watches as it may, and no more.
func TestStreamsAndWatchesOfACaller(t *testing.T) {
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), led(), server.Config{Clients: server.ClientLimits{Streams: 2, Watches: 3}})
	client := pb.NewWatchClient(dial(t, addrs[0].String(), insecure.NewCredentials()))
	ctx, end := context.WithCancel(t.Context())
	defer end()
	open := func() pb.Watch_WatchClient {
		s, err := client.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	watch := func(s pb.Watch_WatchClient) (*pb.WatchResponse, error) {
		if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}}); err != nil {
			return nil, err
		}
		return s.Recv()
	}
	one, two := open(), open()
	for i, s := range []pb.Watch_WatchClient{one, two, one} {
		if r, err := watch(s); err != nil || !r.Created || r.Canceled {
			t.Fatalf("watch %d: %v, %v", i, r, err)
		}
	}
	r, err := watch(two)
	if err == nil && !r.Canceled {
		r, err = two.Recv() // a watch is told of before its end
	}
	if err != nil || !r.Canceled || !strings.Contains(r.CancelReason, "too many requests") {
		t.Errorf("one watch more: %v, %v", r, err)
	}
	if _, err := open().Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one stream more: %v", err)
	}
	end() // the streams, and the watches with them
	for until := time.Now().Add(30 * time.Second); ; {
		s, err := client.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		r, err := watch(s)
		if err == nil && r.Created && !r.Canceled {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("streams that have ended are counted: %v, %v", r, err)
		}
	}
}

// An address has as many connections as it may; more are closed, and what there
// is goes on.
func TestConnectionsOfAnAddress(t *testing.T) {
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), led(), server.Config{Connections: 9, Clients: server.ClientLimits{Connections: 2}})
	connect := func() net.Conn {
		c, err := net.Dial("tcp", addrs[0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	ask := func(c net.Conn) error {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			return err
		}
		if _, err := fmt.Fprint(c, "GET /version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200")))
		return err
	}
	one, two := connect(), connect()
	if err := errors.Join(ask(one), ask(two)); err != nil {
		t.Fatal(err)
	}
	if ask(connect()) == nil {
		t.Error("a third connection is served")
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(30 * time.Second); ask(connect()) != nil; {
		if time.Now().After(until) {
			t.Fatal("a connection that was closed is counted")
		}
	}
}

// A watcher that does not read is cut, with an error after which clients go on
// elsewhere; one on the same connection that reads is not.
func TestSlowWatcher(t *testing.T) {
	model := kvtest.NewModel(kv.Limits{})
	told := make(chanWriter, 1)
	addrs, _ := start(t, model, led(), server.Config{
		Clients: server.ClientLimits{SlowReader: 200 * time.Millisecond}, Logger: slog.New(slog.NewTextHandler(told, nil)),
	})
	// Windows that do not grow: else, on a fast path, a stream's could take all the
	// events, and nobody would wait.
	client := pb.NewWatchClient(dial(t, addrs[0].String(), insecure.NewCredentials(),
		grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(16<<20)))
	watch := func() pb.Watch_WatchClient {
		s, err := client.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true}}}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	slow, good := watch(), watch()
	const puts = 8
	for i := range puts {
		if _, err := kv.Put(t.Context(), model, "a", make([]byte, 128<<10)); err != nil {
			t.Fatal(err)
		}
		if r, err := good.Recv(); err != nil || len(r.Events) != 1 {
			t.Fatalf("event %d: %v, %v", i, r, err)
		}
	}
	select {
	case <-told: // it is cut, and nothing is read before that
	case <-time.After(time.Minute):
		t.Fatal("a watcher that does not read is not cut")
	}
	got := 0
	for {
		r, err := slow.Recv()
		if err != nil {
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "does not read") {
				t.Errorf("the end: %v", err)
			}
			break
		}
		got += len(r.Events)
	}
	if got == puts {
		t.Error("the slow watcher got all")
	}
	if _, err := kv.Put(t.Context(), model, "a", []byte("b")); err != nil {
		t.Fatal(err)
	}
	if r, err := good.Recv(); err != nil || len(r.Events) != 1 {
		t.Errorf("the good watcher: %v, %v", r, err)
	}
}

// chanWriter is a log of which one line is kept.
type chanWriter chan string

func (w chanWriter) Write(line []byte) (int, error) {
	select {
	case w <- string(line):
	default:
	}
	return len(line), nil
}
