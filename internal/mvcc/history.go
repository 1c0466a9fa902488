package mvcc

import (
	"cmp"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// History yields all that can be read through the view at CompactRevision and
// above, up to the revision to (0: the view's), in the order of revisions and
// within one in the order of the transaction, counted by sub. Of the revisions
// below CompactRevision it yields what holds there: in key order within one,
// because where in its transaction such a version stood is not part of the
// state. What is yielded lies in the store's pages: it must not be changed or
// kept. Beside the view it takes eight bytes for each key that was last changed
// below CompactRevision.
//
// It returns a [kv.CompactedError] when to lies below CompactRevision,
// [kv.ErrFutureRevision] when it lies above the view's, and [kv.ErrClosed].
func (v View) History(to kv.Revision, yield func(sub int64, ev kv.Event) bool) error {
	if to == 0 {
		to = v.rev
	}
	switch {
	case !v.open:
		return kv.ErrClosed
	case to < v.compacted:
		return &kv.CompactedError{Compacted: v.compacted}
	case to > v.rev:
		return kv.ErrFutureRevision
	}
	if !v.base(yield) {
		return nil
	}
	s := v.s
	var buf [1]uint64
	for rev := max(v.compacted, 1); rev <= to; rev++ {
		for i, r := range s.entryRefs(s.index.get(rev), &buf) {
			c := s.version(ref(r))
			if !yield(int64(i), shown(s.key(c.key()), c)) {
				return nil
			}
		}
	}
	return nil
}

// base yields what holds at the compacted revision and was written before it.
func (v View) base(yield func(sub int64, ev kv.Event) bool) bool {
	if v.compacted == 0 {
		return true
	}
	s := v.s
	var refs []ref
	s.scan([]byte{0}, []byte{0}, v.compacted, func(found []found) bool {
		for _, f := range found {
			if s.version(f.version).mod() < v.compacted {
				refs = append(refs, f.version)
			}
		}
		return true
	})
	slices.SortStableFunc(refs, func(a, b ref) int { return cmp.Compare(s.version(a).mod(), s.version(b).mod()) })
	var last kv.Revision
	var sub int64
	for _, r := range refs {
		c := s.version(r)
		if sub++; c.mod() != last {
			last, sub = c.mod(), 0
		}
		if !yield(sub, shown(s.key(c.key()), c)) {
			return false
		}
	}
	return true
}

// shown is the change c of key k, without copying.
func shown(k keyRecord, c version) (ev kv.Event) {
	rec := record(k, c)
	if c.tombstone() {
		return kv.Event{Type: kv.DeleteEvent, KV: kv.KeyValue{Key: rec.Key, ModRevision: rec.ModRevision}}
	}
	return kv.Event{KV: rec.KeyValue}
}
