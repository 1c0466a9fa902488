package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// model is the key space as the reference says it: every change ever made.
type model struct {
	rev, compacted kv.Revision
	events         []modelEvent
}

type modelEvent struct {
	rev kv.Revision
	ev  kv.Event // Prev always set where the key existed
}

// at is the state at rev.
func (m *model) at(rev kv.Revision) map[string]kv.KeyValue {
	state := map[string]kv.KeyValue{}
	for _, e := range m.events {
		if e.rev > rev {
			break
		}
		if e.ev.Type == kv.DeleteEvent {
			delete(state, string(e.ev.KV.Key))
		} else {
			state[string(e.ev.KV.Key)] = e.ev.KV
		}
	}
	return state
}

func (m *model) rangeAt(current, rev kv.Revision, r *kv.Range) kv.RangeResult {
	result := kv.RangeResult{Header: kv.Header{Revision: current}}
	for _, x := range m.at(rev) {
		if kv.InRange(x.Key, r.Key, r.End) {
			if !r.NoCount {
				result.Count++
			}
			if (r.MinMod == 0 || x.ModRevision >= r.MinMod) && (r.MaxMod == 0 || x.ModRevision <= r.MaxMod) &&
				(r.MinCreate == 0 || x.CreateRevision >= r.MinCreate) && (r.MaxCreate == 0 || x.CreateRevision <= r.MaxCreate) {
				result.KVs = append(result.KVs, x)
			}
		}
	}
	if r.CountOnly {
		result.KVs = nil
		return result
	}
	slices.SortFunc(result.KVs, func(a, b kv.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	by := func(a, b kv.KeyValue) int {
		switch r.Sort.By {
		case kv.SortByVersion:
			return int(a.Version - b.Version)
		case kv.SortByCreate:
			return int(a.CreateRevision - b.CreateRevision)
		case kv.SortByMod:
			return int(a.ModRevision - b.ModRevision)
		case kv.SortByValue:
			return bytes.Compare(a.Value, b.Value)
		}
		return bytes.Compare(a.Key, b.Key)
	}
	slices.SortStableFunc(result.KVs, func(a, b kv.KeyValue) int {
		if r.Sort.Order == kv.Descending {
			return by(b, a)
		}
		return by(a, b)
	})
	if r.Limit > 0 && int64(len(result.KVs)) > r.Limit {
		result.KVs, result.More = result.KVs[:r.Limit], true
	}
	if r.KeysOnly {
		for i := range result.KVs {
			result.KVs[i].Value = nil
		}
	}
	return result
}

func (m *model) changes(compacted, from, to kv.Revision, w *kv.WatchRequest) (out []modelEvent) {
	for _, e := range m.events {
		if e.rev < from || e.rev > to || !kv.InRange(e.ev.KV.Key, w.Key, w.End) {
			continue
		}
		if e.ev.Type == kv.PutEvent && w.NoPut || e.ev.Type == kv.DeleteEvent && w.NoDelete {
			continue
		}
		if !w.PrevKV || e.rev <= compacted {
			e.ev.Prev = nil
		}
		out = append(out, e)
	}
	return out
}

// world runs one random history on a store and a model.
type world struct {
	t     testing.TB
	rng   *rand.Rand
	s     *Store
	m     model
	views []View
	keys  int
	style int
}

func (w *world) key() []byte {
	n := w.rng.IntN(w.keys)
	switch w.style {
	case 1: // a long prefix for all
		return fmt.Appendf(nil, "/registry/a/very/long/prefix/%06d", n)
	case 2: // keys that are prefixes of others, and zero bytes
		return bytes.Repeat([]byte{byte(n % 3)}, 1+n/3%40)
	case 3:
		return fmt.Appendf(nil, "%x", n*2654435761)
	}
	return fmt.Appendf(nil, "k%d", n)
}

func (w *world) span() (key, end []byte) {
	switch w.rng.IntN(5) {
	case 0:
		return w.key(), nil
	case 1:
		return []byte{0}, []byte{0}
	case 2:
		return w.key(), []byte{0}
	case 3:
		k := w.key()
		k = k[:1+w.rng.IntN(len(k))]
		return k, kv.Prefix(k)
	}
	return w.key(), w.key()
}

func (w *world) value() []byte {
	n := w.rng.IntN(40)
	if w.rng.IntN(200) == 0 {
		n = w.rng.IntN(70_000)
	}
	if w.rng.IntN(1500) == 0 {
		n = largeRecord - 100 + w.rng.IntN(200)
	}
	return bytes.Repeat([]byte{byte(w.rng.IntN(256))}, n)
}

func same(a, b kv.KeyValue) bool {
	equal := bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value)
	a.Key, a.Value, b.Key, b.Value = nil, nil, nil, nil
	return equal && fmt.Sprint(a) == fmt.Sprint(b)
}

func sameResult(a, b kv.RangeResult) bool {
	return a.Header == b.Header && a.More == b.More && a.Count == b.Count && slices.EqualFunc(a.KVs, b.KVs, same)
}

func sameEvent(a, b modelEvent) bool {
	if (a.ev.Prev == nil) != (b.ev.Prev == nil) || a.ev.Prev != nil && !same(*a.ev.Prev, *b.ev.Prev) {
		return false
	}
	return a.rev == b.rev && a.ev.Type == b.ev.Type && same(a.ev.KV, b.ev.KV)
}

func brief[T any](x T) string {
	s := fmt.Sprintf("%+v", x)
	return s[:min(len(s), 3000)]
}

func (w *world) write() {
	tx := w.s.Begin()
	rev := w.m.rev + 1
	n := 1
	if w.rng.IntN(3) == 0 {
		n = w.rng.IntN(30)
	}
	state := w.m.at(w.m.rev)
	used := map[string]bool{}
	changed := false
	for range n {
		k := w.key()
		if used[string(k)] {
			continue
		}
		used[string(k)] = true
		old, existed := state[string(k)]
		got, ok := tx.Get(k)
		if ok != existed || existed && !same(got.Clone(), old) {
			w.t.Fatalf("Get(%q) in transaction = %v, %v; want %v, %v", k, got, ok, old, existed)
		}
		e := modelEvent{rev: rev}
		if existed {
			e.ev.Prev = &old
		}
		if w.rng.IntN(4) == 0 {
			prev, ok := tx.Delete(k)
			if ok != existed || existed && !same(prev.Clone(), old) {
				w.t.Fatalf("Delete(%q) = %v, %v; want %v, %v", k, prev, ok, old, existed)
			}
			if !existed {
				continue
			}
			e.ev.Type = kv.DeleteEvent
			e.ev.KV = kv.KeyValue{Key: k, ModRevision: rev}
			delete(state, string(k))
		} else {
			e.ev.KV = kv.KeyValue{Key: k, Value: w.value(), CreateRevision: rev, ModRevision: rev, Version: 1}
			if existed {
				e.ev.KV.CreateRevision, e.ev.KV.Version = old.CreateRevision, old.Version+1
			}
			if w.rng.IntN(5) == 0 {
				e.ev.KV.Lease = kv.LeaseID(w.rng.Int64())
			}
			if w.rng.IntN(5) == 0 {
				e.ev.KV.Expires = kv.Time(w.rng.Int64())
			}
			now, prev := tx.Put(k, e.ev.KV.Value, e.ev.KV.Lease, e.ev.KV.Expires)
			if !same(now.Clone(), e.ev.KV) || (prev.Version != 0) != existed || existed && !same(prev.Clone(), old) {
				w.t.Fatalf("Put(%q) = %v, %v; want %v, %v", k, now, prev, e.ev.KV, old)
			}
			state[string(k)] = e.ev.KV
		}
		changed = true
		w.m.events = append(w.m.events, e)
	}
	if changed && w.rng.IntN(4) == 0 {
		w.readInside(tx, rev)
	}
	if tx.Changed() != changed {
		w.t.Fatalf("Changed = %v, want %v", tx.Changed(), changed)
	}
	if got := tx.Commit(); changed && got != rev || !changed && got != w.m.rev {
		w.t.Fatalf("Commit = %d, want %d, changed %v", got, rev, changed)
	}
	if changed {
		w.m.rev = rev
	}
}

// readInside reads a range in a transaction that has changed something.
func (w *world) readInside(tx *Tx, rev kv.Revision) {
	r := w.request()
	got, err := tx.Range(r)
	w.m.rev++
	want := w.m.rangeAt(rev, rev, r)
	w.m.rev--
	if r.Revision == 0 && (err != nil || !sameResult(got, want)) {
		w.t.Fatalf("Range(%+v) in transaction: %v, got %s, want %s", r, err, brief(got), brief(want))
	}
}

func (w *world) request() *kv.Range {
	r := &kv.Range{}
	r.Key, r.End = w.span()
	some := func() kv.Revision {
		if w.rng.IntN(4) > 0 {
			return 0
		}
		return 1 + kv.Revision(w.rng.Int64N(int64(w.m.rev)))
	}
	if w.rng.IntN(3) == 0 {
		r.Limit = w.rng.Int64N(10)
	}
	if w.rng.IntN(3) == 0 {
		r.Sort = kv.Sort{By: kv.SortTarget(w.rng.IntN(5)), Order: kv.SortOrder(w.rng.IntN(3))}
	}
	if w.rng.IntN(3) == 0 {
		r.MinMod, r.MaxMod, r.MinCreate, r.MaxCreate = some(), some(), some(), some()
	}
	r.KeysOnly, r.CountOnly, r.NoCount = w.rng.IntN(6) == 0, w.rng.IntN(6) == 0, w.rng.IntN(3) == 0
	return r
}

// check compares what a view answers, at a random revision.
func (w *world) check(v View) {
	r := w.request()
	if w.rng.IntN(2) == 0 {
		r.Revision = kv.Revision(w.rng.Int64N(int64(v.rev) + 3))
	}
	got, err := v.Range(r)
	var compacted *kv.CompactedError
	switch {
	case r.Revision > v.rev:
		if !errors.Is(err, kv.ErrFutureRevision) {
			w.t.Fatalf("Range at %d of %d: %v", r.Revision, v.rev, err)
		}
	case r.Revision != 0 && r.Revision < v.compacted:
		if !errors.As(err, &compacted) || compacted.Compacted != v.compacted {
			w.t.Fatalf("Range at %d, compacted %d: %v", r.Revision, v.compacted, err)
		}
	default:
		at := r.Revision
		if at == 0 {
			at = v.rev
		}
		want := w.m.rangeAt(v.rev, at, r)
		if err != nil || !sameResult(got, want) {
			w.t.Fatalf("Range(%+v) at %d, view %d, compacted %d: %v, got %s, want %s", r, at, v.rev, v.compacted, err, brief(got), brief(want))
		}
		k := w.key()
		x, ok := v.Get(k, at)
		wx, wok := w.m.at(at)[string(k)]
		if ok != wok || !same(x, wx) {
			w.t.Fatalf("Get(%q, %d) = %v, %v; want %v, %v", k, at, x, ok, wx, wok)
		}
	}
	w.checkChanges(v)
	w.checkHistory(v)
}

func (w *world) checkChanges(v View) {
	q := &kv.WatchRequest{PrevKV: w.rng.IntN(2) == 0, NoPut: w.rng.IntN(5) == 0, NoDelete: w.rng.IntN(5) == 0}
	q.Key, q.End = w.span()
	from := 1 + kv.Revision(w.rng.Int64N(int64(v.rev)))
	to := kv.Revision(w.rng.Int64N(int64(v.rev) + 5))
	var got []modelEvent
	err := v.Changes(from, to, q, func(rev kv.Revision, ev kv.Event) bool {
		got = append(got, modelEvent{rev, ev})
		return true
	})
	if from < v.compacted {
		if !errors.Is(err, kv.ErrCompacted) {
			w.t.Fatalf("Changes from %d, compacted %d: %v", from, v.compacted, err)
		}
		return
	}
	if to == 0 || to > v.rev {
		to = v.rev
	}
	want := w.m.changes(v.compacted, from, to, q)
	if err != nil || !slices.EqualFunc(got, want, sameEvent) {
		w.t.Fatalf("Changes(%d, %d, %+v) compacted %d: %v, got %s, want %s", from, to, q, v.compacted, err, brief(got), brief(want))
	}
}

func (w *world) step() {
	switch n := w.rng.IntN(100); {
	case n < 60:
		w.write()
	case n < 65 && len(w.views) < 4:
		w.views = append(w.views, w.s.View())
	case n < 70 && len(w.views) > 0:
		i := w.rng.IntN(len(w.views))
		w.views[i].Close()
		w.views = slices.Delete(w.views, i, i+1)
	case n < 73 && w.m.rev > w.m.compacted+1:
		w.m.compacted += 1 + kv.Revision(w.rng.Int64N(int64(w.m.rev-w.m.compacted)))
		w.s.SetCompacted(w.m.compacted)
	case n < 85:
		w.s.CompactStep(w.rng.IntN(50))
	case n < 87:
		w.forceEmpty()
	case n < 88 && len(w.views) == 0:
		w.reload()
	case n < 94 && len(w.views) > 0:
		w.check(w.views[w.rng.IntN(len(w.views))])
	default:
		v := w.s.View()
		w.check(v)
		v.Close()
	}
}

// forceEmpty empties a page although there is no need.
func (w *world) forceEmpty() {
	s := w.s
	if s.compact.slot == 0 {
		s.versions.seal()
		s.survivors.seal()
		s.keys.seal()
		s.tree.leaves.seal()
		s.tree.inners.seal()
		for range 10 {
			slot := 1 + w.rng.Uint32N(s.mem.slots-1)
			p := s.mem.page(slot)
			if p.open || p.leaving || p.retired || p.maxRev >= int64(s.compact.next) || p.live == 0 {
				continue
			}
			if p.kind == pageFree || p.kind == pageIndex || p.kind == pageLarge {
				continue
			}
			s.compact.slot, s.compact.offset, s.compact.stuck, p.leaving = slot, 0, false, true
			s.tree.leaves.forget(slot)
			s.tree.inners.forget(slot)
			break
		}
	}
	budget := w.rng.IntN(100)
	if s.compact.slot != 0 {
		s.emptyPage(&budget)
	}
}

// reload goes on with a copy through a snapshot.
func (w *world) reload() {
	v := w.s.View()
	var buf bytes.Buffer
	if n, err := v.WriteTo(&buf); err != nil || n != int64(buf.Len()) {
		w.t.Fatalf("WriteTo = %d, %v; %d bytes", n, err, buf.Len())
	}
	v.Close()
	before := w.s.Stats()
	w.s.Close()
	first := bytes.Clone(buf.Bytes())
	w.s = New(Options{})
	if err := w.s.Load(&buf, 1+w.rng.IntN(3)); err != nil {
		w.t.Fatal(err)
	}
	after := w.s.Stats()
	if before.Keys != after.Keys || before.LiveBytes != after.LiveBytes {
		w.t.Fatalf("stats before %+v, after %+v", before, after)
	}
	v = w.s.View()
	var again bytes.Buffer
	if _, err := v.WriteTo(&again); err != nil || !bytes.Equal(again.Bytes()[headerSize:], first[headerSize:]) {
		w.t.Fatalf("a snapshot of a loaded snapshot differs: %v", err)
	}
	v.Close()
}

func (w *world) run(steps int) {
	w.s = New(Options{})
	w.m = model{rev: 1}
	for range steps {
		w.step()
		if got := w.s.Revision(); got != w.m.rev {
			w.t.Fatalf("revision %d, want %d", got, w.m.rev)
		}
		if got := w.s.CompactRevision(); got != w.m.compacted {
			w.t.Fatalf("compacted %d, want %d", got, w.m.compacted)
		}
	}
	for _, v := range w.views {
		w.check(v)
		v.Close()
	}
	checkStore(w.t, w.s)
	live := w.m.at(w.m.rev)
	if st := w.s.Stats(); st.Keys != int64(len(live)) {
		w.t.Fatalf("%d keys, want %d", st.Keys, len(live))
	}
	w.s.Close()
	if !w.s.unmapped.Load() {
		w.t.Fatal("memory is still mapped after Close")
	}
}

func runModel(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	w := &world{t: t, rng: rng, keys: []int{3, 40, 400}[rng.IntN(3)], style: rng.IntN(4)}
	w.run(400)
}

func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { runModel(t, seed) })
	}
}

// FuzzModel runs the model with seeds without end.
func FuzzModel(f *testing.F) {
	f.Add(uint64(1000))
	f.Fuzz(runModel)
}
