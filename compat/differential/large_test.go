package differential

import (
	"context"
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// mustBoth makes a call that both must answer alike.
func (p *pair) mustBoth(t *testing.T, name string, do call) answer {
	t.Helper()
	etcd, concord := p.both(do)
	if etcd.err != nil || !equal(etcd, concord) {
		t.Fatalf("%s\n   etcd: %.300v\nconcord: %.300v", name, etcd, concord)
	}
	return etcd
}

// watchUntil collects the responses of one watch, after the first, until they
// have n events.
func watchUntil(q *pb.WatchCreateRequest, n int) call {
	return func(ctx context.Context, c *grpc.ClientConn) answer {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := pb.NewWatchClient(c).Watch(ctx)
		if err != nil {
			return answer{nil, err}
		}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: q}}); err != nil {
			return answer{nil, err}
		}
		// The fragments stand in the operations of a response, because that has
		// a list of messages with a list of messages.
		all := &pb.TxnResponse{}
		for events := 0; events < n; {
			r, err := stream.Recv()
			if err != nil {
				return answer{nil, err}
			}
			events += len(r.Events)
			if len(r.Events) == 0 {
				continue
			}
			part := &pb.RangeResponse{More: r.Fragment, Count: int64(len(r.Events))}
			for _, e := range r.Events {
				part.Kvs = append(part.Kvs, e.Kv)
				if e.PrevKv != nil {
					part.Kvs = append(part.Kvs, e.PrevKv)
				}
			}
			all.Responses = append(all.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: part}})
		}
		return answer{all, nil}
	}
}

// TestFragments has events of one revision that do not fit into a response.
func TestFragments(t *testing.T) {
	p := newPair(t, 1)
	big := make([]byte, 300<<10)
	var ops []*pb.RequestOp
	for i := range 5 {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Append(nil, i), Value: big}}})
	}
	for range 2 {
		p.mustBoth(t, "put", callOf(&pb.TxnRequest{Success: ops}))
	}
	for _, fragment := range []bool{false, true} {
		q := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 3, PrevKv: true, Fragment: fragment}
		got := p.mustBoth(t, fmt.Sprint("fragment ", fragment), watchUntil(q, len(ops)))
		if n := len(got.msg.(*pb.TxnResponse).Responses); (n > 1) != fragment {
			t.Errorf("%d responses with fragments %v", n, fragment)
		}
	}
}

// TestExpiry lets a lease run out: its keys go in one revision and in order.
func TestExpiry(t *testing.T) {
	p := newPair(t, 3)
	p.mustBoth(t, "grant", callOf(&pb.LeaseGrantRequest{ID: 7, TTL: 2}))
	for _, key := range []string{"c", "a", "b"} {
		p.mustBoth(t, "put", callOf(&pb.PutRequest{Key: []byte(key), Lease: 7}))
	}
	watch := watchUntil(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 5, PrevKv: true}, 3)
	p.mustBoth(t, "expiry", watch)
	for _, req := range []proto.Message{
		&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, &pb.LeaseTimeToLiveRequest{ID: 7, Keys: true},
		&pb.LeaseLeasesRequest{}, &pb.LeaseRevokeRequest{ID: 7},
	} {
		etcd, concord := p.both(callOf(req))
		if !equal(etcd, concord) {
			t.Errorf("%v\n   etcd: %v\nconcord: %v", req, etcd, concord)
		}
	}
}

// TestLongStream has a range stream of many chunks, at a revision and with a
// limit.
func TestLongStream(t *testing.T) {
	p := newPair(t, 1)
	for i := range 40 {
		var ops []*pb.RequestOp
		for j := range 100 {
			ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
				Key: fmt.Appendf(nil, "%02d/%02d", j, i), Value: make([]byte, 1000),
			}}})
		}
		p.mustBoth(t, "put", callOf(&pb.TxnRequest{Success: ops}))
	}
	for _, q := range []*pb.RangeRequest{
		{}, {Limit: 1234}, {Revision: 20}, {KeysOnly: true, Limit: 10}, {CountOnly: true}, {Limit: 4000}, {Limit: 1, Serializable: true},
	} {
		q.Key, q.RangeEnd = []byte{0}, []byte{0}
		p.mustBoth(t, q.String(), rangeStream(q))
		p.mustBoth(t, q.String(), callOf(q))
	}
}
