package mvcc

import (
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

const (
	// maxWalk bounds how far a record's neighbours are looked for when it is
	// to be moved; records of keys with more versions stay until compaction
	// has shortened them.
	maxWalk = 128
	// stuckFor is for how many compacted revisions a page is left alone when
	// something in it could not be moved.
	stuckFor = 1024
	// Pages are emptied when more than a seventh of all bytes in pages of keys
	// and versions, and more than slackBytes, are dead: so memory stays within
	// 1/(1-1/7) = 1.17 of what lives, and a steady load moves few records.
	deadShare  = 7
	slackBytes = 2 * pageSize
)

// compaction is the writer's progress at removing history.
type compaction struct {
	// later waits to become pending, which waits until no reader is left who
	// may read below it; then it is target. 0 is none.
	later, pending kv.Revision
	pendingEpoch   uint64
	target         kv.Revision

	// Below next everything is done; of next itself the first at versions,
	// with their tombstones if final.
	next  kv.Revision
	at    int
	final bool
	edge  kv.Revision // done, but for its tombstones

	// dead are the bytes of records that serve nothing, in pages of keys and
	// versions that are not retired.
	dead int64
	// slot is the page being emptied, up to offset; stuck is set when
	// something stays in it.
	slot   uint32
	offset uint32
	stuck  bool
	// Pages are searched again when there is this much dead or this much done.
	searchDead int64
	searchNext kv.Revision
}

// SetCompacted makes rev the oldest revision that can be read, at once for views
// opened from now on. The caller has checked that rev is above CompactRevision
// and at most Revision; else it panics. Memory is given back by CompactStep.
func (s *Store) SetCompacted(rev kv.Revision) {
	if rev <= s.CompactRevision() || rev > s.Revision() {
		panic("mvcc: a compaction got past the checks")
	}
	s.compacted.Store(int64(rev))
	s.compact.later = rev
	s.promote()
}

// promote makes what is pending the target as soon as no reader is in its way.
func (s *Store) promote() {
	c := &s.compact
	for range 2 {
		if c.pending == 0 {
			if c.later == 0 {
				return
			}
			c.pending, c.later = c.later, 0
			c.pendingEpoch = s.epochs.current.Load()
		}
		// Readers of the pending epoch may have seen the older revision.
		for s.epochs.current.Load() < c.pendingEpoch+2 {
			if !s.epochs.advance() {
				return
			}
		}
		c.target, c.pending = c.pending, 0
	}
}

// CompactStep visits about budget records to remove history, empty sparse pages
// and give memory back. It reports whether there is more to do at once; what open
// views hold back comes when it is called again after they are closed.
func (s *Store) CompactStep(budget int) (more bool) {
	if s.tx.open {
		panic("mvcc: a compaction step within a transaction")
	}
	more = s.reclaim(budget)
	s.promote()
	more = s.removeHistory(&budget) || more
	more = s.hash.shrink() || more
	for budget > 0 && s.choosePage() {
		s.emptyPage(&budget)
	}
	more = more || s.compact.slot != 0
	more = s.reclaim(retireBatch) || more
	s.counts.pinned.Store(s.retired.pages)
	return more
}

// removeHistory goes through the revisions up to target. What a version
// superseded cannot be read from its revision on. A tombstone is history itself
// once target is above it; at target it is still an event.
func (s *Store) removeHistory(budget *int) (more bool) {
	c := &s.compact
	var buf [1]uint64
	for c.next <= c.target {
		final := c.next < c.target
		if !final && c.edge == c.next {
			return false
		}
		if final != c.final {
			c.at, c.final = 0, final
		}
		entry := s.index.get(c.next)
		refs := s.entryRefs(entry, &buf)
		for ; c.at < len(refs); c.at++ {
			if *budget <= 0 {
				return true
			}
			*budget--
			s.removeBelow(ref(refs[c.at]), final)
		}
		c.at = 0
		if !final {
			c.edge = c.next
			return false
		}
		if entry&entryList != 0 {
			list := ref(entry & refMask)
			size := version{(*[8]uint64)(s.mem.at(list))}.size()
			s.mem.words(list)[0] |= flagDead
			s.kill(list, size)
		}
		c.next++
		if c.next&offMask == 0 {
			s.index.drop(s, c.next)
		}
		if *budget--; *budget <= 0 {
			return true
		}
	}
	return false
}

// removeBelow frees what the version at r superseded and, when final, its key
// if that is deleted.
func (s *Store) removeBelow(r ref, final bool) {
	v := s.version(r)
	if p := v.prev(); p != 0 {
		v.setPrev(0)
		s.forgetVersion(p)
	}
	if !final || !v.tombstone() {
		return
	}
	kr := v.key()
	k := s.key(kr)
	if k.newest() != r {
		return // goes with the version that superseded it
	}
	key := k.bytes()
	s.hash.replace(s.hash.sum(key), kr, 0)
	s.tree.remove(key)
	s.forgetVersion(r)
	s.killKey(kr)
}

func (s *Store) forgetVersion(r ref) {
	add(&s.counts.history, -s.version(r).size())
	add(&s.counts.versions, -1)
	s.killVersion(r)
}

// choosePage finds the sparsest page when emptying one is worth while.
func (s *Store) choosePage() bool {
	c := &s.compact
	if c.slot != 0 {
		return true
	}
	total := s.mem.kinds[pageKeys].Load() + s.mem.kinds[pageVersions].Load()
	records := c.dead > max(slackBytes, total/deadShare) && (c.dead >= c.searchDead || c.next >= c.searchNext)
	leaves, inners := s.tree.leaves.sparse(), s.tree.inners.sparse()
	if !records && !leaves && !inners {
		return false
	}
	best, share := uint32(0), 0.9
	for slot := uint32(1); slot < s.mem.slots; slot++ {
		p := s.mem.page(slot)
		switch {
		case p.open || p.leaving || p.retired || p.maxRev >= int64(c.next):
			continue
		case p.kind == pageKeys || p.kind == pageVersions:
			if !records {
				continue
			}
			if p.live == 0 {
				s.retireEmpty(slot)
				continue
			}
		case !(p.kind == pageLeaves && leaves || p.kind == pageInners && inners):
			continue
		}
		if f := float64(p.live) / float64(p.top); f < share {
			best, share = slot, f
		}
	}
	if best == 0 {
		c.searchDead, c.searchNext = c.dead+pageSize, c.next+stuckFor
		s.tree.leaves.rest()
		s.tree.inners.rest()
		return false
	}
	c.slot, c.offset, c.stuck = best, 0, false
	c.searchDead, c.searchNext = 0, 0
	p := s.mem.page(best)
	p.leaving = true
	switch p.kind {
	case pageLeaves:
		s.tree.leaves.forget(best)
	case pageInners:
		s.tree.inners.forget(best)
	}
	return true
}

// emptyPage moves what lives in the chosen page, as far as budget goes.
func (s *Store) emptyPage(budget *int) {
	c := &s.compact
	p := s.mem.page(c.slot)
	if p.retired || !p.leaving { // what lived there has died since
		c.slot = 0
		return
	}
	for c.offset < p.top {
		if *budget <= 0 {
			return
		}
		*budget--
		r := ref(c.slot)<<offBits | ref(c.offset>>unitShift)
		size, moved := int64(0), true
		switch p.kind {
		case pageVersions:
			v := s.version(r)
			size = v.size()
			if v.head()&(flagDead|flagList) == 0 {
				moved = s.moveVersion(r, v, size)
			}
		case pageKeys:
			k := s.key(r)
			size = k.size()
			if k.w[0]&keyDead == 0 {
				moved = s.moveKey(r, k)
			}
		case pageLeaves:
			size = leafSize
			moved = s.tree.leaf(r).head&nodeLive == 0 || s.tree.moveLeaf(r)
		case pageInners:
			size = innerSize
			moved = s.tree.inner(r).head&nodeLive == 0 || s.tree.moveInner(r)
		}
		c.stuck = c.stuck || !moved
		c.offset += uint32(size)
	}
	if c.stuck {
		p.leaving = false
		p.maxRev = int64(c.next) + stuckFor
	} else {
		s.retireEmpty(c.slot)
	}
	c.slot = 0
}

// moveVersion copies a version, the oldest of its key, and leads the only
// reference to the copy. Readers on the old one read on there.
func (s *Store) moveVersion(r ref, v version, size int64) bool {
	k := s.key(v.key())
	at := k.newest()
	var above version
	for steps := 0; at != r; steps++ {
		if at == 0 || steps == maxWalk {
			return false
		}
		above = s.version(at)
		at = above.prev()
	}
	to, p := s.survivors.alloc(size)
	s.survivors.maxRev = max(s.survivors.maxRev, int64(v.mod()))
	copy(unsafe.Slice((*byte)(p), size), unsafe.Slice((*byte)(unsafe.Pointer(v.w)), size))
	if above.w == nil {
		k.setNewest(to)
	} else {
		above.setPrev(to)
	}
	s.killVersion(r)
	return true
}

// moveKey copies a key record or a separator and leads all references to the
// copy. A reader on the old record finds there what was newest when it came.
func (s *Store) moveKey(r ref, k keyRecord) bool {
	if k.w[1]&keySeparator != 0 {
		to, _ := newKey(&s.keys, k.bytes(), 0, keySeparator)
		s.tree.moveSeparator(k.bytes(), r, to)
		s.killKey(r)
		return true
	}
	steps := 0
	for v := k.newest(); v != 0; v = s.version(v).prev() {
		if steps++; steps > maxWalk {
			return false
		}
	}
	key := k.bytes()
	to, copied := newKey(&s.keys, key, k.hash(), 0)
	copied.setNewest(k.newest())
	for v := k.newest(); v != 0; v = s.version(v).prev() {
		s.version(v).setKey(to)
	}
	s.hash.replace(s.hash.sum(key), r, to)
	s.tree.moveKey(key, r, to)
	s.killKey(r)
	return true
}
