package kvtest

import (
	"fmt"

	"github.com/concord-kv/concord/kv"
)

func compareCases() []testCase {
	return []testCase{
		{"targets and relations", compareTargets},
		{"key that is not there", compareMissing},
		{"over a range", compareSpan},
		{"all must hold", compareAll},
		{"see the state before", compareBefore},
	}
}

func txnCases() []testCase {
	return []testCase{
		{"without comparisons", txnUnconditional},
		{"without operations", txnEmpty},
		{"one revision for all", txnOneRevision},
		{"operations see earlier ones", txnOwnWrites},
		{"nested", txnNested},
		{"nested deeper", txnNestedDeeper},
		{"all or nothing", txnAtomic},
		{"the branch not taken does not matter", txnOtherBranch},
		{"range at a revision inside", txnRangeAt},
		{"keys changed twice", txnDuplicates},
		{"keys that may repeat", txnRepeats},
		{"delete", txnDelete},
		{"reading moves no revision", txnReadOnly},
		{"deleting nothing moves no revision", txnDeleteNothing},
		{"writing the same value is a change", txnSameValue},
	}
}

func compareTargets(e *env) {
	lease := e.grant(longTTL)
	create := e.put("k", "a").Revision
	mod := e.put("k", "m", kv.WithLease(lease)).Revision
	parts := []struct {
		target              kv.CompareTarget
		number              int64
		below, equal, above string
	}{
		{target: kv.CompareVersion, number: 2},
		{target: kv.CompareCreate, number: int64(create)},
		{target: kv.CompareMod, number: int64(mod)},
		{target: kv.CompareLease, number: int64(lease)},
		{target: kv.CompareValue, below: "l", equal: "m", above: "ma"},
	}
	for _, p := range parts {
		operands := []kv.Compare{
			{Number: p.number - 1, Value: []byte(p.below)},
			{Number: p.number, Value: []byte(p.equal)},
			{Number: p.number + 1, Value: []byte(p.above)},
		}
		holds := map[kv.Relation][3]bool{ // against one below, the same, one above
			kv.Equal:    {false, true, false},
			kv.Greater:  {true, false, false},
			kv.Less:     {false, false, true},
			kv.NotEqual: {true, false, true},
		}
		for relation, want := range holds {
			for i, c := range operands {
				c.Key, c.Target, c.Relation = e.key("k"), p.target, relation
				got := e.txn(kv.Txn{Compare: []kv.Compare{c}}).Succeeded
				e.equal(fmt.Sprintf("target %d relation %d operand %d", p.target, relation, i-1), got, want[i])
			}
		}
	}
}

func compareMissing(e *env) {
	for _, c := range []struct {
		cmp  kv.Compare
		want bool
	}{
		{kv.Compare{Target: kv.CompareVersion, Relation: kv.Equal}, true},
		{kv.Compare{Target: kv.CompareVersion, Relation: kv.Greater}, false},
		{kv.Compare{Target: kv.CompareCreate, Relation: kv.Equal}, true},
		{kv.Compare{Target: kv.CompareCreate, Relation: kv.Less, Number: 1}, true},
		{kv.Compare{Target: kv.CompareMod, Relation: kv.NotEqual, Number: 5}, true},
		{kv.Compare{Target: kv.CompareMod, Relation: kv.Greater, Number: -1}, true},
		{kv.Compare{Target: kv.CompareLease, Relation: kv.Equal}, true},
		{kv.Compare{Target: kv.CompareValue, Relation: kv.Equal}, false},
		{kv.Compare{Target: kv.CompareValue, Relation: kv.NotEqual, Value: []byte("x")}, false},
		{kv.Compare{Target: kv.CompareValue, Relation: kv.Less, Value: []byte("x")}, false},
	} {
		for _, end := range [][]byte{nil, e.key("nothing/z")} {
			c.cmp.Key, c.cmp.End = e.key("nothing"), end
			got := e.txn(kv.Txn{Compare: []kv.Compare{c.cmp}}).Succeeded
			e.equal(renderTxn(&kv.Txn{Compare: []kv.Compare{c.cmp}}), got, c.want)
		}
	}
}

func compareSpan(e *env) {
	e.puts("a", "b", "c")
	e.put("c", "c")
	version := func(from, to string, n int64) bool {
		c := kv.Compare{Key: e.key(from), End: e.key(to), Target: kv.CompareVersion, Number: n}
		return e.txn(kv.Txn{Compare: []kv.Compare{c}}).Succeeded
	}
	e.equal("every key satisfies", version("a", "c", 1), true)
	e.equal("one key does not", version("a", "d", 1), false)
	e.equal("range with one key", version("c", "d", 2), true)
	e.equal("range without keys is like no key", version("x", "z", 0), true)
	e.equal("range without keys has no version", version("x", "z", 1), false)
}

func compareAll(e *env) {
	e.puts("a", "b")
	both := []kv.Compare{e.valueIs("a", "a"), e.valueIs("b", "b")}
	e.equal("both hold", e.txn(kv.Txn{Compare: both}).Succeeded, true)
	both[1].Value = []byte("x")
	e.equal("one fails", e.txn(kv.Txn{Compare: both}).Succeeded, false)
	both[0], both[1] = both[1], both[0]
	e.equal("the other fails", e.txn(kv.Txn{Compare: both}).Succeeded, false)
}

func compareBefore(e *env) {
	e.put("a", "old")
	res := e.txn(success(
		e.opPut("a", "new"),
		e.opTxn(kv.Txn{
			Compare: []kv.Compare{e.valueIs("a", "old")},
			Success: []kv.Op{e.opGet("a")},
		}),
	))
	inner := res.Ops[1].Txn
	e.equal("inner comparison", inner.Succeeded, true)
	e.equal("inner range", string(inner.Ops[0].Range.KVs[0].Value), "new")
}

func txnUnconditional(e *env) {
	res := e.txn(kv.Txn{Success: []kv.Op{e.opPut("a", "yes")}, Failure: []kv.Op{e.opPut("a", "no")}})
	e.equal("succeeded", res.Succeeded, true)
	e.equal("value", string(e.get("a").Value), "yes")
	res = e.txn(kv.Txn{
		Compare: []kv.Compare{e.valueIs("a", "no")},
		Success: []kv.Op{e.opPut("a", "never")},
		Failure: []kv.Op{e.opPut("a", "otherwise"), e.opGet("a")},
	})
	e.equal("succeeded", res.Succeeded, false)
	e.equal("results", len(res.Ops), 2)
	e.equal("value", string(e.get("a").Value), "otherwise")
}

func txnEmpty(e *env) {
	e.unmoved(func() {
		res := e.txn(kv.Txn{Compare: []kv.Compare{e.exists("nothing")}})
		e.equal("succeeded", res.Succeeded, false)
		e.equal("results", len(res.Ops), 0)
		e.equal("revision", res.Revision, e.revision())
	})
}

func txnOneRevision(e *env) {
	e.puts("gone1", "gone2")
	before := e.revision()
	res := e.txn(success(e.opPut("a", "1"), e.opDeleteSpan("gone", "gonez"), e.opPut("b", "1"),
		e.opTxn(success(e.opPut("c", "1")))))
	e.equal("revision", res.Revision, before+1)
	for _, name := range []string{"a", "b", "c"} {
		e.equal(name, e.get(name).ModRevision, before+1)
	}
	e.equal("current", e.revision(), before+1)
	e.equal("deleted", res.Ops[1].Deleted, int64(2))
}

func txnOwnWrites(e *env) {
	e.puts("a", "b")
	before := e.revision()
	all := e.opRange(e.everything())
	res := e.txn(success(all, e.opPut("c", "c"), all, e.opDelete("a"), all, e.opTxn(success(e.opPut("d", "d"), all))))
	for i, want := range map[int]string{0: "a b", 2: "a b c", 4: "b c"} {
		e.equal(fmt.Sprintf("operation %d", i), e.names(*res.Ops[i].Range), want)
	}
	inner := res.Ops[5].Txn
	e.equal("nested", e.names(*inner.Ops[1].Range), "b c d")
	e.equal("revision seen before the changes", res.Ops[0].Range.Revision, before)
	e.equal("revision seen after a change", res.Ops[2].Range.Revision, before+1)
	e.equal("revision of the nested transaction", inner.Revision, res.Revision)
	k := res.Ops[2].Range.KVs[2]
	e.equal("own key's mod revision", k.ModRevision, before+1)
}

func txnNested(e *env) {
	e.put("flag", "on")
	inner := kv.Txn{
		Compare: []kv.Compare{e.valueIs("flag", "on")},
		Success: []kv.Op{e.opPut("a", "yes")},
		Failure: []kv.Op{e.opPut("a", "no")},
	}
	outer := kv.Txn{
		Compare: []kv.Compare{e.exists("flag")},
		Success: []kv.Op{e.opTxn(inner), e.opPut("b", "b")},
		Failure: []kv.Op{e.opTxn(inner), e.opPut("c", "c")},
	}
	res := e.txn(outer)
	e.equal("inner", res.Ops[0].Txn.Succeeded, true)
	e.equal("keys", e.names(e.read(e.everything())), "a b flag")
	e.delete("flag")
	res = e.txn(outer)
	e.equal("outer", res.Succeeded, false)
	e.equal("inner", res.Ops[0].Txn.Succeeded, false)
	e.equal("value", string(e.get("a").Value), "no")
	e.equal("keys", e.names(e.read(e.everything())), "a b c")
}

func txnNestedDeeper(e *env) {
	t := success(e.opPut("leaf", "x"))
	depth := min(e.opts.Limits.Depth, 8)
	for range depth - 1 {
		t = success(e.opTxn(t))
	}
	res := e.txn(t)
	for inner := &res; ; inner = inner.Ops[0].Txn {
		e.equal("succeeded", inner.Succeeded, true)
		if inner.Ops[0].Kind == kv.OpPut {
			break
		}
	}
	e.equal("leaf", e.get("leaf").ModRevision, res.Revision)
}

func txnAtomic(e *env) {
	e.put("a", "before")
	keep := kv.Op{Kind: kv.OpPut, Key: e.key("nothing"), IgnoreValue: true}
	e.refused(kv.ErrKeyNotFound, success(e.opPut("a", "after"), keep))
	e.refused(kv.ErrKeyNotFound, success(e.opPut("a", "after"), e.opTxn(success(keep))))
	leased := e.opPut("b", "b")
	leased.Lease = 1 << 62
	e.refused(kv.ErrLeaseNotFound, success(e.opDelete("a"), leased))
	future := e.everything()
	future.Revision = e.revision() + 1
	e.refused(kv.ErrFutureRevision, success(e.opPut("a", "after"), e.opRange(future)))
	e.equal("value", string(e.get("a").Value), "before")
}

func txnOtherBranch(e *env) {
	bad := e.opPut("a", "bad")
	bad.Lease = 1 << 62
	res := e.txn(kv.Txn{
		Compare: []kv.Compare{e.exists("nothing")},
		Success: []kv.Op{bad, e.opRange(kv.Range{Key: e.key("a"), Revision: 1 << 60})},
		Failure: []kv.Op{e.opPut("a", "good")},
	})
	e.equal("succeeded", res.Succeeded, false)
	e.equal("value", string(e.get("a").Value), "good")
}

func txnRangeAt(e *env) {
	old := e.put("a", "old").Revision
	e.put("a", "new")
	r := kv.Range{Key: e.key("a"), Revision: old}
	res := e.txn(success(e.opRange(r)))
	e.equal("reading", string(res.Ops[0].Range.KVs[0].Value), "old")
	res = e.txn(success(e.opPut("a", "newer"), e.opRange(r)))
	e.equal("writing", string(res.Ops[1].Range.KVs[0].Value), "old")
}

func txnDuplicates(e *env) {
	e.puts("a", "b")
	put, other := e.opPut("a", "x"), e.opPut("b", "x")
	nested := func(ops ...kv.Op) kv.Op { return e.opTxn(success(ops...)) }
	either := e.opTxn(kv.Txn{Success: []kv.Op{put}, Failure: []kv.Op{other}})
	for i, ops := range [][]kv.Op{
		{put, put},
		{put, e.opDelete("a")},
		{e.opDelete("a"), put},
		{put, e.opDeleteSpan("a", "b")},
		{e.opDeleteSpan("", "z"), put},
		{put, nested(put)},
		{nested(put), put},
		{nested(put), nested(put)},
		{nested(nested(put)), nested(nested(put))},
		{e.opDelete("a"), nested(put)},
		{nested(e.opDelete("a")), put},
		{nested(e.opDelete("a")), nested(put)},
		{nested(put, put)},
		{either, put},
		{either, other},
		{either, e.opDelete("b")},
	} {
		e.Logf("case %d", i)
		e.refused(kv.ErrDuplicateKey, success(ops...))
		e.refused(kv.ErrDuplicateKey, kv.Txn{Failure: ops})
	}
}

func txnRepeats(e *env) {
	e.puts("a", "b")
	put := e.opPut("a", "x")
	for i, t := range []kv.Txn{
		{Success: []kv.Op{put}, Failure: []kv.Op{put}},
		{Success: []kv.Op{e.opTxn(kv.Txn{Success: []kv.Op{put}, Failure: []kv.Op{put}})}},
		{Success: []kv.Op{e.opTxn(kv.Txn{Success: []kv.Op{put}, Failure: []kv.Op{e.opDelete("a")}})}},
		{Success: []kv.Op{e.opDelete("b"), e.opDelete("b"), e.opDeleteSpan("b", "c")}},
		{Success: []kv.Op{put, e.opDeleteSpan("a\x00", "b\x00")}},
		{Success: []kv.Op{e.opGet("a"), put, e.opGet("a")}},
	} {
		if _, err := e.store.Txn(e.ctx, t); err != nil {
			e.Errorf("transaction %d, %s: %v", i, renderTxn(&t), err)
		}
	}
}

func txnDelete(e *env) {
	e.puts("a", "b", "c", "d")
	before := e.revision()
	res, err := kv.DeleteRange(e.ctx, e.store, kv.Op{Key: e.key("b"), End: e.key("d"), PrevKV: true})
	if err != nil {
		e.Fatal(err)
	}
	e.equal("deleted", res.Deleted, int64(2))
	e.equal("revision", res.Revision, before+1)
	e.equal("previous", e.join(res.Prev), "b c")
	e.equal("previous value", string(res.Prev[0].Value), "b")
	e.equal("left", e.names(e.read(e.everything())), "a d")
	one := e.delete("a")
	e.equal("deleted", one.Deleted, int64(1))
	e.equal("previous, not asked for", len(one.Prev), 0)
	old := e.everything()
	old.Revision = before
	e.equal("the past keeps them", e.names(e.read(old)), "a b c d")
}

func txnReadOnly(e *env) {
	e.puts("a")
	e.unmoved(func() {
		res := e.txn(kv.Txn{
			Compare: []kv.Compare{e.exists("a")},
			Success: []kv.Op{e.opGet("a"), e.opTxn(success(e.opGet("a")))},
		})
		e.equal("value", string(res.Ops[1].Txn.Ops[0].Range.KVs[0].Value), "a")
		e.equal("revision", res.Revision, e.revision())
	})
}

func txnDeleteNothing(e *env) {
	e.unmoved(func() {
		res := e.delete("nothing")
		e.equal("deleted", res.Deleted, int64(0))
		e.equal("revision", res.Revision, e.revision())
		e.txn(success(e.opDeleteSpan("a", "z"), e.opGet("a"), e.opTxn(success(e.opDelete("b")))))
	})
}

func txnSameValue(e *env) {
	first := e.put("a", "same").Revision
	second := e.put("a", "same").Revision
	e.equal("revision", second, first+1)
	e.equal("version", e.get("a").Version, int64(2))
}
