package mvcc

import (
	"bytes"
	"errors"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// subEvent is what [View.History] yields.
type subEvent struct {
	modelEvent
	sub int64
}

// history is what a view that was compacted there must yield up to to.
func (m *model) history(compacted, to kv.Revision) (out []subEvent) {
	if compacted > 0 {
		for _, k := range m.at(compacted) {
			if k.ModRevision < compacted {
				out = append(out, subEvent{modelEvent{rev: k.ModRevision, ev: kv.Event{KV: k}}, 0})
			}
		}
		slices.SortFunc(out, func(a, b subEvent) int {
			if a.rev != b.rev {
				return int(a.rev - b.rev)
			}
			return bytes.Compare(a.ev.KV.Key, b.ev.KV.Key)
		})
	}
	for _, e := range m.events {
		if e.rev >= compacted && e.rev <= to {
			e.ev.Prev = nil
			out = append(out, subEvent{e, 0})
		}
	}
	for i := range out {
		if i > 0 && out[i].rev == out[i-1].rev {
			out[i].sub = out[i-1].sub + 1
		}
	}
	return out
}

func (w *world) checkHistory(v View) {
	to := kv.Revision(w.rng.Int64N(int64(v.rev) + 2))
	var got []subEvent
	err := v.History(to, func(sub int64, ev kv.Event) bool {
		ev.KV = ev.KV.Clone()
		got = append(got, subEvent{modelEvent{ev.KV.ModRevision, ev}, sub})
		return true
	})
	switch {
	case to > v.rev:
		if !errors.Is(err, kv.ErrFutureRevision) {
			w.t.Fatalf("History to %d of %d: %v", to, v.rev, err)
		}
		return
	case to == 0:
		to = v.rev
	case to < v.compacted:
		if !errors.Is(err, kv.ErrCompacted) {
			w.t.Fatalf("History to %d, compacted %d: %v", to, v.compacted, err)
		}
		return
	}
	want := w.m.history(v.compacted, to)
	if err != nil || !slices.EqualFunc(got, want, func(a, b subEvent) bool { return a.sub == b.sub && sameEvent(a.modelEvent, b.modelEvent) }) {
		w.t.Fatalf("History to %d, compacted %d: %v, got %s, want %s", to, v.compacted, err, brief(got), brief(want))
	}
	if len(want) > 0 {
		stop, seen := w.rng.IntN(len(want)), 0
		_ = v.History(to, func(int64, kv.Event) bool { seen++; return seen <= stop })
		if seen != stop+1 {
			w.t.Fatalf("History went on after it was told to stop: %d of %d", seen, stop)
		}
	}
}
