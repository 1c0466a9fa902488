package etcdapi

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/concord-kv/concord/kv"
)

// toRange takes negative limits and revisions for none, as etcd does outside of
// transactions. The sort enumerations are numbered alike on both sides;
// checkRange has seen them.
func toRange(r *pb.RangeRequest, x extensions) kv.Range {
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
	if cutsFirst(r, x) {
		q.Sort, q.KeysOnly = kv.Sort{}, false
		q.Limit += min(1, math.MaxInt64-q.Limit) // tells whether there is more
	}
	return q
}

// cutsFirst reports whether etcd applies the limit before it sorts. That is so
// when a target is given without an order, which sorts all the same.
// Source: etcd 3.7, server/etcdserver/txn/range.go, rangeLimit.
func cutsFirst(r *pb.RangeRequest, x extensions) bool {
	return !x.wanted && r.Limit > 0 && r.SortOrder == pb.RangeRequest_NONE && r.SortTarget != pb.RangeRequest_KEY &&
		r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision == 0
}

// finishRange does to what toRange asked for what is etcd's alone: the limit
// before the sort, and no leases where only keys are read, unless it has to read
// the values to sort by them.
func finishRange(r *pb.RangeRequest, res *kv.RangeResult, x extensions) {
	if x.wanted {
		return
	}
	if cutsFirst(r, x) {
		slices.SortStableFunc(res.KVs, ascending[r.SortTarget])
		if int64(len(res.KVs)) > r.Limit {
			res.KVs, res.More = res.KVs[:r.Limit], true
		}
	}
	if r.KeysOnly {
		dropValues(res.KVs, r.SortTarget == pb.RangeRequest_VALUE)
	}
}

// dropValues leaves of kvs what etcd answers where only keys are read.
func dropValues(kvs []kv.KeyValue, leases bool) {
	for i := range kvs {
		kvs[i].Value = nil
		if !leases {
			kvs[i].Lease = 0
		}
	}
}

// ascending are the orders of the sort targets.
var ascending = map[pb.RangeRequest_SortTarget]func(a, b kv.KeyValue) int{
	pb.RangeRequest_VERSION: func(a, b kv.KeyValue) int { return cmp.Compare(a.Version, b.Version) },
	pb.RangeRequest_CREATE:  func(a, b kv.KeyValue) int { return cmp.Compare(a.CreateRevision, b.CreateRevision) },
	pb.RangeRequest_MOD:     func(a, b kv.KeyValue) int { return cmp.Compare(a.ModRevision, b.ModRevision) },
	pb.RangeRequest_VALUE:   func(a, b kv.KeyValue) int { return bytes.Compare(a.Value, b.Value) },
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
func toTxn(r *pb.TxnRequest, x extensions) (t kv.Txn, err error) {
	if len(r.Compare) > 0 {
		t.Compare = make([]kv.Compare, len(r.Compare))
	}
	for i, c := range r.Compare {
		t.Compare[i] = toCompare(c)
	}
	if t.Success, err = toOps(r.Success, x); err != nil {
		return kv.Txn{}, err
	}
	t.Failure, err = toOps(r.Failure, x)
	return t, err
}

func toOps(ops []*pb.RequestOp, x extensions) ([]kv.Op, error) {
	if len(ops) == 0 {
		return nil, nil
	}
	out := make([]kv.Op, len(ops))
	for i, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			own, err := extensionsOf(o.RequestPut)
			if err != nil {
				return nil, err
			}
			out[i] = toPut(o.RequestPut, own)
		case *pb.RequestOp_RequestDeleteRange:
			out[i] = toDelete(o.RequestDeleteRange)
		case *pb.RequestOp_RequestRange:
			q := toRange(o.RequestRange, x)
			out[i] = kv.Op{Kind: kv.OpRange, Range: &q}
		case *pb.RequestOp_RequestTxn:
			t, err := toTxn(o.RequestTxn, x)
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
	if uint32(c.Target) > uint32(pb.Compare_LEASE) || uint32(c.Result) > uint32(pb.Compare_NOT_EQUAL) {
		return unknownCompare(c)
	}
	out := kv.Compare{
		Key: c.Key, End: c.RangeEnd,
		Target: kv.CompareTarget(c.Target), Relation: kv.Relation(c.Result),
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

// unknownCompare makes a comparison with the meaning that etcd gives to numbers
// that it does not know: what is compared is equal, and the relation holds. Only
// the value of a key that does not exist compares with nothing even then.
// Source: etcd 3.7, server/etcdserver/txn/txn.go, compareKV.
func unknownCompare(c *pb.Compare) kv.Compare {
	out := kv.Compare{Key: c.Key, End: c.RangeEnd, Target: kv.CompareVersion, Relation: kv.Greater, Number: -1} // always true
	switch {
	case c.Target == pb.Compare_VALUE:
		out.Number = 0 // there is such a key
	case uint32(c.Result) <= uint32(pb.Compare_NOT_EQUAL) && c.Result != pb.Compare_EQUAL:
		out.Relation = kv.Less // never
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
