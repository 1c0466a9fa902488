package etcdapi

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/concord-kv/concord/kv"
)

// toRange takes negative limits and revisions for none, as etcd does. The sort
// enumerations are numbered alike on both sides; checkRange has seen them.
func toRange(r *pb.RangeRequest) kv.Range {
	q := kv.Range{
		Key: r.Key, End: r.RangeEnd,
		Revision:  kv.Revision(max(r.Revision, 0)),
		Limit:     max(r.Limit, 0),
		Sort:      kv.Sort{By: kv.SortTarget(r.SortTarget), Order: kv.SortOrder(r.SortOrder)},
		MinMod:    kv.Revision(r.MinModRevision),
		MaxMod:    kv.Revision(r.MaxModRevision),
		MinCreate: kv.Revision(r.MinCreateRevision),
		MaxCreate: kv.Revision(r.MaxCreateRevision),
		KeysOnly:  r.KeysOnly,
		CountOnly: r.CountOnly,
	}
	if r.Serializable {
		q.Level = kv.Eventual
	}
	return q
}

func toPut(r *pb.PutRequest, x extensions) kv.Op {
	return kv.Op{
		Kind: kv.OpPut, Key: r.Key, Value: r.Value, Lease: kv.LeaseID(r.Lease), TTL: x.ttl(),
		PrevKV: r.PrevKv, IgnoreValue: r.IgnoreValue, IgnoreLease: r.IgnoreLease,
	}
}

func toDelete(r *pb.DeleteRangeRequest) kv.Op {
	return kv.Op{Kind: kv.OpDelete, Key: r.Key, End: r.RangeEnd, PrevKV: r.PrevKv}
}

// toTxn converts a transaction that checkTxn has passed.
func toTxn(r *pb.TxnRequest) (t kv.Txn, err error) {
	if len(r.Compare) > 0 {
		t.Compare = make([]kv.Compare, len(r.Compare))
	}
	for i, c := range r.Compare {
		t.Compare[i] = toCompare(c)
	}
	if t.Success, err = toOps(r.Success); err != nil {
		return kv.Txn{}, err
	}
	t.Failure, err = toOps(r.Failure)
	return t, err
}

func toOps(ops []*pb.RequestOp) ([]kv.Op, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	out := make([]kv.Op, len(ops))
	for i, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			x, err := extensionsOf(o.RequestPut)
			if err != nil {
				return nil, err
			}
			out[i] = toPut(o.RequestPut, x)
		case *pb.RequestOp_RequestDeleteRange:
			out[i] = toDelete(o.RequestDeleteRange)
		case *pb.RequestOp_RequestRange:
			q := toRange(o.RequestRange)
			out[i] = kv.Op{Kind: kv.OpRange, Range: &q}
		case *pb.RequestOp_RequestTxn:
			t, err := toTxn(o.RequestTxn)
			if err != nil {
				return nil, err
			}
			out[i] = kv.Op{Kind: kv.OpTxn, Txn: &t}
		}
	}
	return out, nil
}

// toCompare leaves the operand zero when it is missing or of another target
// than the comparison's, as etcd does.
func toCompare(c *pb.Compare) kv.Compare {
	out := kv.Compare{
		Key: c.Key, End: c.RangeEnd,
		Target:   kv.CompareTarget(min(uint32(c.Target), 255)),
		Relation: kv.Relation(min(uint32(c.Result), 255)),
	}
	switch u := c.TargetUnion.(type) {
	case *pb.Compare_Version:
		out.Number = number(c, pb.Compare_VERSION, u.Version)
	case *pb.Compare_CreateRevision:
		out.Number = number(c, pb.Compare_CREATE, u.CreateRevision)
	case *pb.Compare_ModRevision:
		out.Number = number(c, pb.Compare_MOD, u.ModRevision)
	case *pb.Compare_Lease:
		out.Number = number(c, pb.Compare_LEASE, u.Lease)
	case *pb.Compare_Value:
		if c.Target == pb.Compare_VALUE {
			out.Value = u.Value
		}
	}
	return out
}

func number(c *pb.Compare, want pb.Compare_CompareTarget, n int64) int64 {
	if c.Target != want {
		return 0
	}
	return n
}

func fromKV(p *mvccpb.KeyValue, k *kv.KeyValue, x extensions) *mvccpb.KeyValue {
	p.Key, p.Value, p.Version, p.Lease = k.Key, k.Value, k.Version, int64(k.Lease)
	p.CreateRevision, p.ModRevision = int64(k.CreateRevision), int64(k.ModRevision)
	if x.wanted && k.Expires != 0 {
		setUnknown(p, appendVarint(nil, fieldExpires, uint64(k.Expires)))
	}
	return p
}

// fromKVs makes two allocations for any number of keys.
func fromKVs(kvs []kv.KeyValue, x extensions) []*mvccpb.KeyValue {
	if len(kvs) == 0 {
		return nil
	}
	block, out := make([]mvccpb.KeyValue, len(kvs)), make([]*mvccpb.KeyValue, len(kvs))
	for i := range kvs {
		out[i] = fromKV(&block[i], &kvs[i], x)
	}
	return out
}

func fromRange(r *kv.RangeResult, x extensions) *pb.RangeResponse {
	return &pb.RangeResponse{Kvs: fromKVs(r.KVs, x), More: r.More, Count: r.Count}
}

func fromDelete(r *kv.OpResult, x extensions) *pb.DeleteRangeResponse {
	return &pb.DeleteRangeResponse{Deleted: r.Deleted, PrevKvs: fromKVs(r.Prev, x)}
}

func fromPut(r *kv.OpResult, x extensions) *pb.PutResponse {
	resp := new(pb.PutResponse)
	if len(r.Prev) > 0 {
		resp.PrevKv = fromKV(new(mvccpb.KeyValue), &r.Prev[0], x)
	}
	return resp
}

// fromTxn leaves the outermost header out. Inner answers have headers with a
// revision only, as etcd's.
func fromTxn(t *kv.TxnResult, x extensions) *pb.TxnResponse {
	resp := &pb.TxnResponse{Succeeded: t.Succeeded}
	if len(t.Ops) == 0 {
		return resp
	}
	resp.Responses = make([]*pb.ResponseOp, len(t.Ops))
	for i := range t.Ops {
		resp.Responses[i] = fromOp(&t.Ops[i], t.Header, x)
	}
	return resp
}

func fromOp(o *kv.OpResult, h kv.Header, x extensions) *pb.ResponseOp {
	inner := &pb.ResponseHeader{Revision: int64(h.Revision)}
	switch o.Kind {
	case kv.OpPut:
		resp := fromPut(o, x)
		resp.Header = inner
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: resp}}
	case kv.OpDelete:
		resp := fromDelete(o, x)
		resp.Header = inner
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}}
	case kv.OpRange:
		resp := fromRange(o.Range, x)
		if r := o.Range.Revision; r != 0 {
			inner.Revision = int64(r)
		}
		resp.Header = inner
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: resp}}
	}
	resp := fromTxn(o.Txn, x)
	resp.Header = inner
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}}
}
