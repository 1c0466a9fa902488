package kvtest

import (
	"fmt"
	"sync"

	"github.com/concord-kv/concord/kv"
)

func freshCases() []testCase {
	return []testCase{
		{"starts at revision 1", freshRevision},
		{"the whole key space", freshWhole},
	}
}

func compactCases() []testCase {
	return []testCase{
		{"reads below are refused", compactReads},
		{"revisions it refuses", compactRefuses},
		{"moves no revision", compactUnmoved},
		{"keeps what lives", compactKeeps},
		{"watch below is refused", compactWatchBelow},
		{"watch from the compacted revision", compactWatchAt},
		{"a watch without changes goes on", compactWatchIdle},
		{"previous below the compacted revision", compactPrevious},
		{"inside a transaction", compactTxn},
	}
}

func freshRevision(e *env) {
	e.equal("revision", e.revision(), kv.Revision(1))
	e.read(kv.Range{Key: e.key("a"), Revision: 1})
	first := e.put("a", "1")
	e.equal("first put", first.Revision, kv.Revision(2))
	k := e.get("a")
	e.equal("create", k.CreateRevision, kv.Revision(2))
	r := e.watchAll()
	r.Start = 1
	e.equal("events from 1", e.watch(r).upTo(2), "PUT a=1")
}

func freshWhole(e *env) {
	e.corner = "" // all of it is this case's
	e.puts("\x00", "a", "b", "\xff\xff")
	zero := []byte{0}
	e.equal("everything", e.names(e.read(kv.Range{Key: zero, End: zero})), "\x00 a b \xff\xff")
	e.equal("from key", e.names(e.read(kv.Range{Key: []byte("b"), End: zero})), "b \xff\xff")
	e.equal("prefix of 0xff", e.names(e.read(kv.Range{Key: []byte{0xff}, End: kv.Prefix([]byte{0xff})})), "\xff\xff")
	e.equal("up to", e.names(e.read(kv.Range{Key: zero, End: []byte("b")})), "\x00 a")
	w := e.watch(kv.WatchRequest{Key: []byte("b"), End: zero})
	res, err := kv.DeleteRange(e.ctx, e.store, kv.Op{Key: []byte("a"), End: zero})
	if err != nil {
		e.Fatal(err)
	}
	e.equal("deleted", res.Deleted, int64(3))
	e.equal("watch from key", e.events(w.next()), "DELETE b, DELETE \xff\xff")
	e.equal("left", e.names(e.read(kv.Range{Key: zero, End: zero})), "\x00")
}

func (e *env) compact(rev kv.Revision) kv.Header {
	e.Helper()
	h, err := e.store.Compact(e.ctx, rev)
	if err != nil {
		e.Fatalf("compact %d: %v", rev, err)
	}
	return h
}

func (e *env) rangeAt(rev kv.Revision) (kv.RangeResult, error) {
	r := e.everything()
	r.Revision = rev
	return e.store.Range(e.ctx, r)
}

func compactReads(e *env) {
	first := e.put("a", "1").Revision
	e.put("a", "2")
	e.delete("a")
	last := e.put("b", "3").Revision
	e.compact(first + 2)
	for rev := first - 1; rev <= last; rev++ {
		_, err := e.rangeAt(rev)
		if rev < first+2 {
			e.is(err, kv.ErrCompacted)
		} else if err != nil {
			e.Errorf("read at %d: %v", rev, err)
		}
	}
	e.equal("latest", e.names(e.read(e.everything())), "b")
}

func compactRefuses(e *env) {
	rev := e.put("a", "1").Revision
	e.compact(rev)
	for _, c := range []struct {
		rev  kv.Revision
		want *kv.Error
	}{
		{rev, kv.ErrCompacted},
		{rev - 1, kv.ErrCompacted},
		{rev + 1, kv.ErrFutureRevision},
	} {
		_, err := e.store.Compact(e.ctx, c.rev)
		e.is(err, c.want)
	}
	_, err := e.rangeAt(rev)
	e.equal("read at the compacted revision", err, nil)
}

func compactUnmoved(e *env) {
	rev := e.put("a", "1").Revision
	e.unmoved(func() { e.equal("revision", e.compact(rev).Revision, rev) })
}

func compactKeeps(e *env) {
	const n = 300
	for i := range n {
		e.put(fmt.Sprintf("k%03d", i%100), fmt.Sprint(i))
		if i%3 == 0 {
			e.delete(fmt.Sprintf("k%03d", (i+50)%100))
		}
	}
	before := e.read(e.everything())
	e.compact(before.Revision)
	e.equal("latest", renderKeys(e.read(e.everything()).KVs), renderKeys(before.KVs))
	at, err := e.rangeAt(before.Revision)
	if err != nil {
		e.Fatal(err)
	}
	e.equal("at the compacted revision", renderKeys(at.KVs), renderKeys(before.KVs))
	e.put("k000", "after")
	at, err = e.rangeAt(before.Revision)
	if err != nil {
		e.Fatal(err)
	}
	e.equal("at the compacted revision, after a put", renderKeys(at.KVs), renderKeys(before.KVs))
}

func compactWatchBelow(e *env) {
	first := e.put("a", "1").Revision
	e.put("b", "2")
	e.compact(first + 1)
	r := e.watchAll()
	r.Start = first
	e.watchFails(r, kv.ErrCompacted)
}

func compactWatchAt(e *env) {
	e.put("a", "1")
	e.put("b", "2")
	put := e.put("a", "3").Revision
	e.compact(put)
	r := e.watchAll()
	r.Start = put
	w := e.watch(r)
	e.equal("a put at the compacted revision", e.events(w.next()), "PUT a=3")
	gone := e.delete("a").Revision
	last := e.put("c", "4").Revision
	e.equal("events", e.events(w.next())+"; "+e.events(w.next()), "DELETE a; PUT c=4")
	e.compact(gone)
	r.Start = gone
	e.equal("a delete at the compacted revision", e.watch(r).upTo(last), "DELETE a; PUT c=4")
}

func compactWatchIdle(e *env) {
	w := e.watch(kv.WatchRequest{Key: e.key("quiet")})
	e.put("quiet", "1")
	e.equal("before", e.events(w.next()), "PUT quiet=1")
	for i := range 50 {
		e.put("loud", fmt.Sprint(i))
	}
	e.compact(e.revision())
	e.put("loud", "x")
	rev := e.put("quiet", "2").Revision
	batch := w.next()
	e.equal("after", e.events(batch), "PUT quiet=2")
	e.equal("revision", batch.Revision, rev)
}

func compactPrevious(e *env) {
	e.put("a", "1")
	second := e.put("a", "2").Revision
	third := e.put("a", "3").Revision
	e.compact(second)
	r := e.watchAll()
	r.Start, r.PrevKV = second, true
	w := e.watch(r)
	if prev := w.next().Events[0].Prev; prev != nil {
		e.Errorf("previous from before the compacted revision: %s", renderKey(*prev))
	}
	batch := w.next()
	e.equal("revision", batch.Revision, third)
	if prev := batch.Events[0].Prev; prev == nil || string(prev.Value) != "2" {
		e.Errorf("previous from the compacted revision: %v", prev)
	}
}

func compactTxn(e *env) {
	first := e.put("a", "1").Revision
	e.put("a", "2")
	e.compact(first + 1)
	r := e.everything()
	r.Revision = first
	e.refused(kv.ErrCompacted, success(e.opPut("a", "3"), e.opRange(r)))
	e.refused(kv.ErrCompacted, success(e.opRange(r)))
	r.Revision = first + 1
	e.txn(success(e.opPut("a", "3"), e.opRange(r)))
}

func concurrentCases() []testCase {
	return []testCase{
		{"compare and swap loses no update", concurrentSwaps},
		{"every write has a revision of its own", concurrentRevisions},
		{"readers see whole transactions", concurrentReaders},
		{"a watch sees every revision once", concurrentWatch},
	}
}

// together runs f n times at once and waits.
func (e *env) together(n int, f func(i int) error) {
	e.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				e.Errorf("client %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}

func concurrentSwaps(e *env) {
	const clients, each = 8, 10
	e.put("n", "")
	e.together(clients, func(int) error {
		for done := 0; done < each; {
			k, err := kv.Get(e.ctx, e.store, e.key("n"), kv.Strong)
			if err != nil {
				return err
			}
			res, err := e.store.Txn(e.ctx, kv.Txn{
				Compare: []kv.Compare{{Key: k.Key, Target: kv.CompareMod, Number: int64(k.ModRevision)}},
				Success: []kv.Op{e.opPut("n", string(k.Value)+"x")},
			})
			if err != nil {
				return err
			}
			if res.Succeeded {
				done++
			}
		}
		return nil
	})
	e.equal("updates", len(e.get("n").Value), clients*each)
}

func concurrentRevisions(e *env) {
	const clients, each = 16, 20
	before := e.revision()
	var mu sync.Mutex
	seen := map[kv.Revision]bool{}
	e.together(clients, func(i int) error {
		last := before
		for range each {
			res, err := kv.Put(e.ctx, e.store, e.key(fmt.Sprint(i)), "x")
			if err != nil {
				return err
			}
			mu.Lock()
			again := seen[res.Revision]
			seen[res.Revision] = true
			mu.Unlock()
			if again || res.Revision <= last {
				return fmt.Errorf("revision %d after %d (given to another: %v)", res.Revision, last, again)
			}
			last = res.Revision
		}
		return nil
	})
	e.equal("revision", e.revision(), before+clients*each)
}

func concurrentReaders(e *env) {
	const clients, each = 4, 25
	e.txn(success(e.opPut("a", "0"), e.opPut("b", "0")))
	e.together(2*clients, func(i int) error {
		var last kv.Revision
		for n := range each {
			if i%2 == 0 {
				value := fmt.Sprintf("%d.%d", i, n)
				if _, err := e.store.Txn(e.ctx, success(e.opPut("a", value), e.opPut("b", value))); err != nil {
					return err
				}
				continue
			}
			res, err := e.store.Range(e.ctx, e.everything())
			switch {
			case err != nil:
				return err
			case len(res.KVs) != 2 || string(res.KVs[0].Value) != string(res.KVs[1].Value):
				return fmt.Errorf("half a transaction: %s", renderKeys(res.KVs))
			case res.Revision < last:
				return fmt.Errorf("revision %d after %d", res.Revision, last)
			}
			last = res.Revision
		}
		return nil
	})
}

func concurrentWatch(e *env) {
	const clients, each = 8, 25
	live := e.watch(e.watchAll())
	e.together(clients, func(i int) error {
		for range each {
			if _, err := kv.Put(e.ctx, e.store, e.key(fmt.Sprint(i)), "x"); err != nil {
				return err
			}
		}
		return nil
	})
	r := e.watchAll()
	r.Start = live.first.Revision + 1
	again := e.watch(r)
	for rev := r.Start; rev < r.Start+clients*each; rev++ {
		a, b := live.next(), again.next()
		e.equal("revision", a.Revision, rev)
		e.equal("from history as live", renderBatch(b), renderBatch(a))
	}
}
