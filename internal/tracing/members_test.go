package tracing

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/concordtest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// said is what a span says of itself.
func said(s *spans.Span, key string) string {
	for _, a := range s.Attributes {
		if a.Key == key {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// TestMembers puts at a follower of three members, once in a sampled call and
// once in another: the trace has the call there, and below it what the member did
// for it and the part of each member.
func TestMembers(t *testing.T) {
	tracer, r := newTracer(t, "grpc", 0)
	c := concordtest.Start(t, 3, concord.Observe(tracer.Observer()))
	follower := (c.Leader() + 1) % 3
	s, err := server.New(c.Node(follower), c.Node(follower), server.Config{Addrs: []string{"127.0.0.1:0"}, Tracing: tracer})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	conn, err := grpc.NewClient(s.Addrs()[0].String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	store := etcdserverpb.NewKVClient(conn)
	for _, flags := range []string{"01", "00"} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), traceParent, "00-"+parentID+"-"+parentSpan+"-"+flags)
		if _, err := store.Put(ctx, &etcdserverpb.PutRequest{Key: []byte("key-" + flags), Value: []byte("value")}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 { // each has told of what it can be asked for
		if got, err := c.Node(i).Get(t.Context(), "key-00", kv.Strong); err != nil || string(got.Value) != "value" {
			t.Fatal(got, err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := tracer.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	calls, told := r.named("etcdserverpb.KV/Put"), r.named("operation.replicated")
	if len(calls) != 1 || len(told) != 3 || len(r.named("api.put")) != 1 {
		t.Fatalf("%d calls, %d members' parts", len(calls), len(told))
	}
	var got, want []string
	for _, part := range told {
		got = append(got, said(part, "concord.member")+" "+said(part, "concord.role"))
		if !bytes.Equal(part.ParentSpanId, calls[0].SpanId) || !bytes.Equal(part.TraceId, calls[0].TraceId) {
			t.Errorf("a member's part is below %x, the call is %x", part.ParentSpanId, calls[0].SpanId)
		}
		if below := r.below(part); !slices.Equal(below, []string{"log", "replicate", "apply"}) {
			t.Errorf("parts of %s: %q", got[len(got)-1], below)
		}
	}
	for i := range 3 {
		role := "follower"
		if i == c.Leader() {
			role = "leader"
		}
		want = append(want, fmt.Sprintf("%x %s", uint64(c.Node(i).Status().Member), role))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("parts of %q, the members are %q", got, want)
	}
}
