package mvcc

import (
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Changes yields the changes of a range's keys at from to to, both included, in
// revision order and within a revision in the order they were made, until yield
// returns false; to 0 means the view's revision, and a later one too. prev fills
// Event.Prev where the key existed before and that revision can still be read.
// Events are copies.
//
// For one key it costs as much as that key's own changes since from; for a range
// as much as all changes at from to to, so a watcher that knows which revisions
// touched its range (see [Watcher.Take]) asks for these only.
//
// It returns a [kv.CompactedError] when from lies below CompactRevision, and
// [kv.ErrClosed].
func (v View) Changes(from, to kv.Revision, w *kv.WatchRequest, yield func(kv.Revision, kv.Event) bool) error {
	switch {
	case !v.open:
		return kv.ErrClosed
	case from < v.compacted:
		return &kv.CompactedError{Compacted: v.compacted}
	}
	if to == 0 || to > v.rev {
		to = v.rev
	}
	from = max(from, 1)
	s := v.s
	if len(w.End) == 0 && (from != to || s.index.get(from)&entryList != 0) {
		v.keyChanges(from, to, w, yield)
		return nil
	}
	var buf [1]uint64
	for rev := from; rev <= to; rev++ {
		for _, r := range s.entryRefs(s.index.get(rev), &buf) {
			c := s.version(ref(r))
			k := s.key(c.key())
			if kv.InRange(k.bytes(), w.Key, w.End) && wanted(w, c) && !yield(rev, v.event(k, c, w.PrevKV)) {
				return nil
			}
		}
	}
	return nil
}

func wanted(w *kv.WatchRequest, c version) bool {
	if c.tombstone() {
		return !w.NoDelete
	}
	return !w.NoPut
}

// keyChanges walks back from a key's newest version.
func (v View) keyChanges(from, to kv.Revision, w *kv.WatchRequest, yield func(kv.Revision, kv.Event) bool) {
	s := v.s
	r := s.hash.find(s.hash.sum(w.Key), w.Key)
	if r == 0 {
		return
	}
	k := s.key(r)
	var refs []ref
	for r := k.newest(); r != 0; {
		c := s.version(r)
		mod := c.mod()
		if mod < from {
			break
		}
		if mod <= to && wanted(w, c) {
			refs = append(refs, r)
		}
		r = c.prev()
	}
	for _, r := range slices.Backward(refs) {
		c := s.version(r)
		if !yield(c.mod(), v.event(k, c, w.PrevKV)) {
			return
		}
	}
}

// event copies the change c of key k.
func (v View) event(k keyRecord, c version, prev bool) (ev kv.Event) {
	rec := record(k, c)
	if c.tombstone() {
		ev.Type = kv.DeleteEvent
		ev.KV = kv.KeyValue{Key: append([]byte(nil), rec.Key...), ModRevision: rec.ModRevision}
	} else {
		ev.KV = rec.Clone()
	}
	// The state before can be read at the revision before, if that is kept.
	// What lies physically below must not show: members differ in that.
	if !prev || c.mod() <= v.compacted {
		return ev
	}
	if r := c.prev(); r != 0 {
		if p := v.s.version(r); !p.tombstone() {
			old := record(k, p).Clone()
			ev.Prev = &old
		}
	}
	return ev
}
