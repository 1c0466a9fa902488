package kvtest

import (
	"fmt"

	"github.com/concord-kv/concord/kv"
)

func rangeCases() []testCase {
	return []testCase{
		{"key that is not there", rangeMissing},
		{"all fields of a key", rangeFields},
		{"fields after delete and put", rangeRecreated},
		{"selects", rangeSelects},
		{"bytes of all kinds", rangeBytes},
		{"limit, more and count", rangeLimit},
		{"at an older revision", rangeOld},
		{"at a future revision", rangeFuture},
		{"keys only and count only", rangeParts},
		{"sort", rangeSort},
		{"bounds on revisions", rangeBounds},
		{"limit comes after bounds and sort", rangeLimitLast},
		{"read levels", rangeLevels},
		{"results belong to the caller", rangeOwned},
	}
}

func rangeMissing(e *env) {
	res := e.read(kv.Range{Key: e.key("nothing")})
	e.equal("keys", len(res.KVs), 0)
	e.equal("count", res.Count, int64(0))
	e.equal("more", res.More, false)
	e.equal("revision", res.Revision, e.revision())
	e.gone("nothing")
}

func rangeFields(e *env) {
	first := e.put("k", "one").Revision
	second := e.put("k", "two").Revision
	e.equal("second revision", second, first+1)
	want := kv.KeyValue{Key: e.key("k"), Value: []byte("two"), CreateRevision: first, ModRevision: second, Version: 2}
	e.equal("key", renderKey(e.get("k")), renderKey(want))
}

func rangeRecreated(e *env) {
	e.put("k", "one")
	e.put("k", "two")
	e.delete("k")
	rev := e.put("k", "three").Revision
	want := kv.KeyValue{Key: e.key("k"), Value: []byte("three"), CreateRevision: rev, ModRevision: rev, Version: 1}
	e.equal("key", renderKey(e.get("k")), renderKey(want))
}

func rangeSelects(e *env) {
	e.puts("a", "ab", "b", "ba", "c")
	for _, c := range []struct {
		name, from, to, want string
	}{
		{"one key", "a", "", "a"},
		{"half open", "a", "b", "a ab"},
		{"from between keys", "aa", "bz", "ab b ba"},
		{"end at its key", "b", "b", ""},
		{"end before its key", "c", "a", ""},
		{"nothing inside", "d", "e", ""},
	} {
		r := kv.Range{Key: e.key(c.from)}
		if c.to != "" {
			r.End = e.key(c.to)
		}
		e.equal(c.name, e.names(e.read(r)), c.want)
	}
	e.equal("prefix", e.names(e.read(kv.Range{Key: e.key("b"), End: kv.Prefix(e.key("b"))})), "b ba")
	e.equal("corner", e.names(e.read(e.everything())), "a ab b ba c")
}

func rangeBytes(e *env) {
	names := []string{"\x00", "\x00\x00", "\x01", "a\x00", "a\x00b", "\x7f", "\x80", "\xff", "\xff\xff"}
	for _, name := range names {
		e.put(name, name+"\x00\xff")
	}
	res := e.read(e.everything())
	e.equal("count", res.Count, int64(len(names)))
	for _, name := range names {
		e.equal(fmt.Sprintf("value of %q", name), string(e.get(name).Value), name+"\x00\xff")
	}
	for i := 1; i < len(res.KVs); i++ {
		if string(res.KVs[i-1].Key) >= string(res.KVs[i].Key) {
			e.Errorf("keys out of order: %q, %q", res.KVs[i-1].Key, res.KVs[i].Key)
		}
	}
}

func rangeLimit(e *env) {
	e.puts("a", "b", "c")
	for _, c := range []struct {
		limit int64
		want  string
		more  bool
	}{
		{0, "a b c", false},
		{1, "a", true},
		{2, "a b", true},
		{3, "a b c", false},
		{4, "a b c", false},
		{1<<63 - 1, "a b c", false},
	} {
		r := e.everything()
		r.Limit = c.limit
		res := e.read(r)
		what := fmt.Sprintf("limit %d", c.limit)
		e.equal(what, e.names(res), c.want)
		e.equal(what+" more", res.More, c.more)
		e.equal(what+" count", res.Count, int64(3))
	}
}

func rangeOld(e *env) {
	first := e.put("a", "1").Revision
	e.put("b", "1")
	e.put("a", "2")
	e.delete("a")
	last := e.put("a", "3").Revision
	for i, want := range []string{
		"a=1", "a=1 b=1", "a=2 b=1", "b=1", "a=3 b=1",
	} {
		r := e.everything()
		r.Revision = first + kv.Revision(i)
		res := e.read(r)
		var got string
		for j, k := range res.KVs {
			if j > 0 {
				got += " "
			}
			got += e.join(res.KVs[j:j+1]) + "=" + string(k.Value)
		}
		e.equal(fmt.Sprintf("at +%d", i), got, want)
		e.equal("header stays current", res.Revision, last)
	}
	r := e.everything()
	r.Revision = first - 1
	e.equal("before", e.read(r).Count, int64(0))
}

func rangeFuture(e *env) {
	_, err := e.store.Range(e.ctx, kv.Range{Key: e.key("a"), Revision: e.revision() + 1})
	e.is(err, kv.ErrFutureRevision)
}

func rangeParts(e *env) {
	e.puts("a", "b")
	r := e.everything()
	r.KeysOnly = true
	res := e.read(r)
	e.equal("keys only", e.names(res), "a b")
	for _, k := range res.KVs {
		e.equal("value", len(k.Value), 0)
		e.equal("version", k.Version, int64(1))
	}
	r.KeysOnly, r.CountOnly, r.Limit = false, true, 1
	res = e.read(r)
	e.equal("count only", res.Count, int64(2))
	e.equal("count only keys", len(res.KVs), 0)
	e.equal("count only more", res.More, false)
}

func rangeSort(e *env) {
	// By key a b c d; by creation c a d b; by change d c b a; versions and
	// values have ties, which keep key order.
	for _, p := range []struct{ name, value string }{
		{"c", "x"}, {"a", "x"}, {"d", "y"}, {"b", "y"},
		{"d", "x"}, {"c", "z"}, {"b", "y"}, {"a", "x"}, {"a", "w"},
	} {
		e.put(p.name, p.value)
	}
	for _, c := range []struct {
		sort kv.Sort
		want string
	}{
		{kv.Sort{}, "a b c d"},
		{kv.Sort{Order: kv.Ascending}, "a b c d"},
		{kv.Sort{Order: kv.Descending}, "d c b a"},
		{kv.Sort{By: kv.SortByCreate}, "c a d b"},
		{kv.Sort{By: kv.SortByCreate, Order: kv.Descending}, "b d a c"},
		{kv.Sort{By: kv.SortByMod, Order: kv.Ascending}, "d c b a"},
		{kv.Sort{By: kv.SortByMod, Order: kv.Descending}, "a b c d"},
		{kv.Sort{By: kv.SortByVersion}, "b c d a"},
		{kv.Sort{By: kv.SortByVersion, Order: kv.Descending}, "a b c d"},
		{kv.Sort{By: kv.SortByValue, Order: kv.Ascending}, "a d b c"},
		{kv.Sort{By: kv.SortByValue, Order: kv.Descending}, "c b d a"},
	} {
		r := e.everything()
		r.Sort = c.sort
		e.equal(fmt.Sprintf("sort %+v", c.sort), e.names(e.read(r)), c.want)
		r.KeysOnly = true
		e.equal(fmt.Sprintf("sort %+v, keys only", c.sort), e.names(e.read(r)), c.want)
	}
}

func rangeBounds(e *env) {
	a := e.put("a", "").Revision
	e.puts("b", "c")
	e.put("a", "")
	// Created a b c at a, a+1, a+2; changed at a+3, a+1, a+2.
	for _, c := range []struct {
		name string
		r    kv.Range
		want string
	}{
		{"min mod", kv.Range{MinMod: a + 2}, "a c"},
		{"max mod", kv.Range{MaxMod: a + 2}, "b c"},
		{"both mod", kv.Range{MinMod: a + 2, MaxMod: a + 2}, "c"},
		{"min create", kv.Range{MinCreate: a + 1}, "b c"},
		{"max create", kv.Range{MaxCreate: a + 1}, "a b"},
		{"mixed", kv.Range{MinMod: a + 2, MaxCreate: a + 1}, "a"},
		{"none", kv.Range{MinMod: a + 4}, ""},
		{"at an older revision", kv.Range{MaxMod: a + 1, Revision: a + 2}, "a b"},
	} {
		c.r.Key, c.r.End = e.everything().Key, e.everything().End
		res := e.read(c.r)
		e.equal(c.name, e.names(res), c.want)
		e.equal(c.name+" count", res.Count, int64(3))
		e.equal(c.name+" more", res.More, false)
	}
}

func rangeLimitLast(e *env) {
	a := e.put("a", "").Revision
	e.puts("b", "c", "d")
	r := e.everything()
	r.MinMod, r.Limit, r.Sort = a+1, 2, kv.Sort{Order: kv.Descending}
	res := e.read(r)
	e.equal("keys", e.names(res), "d c")
	e.equal("more", res.More, true)
	r.Limit = 3
	res = e.read(r)
	e.equal("keys", e.names(res), "d c b")
	e.equal("more", res.More, false)
	e.equal("count", res.Count, int64(4))
}

func rangeLevels(e *env) {
	rev := e.put("a", "1").Revision
	for _, level := range []kv.ReadLevel{kv.Strong, kv.Leader} {
		k, err := kv.Get(e.ctx, e.store, e.key("a"), level)
		if err != nil || k.ModRevision != rev {
			e.Errorf("%v read after a put at %d: %s, %v", level, rev, renderKey(k), err)
		}
	}
	e.eventually("an eventual read sees the put", func() bool {
		k, err := kv.Get(e.ctx, e.store, e.key("a"), kv.Eventual)
		return err == nil && k.ModRevision == rev
	})
}

func rangeOwned(e *env) {
	value := []byte("value")
	op := kv.Op{Kind: kv.OpPut, Key: e.key("a"), Value: value}
	e.txn(success(op))
	clear(value)
	clear(op.Key)
	k := e.get("a")
	e.equal("value after the request's was overwritten", string(k.Value), "value")
	clear(k.Key)
	clear(k.Value)
	e.equal("value after a result's was overwritten", string(e.get("a").Value), "value")
}
