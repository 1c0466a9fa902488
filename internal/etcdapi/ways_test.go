package etcdapi_test

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
)

// The tests of this file hold ways of etcd that one would not expect; the
// differential test of the compat module found them.

func putOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func deleteOp(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// TestTxnHeaders: answers inside a transaction have the revision before it until
// something has changed, and nested transactions have an empty header.
func TestTxnHeaders(t *testing.T) {
	m := model()
	put(t, m, "a", "1")
	c := pb.NewKVClient(serve(t, m, leads, etcdapi.Options{}))
	got, err := c.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{
		deleteOp("none"),
		{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("none"), deleteOp("a")}}}},
		deleteOp("none"), putOp("b"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	deleted := func(rev, n int64) *pb.ResponseOp {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
			ResponseDeleteRange: &pb.DeleteRangeResponse{Header: &pb.ResponseHeader{Revision: rev}, Deleted: n},
		}}
	}
	want := &pb.TxnResponse{Header: got.Header, Succeeded: true, Responses: []*pb.ResponseOp{
		deleted(2, 0),
		{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: &pb.TxnResponse{
			Header: &pb.ResponseHeader{}, Succeeded: true, Responses: []*pb.ResponseOp{deleted(2, 0), deleted(3, 1)},
		}}},
		deleted(3, 0),
		{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 3}}}},
	}}
	if got.Header.Revision != 3 || !proto.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestRangeWays: keys without values have no lease unless values sort them, and
// a limit counts before a sort that has a target but no order.
func TestRangeWays(t *testing.T) {
	m := model()
	c := pb.NewKVClient(serve(t, m, leads, etcdapi.Options{}))
	if _, err := m.Grant(t.Context(), kv.Grant{ID: 7, TTL: kv.MaxTTL}); err != nil {
		t.Fatal(err)
	}
	for _, p := range [][2]string{{"a", "3"}, {"b", "2"}, {"c", "1"}} {
		if _, err := kv.Put(t.Context(), m, p[0], p[1], kv.WithLease(7)); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		r     *pb.RangeRequest
		keys  string
		lease int64
		more  bool
	}{
		{&pb.RangeRequest{KeysOnly: true}, "abc", 0, false},
		{&pb.RangeRequest{}, "abc", 7, false},
		{&pb.RangeRequest{KeysOnly: true, SortTarget: pb.RangeRequest_VALUE}, "cba", 7, false},
		{&pb.RangeRequest{KeysOnly: true, SortTarget: pb.RangeRequest_VALUE, Limit: 1}, "b", 7, true},
		{&pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, Limit: 3}, "cba", 7, false},
		{&pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, Limit: 2, MinModRevision: 1}, "cb", 7, true},
		{&pb.RangeRequest{SortTarget: pb.RangeRequest_VALUE, Limit: 2, SortOrder: pb.RangeRequest_ASCEND}, "cb", 7, true},
		{&pb.RangeRequest{SortTarget: pb.RangeRequest_MOD, Limit: 1<<63 - 1}, "abc", 7, false},
	} {
		test.r.Key, test.r.RangeEnd = []byte("a"), []byte("z")
		alone, err := c.Range(t.Context(), test.r)
		if err != nil {
			t.Fatal(err)
		}
		tx, err := c.Txn(t.Context(), &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: test.r}}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, got := range []*pb.RangeResponse{alone, tx.Responses[0].GetResponseRange()} {
			keys, lease, values := "", int64(0), 0
			for _, k := range got.Kvs {
				keys, lease, values = keys+string(k.Key), k.Lease, values+len(k.Value)
			}
			if keys != test.keys || lease != test.lease || got.More != test.more || got.Count != 3 || (values > 0) == test.r.KeysOnly {
				t.Errorf("%v: %v", test.r, got)
			}
		}
	}
}

// TestUnknownCompare: a relation that is not known holds, and a target that is
// not known is equal.
func TestUnknownCompare(t *testing.T) {
	m := model()
	put(t, m, "a", "1")
	c := pb.NewKVClient(serve(t, m, leads, etcdapi.Options{}))
	const unknownTarget, unknownResult = pb.Compare_CompareTarget(9), pb.Compare_CompareResult(-2)
	for _, test := range []struct {
		key    string
		target pb.Compare_CompareTarget
		result pb.Compare_CompareResult
		want   bool
	}{
		{"a", unknownTarget, pb.Compare_EQUAL, true}, {"a", unknownTarget, pb.Compare_NOT_EQUAL, false},
		{"a", unknownTarget, pb.Compare_LESS, false}, {"z", unknownTarget, pb.Compare_GREATER, false},
		{"z", unknownTarget, unknownResult, true}, {"z", pb.Compare_MOD, unknownResult, true},
		{"a", pb.Compare_VALUE, unknownResult, true}, {"z", pb.Compare_VALUE, unknownResult, false},
	} {
		got, err := c.Txn(t.Context(), &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(test.key), Target: test.target, Result: test.result}}})
		if err != nil || got.Succeeded != test.want {
			t.Errorf("%+v: %v, %v", test, got.GetSucceeded(), err)
		}
	}
}

// TestProgressOnce: a watch that reports progress by itself says nothing more
// after the answer to a progress request.
func TestProgressOnce(t *testing.T) {
	m := model()
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	w.created(&pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true})
	const times = 20
	for range times {
		w.progress()
		if r := w.recv(); r.WatchId != -1 {
			t.Fatalf("instead of progress: %v", r)
		}
	}
	put(t, m, "a", "1")
	if r := w.recv(); len(r.Events) != 1 {
		t.Fatalf("instead of the event: %v", r)
	}
}

// TestCompactedHeader: a watch that a compaction ends has no revision in its
// last header.
func TestCompactedHeader(t *testing.T) {
	m := model()
	put(t, m, "a", "1")
	if _, err := m.Compact(t.Context(), kv.Revision(put(t, m, "a", "2"))); err != nil {
		t.Fatal(err)
	}
	w := watch(t, serve(t, m, leads, etcdapi.Options{}))
	w.created(&pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1})
	if r := w.recv(); !r.Canceled || r.CompactRevision != 3 || r.Header.Revision != 0 {
		t.Fatalf("%v", r)
	}
}
