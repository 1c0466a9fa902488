package differential

import (
	"bytes"
	"math/rand/v2"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// keys are few, so that operations meet. They are no more than twelve because
// etcd's sort is stable only up to there.
var keys = [...]string{"a", "a\x00", "aa", "ab", "b", "ba", "c", "d\xff", "e", "\x00", "\xff\xff", "k/1"}

// generator makes requests. What it knows of the store is only to make them
// interesting.
type generator struct {
	*rand.Rand
	revision, compacted int64
	// serializable reads are asked for; not where members take turns.
	serializable bool
}

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func (g *generator) key() []byte {
	if g.chance(1) {
		return nil
	}
	return []byte(keys[g.IntN(len(keys))])
}

// end makes the end of a range: often none, sometimes one before the key.
func (g *generator) end() []byte {
	switch n := g.IntN(10); {
	case n < 5:
		return nil
	case n < 6:
		return []byte{0}
	case n < 9:
		return []byte(keys[g.IntN(len(keys))] + "\x01")
	}
	return []byte(keys[g.IntN(len(keys))])
}

func (g *generator) value() []byte {
	switch g.IntN(8) {
	case 0:
		return nil
	case 1:
		return []byte{0, 0xff}
	}
	return []byte{'v', byte('0' + g.IntN(10))}
}

// leaseIDs are the ids that leases are granted with.
const leaseIDs = 6

func (g *generator) lease() int64 {
	switch n := g.IntN(20); {
	case n < 12:
		return 0
	case n == 12:
		return -1
	}
	return int64(1 + g.IntN(leaseIDs))
}

// oldRevision is mostly none or one that is kept.
func (g *generator) oldRevision() int64 {
	switch n := g.IntN(20); {
	case n < 11:
		return 0
	case n < 16:
		return g.compacted + g.Int64N(max(1, g.revision-g.compacted+1))
	case n == 16:
		return g.revision + 1 + g.Int64N(3)
	case n == 17:
		return g.compacted - 1
	case n == 18:
		return -g.Int64N(3)
	}
	return g.compacted
}

// bound is a revision to filter by.
func (g *generator) bound() int64 {
	if g.chance(80) {
		return 0
	}
	return g.revision - g.Int64N(20)
}

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: g.key(), RangeEnd: g.end(), Revision: g.oldRevision(),
		SortOrder: pb.RangeRequest_SortOrder(g.IntN(3)), SortTarget: pb.RangeRequest_SortTarget(g.IntN(5)),
		Serializable: g.serializable && g.chance(30), KeysOnly: g.chance(15), CountOnly: g.chance(10),
		MinModRevision: g.bound(), MaxModRevision: g.bound(), MinCreateRevision: g.bound(), MaxCreateRevision: g.bound(),
	}
	if g.chance(30) {
		r.Limit = g.Int64N(8) - 1
	}
	if g.chance(1) {
		r.SortOrder = pb.RangeRequest_SortOrder(g.IntN(6) - 2)
	}
	if g.chance(1) {
		r.SortTarget = pb.RangeRequest_SortTarget(g.IntN(9) - 2)
	}
	return r
}

func (g *generator) streamRequest() *pb.RangeRequest {
	r := g.rangeRequest()
	if g.chance(90) {
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(g.IntN(2)), pb.RangeRequest_KEY
		r.MinModRevision, r.MaxModRevision, r.MinCreateRevision, r.MaxCreateRevision = 0, 0, 0, 0
	}
	if r.SortOrder == pb.RangeRequest_NONE {
		// etcd sorts each chunk by the target and then goes on from its last
		// key, which loses keys or repeats them.
		r.SortTarget = pb.RangeRequest_KEY
	}
	return r
}

func (g *generator) put() *pb.PutRequest {
	p := &pb.PutRequest{
		Key: g.key(), Value: g.value(), Lease: g.lease(), PrevKv: g.chance(30),
		IgnoreValue: g.chance(5), IgnoreLease: g.chance(5),
	}
	if p.IgnoreValue && g.chance(80) {
		p.Value = nil
	}
	if p.IgnoreLease && g.chance(80) {
		p.Lease = 0
	}
	return p
}

func (g *generator) deleteRange() *pb.DeleteRangeRequest {
	d := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.chance(40)}
	if g.chance(30) {
		d.RangeEnd = g.end()
	}
	return d
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{
		Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_CompareTarget(g.IntN(5)), Key: g.key(),
	}
	if g.chance(40) {
		c.RangeEnd = g.end()
	}
	union := c.Target
	if g.chance(3) { // an operand of another target, or none
		union = pb.Compare_CompareTarget(g.IntN(6))
	}
	switch union {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.bound()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.bound()}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.lease()}
	}
	if g.chance(2) {
		c.Result = pb.Compare_CompareResult(g.IntN(8) - 2)
	}
	if g.chance(2) {
		c.Target = pb.Compare_CompareTarget(g.IntN(8) - 2)
	}
	return c
}

// txn makes a transaction in which others nest up to depth.
func (g *generator) txn(depth int) *pb.TxnRequest {
	t := &pb.TxnRequest{}
	for range g.IntN(3) {
		t.Compare = append(t.Compare, g.compare())
	}
	t.Success, t.Failure = g.ops(depth), g.ops(depth)
	return t
}

func (g *generator) ops(depth int) (ops []*pb.RequestOp) {
	for range g.IntN(4) {
		if op := g.op(depth); !overlooked(ops, op) {
			ops = append(ops, op)
		}
	}
	return ops
}

// overlooked reports whether op is a nested transaction that may delete what an
// earlier one has put. Concord refuses that as it refuses all other ways to
// change a key twice; etcd does not see it.
func overlooked(before []*pb.RequestOp, op *pb.RequestOp) bool {
	_, deleted := changes(op)
	for _, b := range before {
		if b.GetRequestTxn() == nil || op.GetRequestTxn() == nil {
			continue
		}
		put, _ := changes(b)
		for _, key := range put {
			for _, d := range deleted {
				if bytes.Equal(key, d.Key) || len(d.RangeEnd) > 0 && bytes.Compare(key, d.Key) >= 0 && bytes.Compare(key, d.RangeEnd) < 0 {
					return true
				}
			}
		}
	}
	return false
}

// changes lists what op may put and delete.
func changes(op *pb.RequestOp) (put [][]byte, deleted []*pb.DeleteRangeRequest) {
	if p := op.GetRequestPut(); p != nil {
		put = append(put, p.Key)
	}
	if d := op.GetRequestDeleteRange(); d != nil {
		deleted = append(deleted, d)
	}
	if t := op.GetRequestTxn(); t != nil {
		for _, inner := range slices.Concat(t.Success, t.Failure) {
			p, d := changes(inner)
			put, deleted = append(put, p...), append(deleted, d...)
		}
	}
	return put, deleted
}

func (g *generator) op(depth int) *pb.RequestOp {
	switch n := g.IntN(100); {
	case n < 35:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case n < 65:
		r := g.rangeRequest()
		if g.chance(70) || r.Revision < 0 {
			r.Revision = 0
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r}}
	case n < 80 || depth == 0:
		d := g.deleteRange()
		if string(d.RangeEnd) == "\x00" {
			// etcd does not see that such a range meets a key that is put.
			d.RangeEnd = []byte("\xff\xff\x01")
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}}
	case n < 99:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth - 1)}}
	}
	return &pb.RequestOp{}
}

// leaseRequest uses TTLs that do not run out before the end.
func (g *generator) leaseRequest() proto.Message {
	id := int64(1 + g.IntN(leaseIDs))
	switch n := g.IntN(12); {
	case n < 4:
		ttl := 100_000 + g.Int64N(1000)
		if g.chance(3) {
			ttl = 9_000_000_001
		}
		return &pb.LeaseGrantRequest{ID: id, TTL: ttl}
	case n < 7:
		return &pb.LeaseRevokeRequest{ID: id}
	case n < 9:
		return &pb.LeaseTimeToLiveRequest{ID: id, Keys: g.chance(70)}
	case n < 10:
		return &pb.LeaseLeasesRequest{}
	}
	return &pb.LeaseKeepAliveRequest{ID: id}
}

func (g *generator) compaction() *pb.CompactionRequest {
	c := &pb.CompactionRequest{Revision: g.compacted + g.Int64N(max(1, g.revision-g.compacted)), Physical: g.chance(30)}
	switch g.IntN(10) {
	case 0:
		c.Revision = g.revision + 1
	case 1:
		c.Revision = g.compacted - g.Int64N(3)
	case 2:
		c.Revision = g.revision
	}
	if c.Revision == 0 && g.compacted == 0 {
		c.Revision = 1 // etcd takes revision 0 once, which has no effect
	}
	return c
}
