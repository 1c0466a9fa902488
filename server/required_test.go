package server_test

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// TestAuthIsRequired: where authentication is required and not on yet, nobody
// gets anything but health and version, whatever they show; afterwards who is
// root may do everything but switch it off.
func TestAuthIsRequired(t *testing.T) {
	node, err := concord.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	addrs, stop := start(t, node, node, server.Config{Addrs: []string{"127.0.0.1:0"}, Auth: server.AuthConfig{Required: true}})
	defer stop()
	secret := kv.NewSecretToken()
	conn := dial(t, addrs[0].String(), insecure.NewCredentials())
	root := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	calls := callsOfAllKinds(conn)
	for name, call := range calls {
		for _, ctx := range []context.Context{t.Context(), root} {
			if err := call(ctx); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "authentication is required") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	look := func(when int) { t.Helper(); lookAt(t, "http://"+addrs[0].String(), when) }
	look(0)
	id, err := kv.ParseSecretToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	if done, err := node.Bootstrap(t.Context(), id); !done || err != nil {
		t.Fatal(done, err)
	}
	look(1)
	for name, call := range calls {
		err := call(root)
		if name == "enable" { // which needs a user of the name root
			continue
		}
		if err != nil {
			t.Errorf("%s as root: %v", name, err)
		}
		if err := call(t.Context()); err == nil && name != "auth" {
			t.Errorf("%s as nobody is done", name)
		}
	}
	for who, ctx := range map[string]context.Context{"root": root, "nobody": t.Context()} {
		_, err := pb.NewAuthClient(conn).AuthDisable(ctx, &pb.AuthDisableRequest{})
		if want := who == "root"; err == nil || strings.Contains(err.Error(), "stays on") != want {
			t.Errorf("%s switches it off: %v", who, err)
		}
	}
	if !node.Auth().Enabled {
		t.Error("it is off")
	}
	if _, err := server.New(kvtest.NewModel(kv.Limits{}), node, server.Config{Addrs: []string{"127.0.0.1:0"}, Auth: server.AuthConfig{Required: true}}); err == nil {
		t.Error("it is required of a store without users")
	}
}

// lookAt visits pages as one who shows nothing, before authentication is on (0)
// and after.
func lookAt(t *testing.T, at string, when int) {
	t.Helper()
	for path, want := range map[string][2]int{
		"/health": {200, 200}, "/version": {200, 200}, "/readyz": {503, 200}, "/livez": {200, 200},
		"/v1/cluster/status": {503, 401}, "/debug/vars": {503, 401},
	} {
		if resp, text := visit(t, &http.Transport{}, ask(t, "GET", at+path, "")); resp.StatusCode != want[when] {
			t.Errorf("%s: %s %s", path, resp.Status, text)
		}
	}
}

// callsOfAllKinds are calls that ask for nothing, for any user, and for root.
func callsOfAllKinds(conn *grpc.ClientConn) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"range": func(ctx context.Context) error {
			_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("a")})
			return err
		},
		"put": func(ctx context.Context) error {
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a")})
			return err
		},
		"grant": func(ctx context.Context) error {
			_, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 9})
			return err
		},
		"status": func(ctx context.Context) error {
			_, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
			return err
		},
		"members": func(ctx context.Context) error {
			_, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{})
			return err
		},
		"user": func(ctx context.Context) error {
			_, err := pb.NewAuthClient(conn).UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root"})
			return err
		},
		"enable": func(ctx context.Context) error {
			_, err := pb.NewAuthClient(conn).AuthEnable(ctx, &pb.AuthEnableRequest{})
			return err
		},
		"auth": func(ctx context.Context) error {
			_, err := pb.NewAuthClient(conn).AuthStatus(ctx, &pb.AuthStatusRequest{})
			return err
		},
		"backup": func(ctx context.Context) error {
			stream, err := pb.NewMaintenanceClient(conn).Snapshot(ctx, &pb.SnapshotRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"watch": func(ctx context.Context) error {
			stream, err := pb.NewWatchClient(conn).Watch(ctx)
			if err == nil {
				err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}})
			}
			if err != nil {
				return err
			}
			r, err := stream.Recv()
			if err == nil && r.Canceled {
				err = status.Error(codes.Unavailable, r.CancelReason)
			}
			return err
		},
	}
}

// TestPagesForClientsOfBoth: who offers HTTP/2 and HTTP/1.1, as curl and
// Prometheus do, gets pages; also where the configuration is made for each
// client.
func TestPagesForClientsOfBoth(t *testing.T) {
	cert, pool := certstest.New(t, "test")
	fixed := &tls.Config{Certificates: []tls.Certificate{cert}}
	followed := &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}, nil
	}}
	for name, secure := range map[string]*tls.Config{"fixed": fixed, "followed": followed} {
		cluster := new(lone)
		cluster.leader.Store(1)
		addrs, stop := start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{Addrs: []string{"127.0.0.1:0"}, TLS: secure})
		trusting := &tls.Config{RootCAs: pool}
		web := &http.Client{Transport: &http.Transport{TLSClientConfig: trusting.Clone(), ForceAttemptHTTP2: true, DisableKeepAlives: true}}
		if got := page(web, "https://"+addrs[0].String()+"/health"); got != 200 {
			t.Errorf("%s: /health is %d", name, got)
		}
		if !ranges(t, addrs[0].String(), true, trusting) {
			t.Errorf("%s: gRPC is not served", name)
		}
		stop()
	}
}
