package kvtest

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/concord-kv/concord/kv"
)

func watchCases() []testCase {
	return []testCase{
		{"opens with a mark", watchOpens},
		{"events of a key", watchEvents},
		{"selects", watchSelects},
		{"from a revision", watchFrom},
		{"resumes behind any batch", watchResumes},
		{"from the next revision", watchFromNext},
		{"from a future revision", watchFuture},
		{"previous", watchPrevious},
		{"filters", watchFilters},
		{"a revision is one batch", watchWhole},
		{"marks when silent", watchSilent},
		{"marks on request", watchRequested},
		{"marks do not overtake events", watchMarkOrder},
		{"ends with its context", watchCanceled},
		{"ends when the consumer stops", watchStopped},
		{"many at once", watchMany},
		{"large values", watchLarge},
	}
}

// watching is a watch that has yielded its opening mark.
type watching struct {
	e     *env
	pull  func() (kv.WatchBatch, error, bool)
	first kv.WatchBatch
}

// watch opens w. When it returns, the store will yield every later change.
func (e *env) watch(w kv.WatchRequest) *watching {
	e.Helper()
	pull, stop := iter.Pull2(e.store.Watch(e.ctx, w))
	e.Cleanup(stop)
	out := &watching{e: e, pull: pull}
	out.first = out.any()
	if len(out.first.Events) != 0 {
		e.Fatalf("a watch opened with events: %s", renderBatch(out.first))
	}
	return out
}

// any waits for a batch, also one that is a mark.
func (w *watching) any() kv.WatchBatch {
	w.e.Helper()
	batch, err, ok := w.pull()
	if err != nil || !ok {
		w.e.Fatalf("the watch ended: %v", err)
	}
	return batch
}

// next waits for a batch with events.
func (w *watching) next() kv.WatchBatch {
	w.e.Helper()
	for {
		if batch := w.any(); len(batch.Events) > 0 {
			return batch
		}
	}
}

// mark waits for a mark, which must be the next batch.
func (w *watching) mark() kv.Revision {
	w.e.Helper()
	batch := w.any()
	if len(batch.Events) > 0 {
		w.e.Fatalf("events instead of a mark: %s", renderBatch(batch))
	}
	return batch.Revision
}

// upTo waits for all events up to rev, which must have one, as text.
func (w *watching) upTo(rev kv.Revision) string {
	w.e.Helper()
	var all []string
	last := w.first.Revision
	for last < rev {
		batch := w.next()
		if batch.Revision <= last {
			w.e.Fatalf("revision %d after %d", batch.Revision, last)
		}
		last = batch.Revision
		all = append(all, w.e.events(batch))
	}
	w.e.equal("last revision", last, rev)
	return strings.Join(all, "; ")
}

// watchFails opens w, which must end with want and nothing else.
func (e *env) watchFails(w kv.WatchRequest, want *kv.Error) {
	e.Helper()
	var last error
	for batch, err := range e.store.Watch(e.ctx, w) {
		if last != nil {
			e.Fatalf("the watch went on after %v", last)
		}
		if len(batch.Events) > 0 {
			e.Fatalf("events before an error: %s", renderBatch(batch))
		}
		last = err
	}
	e.is(last, want)
}

// events writes a batch's events as text, without the corner.
func (e *env) events(batch kv.WatchBatch) string {
	e.Helper()
	var out []string
	for _, ev := range batch.Events {
		if ev.KV.ModRevision != batch.Revision {
			e.Errorf("an event of revision %d in the batch of %d", ev.KV.ModRevision, batch.Revision)
		}
		text := fmt.Sprintf("%v %s", ev.Type, strings.TrimPrefix(string(ev.KV.Key), e.corner))
		if len(ev.KV.Value) > 0 {
			text += "=" + string(ev.KV.Value)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

func watchOpens(e *env) {
	before := e.put("a", "1").Revision
	w := e.watch(e.watchAll())
	if w.first.Revision < before || w.first.Revision > e.revision() {
		e.Errorf("opened at %d; the store was at %d before", w.first.Revision, before)
	}
	rev := e.put("a", "2").Revision
	e.equal("events", w.upTo(rev), "PUT a=2")
}

func watchEvents(e *env) {
	w := e.watch(kv.WatchRequest{Key: e.key("a")})
	lease := e.grant(longTTL)
	create := e.put("a", "1", kv.WithLease(lease)).Revision
	mod := e.put("a", "2", kv.WithTTL(longTTL)).Revision
	deleted := e.delete("a").Revision
	for _, want := range []kv.Event{
		{KV: kv.KeyValue{Key: e.key("a"), Value: []byte("1"), CreateRevision: create, ModRevision: create, Version: 1, Lease: lease}},
		{KV: kv.KeyValue{Key: e.key("a"), Value: []byte("2"), CreateRevision: create, ModRevision: mod, Version: 2, Expires: 1}},
		{Type: kv.DeleteEvent, KV: kv.KeyValue{Key: e.key("a"), ModRevision: deleted}},
	} {
		batch := kv.WatchBatch{Revision: want.KV.ModRevision, Events: []kv.Event{want}}
		e.equal("batch", renderBatch(w.next()), renderBatch(batch))
	}
}

func watchSelects(e *env) {
	one := e.watch(kv.WatchRequest{Key: e.key("b")})
	span := e.watch(kv.WatchRequest{Key: e.key("b"), End: e.key("c")})
	prefix := e.watch(kv.WatchRequest{Key: e.key("b"), End: kv.Prefix(e.key("b"))})
	all := e.watch(e.watchAll())
	onward := e.watch(kv.WatchRequest{Key: e.key("bb"), End: []byte{0}})
	e.put("a", "")
	e.put("ba", "")
	e.put("c", "")
	last := e.put("b", "").Revision
	e.equal("key", one.upTo(last), "PUT b")
	e.equal("range", span.upTo(last), "PUT ba; PUT b")
	e.equal("prefix", prefix.upTo(last), "PUT ba; PUT b")
	e.equal("corner", all.upTo(last), "PUT a; PUT ba; PUT c; PUT b")
	e.equal("from key", onward.upTo(last-1), "PUT c")
}

func watchFrom(e *env) {
	first := e.put("a", "1").Revision
	e.put("b", "1")
	e.delete("a")
	r := e.watchAll()
	r.Start = first
	w := e.watch(r)
	e.equal("mark", w.first.Revision, first-1)
	last := e.put("c", "1").Revision // live, behind the history
	e.equal("events", w.upTo(last), "PUT a=1; PUT b=1; DELETE a; PUT c=1")
}

func watchResumes(e *env) {
	first := e.put("a", "0").Revision
	for i := range 5 {
		e.put("a", fmt.Sprint(i+1))
	}
	want := []string{"PUT a=0", "PUT a=1", "PUT a=2", "PUT a=3", "PUT a=4", "PUT a=5"}
	for i := range want {
		r := e.watchAll()
		r.Start = first + kv.Revision(i)
		e.equal(fmt.Sprintf("from +%d", i), e.watch(r).upTo(first+5), strings.Join(want[i:], "; "))
	}
}

func watchFromNext(e *env) {
	now := e.put("a", "1").Revision
	r := e.watchAll()
	r.Start = now + 1
	w := e.watch(r)
	e.equal("mark", w.first.Revision, now)
	e.equal("events", w.upTo(e.put("a", "2").Revision), "PUT a=2")
}

func watchFuture(e *env) {
	now := e.put("a", "1").Revision
	r := e.watchAll()
	r.Start = now + 3
	r.ProgressRequests = requests(1)
	w := e.watch(r)
	if w.first.Revision > now {
		e.Errorf("opened at %d; the store is at %d", w.first.Revision, now)
	}
	if mark := w.mark(); mark > now {
		e.Errorf("mark at %d; the store is at %d", mark, now)
	}
	for i := range 3 {
		e.put("a", fmt.Sprint(i+2))
	}
	e.equal("events", e.events(w.next()), "PUT a=4")
}

func watchPrevious(e *env) {
	r := e.watchAll()
	r.PrevKV = true
	w := e.watch(r)
	e.put("a", "1")
	one := e.get("a")
	e.put("a", "2")
	two := e.get("a")
	e.delete("a")
	last := e.put("a", "3").Revision
	check := func(w *watching) {
		for i, want := range []*kv.KeyValue{nil, &one, &two, nil} {
			got := w.next().Events[0].Prev
			switch {
			case got == nil && want == nil:
			case got == nil || want == nil:
				e.Errorf("event %d: previous %v, want %v", i, got, want)
			default:
				e.equal(fmt.Sprintf("previous of event %d", i), renderKey(*got), renderKey(*want))
			}
		}
	}
	check(w)
	r.Start = last - 3
	check(e.watch(r))
	r.PrevKV = false
	w = e.watch(r)
	for range 4 {
		if prev := w.next().Events[0].Prev; prev != nil {
			e.Errorf("previous that was not asked for: %s", renderKey(*prev))
		}
	}
}

func watchFilters(e *env) {
	r := e.watchAll()
	r.NoPut = true
	deletes := e.watch(r)
	r.NoPut, r.NoDelete = false, true
	puts := e.watch(r)
	e.puts("a", "b")
	e.txn(success(e.opDelete("a"), e.opPut("c", "c")))
	deleted := e.delete("b").Revision
	put := e.put("d", "d").Revision
	e.equal("deletes", deletes.upTo(deleted), "DELETE a; DELETE b")
	e.equal("puts", puts.upTo(put), "PUT a=a; PUT b=b; PUT c=c; PUT d=d")
}

func watchWhole(e *env) {
	e.puts("x2", "x1", "y")
	w := e.watch(e.watchAll())
	part := e.watch(kv.WatchRequest{Key: e.key("b"), End: e.key("d")})
	rev := e.txn(success(
		e.opPut("c", "1"), e.opDeleteSpan("x", "y"), e.opTxn(success(e.opPut("a", "2"))), e.opPut("b", "3"),
	)).Revision
	e.equal("batch", w.upTo(rev), "PUT c=1, DELETE x1, DELETE x2, PUT a=2, PUT b=3")
	e.equal("part", part.upTo(rev), "PUT c=1, PUT b=3")
	r := e.watchAll()
	r.Start = rev
	e.equal("from history", e.watch(r).upTo(rev), "PUT c=1, DELETE x1, DELETE x2, PUT a=2, PUT b=3")
}

func watchSilent(e *env) {
	r := e.watchAll()
	r.Progress = 20 * time.Millisecond
	w := e.watch(r)
	elsewhere, err := kv.Put(e.ctx, e.store, "elsewhere/"+e.corner, "1")
	if err != nil {
		e.Fatal(err)
	}
	last := w.first.Revision
	for last < elsewhere.Revision {
		mark := w.mark()
		if mark < last {
			e.Fatalf("mark %d after %d", mark, last)
		}
		last = mark
	}
}

// requests gives a channel with n requests for a mark.
func requests(n int) <-chan struct{} {
	c := make(chan struct{}, n)
	for range n {
		c <- struct{}{}
	}
	return c
}

func watchRequested(e *env) {
	asks := make(chan struct{})
	r := e.watchAll()
	r.ProgressRequests = asks
	w := e.watch(r)
	last := w.first.Revision
	for range 3 {
		elsewhere, err := kv.Put(e.ctx, e.store, "elsewhere/"+e.corner, "1")
		if err != nil {
			e.Fatal(err)
		}
		go func() {
			select {
			case asks <- struct{}{}:
			case <-e.ctx.Done():
			}
		}()
		mark := w.mark()
		if mark < last || mark > elsewhere.Revision {
			e.Errorf("mark %d; the last was %d, the store is at %d", mark, last, elsewhere.Revision)
		}
		last = mark
	}
}

func watchMarkOrder(e *env) {
	r := e.watchAll()
	r.Start = e.put("a", "0").Revision
	const n = 50
	for range n {
		e.put("a", "x")
	}
	r.ProgressRequests = requests(n)
	w := e.watch(r)
	var seen kv.Revision
	for events := 0; events < n+1; {
		batch := w.any()
		if len(batch.Events) > 0 {
			events++
			if batch.Revision <= seen {
				e.Fatalf("revision %d was yielded after a batch or mark at %d", batch.Revision, seen)
			}
		}
		seen = max(seen, batch.Revision)
	}
}

func watchCanceled(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	var last error
	for _, err := range e.store.Watch(ctx, e.watchAll()) {
		if last != nil {
			e.Fatalf("the watch went on after %v", last)
		}
		last = err
		cancel()
	}
	if last != nil && kv.CodeOf(last) != kv.Canceled {
		e.Errorf("error %v (%v), want a canceled context's or none", last, kv.CodeOf(last))
	}
}

func watchStopped(e *env) {
	for range 100 {
		for _, err := range e.store.Watch(e.ctx, e.watchAll()) {
			if err != nil {
				e.Fatal(err)
			}
			break
		}
	}
	w := e.watch(e.watchAll())
	e.equal("events", w.upTo(e.put("a", "1").Revision), "PUT a=1")
}

func watchMany(e *env) {
	var watches []*watching
	for i := range 50 {
		watches = append(watches, e.watch(kv.WatchRequest{Key: e.key(fmt.Sprint(i % 10))}))
	}
	revs := make([]kv.Revision, 10)
	for i := range revs {
		revs[i] = e.put(fmt.Sprint(i), "x").Revision
	}
	for i, w := range watches {
		e.equal(fmt.Sprintf("watch %d", i), w.upTo(revs[i%10]), fmt.Sprintf("PUT %d=x", i%10))
	}
}

func watchLarge(e *env) {
	w := e.watch(e.watchAll())
	value := strings.Repeat("v", 3<<20)
	rev := e.put("a", value).Revision
	e.equal("event has the value", w.upTo(rev), "PUT a="+value)
}
