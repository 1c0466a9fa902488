package clientv3

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/concord-kv/concord/compat/servers"
)

// patience is how long one use may take on a busy machine.
const patience = time.Minute

// uses are the programs; each has its own prefix of keys.
var uses = []struct {
	name string
	run  func(*testing.T, context.Context, *clientv3.Client)
}{
	{"KV", useKV}, {"Stream", useStream}, {"Errors", useErrors}, {"Watch", useWatch},
	{"Progress", useProgress}, {"WatchCompacted", useWatchCompacted}, {"Lease", useLease},
	{"LeaseExpiry", useLeaseExpiry}, {"Maintenance", useMaintenance},
	{"Session", useSession}, {"Mutex", useMutex}, {"Election", useElection}, {"STM", useSTM},
	{"Namespace", useNamespace}, {"Ordering", useOrdering}, {"Mirror", useMirror},
	{"Leasing", useLeasing}, {"Naming", useNaming},
}

// TestClient runs every program on etcd, which shows that it is right, on
// Concord with one member, and on Concord with three.
func TestClient(t *testing.T) {
	for _, server := range []struct {
		name    string
		members int
	}{{"etcd", 1}, {"concord", 1}, {"concord", 3}} {
		t.Run(fmt.Sprintf("%s%d", server.name, server.members), func(t *testing.T) {
			c := dial(t, servers.Start(t, server.name, server.members))
			for _, use := range uses {
				t.Run(use.name, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					use.run(t, ctx, c)
				})
			}
		})
	}
}

func dial(t *testing.T, s *servers.Cluster) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: s.Endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get returns what a call answered that must not fail.
func get[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// next waits for what a channel brings.
func next[T any](t *testing.T, ctx context.Context, c <-chan T) T {
	t.Helper()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatal("the channel was closed")
		}
		return v
	case <-ctx.Done():
		t.Fatal(ctx.Err())
	}
	panic("unreachable")
}

func put(t *testing.T, ctx context.Context, c clientv3.KV, key, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	t.Helper()
	return get[*clientv3.PutResponse](t)(c.Put(ctx, key, value, opts...))
}

// value is the value of a key, or nothing.
func value(t *testing.T, ctx context.Context, c clientv3.KV, key string, opts ...clientv3.OpOption) string {
	t.Helper()
	r := get[*clientv3.GetResponse](t)(c.Get(ctx, key, opts...))
	if len(r.Kvs) == 0 {
		return ""
	}
	return string(r.Kvs[0].Value)
}

func useKV(t *testing.T, ctx context.Context, c *clientv3.Client) {
	put(t, ctx, c, "kv/a", "1")
	tx := get[*clientv3.TxnResponse](t)(c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("kv/a"), "=", "1"), clientv3.Compare(clientv3.Version("kv/z"), "=", 0)).
		Then(clientv3.OpPut("kv/b", "2"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("kv/", clientv3.WithPrefix())}, nil)).
		Else(clientv3.OpDelete("kv/a")).Commit())
	if !tx.Succeeded || tx.Responses[1].GetResponseTxn().Responses[0].GetResponseRange().Count != 2 {
		t.Fatal(tx)
	}
	if v := value(t, ctx, c, "kv/b", clientv3.WithRev(tx.Header.Revision-1)); v != "" {
		t.Fatalf("at an old revision: %q", v)
	}
	last := get[*clientv3.GetResponse](t)(c.Get(ctx, "kv/", append(clientv3.WithLastKey(), clientv3.WithPrefix())...))
	if string(last.Kvs[0].Key) != "kv/b" || !last.More || last.Count != 2 {
		t.Fatal(last)
	}
	del := get[*clientv3.DeleteResponse](t)(c.Delete(ctx, "kv/", clientv3.WithPrefix(), clientv3.WithPrevKV()))
	if del.Deleted != 2 || string(del.PrevKvs[1].Value) != "2" {
		t.Fatal(del)
	}
}

func useStream(t *testing.T, ctx context.Context, c *clientv3.Client) {
	for i := range 50 {
		put(t, ctx, c, fmt.Sprintf("stream/%02d", i), string(make([]byte, 50<<10)))
	}
	stream := get[clientv3.GetStreamChan](t)(c.GetStream(ctx, "stream/", clientv3.WithPrefix()))
	all, err := clientv3.GetStreamToGetResponse(stream)
	must(t, err)
	if len(all.Kvs) != 50 || all.Count != 50 {
		t.Fatalf("%d keys, count %d", len(all.Kvs), all.Count)
	}
}

func useErrors(t *testing.T, ctx context.Context, c *clientv3.Client) {
	_, empty := c.Put(ctx, "", "x")
	_, duplicate := c.Txn(ctx).Then(clientv3.OpPut("errors/d", "1"), clientv3.OpPut("errors/d", "2")).Commit()
	_, future := c.Get(ctx, "errors/a", clientv3.WithRev(1<<40))
	_, lease := c.Put(ctx, "errors/a", "x", clientv3.WithLease(7777))
	_, large := c.Put(ctx, "errors/a", string(make([]byte, servers.MaxRequestBytes+1)))
	_, member := c.MemberRemove(ctx, 7777)
	for _, e := range []struct{ got, want error }{
		{empty, rpctypes.ErrEmptyKey}, {duplicate, rpctypes.ErrDuplicateKey}, {future, rpctypes.ErrFutureRev},
		{lease, rpctypes.ErrLeaseNotFound}, {large, rpctypes.ErrRequestTooLarge}, {member, rpctypes.ErrMemberNotFound},
	} {
		if !errors.Is(e.got, e.want) {
			t.Errorf("got %v, want %v", e.got, e.want)
		}
	}
}

func useWatch(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := c.Watch(ctx, "watch/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFragment(), clientv3.WithCreatedNotify())
	if r := next(t, ctx, events); !r.Created {
		t.Fatalf("instead of the created response: %+v", r)
	}
	for i := range 100 {
		put(t, ctx, c, "watch/a", fmt.Sprint(i))
	}
	for i := 0; i < 100; {
		r := next(t, ctx, events)
		must(t, r.Err())
		for _, e := range r.Events {
			if string(e.Kv.Value) != fmt.Sprint(i) || (e.PrevKv == nil) != (i == 0) {
				t.Fatalf("event %d is %v", i, e)
			}
			i++
		}
	}
}

func useProgress(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(ctx, "progress/a", clientv3.WithCreatedNotify())
	next(t, ctx, events)
	rev := put(t, ctx, c, "progress/elsewhere", "x").Header.Revision
	for {
		must(t, c.RequestProgress(ctx))
		r := next(t, ctx, events)
		if !r.IsProgressNotify() {
			t.Fatalf("no progress: %+v", r)
		}
		// A member may be asked that has not applied the put yet.
		if r.Header.Revision >= rev {
			return
		}
	}
}

func useWatchCompacted(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := put(t, ctx, c, "compacted/a", "1").Header.Revision
	rev := put(t, ctx, c, "compacted/a", "2").Header.Revision
	get[*clientv3.CompactResponse](t)(c.Compact(ctx, rev, clientv3.WithCompactPhysical()))
	r := next(t, ctx, c.Watch(ctx, "compacted/a", clientv3.WithRev(first)))
	if !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision != rev {
		t.Fatalf("%+v, want compacted at %d", r, rev)
	}
}

func useLease(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := get[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, 20))
	put(t, ctx, c, "lease/a", "x", clientv3.WithLease(g.ID))
	alive := get[<-chan *clientv3.LeaseKeepAliveResponse](t)(c.KeepAlive(ctx, g.ID))
	if r := next(t, ctx, alive); r.TTL != 20 {
		t.Fatalf("kept alive: %v", r)
	}
	ttl := get[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, g.ID, clientv3.WithAttachedKeys()))
	if len(ttl.Keys) != 1 || ttl.GrantedTTL != 20 || ttl.TTL < 1 {
		t.Fatalf("time to live: %+v", ttl)
	}
	get[*clientv3.LeaseRevokeResponse](t)(c.Revoke(ctx, g.ID))
	if v := value(t, ctx, c, "lease/a"); v != "" {
		t.Fatalf("after the revocation: %q", v)
	}
	if _, err := c.KeepAliveOnce(ctx, g.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Fatalf("a renewal after the revocation: %v", err)
	}
}

func useLeaseExpiry(t *testing.T, ctx context.Context, c *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := get[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, 1))
	if g.TTL != 2 {
		t.Fatalf("the least TTL is %d", g.TTL)
	}
	rev := put(t, ctx, c, "expiry/a", "x", clientv3.WithLease(g.ID)).Header.Revision
	r := next(t, ctx, c.Watch(ctx, "expiry/a", clientv3.WithRev(rev+1), clientv3.WithPrevKV()))
	if len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete || clientv3.LeaseID(r.Events[0].PrevKv.Lease) != g.ID {
		t.Fatalf("%+v", r)
	}
	ttl := get[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, g.ID))
	if ttl.TTL != -1 {
		t.Fatalf("%+v", ttl)
	}
}

func useMaintenance(t *testing.T, ctx context.Context, c *clientv3.Client) {
	members := get[*clientv3.MemberListResponse](t)(c.MemberList(ctx))
	if len(members.Members) != len(c.Endpoints()) {
		t.Fatal(members)
	}
	for _, endpoint := range c.Endpoints() {
		s := get[*clientv3.StatusResponse](t)(c.Status(ctx, endpoint))
		if s.Version != "3.7.3" || s.Leader == 0 || s.RaftAppliedIndex == 0 || s.RaftTerm == 0 || len(s.Errors) != 0 {
			t.Fatal(s)
		}
		get[*clientv3.DefragmentResponse](t)(c.Defragment(ctx, endpoint))
	}
	if a := get[*clientv3.AlarmResponse](t)(c.AlarmList(ctx)); len(a.Alarms) != 0 {
		t.Fatal(a)
	}
}
