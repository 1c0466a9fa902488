package etcdapi_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// same fails unless err is the status want.
func same(t *testing.T, what string, err, want error) {
	t.Helper()
	a, b := status.Convert(err), status.Convert(want)
	if a.Code() != b.Code() || a.Message() != b.Message() {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

func TestKV(t *testing.T) {
	m := model()
	c := pb.NewKVClient(serve(t, m, leads, etcdapi.Options{}))
	ctx := t.Context()
	header := func(rev int64) *pb.ResponseHeader {
		return &pb.ResponseHeader{ClusterId: 0xc1, MemberId: 0xb, Revision: rev, RaftTerm: 7}
	}
	check := func(what string, got proto.Message, err error, want proto.Message) {
		t.Helper()
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: %v, %v\nwant %v", what, got, err, want)
		}
	}
	p, err := c.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")})
	check("put", p, err, &pb.PutResponse{Header: header(2)})
	one := &mvccpb.KeyValue{Key: []byte("a"), Value: []byte("1"), CreateRevision: 2, ModRevision: 2, Version: 1}
	p, err = c.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("2"), PrevKv: true})
	check("put again", p, err, &pb.PutResponse{Header: header(3), PrevKv: one})
	r, err := c.Range(ctx, &pb.RangeRequest{Key: []byte("a"), Revision: 2})
	check("range at 2", r, err, &pb.RangeResponse{Header: header(3), Kvs: []*mvccpb.KeyValue{one}, Count: 1})
	r, err = c.Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: -1, Revision: -1, KeysOnly: true})
	check("range of all", r, err, &pb.RangeResponse{Header: header(3), Count: 1, Kvs: []*mvccpb.KeyValue{
		{Key: []byte("a"), CreateRevision: 2, ModRevision: 3, Version: 2},
	}})
	tx, err := c.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("a"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 1}}},
		Success: []*pb.RequestOp{
			{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("b")}}},
			{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("b")}}},
			{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("a")}}},
		},
	})
	check("txn", tx, err, &pb.TxnResponse{Header: header(4), Succeeded: true, Responses: []*pb.ResponseOp{
		{Response: &pb.ResponseOp_ResponseRange{ResponseRange: &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: 3}}}},
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 4}}}},
		{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: 4}, Deleted: 1}}},
	}})
	d, err := c.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, PrevKv: true})
	check("delete", d, err, &pb.DeleteRangeResponse{Header: header(5), Deleted: 1, PrevKvs: []*mvccpb.KeyValue{
		{Key: []byte("b"), CreateRevision: 4, ModRevision: 4, Version: 1},
	}})
	k, err := c.Compact(ctx, &pb.CompactionRequest{Revision: 4, Physical: true})
	check("compact", k, err, &pb.CompactionResponse{Header: header(5)})
}

// TestKVErrors has one fault, or several in etcd's order, in each request.
func TestKVErrors(t *testing.T) {
	limits := kv.Limits{Ops: 3}
	m := kvtest.NewModel(limits)
	c := pb.NewKVClient(serve(t, m, leads, etcdapi.Options{Limits: limits}))
	ctx := t.Context()
	putOp := func(k string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k)}}}
	}
	nest := func(ops ...*pb.RequestOp) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
	}
	for _, r := range []struct {
		req  *pb.RangeRequest
		want error
	}{
		{&pb.RangeRequest{SortOrder: 9}, rpctypes.ErrGRPCEmptyKey},
		{&pb.RangeRequest{Key: []byte("a"), SortOrder: 3}, rpctypes.ErrGRPCInvalidSortOption},
		{&pb.RangeRequest{Key: []byte("a"), SortTarget: -1}, rpctypes.ErrGRPCInvalidSortOption},
		{&pb.RangeRequest{Key: []byte("a"), SortTarget: 256}, rpctypes.ErrGRPCInvalidSortOption},
		{&pb.RangeRequest{Key: []byte("a"), Revision: 9}, rpctypes.ErrGRPCFutureRev},
	} {
		_, err := c.Range(ctx, r.req)
		same(t, r.req.String(), err, r.want)
	}
	for _, p := range []struct {
		req  *pb.PutRequest
		want error
	}{
		{&pb.PutRequest{IgnoreValue: true, Value: []byte("x")}, rpctypes.ErrGRPCEmptyKey},
		{&pb.PutRequest{Key: []byte("a"), IgnoreValue: true, Value: []byte("x")}, rpctypes.ErrGRPCValueProvided},
		{&pb.PutRequest{Key: []byte("a"), IgnoreLease: true, Lease: 1}, rpctypes.ErrGRPCLeaseProvided},
		{&pb.PutRequest{Key: []byte("a"), IgnoreLease: true}, rpctypes.ErrGRPCKeyNotFound},
		{&pb.PutRequest{Key: []byte("a"), Lease: 1}, rpctypes.ErrGRPCLeaseNotFound},
		{&pb.PutRequest{Key: make([]byte, 2000)}, rpctypes.ErrGRPCRequestTooLarge},
	} {
		_, err := c.Put(ctx, p.req)
		same(t, p.req.String(), err, p.want)
	}
	for _, x := range []struct {
		req  *pb.TxnRequest
		want error
	}{
		{&pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("b"), putOp("c"), putOp("d")}}, rpctypes.ErrGRPCTooManyOps},
		{&pb.TxnRequest{Success: []*pb.RequestOp{nest(putOp("a"), putOp("b"), putOp("c"))}}, rpctypes.ErrGRPCTooManyOps},
		{&pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), putOp("a")}}, rpctypes.ErrGRPCDuplicateKey},
		{&pb.TxnRequest{Success: []*pb.RequestOp{putOp("a"), nest(putOp("a"))}}, rpctypes.ErrGRPCDuplicateKey},
		{&pb.TxnRequest{Success: []*pb.RequestOp{{}}}, rpctypes.ErrGRPCKeyNotFound},
		{&pb.TxnRequest{Failure: []*pb.RequestOp{putOp("")}}, rpctypes.ErrGRPCEmptyKey},
		{&pb.TxnRequest{Compare: []*pb.Compare{{}}}, rpctypes.ErrGRPCEmptyKey},
	} {
		_, err := c.Txn(ctx, x.req)
		same(t, x.req.String(), err, x.want)
	}
	_, err := c.DeleteRange(ctx, &pb.DeleteRangeRequest{})
	same(t, "delete", err, rpctypes.ErrGRPCEmptyKey)
	_, err = c.Compact(ctx, &pb.CompactionRequest{Revision: 9})
	same(t, "compact", err, rpctypes.ErrGRPCFutureRev)
}

func TestRangeStream(t *testing.T) {
	m := model()
	c := pb.NewKVClient(serve(t, m, leads, etcdapi.Options{}))
	const keys = 1000
	for i := range keys {
		put(t, m, fmt.Sprintf("k%04d", i), string(make([]byte, 3000)))
	}
	for _, limit := range []int64{0, 1, 10, 57, keys, keys + 1} {
		req := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: limit}
		want, err := c.Range(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := c.RangeStream(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		got := new(pb.RangeResponse)
		for n := 0; ; n++ {
			chunk, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 && len(chunk.RangeResponse.Kvs) > 10 {
				t.Errorf("a first chunk of %d keys", len(chunk.RangeResponse.Kvs))
			}
			if size := proto.Size(chunk); size > 4<<20 {
				t.Errorf("a chunk of %d bytes", size)
			}
			proto.Merge(got, chunk.RangeResponse)
		}
		if !proto.Equal(got, want) {
			t.Errorf("limit %d: %d keys, more %v, count %d, header %v", limit, len(got.Kvs), got.More, got.Count, got.Header)
		}
	}
	for req, want := range map[*pb.RangeRequest]string{
		{Key: []byte("a"), SortOrder: pb.RangeRequest_DESCEND}: "RangeStream does not support custom sort orders",
		{Key: []byte("a"), MinModRevision: 1}:                  "RangeStream does not support revision filters",
		{}:                                                     "etcdserver: key is not provided",
	} {
		stream, err := c.RangeStream(t.Context(), req)
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Convert(err).Message() != want {
			t.Errorf("%v: %v", req, err)
		}
	}
}

func TestLease(t *testing.T) {
	m := model()
	c := pb.NewLeaseClient(serve(t, m, leads, etcdapi.Options{}))
	ctx := t.Context()
	g, err := c.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 5, TTL: 1})
	if err != nil || g.ID != 5 || g.TTL != 2 || g.Header.Revision != 1 {
		t.Errorf("a short TTL: %v, %v", g, err)
	}
	if g, err := c.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 100}); err != nil || g.ID == 0 || g.TTL != 100 {
		t.Errorf("an id of the store's: %v, %v", g, err)
	}
	_, err = c.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 5, TTL: 10})
	same(t, "grant again", err, rpctypes.ErrGRPCLeaseExist)
	_, err = c.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 9_000_000_001})
	same(t, "grant for too long", err, rpctypes.ErrGRPCLeaseTTLTooLarge)
	if g, err := c.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 6, TTL: 9_000_000_000}); err != nil || g.TTL != 9_000_000_000 {
		t.Errorf("the longest TTL: %v, %v", g, err)
	}
	if _, err := kv.Put(ctx, m, "a", "1", kv.WithLease(5)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 5, Keys: true}); err != nil || r.TTL != 2 || r.GrantedTTL != 2 || len(r.Keys) != 1 {
		t.Errorf("time to live: %v, %v", r, err)
	}
	if r, err := c.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 99}); err != nil || r.TTL != -1 || r.ID != 99 {
		t.Errorf("time to live of none: %v, %v", r, err)
	}
	if r, err := c.LeaseLeases(ctx, &pb.LeaseLeasesRequest{}); err != nil || len(r.Leases) != 3 {
		t.Errorf("leases: %v, %v", r, err)
	}
	if r, err := c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 5}); err != nil || r.Header.Revision != 3 {
		t.Errorf("revoke: %v, %v", r, err)
	}
	_, err = c.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 5})
	same(t, "revoke again", err, rpctypes.ErrGRPCLeaseNotFound)
}

// TestKeepAlive renews many leases on one stream, some of which are not there.
func TestKeepAlive(t *testing.T) {
	const leases = 500
	m := model()
	stream, err := pb.NewLeaseClient(serve(t, m, leads, etcdapi.Options{})).LeaseKeepAlive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for id := int64(1); id <= leases; id++ {
		if id%2 == 0 {
			if _, err := m.Grant(t.Context(), kv.Grant{ID: kv.LeaseID(id), TTL: 1e9 * 30}); err != nil {
				t.Fatal(err)
			}
		}
	}
	go func() {
		for id := int64(1); id <= leases; id++ {
			if stream.Send(&pb.LeaseKeepAliveRequest{ID: id}) != nil {
				return
			}
		}
		_ = stream.CloseSend()
	}()
	seen := map[int64]bool{}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if want := int64(30 * (1 - r.ID%2)); r.TTL != want {
			t.Errorf("lease %d: TTL %d, want %d", r.ID, r.TTL, want)
		}
		seen[r.ID] = true
	}
	if len(seen) != leases {
		t.Errorf("%d answers", len(seen))
	}
}

func TestCluster(t *testing.T) {
	c := pb.NewClusterClient(serve(t, model(), leads, etcdapi.Options{}))
	ctx := t.Context()
	list, err := c.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	want := []*pb.Member{
		{ID: 0xa, Name: "one", PeerURLs: []string{"http://h:1"}, ClientURLs: []string{"http://h:2"}},
		{ID: 0xb, Name: "two", PeerURLs: []string{"https://h:3"}},
		{ID: 0xc, IsLearner: true},
	}
	if err != nil || !proto.Equal(list, &pb.MemberListResponse{Header: list.GetHeader(), Members: want}) {
		t.Errorf("list: %v, %v", list, err)
	}
	added, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://h:9"}})
	if err != nil || added.Member.ID != 0xd || added.Member.PeerURLs[0] != "http://h:9" || added.Member.IsLearner || len(added.Members) != 4 {
		t.Errorf("add: %v, %v", added, err)
	}
	_, err = c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://h:9"}, IsLearner: true})
	same(t, "another learner", err, rpctypes.ErrGRPCTooManyLearners)
	_, err = c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://h:1"}})
	same(t, "add again", err, rpctypes.ErrGRPCPeerURLExist)
	for _, bad := range [][]string{nil, {"h:1"}, {"http://h"}, {"ftp://h:1"}, {"http://h:1/x"}, {"://"}} {
		_, err = c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: bad})
		same(t, fmt.Sprint(bad), err, rpctypes.ErrGRPCMemberBadURLs)
	}
	if _, err := c.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 0xa, PeerURLs: []string{"http://h:9"}}); err != nil {
		t.Errorf("update: %v", err)
	}
	_, err = c.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: 9, PeerURLs: []string{"http://h:9"}})
	same(t, "update of none", err, rpctypes.ErrGRPCMemberNotFound)
	_, err = c.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 9})
	same(t, "remove of none", err, rpctypes.ErrGRPCMemberNotFound)
	_, err = c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 0xa})
	same(t, "promote a voter", err, rpctypes.ErrGRPCMemberNotLearner)
	_, err = c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: 0xc})
	same(t, "promote too early", err, rpctypes.ErrGRPCLearnerNotReady)
}

func TestMaintenance(t *testing.T) {
	ctx := t.Context()
	follower := pb.NewMaintenanceClient(serve(t, model(), func() kv.MemberID { return 0xa }, etcdapi.Options{}))
	leader := pb.NewMaintenanceClient(serve(t, model(), leads, etcdapi.Options{Quota: 9}))
	st, err := leader.Status(ctx, &pb.StatusRequest{})
	if err != nil || st.Version != "3.7.3" || st.StorageVersion != "3.7.0" || st.Leader != 0xb || st.RaftTerm != 7 || st.DbSizeQuota != 9 || len(st.Errors) > 0 {
		t.Errorf("status: %v, %v", st, err)
	}
	none := pb.NewMaintenanceClient(serve(t, model(), func() kv.MemberID { return 0 }, etcdapi.Options{}))
	if st, err := none.Status(ctx, &pb.StatusRequest{}); err != nil || len(st.Errors) != 1 || st.Errors[0] != "etcdserver: no leader" {
		t.Errorf("status without a leader: %v, %v", st, err)
	}
	_, err = follower.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 0xa})
	same(t, "move from a follower", err, rpctypes.ErrGRPCNotLeader)
	for _, id := range []uint64{0, 9, 0xc} {
		_, err = leader.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: id})
		same(t, "move to none or a learner", err, rpctypes.ErrGRPCBadLeaderTransferee)
	}
	if _, err := leader.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 0xa}); err != nil {
		t.Errorf("move: %v", err)
	}
	if _, err := leader.Defragment(ctx, &pb.DefragmentRequest{}); err != nil {
		t.Errorf("defragment: %v", err)
	}
}
