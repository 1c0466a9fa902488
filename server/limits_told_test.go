package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/observe"
	"github.com/concord-kv/concord/server"
)

// TestLimitsAreTold: who listens to a member hears of the limits of the server
// around it, and the metrics count each hit once.
func TestLimitsAreTold(t *testing.T) {
	node, err := concord.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	heard, err := node.Subscribe(t.Context(), "limit.hit")
	if err != nil {
		t.Fatal(err)
	}
	addrs, stop := start(t, node, node, server.Config{Clients: server.ClientLimits{Streams: 1}})
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watches := pb.NewWatchClient(dial(t, addrs[0].String(), insecure.NewCredentials()))
	open := func() error {
		stream, err := watches.Watch(ctx)
		if err == nil {
			err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a")}}})
		}
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	if err := open(); err != nil {
		t.Fatal(err)
	}
	if err := open(); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("above the limit: %v", err)
	}
	client := new(http.Client)
	defer client.CloseIdleConnections()
	if _, body := fetch(t, client, "http://"+addrs[0].String()+"/metrics"); !strings.Contains(body, `concord_limit_hits_total{limit="streams"} 1`+"\n") {
		t.Error("the metrics do not count one hit")
	}
	select {
	case got := <-heard.Events():
		if e, ok := got.(observe.Limit); !ok || e != (observe.Limit{Kind: observe.LimitHit, Limit: "streams", Max: 1}) {
			t.Errorf("told: %+v", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("nothing was told")
	}
	select {
	case got := <-heard.Events():
		t.Errorf("told again: %+v", got)
	default:
	}
}
