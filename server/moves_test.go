package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/concordtest"
	"github.com/concord-kv/concord/internal/telemetry"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// lookout scrapes servers, and remembers which metrics were ever other than 0.
type lookout struct {
	*testing.T
	bases []string
	moved map[string]bool
}

// serve serves a node and looks at it from now on.
func (l *lookout) serve(n *concord.Node, cfg server.Config) (base string) {
	l.Helper()
	addrs, stop := start(l.T, n, n, cfg)
	l.Cleanup(stop)
	base = "http://" + addrs[0].String()
	l.bases = append(l.bases, base)
	return base
}

// look scrapes all servers once.
func (l *lookout) look() {
	l.Helper()
	for _, base := range l.bases {
		for sample, v := range scrape(l.T, base) {
			name, labels, _ := strings.Cut(sample, "{")
			if v == 0 || v != v {
				continue
			}
			l.moved[name] = true
			l.moved[strings.TrimSuffix(name, "_count")] = true
			l.moved[name+"{"+labels] = true
		}
	}
}

// until looks until a sample, or a metric, has moved.
func (l *lookout) until(names ...string) {
	l.Helper()
	for _, name := range names {
		for end := time.Now().Add(30 * time.Second); !l.moved[name]; l.look() {
			if time.Now().After(end) {
				l.Errorf("%s has not moved", name)
				break
			}
		}
	}
}

// must is for what a test does on its way.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestEveryMetricMoves puts members under each load, and in each trouble, that a
// metric is for.
func TestEveryMetricMoves(t *testing.T) {
	l := &lookout{T: t, moved: map[string]bool{}}
	// Apart, and in turn: each server has its own metrics.
	for _, step := range []func(*lookout){cluster, use, access, disks, memory, strangers, secured, nonsense} {
		step(l)
		l.look()
		l.bases = nil
	}
	for _, f := range telemetry.Families() {
		if !l.moved[f.Name] {
			t.Errorf("%s has not moved", f.Name)
		}
	}
}

// cluster is three members that lose one and each other.
func cluster(l *lookout) {
	c := concordtest.Start(l.T, 3, concord.SnapshotEvery(256<<10))
	for i := range 3 {
		l.serve(c.Node(i), server.Config{Etcd: server.EtcdConfig{Quota: 1 << 40}})
	}
	ctx, lead := l.Context(), c.Leader()
	node := c.Node(lead)
	must(node.Put(ctx, "a", "1"))(l.T)
	l.until("concord_peer_round_trip_seconds", "etcd_network_peer_round_trip_time_seconds", "concord_peer_sent_bytes_total")
	// One is killed, falls behind the log, and gets a snapshot.
	down := (lead + 1) % 3
	c.Kill(down)
	for had, i := node.Figures().Log.Last, 0; node.Figures().Log.First <= had+1; i++ {
		must(node.Put(ctx, fmt.Sprint("k", i%8), strings.Repeat("x", 64<<10)))(l.T)
	}
	l.until("concord_peer_lag_entries", "concord_peer_dropped_messages_total", "etcd_server_heartbeat_send_failures_total", "etcd_network_peer_sent_failures_total", "concord_snapshot_seconds", "concord_peer_disconnects_total")
	c.Restart(down)
	l.serve(c.Node(down), server.Config{})
	c.WaitReady()
	// A cut that stands: writes at one side wait, and fail.
	c.Partition([]int{lead})
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() { _, _ = node.Put(short, "cut", strings.Repeat("x", 1<<20)) })
	}
	l.until("concord_proposals_waiting", "concord_proposals_waiting_bytes", "etcd_server_proposals_pending", "concord_peer_queue_bytes")
	calls.Wait()
	cancel()
	fetch(l.T, new(http.Client), l.bases[lead]+"/health")
	l.until("concord_proposals_failed_total", "etcd_server_proposals_failed_total", "etcd_server_health_failures", "concord_peer_silent_seconds")
	c.Heal()
	c.WaitReady()
	// One more, which learns first.
	must(struct{}{}, node.Backup(ctx, io.Discard))(l.T)
	l.serve(c.Node(c.Add()), server.Config{})
	l.until("etcd_server_is_learner", "concord_learners", "concord_membership_changes_total", "concord_snapshot_send_seconds", "concord_snapshot_installed_total")
}

// use is what clients do, with one member.
func use(l *lookout) {
	c := concordtest.Start(l.T, 1, concord.SnapshotEvery(256<<10), concord.Limits(kv.Limits{Ops: 1 << 22, RequestBytes: 1 << 29}))
	n, ctx := c.Node(0), l.Context()
	base := l.serve(n, server.Config{Etcd: server.EtcdConfig{Quota: 1 << 40}})
	conn := dial(l.T, strings.TrimPrefix(base, "http://"), insecure.NewCredentials())
	store := pb.NewKVClient(conn)
	must(store.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}))(l.T)
	must(store.Range(ctx, &pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("z")}))(l.T)
	must(store.Txn(ctx, &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VERSION, TargetUnion: &pb.Compare_Version{}}}, Failure: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}}, {Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}},
	}}))(l.T)
	must(n.Delete(ctx, "b"))(l.T)
	fetch(l.T, new(http.Client), base+"/health")
	if _, err := store.Put(ctx, &pb.PutRequest{Key: []byte(strings.Repeat("k", 2000))}); err == nil {
		l.Error("a key over the limit was taken")
	}
	leases(l, c)
	watch(l, n)
	rev := must(n.Put(ctx, "w", "last"))(l.T).Revision
	must(n.Compact(ctx, rev))(l.T)
	must(struct{}{}, n.Backup(ctx, io.Discard))(l.T)
	if err := n.Backup(ctx, refusing{}); err == nil {
		l.Error("a backup that nobody takes has succeeded")
	}
	must(n.SetAlarm(ctx, kv.Alarm{Member: n.Status().Member, Type: kv.AlarmNoSpace}, true))(l.T)
	l.until(`concord_alarm{alarm="NOSPACE"}`, "etcd_debugging_server_alarms", "concord_backup_errors_total", "concord_backup_seconds", "concord_limit_hits_total")
	must(n.SetAlarm(ctx, kv.Alarm{Member: n.Status().Member, Type: kv.AlarmNoSpace}, false))(l.T)
	for ops := 100_000; !l.moved["etcd_server_slow_apply_total"] && ops <= 1<<22; ops *= 2 {
		t := kv.Txn{}
		for i := range ops {
			t.Success = append(t.Success, kv.Op{Kind: kv.OpPut, Key: fmt.Appendf(nil, "many%d", i)})
		}
		must(n.Txn(ctx, t))(l.T)
		l.look()
	}
}

// refusing is a writer that takes nothing.
type refusing struct{}

func (refusing) Write([]byte) (int, error) { return 0, errors.New("nobody is there") }

// leases begin, go on and end, in each way.
func leases(l *lookout, c *concordtest.Cluster) {
	n, ctx := c.Node(0), l.Context()
	grant := func() kv.LeaseID { return must(n.Grant(ctx, kv.Grant{TTL: time.Minute}))(l.T).ID }
	one, two := grant(), grant()
	must(n.Put(ctx, "leased", "x", kv.WithLease(one)))(l.T)
	must(n.Put(ctx, "mortal", "x", kv.WithTTL(time.Minute)))(l.T)
	must(n.KeepAlive(ctx, one))(l.T)
	must(n.Revoke(ctx, two))(l.T)
	l.until("concord_leases", "concord_lease_keys", "concord_ttl_keys", "etcd_debugging_lease_revoked_total", "etcd_debugging_lease_renewed_total")
	c.Advance(2 * time.Minute)
	l.until("concord_ttl_expired_keys_total", "etcd_debugging_server_lease_expired_total", `concord_lease_events_total{event="expired"}`)
}

// watch has one that does not take its events for a while.
func watch(l *lookout, n *concord.Node) {
	ctx, cancel := context.WithCancel(l.Context())
	began, hold := make(chan struct{}), make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		var once sync.Once
		for batch, err := range n.Watch(ctx, kv.WatchRequest{Key: []byte("w"), End: []byte("x")}) {
			once.Do(func() { close(began) })
			if err != nil {
				return
			}
			if len(batch.Events) > 0 {
				<-hold
			}
		}
	})
	<-began
	for i := range 3000 {
		must(n.Put(ctx, fmt.Sprint("w", i), "x"))(l.T)
	}
	l.until("concord_watches", "concord_watches_behind", "concord_watch_lag_revisions", "etcd_debugging_mvcc_slow_watcher_total")
	close(hold)
	l.until("concord_watch_events_total", "concord_watch_lagging_total")
	cancel()
	watching.Wait()
	l.until("concord_watch_cancelled_total")
}

// access is users, and those who are none.
func access(l *lookout) {
	n, ctx := concordtest.Start(l.T, 1).Node(0), l.Context()
	base := l.serve(n, server.Config{})
	for _, user := range []string{"root", "alice"} {
		must(n.AddUser(ctx, kv.NewUser{Name: user, Password: "p"}))(l.T)
	}
	must(n.AddRole(ctx, "root"))(l.T)
	must(n.GrantRole(ctx, "root", "root"))(l.T)
	must(n.EnableAuth(ctx))(l.T)
	conn := dial(l.T, strings.TrimPrefix(base, "http://"), insecure.NewCredentials())
	auth := pb.NewAuthClient(conn)
	login := func(password string) {
		_, _ = auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "alice", Password: password})
	}
	login("p")
	login("wrong")
	if _, err := n.Put(kv.WithCaller(ctx, kv.Caller{User: "alice", AuthRevision: n.Auth().Revision}), "a", "1"); err == nil {
		l.Error("alice may write")
	}
	if _, err := n.Put(kv.WithCaller(ctx, kv.Caller{User: "bob", AuthRevision: n.Auth().Revision}), "a", "1"); err == nil {
		l.Error("bob may write")
	}
	for _, decision := range []string{"login", "login_failed", "denied"} {
		l.until(fmt.Sprintf("concord_auth_decisions_total{decision=%q}", decision))
	}
	done := make(chan struct{})
	var logins sync.WaitGroup
	logins.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				login("p")
			}
		}
	})
	l.until("concord_auth_passwords_checking", "concord_auth_enabled")
	close(done)
	logins.Wait()
}

// open opens a member, serves it, and ends it after the test.
func (l *lookout) open(ctx context.Context, dir string, opts ...concord.Option) *concord.Node {
	l.Helper()
	n := must(concord.Open(ctx, dir, opts...))(l.T)
	l.Cleanup(func() { _ = n.Close() })
	l.serve(n, server.Config{})
	return n
}

// memory is a member that reaches its limit.
func memory(l *lookout) {
	n := l.open(l.Context(), l.TempDir(), concord.MemoryLimit(64<<20))
	must(struct{}{}, n.Ready(l.Context()))(l.T)
	for i := 0; i < 4000; i++ {
		if _, err := n.Put(l.Context(), fmt.Sprint(i), strings.Repeat("x", 64<<10)); errors.Is(err, kv.ErrNoMemory) {
			break
		} else if err != nil {
			l.Fatal(err)
		}
	}
	l.until("concord_memory_full", "concord_memory_limit_bytes", "concord_memory_used_bytes", "concord_limit_hits_total")
}

// strangers is a member that looks for others where nobody is.
func strangers(l *lookout) {
	nobody := must(net.Listen("tcp", "127.0.0.1:0"))(l.T)
	addr := nobody.Addr().String()
	must(struct{}{}, nobody.Close())(l.T)
	l.open(l.Context(), l.TempDir(), concord.Secret(concord.NewSecret()), concord.PeerListener(must(net.Listen("tcp", "127.0.0.1:0"))(l.T)),
		concord.Cluster("alone", concord.Size(1), concord.Join(addr), concord.NoMulticast(), concord.Gossip("127.0.0.1:0")))
	l.until("concord_discovery_processes")
}
