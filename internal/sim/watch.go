package sim

import (
	"errors"
	"fmt"
	"slices"

	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
)

// watcher follows a range of keys as Node.Watch does, with a cursor over one
// history, from member to member. It must see every change once, whole and in
// order.
type watcher struct {
	w        *world
	id       int
	ask      kv.WatchRequest
	cursor   kv.Revision // the next revision to see
	at       *node
	life     uint64
	hub      *mvcc.Watcher
	replaced <-chan struct{}
	lazy     bool // reads seldom: compaction overtakes it
}

func (w *world) startWatcher(i int) {
	x := &watcher{w: w, id: i, cursor: 1, lazy: w.load.is(0.3)}
	x.ask = kv.WatchRequest{Key: []byte("k"), End: []byte("l"), PrevKV: w.load.is(0.5)}
	if w.load.is(0.5) {
		x.ask.Key, x.ask.End = []byte(w.key()), nil
	}
	w.people.watchers = append(w.people.watchers, x)
}

// wakeWatchers lets the watchers at a node look after it applied something.
func (w *world) wakeWatchers(n *node) {
	for _, x := range w.people.watchers {
		if x.at == nil || !x.at.up() || x.at.life != x.life || w.load.is(0.001) {
			x.attach(w.nodes[w.load.IntN(len(w.nodes))])
		}
		if x.at == n && (!x.lazy || w.load.is(0.02)) {
			x.look()
		}
	}
}

// attach goes to another member and looks there from where it stands.
func (x *watcher) attach(n *node) {
	x.detach()
	if !n.up() {
		return
	}
	x.at, x.life = n, n.life
	x.hub, x.replaced = n.proc.machine.Watch(x.ask.Key, x.ask.End)
	x.read()
}

func (x *watcher) detach() {
	if x.hub != nil {
		x.hub.Close()
	}
	x.at, x.hub = nil, nil
}

// look reads if it was woken; if it was not, nothing may have happened.
func (x *watcher) look() {
	select {
	case <-x.replaced:
		x.attach(x.at)
		return
	default:
	}
	before := x.cursor
	revs, all := x.hub.Take(nil)
	if seen := x.read(); seen == 0 {
		return
	}
	for rev := before; rev < x.cursor; rev++ {
		touched := slices.ContainsFunc(x.w.model.changes[rev], func(c change) bool { return kv.InRange([]byte(c.key), x.ask.Key, x.ask.End) })
		if touched && (all && !slices.Contains(revs, rev) || len(revs) == 0 || rev < revs[0] || rev > revs[len(revs)-1]) {
			violate("watcher %d at %s was told of revisions %v (all %v), but %d touched its range", x.id, x.at, revs, all, rev)
		}
	}
}

// read yields what happened since the cursor, and holds it against the model.
func (x *watcher) read() (seen int) {
	v := x.at.proc.machine.View()
	defer v.Close()
	to := v.Header().Revision
	if to < x.cursor {
		return 0 // this member is behind: the watch is held
	}
	want := x.expected(to)
	seen = 0
	err := v.Changes(x.cursor, to, &x.ask, func(rev kv.Revision, ev kv.Event) bool {
		if seen >= len(want) {
			violate("watcher %d at %s sees %v of %q at revision %d, which is too much", x.id, x.at, ev.Type, ev.KV.Key, rev)
		}
		x.compare(rev, &ev, &want[seen])
		seen++
		return true
	})
	switch {
	case errors.Is(err, kv.ErrCompacted):
		if x.cursor >= x.w.model.compacted {
			violate("watcher %d is told that %d is compacted, but that is %d", x.id, x.cursor, x.w.model.compacted)
		}
		x.cursor = x.w.model.rev + 1
		return 0
	case err != nil:
		violate("watcher %d: %v", x.id, err)
	case seen != len(want):
		violate("watcher %d at %s missed %d of %d changes in %d to %d", x.id, x.at, len(want)-seen, len(want), x.cursor, to)
	}
	x.cursor = to + 1
	x.w.tally.watched += seen
	return seen
}

// expected are the changes in range from the cursor on.
func (x *watcher) expected(to kv.Revision) (out []change) {
	if to > x.w.model.rev {
		violate("watcher %d: %s is at revision %d, but only %d was ever committed", x.id, x.at, to, x.w.model.rev)
	}
	for rev := x.cursor; rev <= to; rev++ {
		for _, c := range x.w.model.changes[rev] {
			if kv.InRange([]byte(c.key), x.ask.Key, x.ask.End) {
				out = append(out, c)
			}
		}
	}
	return out
}

func (x *watcher) compare(rev kv.Revision, ev *kv.Event, want *change) {
	same := rev == want.kv.ModRevision && (ev.Type == kv.DeleteEvent) == want.deleted && sameKV(ev.KV, want.kv)
	prev, existed := x.w.model.at(want.key, rev-1)
	switch {
	case same && ev.Prev != nil:
		same = existed && sameKV(prev, *ev.Prev)
	case x.ask.PrevKV && existed && rev > x.w.model.compacted:
		same = false // it can still be read, so it is told
	}
	if !same {
		violate("watcher %d at %s sees %v %s at revision %d; the model has %s (deleted %v)",
			x.id, x.at, ev.Type, describeKVs([]kv.KeyValue{ev.KV}), rev, describeKVs([]kv.KeyValue{want.kv}), want.deleted)
	}
}

// String names the watcher in traces.
func (x *watcher) String() string { return fmt.Sprintf("watcher %d", x.id) }
