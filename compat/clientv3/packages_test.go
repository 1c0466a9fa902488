package clientv3

import (
	"context"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/naming/endpoints"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"go.etcd.io/etcd/client/v3/ordering"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func useNamespace(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kv, watcher, leases := namespace.NewKV(c.KV, "ns/"), namespace.NewWatcher(c.Watcher, "ns/"), namespace.NewLease(c.Lease, "ns/")
	g := get[*clientv3.LeaseGrantResponse](t)(leases.Grant(ctx, 30))
	rev := put(t, ctx, kv, "a", "1", clientv3.WithLease(g.ID)).Header.Revision
	if v := value(t, ctx, c, "ns/a"); v != "1" {
		t.Fatalf("behind the prefix: %q", v)
	}
	if r := next(t, ctx, watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(rev))); string(r.Events[0].Kv.Key) != "a" {
		t.Fatalf("%+v", r)
	}
	ttl := get[*clientv3.LeaseTimeToLiveResponse](t)(leases.TimeToLive(ctx, g.ID, clientv3.WithAttachedKeys()))
	if len(ttl.Keys) != 1 || string(ttl.Keys[0]) != "a" {
		t.Fatalf("%q", ttl.Keys)
	}
	tx := get[*clientv3.TxnResponse](t)(kv.Txn(ctx).If(clientv3.Compare(clientv3.LeaseValue("a"), "=", g.ID)).
		Then(clientv3.OpDelete("", clientv3.WithPrefix(), clientv3.WithPrevKV())).Commit())
	if !tx.Succeeded || string(tx.Responses[0].GetResponseDeleteRange().PrevKvs[0].Key) != "a" {
		t.Fatal(tx)
	}
}

func useOrdering(t *testing.T, ctx context.Context, c *clientv3.Client) {
	switching := get[*clientv3.Client](t)(clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Logger: zap.NewNop()}))
	defer func() { must(t, switching.Close()) }()
	kv := ordering.NewKV(switching.KV, ordering.NewOrderViolationSwitchEndpointClosure(switching))
	for i := range 20 {
		put(t, ctx, c, "ordering/a", fmt.Sprint(i))
		value(t, ctx, kv, "ordering/a") // linearizable: sets the revision to go behind
		if v := value(t, ctx, kv, "ordering/a", clientv3.WithSerializable()); v != fmt.Sprint(i) {
			t.Fatalf("a read went back from %d to %s", i, v)
		}
	}
	tx := get[*clientv3.TxnResponse](t)(kv.Txn(ctx).Then(clientv3.OpGet("ordering/a")).Commit())
	if v := string(tx.Responses[0].GetResponseRange().Kvs[0].Value); v != "19" {
		t.Fatal(v)
	}
}

func useMirror(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const keys = 2500 // three batches of mirror's
	for i := 0; i < keys; i += 100 {
		var ops []clientv3.Op
		for j := range 100 {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("mirror/%05d", i+j), "x"))
		}
		get[*clientv3.TxnResponse](t)(c.Txn(ctx).Then(ops...).Commit())
	}
	syncer := mirror.NewSyncer(c, "mirror/", 0)
	base, failed := syncer.SyncBase(ctx)
	n := 0
	for r := range base {
		n += len(r.Kvs)
	}
	must(t, <-failed)
	if n != keys {
		t.Fatalf("mirrored %d keys", n)
	}
	put(t, ctx, c, "mirror/later", "y")
	if r := next(t, ctx, syncer.SyncUpdates(ctx)); len(r.Events) != 1 || string(r.Events[0].Kv.Key) != "mirror/later" {
		t.Fatalf("%+v", r)
	}
}

func useLeasing(t *testing.T, ctx context.Context, c *clientv3.Client) {
	open := func() clientv3.KV {
		kv, done, err := leasing.NewKV(c, "leasing-lock/", concurrency.WithTTL(30))
		must(t, err)
		t.Cleanup(done)
		return kv
	}
	one, two := open(), open()
	for i := range 10 {
		put(t, ctx, one, "leasing/a", fmt.Sprint(i))
		if v := value(t, ctx, two, "leasing/a"); v != fmt.Sprint(i) {
			t.Fatalf("the other client sees %q, not %d", v, i)
		}
		one, two = two, one
	}
	tx := get[*clientv3.TxnResponse](t)(two.Txn(ctx).If(clientv3.Compare(clientv3.Value("leasing/a"), "=", "9")).
		Then(clientv3.OpPut("leasing/b", "b")).Commit())
	if !tx.Succeeded {
		t.Fatal(tx)
	}
	if d := get[*clientv3.DeleteResponse](t)(one.Delete(ctx, "leasing/", clientv3.WithPrefix())); d.Deleted != 2 {
		t.Fatal(d)
	}
	if v := value(t, ctx, two, "leasing/a"); v != "" {
		t.Fatalf("the other client sees %q after the deletion", v)
	}
}

// useNaming finds the servers themselves by name, and calls them.
func useNaming(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	manager := get[endpoints.Manager](t)(endpoints.NewManager(c, "naming"))
	updates := get[endpoints.WatchChannel](t)(manager.NewWatchChannel(ctx))
	must(t, manager.AddEndpoint(ctx, "naming/a", endpoints.Endpoint{Addr: c.Endpoints()[0]}))
	if u := next(t, ctx, updates); len(u) != 1 || u[0].Op != endpoints.Add || u[0].Endpoint.Addr != c.Endpoints()[0] {
		t.Fatal(u)
	}
	builder, err := resolver.NewBuilder(c)
	must(t, err)
	conn, err := grpc.NewClient("etcd:///naming", grpc.WithResolvers(builder), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	h, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	must(t, err)
	must(t, conn.Close())
	if h.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatal(h)
	}
	must(t, manager.DeleteEndpoint(ctx, "naming/a"))
	if list := get[endpoints.Key2EndpointMap](t)(manager.List(ctx)); len(list) != 0 {
		t.Fatal(list)
	}
}
