package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

// kvServer is the service etcdserverpb.KV.
type kvServer struct {
	*API
	pb.UnsafeKVServer // so that a method added to the service does not compile
}

// sizeSlack is what fields other than keys and values may add to the size of a
// put before its exact size is computed.
const sizeSlack = 64

// Range reads keys.
func (s *kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	if err := checkRange(r); err != nil {
		return nil, err
	}
	q := toRange(r, x)
	if x.has1001 {
		q.Level = kv.ReadLevel(min(x.n1001, 255))
	}
	res, err := s.store.Range(ctx, q)
	if err != nil {
		return nil, toStatus(err)
	}
	finishRange(r, &res, x)
	resp := fromRange(&res, x)
	resp.Header = s.header(res.Header, x)
	return resp, nil
}

// putReply is everything that the answer to a put needs, in one allocation.
type putReply struct {
	resp   pb.PutResponse
	header pb.ResponseHeader
}

// Put writes one key.
func (s *kvServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	if err := checkPut(r); err != nil {
		return nil, err
	}
	n := len(r.Key) + len(r.Value)
	if int64(n)+sizeSlack > s.opts.Limits.RequestBytes && int64(proto.Size(r)) > s.opts.Limits.RequestBytes {
		return nil, tooLarge(proto.Size(r), s.opts.Limits.RequestBytes)
	}
	if err := s.inFlight.enter(n); err != nil {
		return nil, err
	}
	defer s.inFlight.leave(n)

	ops := s.puts.Get().(*[1]kv.Op)
	defer s.puts.Put(ops)
	ops[0] = toPut(r, x)
	res, err := s.store.Txn(ctx, kv.Txn{Success: ops[:], ID: x.id})
	ops[0] = kv.Op{}
	if err != nil {
		return nil, toStatus(err)
	}
	reply := new(putReply)
	reply.resp.Header = &reply.header
	s.fill(&reply.header, res.Header, x)
	if prev := res.Ops[0].Prev; len(prev) > 0 {
		reply.resp.PrevKv = fromKV(new(mvccpb.KeyValue), &prev[0], x)
	}
	return &reply.resp, nil
}

// DeleteRange deletes keys.
func (s *kvServer) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	if len(r.Key) == 0 {
		return nil, rpctypes.ErrGRPCEmptyKey
	}
	res, err := s.store.Txn(ctx, kv.Txn{Success: []kv.Op{toDelete(r)}, ID: x.id})
	if err != nil {
		return nil, toStatus(err)
	}
	resp := fromDelete(&res.Ops[0], x)
	resp.Header = s.header(res.Header, x)
	return resp, nil
}

// Txn runs a transaction.
func (s *kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	if err := checkTxn(r, s.opts.Limits.Ops); err != nil {
		return nil, err
	}
	n := proto.Size(r)
	if int64(n) > s.opts.Limits.RequestBytes {
		return nil, tooLarge(n, s.opts.Limits.RequestBytes)
	}
	if err := s.inFlight.enter(n); err != nil {
		return nil, err
	}
	defer s.inFlight.leave(n)

	t, err := toTxn(r, x)
	if err != nil {
		return nil, err
	}
	t.ID = x.id
	res, err := s.store.Txn(ctx, t)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := fromTxn(r, &res, x)
	resp.Header = s.header(res.Header, x)
	return resp, nil
}

// Compact forgets history. It always returns when the compaction holds; what
// physical asks for, that space is free already, is not waited for, because
// Concord frees it in small steps and nothing observable depends on it.
func (s *kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	h, err := s.store.Compact(ctx, kv.Revision(r.Revision))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.CompactionResponse{Header: s.header(h, x)}, nil
}
