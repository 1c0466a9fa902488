package mvcc

import (
	"sync"
	"sync/atomic"

	"github.com/concord-kv/concord/kv"
)

// rememberedRevisions is how many touched revisions a watcher remembers one by
// one between two Takes.
const rememberedRevisions = 16

// Hub wakes watchers: those of one key through a hash, those of ranges through
// a tree of intervals, so a commit pays for the watchers of what it touched and
// not for others. Any goroutine.
type Hub struct {
	s      *Store
	active atomic.Int64 // watchers
	// settled is the revision up to which all watchers have been woken.
	settled atomic.Int64

	mu     sync.Mutex
	keys   map[string]*watchers
	ranges intervals
}

// watchers are all that watch one key or one range.
type watchers struct {
	key, end string
	list     []*Watcher
}

// Watcher is told when its range is touched. One goroutine uses it.
type Watcher struct {
	// C receives a value when the range was touched since the last Take.
	C <-chan struct{}

	hub  *Hub
	wake chan struct{}
	in   *watchers
	at   int // in in.list

	// Guarded by hub.mu.
	first, last kv.Revision
	count       int // of revisions since the last Take
	revs        [rememberedRevisions]kv.Revision
}

func newHub(s *Store) *Hub { return &Hub{s: s, keys: map[string]*watchers{}} }

// Watchers counts those that are open.
func (h *Hub) Watchers() int64 { return h.active.Load() }

// Register makes a watcher of the keys that key and end select. A change that
// is committed later wakes it; every earlier one is in any view opened after
// Register has returned. Some may be both; the watcher's cursor tells.
func (h *Hub) Register(key, end []byte) *Watcher {
	w := &Watcher{hub: h, wake: make(chan struct{}, 1)}
	w.C = w.wake
	h.mu.Lock()
	defer h.mu.Unlock()
	h.active.Add(1)
	if len(end) == 0 {
		in := h.keys[string(key)]
		if in == nil {
			in = &watchers{key: string(key)}
			h.keys[in.key] = in
		}
		w.in = in
	} else {
		if kv.FromKey(end) {
			end = nil
		}
		w.in = h.ranges.insert(string(key), string(end))
	}
	w.at = len(w.in.list)
	w.in.list = append(w.in.list, w)
	return w
}

// Settled returns a revision up to which every watcher has been woken, if it was
// registered before: with nothing to Take after this call, a watcher has seen all
// changes up to there. (The current revision may be one ahead of it.)
func (h *Hub) Settled() kv.Revision { return kv.Revision(h.settled.Load()) }

// Close ends the registration. C is not closed.
func (w *Watcher) Close() {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if w.in == nil {
		return
	}
	in := w.in
	w.in = nil
	h.active.Add(-1)
	last := in.list[len(in.list)-1]
	in.list[w.at], last.at = last, w.at
	in.list[len(in.list)-1] = nil
	in.list = in.list[:len(in.list)-1]
	if len(in.list) > 0 {
		return
	}
	if h.keys[in.key] == in {
		delete(h.keys, in.key)
	} else {
		h.ranges.remove(in)
	}
}

// Revision is the latest revision that touched the range since Register; 0 when
// none has.
func (w *Watcher) Revision() kv.Revision {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	return w.last
}

// Take appends to dst the revisions that touched the range since the last Take,
// ascending. When all is true these are all of them, so that one Changes call
// for each suffices; else they were too many to remember and dst got the first
// and the last, between which to read.
func (w *Watcher) Take(dst []kv.Revision) (revs []kv.Revision, all bool) {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	select {
	case <-w.wake:
	default:
	}
	n := w.count
	w.count = 0
	if n > rememberedRevisions {
		return append(dst, w.first, w.last), false
	}
	return append(dst, w.revs[:n]...), true
}

// touch is called with hub.mu held.
func (w *Watcher) touch(rev kv.Revision) {
	if w.count > 0 && w.last == rev {
		return
	}
	w.last = rev
	if w.count == 0 {
		w.first = rev
	}
	if w.count < rememberedRevisions {
		w.revs[w.count] = rev
	}
	w.count++
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// committed wakes the watchers of the versions' keys.
func (h *Hub) committed(rev kv.Revision, touched []ref) {
	if h.active.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range touched {
		key := h.s.key(h.s.version(r).key()).bytes()
		if in := h.keys[string(key)]; in != nil {
			in.touch(rev)
		}
		h.ranges.stab(key, func(in *watchers) { in.touch(rev) })
	}
}

func (in *watchers) touch(rev kv.Revision) {
	for _, w := range in.list {
		w.touch(rev)
	}
}
