package client

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/concord-kv/concord/kv"
)

func fromRange(r *kv.Range) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: r.Key, RangeEnd: r.End, Revision: int64(r.Revision), Limit: r.Limit,
		SortTarget: pb.RangeRequest_SortTarget(r.Sort.By), SortOrder: pb.RangeRequest_SortOrder(r.Sort.Order),
		MinModRevision: int64(r.MinMod), MaxModRevision: int64(r.MaxMod),
		MinCreateRevision: int64(r.MinCreate), MaxCreateRevision: int64(r.MaxCreate),
		KeysOnly: r.KeysOnly, CountOnly: r.CountOnly, Serializable: r.Level == kv.Eventual,
	}
}

// fromPut leaves Concord's own fields to the caller, but for the TTL.
func fromPut(op *kv.Op, ext []byte) *pb.PutRequest {
	r := &pb.PutRequest{
		Key: op.Key, Value: op.Value, Lease: int64(op.Lease),
		PrevKv: op.PrevKV, IgnoreValue: op.IgnoreValue, IgnoreLease: op.IgnoreLease,
	}
	if op.TTL > 0 {
		ext = appendVarint(ext, fieldTTL, milliseconds(op.TTL))
	}
	if len(ext) > 0 {
		setUnknown(r, ext)
	}
	return r
}

// milliseconds rounds up, as cluster time does.
func milliseconds(d time.Duration) uint64 {
	return uint64((d-1)/time.Millisecond) + 1
}

func fromDelete(op *kv.Op) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: op.Key, RangeEnd: op.End, PrevKv: op.PrevKV}
}

func fromTxn(t *kv.Txn) *pb.TxnRequest {
	r := &pb.TxnRequest{Success: fromOps(t.Success), Failure: fromOps(t.Failure)}
	for i := range t.Compare {
		r.Compare = append(r.Compare, fromCompare(&t.Compare[i]))
	}
	return r
}

func fromOps(ops []kv.Op) []*pb.RequestOp {
	out := make([]*pb.RequestOp, len(ops))
	for i := range ops {
		switch op := &ops[i]; op.Kind {
		case kv.OpPut:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: fromPut(op, nil)}}
		case kv.OpDelete:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: fromDelete(op)}}
		case kv.OpRange:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: fromRange(op.Range)}}
		case kv.OpTxn:
			out[i] = &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: fromTxn(op.Txn)}}
		}
	}
	return out
}

func fromCompare(c *kv.Compare) *pb.Compare {
	p := &pb.Compare{
		Key: c.Key, RangeEnd: c.End,
		Target: pb.Compare_CompareTarget(c.Target), Result: pb.Compare_CompareResult(c.Relation),
	}
	switch c.Target {
	case kv.CompareVersion:
		p.TargetUnion = &pb.Compare_Version{Version: c.Number}
	case kv.CompareCreate:
		p.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: c.Number}
	case kv.CompareMod:
		p.TargetUnion = &pb.Compare_ModRevision{ModRevision: c.Number}
	case kv.CompareLease:
		p.TargetUnion = &pb.Compare_Lease{Lease: c.Number}
	case kv.CompareValue:
		p.TargetUnion = &pb.Compare_Value{Value: c.Value}
	}
	return p
}

// header converts a header, and learns from it what the server is.
func (c *Client) header(p *pb.ResponseHeader) kv.Header {
	h := kv.Header{Revision: kv.Revision(p.GetRevision())}
	kind := etcdServer
	if p != nil {
		if t, ok := field(p, fieldHeaderTime); ok {
			h.Time, kind = kv.Time(t), concordServer
		}
	}
	if c.server.Load() != int32(kind) {
		c.server.Store(int32(kind))
	}
	return h
}

func toKV(p *mvccpb.KeyValue) kv.KeyValue {
	k := kv.KeyValue{
		Key: p.Key, Value: p.Value, Version: p.Version, Lease: kv.LeaseID(p.Lease),
		CreateRevision: kv.Revision(p.CreateRevision), ModRevision: kv.Revision(p.ModRevision),
	}
	if k.Value == nil {
		k.Value = []byte{} // nil would say that it was not asked for
	}
	if t, ok := field(p, fieldExpires); ok {
		k.Expires = kv.Time(t)
	}
	return k
}

func toKVs(ps []*mvccpb.KeyValue) []kv.KeyValue {
	if len(ps) == 0 {
		return nil
	}
	out := make([]kv.KeyValue, len(ps))
	for i, p := range ps {
		out[i] = toKV(p)
	}
	return out
}

func toRange(r *kv.Range, p *pb.RangeResponse, h kv.Header) kv.RangeResult {
	res := kv.RangeResult{Header: h, KVs: toKVs(p.Kvs), More: p.More, Count: p.Count}
	if r.KeysOnly {
		for i := range res.KVs {
			res.KVs[i].Value = nil
		}
	}
	return res
}

// toTxn reads the answer to t, of whose headers the inner ones count for the
// revision of ranges only.
func toTxn(t *kv.Txn, p *pb.TxnResponse, h kv.Header) kv.TxnResult {
	res := kv.TxnResult{Header: h, Succeeded: p.Succeeded}
	ops := t.Failure
	if p.Succeeded {
		ops = t.Success
	}
	if len(p.Responses) == 0 {
		return res
	}
	res.Ops = make([]kv.OpResult, len(p.Responses))
	for i, r := range p.Responses {
		res.Ops[i] = toOp(&ops[i], r, h)
	}
	return res
}

func toOp(op *kv.Op, p *pb.ResponseOp, h kv.Header) kv.OpResult {
	switch r := p.Response.(type) {
	case *pb.ResponseOp_ResponsePut:
		return kv.OpResult{Kind: kv.OpPut, Prev: prevOf(r.ResponsePut)}
	case *pb.ResponseOp_ResponseDeleteRange:
		return kv.OpResult{Kind: kv.OpDelete, Deleted: r.ResponseDeleteRange.Deleted, Prev: toKVs(r.ResponseDeleteRange.PrevKvs)}
	case *pb.ResponseOp_ResponseRange:
		inner := kv.Header{Revision: kv.Revision(r.ResponseRange.GetHeader().GetRevision()), Time: h.Time}
		res := toRange(op.Range, r.ResponseRange, inner)
		return kv.OpResult{Kind: kv.OpRange, Range: &res}
	case *pb.ResponseOp_ResponseTxn:
		res := toTxn(op.Txn, r.ResponseTxn, h)
		return kv.OpResult{Kind: kv.OpTxn, Txn: &res}
	}
	return kv.OpResult{Kind: op.Kind}
}

func prevOf(p *pb.PutResponse) []kv.KeyValue {
	if p.PrevKv == nil {
		return nil
	}
	return []kv.KeyValue{toKV(p.PrevKv)}
}
