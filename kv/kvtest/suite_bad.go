package kvtest

import (
	"bytes"
	"math"
	"time"

	"github.com/concord-kv/concord/kv"
)

func badCases(l kv.Limits) []testCase {
	cases := []testCase{
		{"key is empty", badEmptyKey},
		{"key at and over the limit", badLongKey},
		{"sort is unknown", badSort},
		{"limit is negative", badLimit},
		{"read level is unknown", badLevel},
		{"numbers out of bounds do no harm", badNumbers},
		{"comparison is unknown", badCompare},
		{"operation is unknown", badOp},
		{"too many operations", badTooMany},
		{"too deep", badDepth},
		{"TTL of a key", badTTL},
		{"lease of a key", badLease},
		{"grant", badGrant},
		{"watch", badWatch},
	}
	if l.RequestBytes <= 8<<20 {
		cases = append(cases, testCase{"request is too large", badTooLarge})
	}
	return cases
}

func badEmptyKey(e *env) {
	_, err := e.store.Range(e.ctx, kv.Range{})
	e.is(err, kv.ErrEmptyKey)
	e.refused(kv.ErrEmptyKey, success(kv.Op{Kind: kv.OpPut, Value: []byte("x")}))
	e.refused(kv.ErrEmptyKey, success(kv.Op{Kind: kv.OpDelete}))
	e.refused(kv.ErrEmptyKey, success(e.opPut("a", ""), e.opRange(kv.Range{})))
	e.refused(kv.ErrEmptyKey, kv.Txn{Compare: []kv.Compare{{}}})
	e.refused(kv.ErrEmptyKey, kv.Txn{Failure: []kv.Op{e.opTxn(success(kv.Op{Kind: kv.OpPut}))}})
}

func badLongKey(e *env) {
	longest := string(bytes.Repeat([]byte("k"), e.opts.Limits.KeyBytes-len(e.corner)))
	e.puts(longest)
	e.equal("longest key", string(e.get(longest).Value), longest)
	e.delete(longest)
	_, err := e.store.Range(e.ctx, kv.Range{Key: e.key(longest + "k")})
	e.is(err, kv.ErrKeyTooLarge)
	e.refused(kv.ErrKeyTooLarge, success(e.opPut(longest+"k", "")))
	e.refused(kv.ErrKeyTooLarge, success(e.opDeleteSpan("a", longest+"k")))
}

func badSort(e *env) {
	r := e.everything()
	r.Sort.By = kv.SortByValue + 1
	_, err := e.store.Range(e.ctx, r)
	e.is(err, kv.ErrInvalidSort)
	r.Sort = kv.Sort{Order: kv.Descending + 1}
	_, err = e.store.Range(e.ctx, r)
	e.is(err, kv.ErrInvalidSort)
	e.refused(kv.ErrInvalidSort, success(e.opPut("a", ""), e.opRange(r)))
}

// invalid fails unless err says that the request itself is wrong.
func (e *env) invalid(what string, err error) {
	e.Helper()
	if kv.CodeOf(err) != kv.InvalidArgument {
		e.Errorf("%s: error %v (%v), want %v", what, err, kv.CodeOf(err), kv.InvalidArgument)
	}
}

func badLimit(e *env) {
	r := e.everything()
	r.Limit = -1
	_, err := e.store.Range(e.ctx, r)
	e.invalid("limit -1", err)
}

func badLevel(e *env) {
	r := e.everything()
	r.Level = kv.Eventual + 1
	_, err := e.store.Range(e.ctx, r)
	e.invalid("read level", err)
}

// What these answer is not promised, but a request must never end a member that
// finds its numbers in the log, and must not move the revision by itself.
func badNumbers(e *env) {
	e.puts("a")
	for _, n := range []int64{-1, math.MinInt64, math.MaxInt64} {
		rev := kv.Revision(n)
		all := e.everything()
		for _, r := range []kv.Range{{Revision: rev}, {MinMod: rev}, {MaxMod: rev}, {MinCreate: rev}, {MaxCreate: rev}} {
			r.Key, r.End = all.Key, all.End
			e.unmoved(func() {
				e.store.Range(e.ctx, r)
				e.store.Txn(e.ctx, success(e.opRange(r), e.opDelete("nothing")))
			})
		}
		c := kv.Compare{Key: e.key("a"), Target: kv.CompareMod, Number: n}
		e.equal("comparison", e.txn(kv.Txn{Compare: []kv.Compare{c}, Success: []kv.Op{e.opDelete("a")}}).Succeeded, false)
	}
	for _, id := range []kv.LeaseID{-1, math.MinInt64, math.MaxInt64, 0} {
		_, err := e.store.KeepAlive(e.ctx, id)
		e.is(err, kv.ErrLeaseNotFound)
		_, err = e.store.Revoke(e.ctx, id)
		e.is(err, kv.ErrLeaseNotFound)
		_, err = e.store.TimeToLive(e.ctx, id, true)
		e.is(err, kv.ErrLeaseNotFound)
		if op := e.opLeased("b", id); id != 0 {
			e.refused(kv.ErrLeaseNotFound, success(op))
		}
	}
	for _, rev := range []kv.Revision{math.MinInt64, -1} {
		_, err := e.store.Compact(e.ctx, rev)
		e.is(err, kv.ErrCompacted)
	}
	_, err := e.store.Compact(e.ctx, math.MaxInt64)
	e.is(err, kv.ErrFutureRevision)
	e.equal("the store still serves", string(e.get("a").Value), "a")
}

func badCompare(e *env) {
	for _, c := range []kv.Compare{{Target: kv.CompareLease + 1}, {Relation: kv.NotEqual + 1}} {
		c.Key = e.key("a")
		_, err := e.store.Txn(e.ctx, kv.Txn{Compare: []kv.Compare{c}})
		e.invalid("comparison", err)
	}
}

func badOp(e *env) {
	for _, op := range []kv.Op{{}, {Kind: kv.OpTxn + 1}, {Kind: kv.OpRange}, {Kind: kv.OpTxn}} {
		op.Key = e.key("a")
		e.unmoved(func() {
			_, err := e.store.Txn(e.ctx, success(e.opPut("b", ""), op))
			e.invalid(op.Kind.String(), err)
		})
	}
}

func badTooMany(e *env) {
	ops := make([]kv.Op, e.opts.Limits.Ops+1)
	compares := make([]kv.Compare, len(ops))
	for i := range ops {
		ops[i] = e.opGet("a")
		compares[i] = e.exists("a")
	}
	e.refused(kv.ErrTooManyOps, success(ops...))
	e.refused(kv.ErrTooManyOps, kv.Txn{Failure: ops})
	e.refused(kv.ErrTooManyOps, kv.Txn{Compare: compares})
	e.txn(kv.Txn{Compare: compares[1:], Failure: ops[1:]})
}

func badDepth(e *env) {
	t := success(e.opPut("a", "x"))
	for range e.opts.Limits.Depth {
		t = success(e.opTxn(t))
	}
	e.unmoved(func() {
		_, err := e.store.Txn(e.ctx, t)
		e.invalid("depth", err)
	})
}

func badTTL(e *env) {
	op := e.opPut("a", "")
	op.TTL = -1
	e.refused(kv.ErrInvalidTTL, success(op))
	op.TTL = kv.MaxTTL + 1
	e.refused(kv.ErrTTLTooLarge, success(op))
	op.TTL = kv.MaxTTL
	e.txn(success(op))
}

func badLease(e *env) {
	op := e.opPut("a", "")
	op.Lease = 1 << 62
	e.refused(kv.ErrLeaseNotFound, success(op))
}

func badGrant(e *env) {
	for _, ttl := range []time.Duration{0, -1, -time.Second, time.Millisecond - 1, math.MinInt64} {
		_, err := e.store.Grant(e.ctx, kv.Grant{TTL: ttl})
		e.is(err, kv.ErrInvalidTTL)
	}
	_, err := e.store.Grant(e.ctx, kv.Grant{TTL: kv.MaxTTL + 1})
	e.is(err, kv.ErrTTLTooLarge)
	_, err = e.store.Grant(e.ctx, kv.Grant{ID: -1, TTL: longTTL})
	e.invalid("lease id -1", err)
}

func badWatch(e *env) {
	e.watchFails(kv.WatchRequest{}, kv.ErrEmptyKey)
	long := bytes.Repeat([]byte("k"), e.opts.Limits.KeyBytes+1)
	e.watchFails(kv.WatchRequest{Key: long}, kv.ErrKeyTooLarge)
	w := e.watchAll()
	w.Start = -1
	e.watchFails(w, kv.ErrCompacted)
}

func badTooLarge(e *env) {
	value := string(make([]byte, e.opts.Limits.RequestBytes))
	e.refused(kv.ErrRequestTooLarge, success(e.opPut("a", value)))
	half := e.opPut("a", value[:len(value)/2+1])
	other := e.opPut("b", value[:len(value)/2+1])
	e.refused(kv.ErrRequestTooLarge, success(half, other))
}
