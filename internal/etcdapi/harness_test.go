package etcdapi_test

import (
	"context"
	"net"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is three members of which this is the second; the leader can be set.
type cluster struct {
	kv.Cluster
	store  kv.Store
	leader func() kv.MemberID
}

func (c *cluster) Status() kv.Status {
	res, err := c.store.Range(context.Background(), kv.Range{Key: []byte("a"), Level: kv.Eventual})
	if err != nil {
		panic(err)
	}
	st := kv.Status{Cluster: 0xc1, Member: 0xb, Leader: c.leader(), Term: 7, Revision: res.Revision, Time: res.Time}
	if st.Leader == st.Member {
		st.Role = kv.LeaderRole
	}
	return st
}

func (c *cluster) Members(context.Context) ([]kv.Member, error) {
	return []kv.Member{
		{ID: 0xa, Name: "one", PeerAddrs: []string{"h:1"}, ClientAddrs: []string{"h:2"}},
		{ID: 0xb, Name: "two", PeerAddrs: []string{"https://h:3"}},
		{ID: 0xc, Learner: true},
	}, nil
}

func (c *cluster) AddMember(_ context.Context, m kv.Member) (kv.Member, error) {
	if m.PeerAddrs[0] == "h:1" {
		return m, kv.ErrMemberExists
	}
	m.ID = 0xd
	return m, nil
}

func (c *cluster) RemoveMember(_ context.Context, id kv.MemberID) error {
	if id != 0xa {
		return kv.ErrMemberNotFound
	}
	return nil
}

func (c *cluster) UpdateMember(_ context.Context, m kv.Member) error {
	if m.Name != "one" || m.ClientAddrs[0] != "h:2" || m.PeerAddrs[0] != "h:9" {
		return kv.Errorf(kv.Internal, "updated to %+v", m)
	}
	return nil
}

func (c *cluster) PromoteMember(_ context.Context, id kv.MemberID) error {
	if id != 0xc {
		return kv.ErrNotLearner
	}
	return kv.ErrLearnerNotReady
}

func (c *cluster) MoveLeader(context.Context, kv.MemberID) error { return nil }

func leads() kv.MemberID { return 0xb }

// serve serves store over a pipe with leader as the cluster's.
func serve(t testing.TB, store kv.Store, leader func() kv.MemberID, o etcdapi.Options) *grpc.ClientConn {
	t.Helper()
	_, conn := serveAPI(t, store, leader, o)
	return conn
}

// serveAPI serves as serve does, and returns the API too.
func serveAPI(t testing.TB, store kv.Store, leader func() kv.MemberID, o etcdapi.Options) (*etcdapi.API, *grpc.ClientConn) {
	t.Helper()
	return serveCluster(t, store, &cluster{store: store, leader: leader}, o)
}

func serveCluster(t testing.TB, store kv.Store, c kv.Cluster, o etcdapi.Options) (*etcdapi.API, *grpc.ClientConn) {
	t.Helper()
	api := etcdapi.New(store, c, o)
	s := grpc.NewServer(grpc.WaitForHandlers(true))
	api.Register(s)
	l := bufconn.Listen(1 << 20)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient("passthrough:///pipe",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		api.Close()
		s.Stop()
		<-done
	})
	return api, conn
}

func model() *kvtest.Model { return kvtest.NewModel(kv.Limits{}) }

func put(t testing.TB, s kv.Store, key, value string) int64 {
	t.Helper()
	res, err := kv.Put(t.Context(), s, key, value)
	if err != nil {
		t.Fatal(err)
	}
	return int64(res.Revision)
}

// watcher is a stream of watches.
type watcher struct {
	t      testing.TB
	stream pb.Watch_WatchClient
}

func watch(t testing.TB, conn *grpc.ClientConn) *watcher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &watcher{t, stream}
}

func (w *watcher) send(r *pb.WatchRequest) {
	w.t.Helper()
	if err := w.stream.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watcher) create(r *pb.WatchCreateRequest) {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func (w *watcher) cancel(id int64) {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
}

func (w *watcher) progress() {
	w.t.Helper()
	w.send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
}

func (w *watcher) recv() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// created creates a watch and takes the answer.
func (w *watcher) created(r *pb.WatchCreateRequest) *pb.WatchResponse {
	w.t.Helper()
	w.create(r)
	resp := w.recv()
	if !resp.Created || len(resp.Events) > 0 {
		w.t.Fatalf("instead of a created response: %v", resp)
	}
	return resp
}
