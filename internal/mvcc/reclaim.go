package mvcc

import "unsafe"

type retiredKind uint8

const (
	retiredPage retiredKind = iota
	retiredLeaf
	retiredInner
	retiredTable
)

// retired is something taken out of the structures that a reader may still
// stand on. It is used again two epochs later.
type retired struct {
	kind  retiredKind
	epoch uint64
	ref   ref // of the node, or of the page's first byte
	base  unsafe.Pointer
	size  int64
}

// retireBatch is after how many retired things a commit looks whether some can
// be used again.
const retireBatch = 128

// retireList is a queue; its owner is the writer.
type retireList struct {
	items []retired
	first int
	pages int64 // bytes of pages and tables in it
}

func (s *Store) retire(r retired) {
	r.epoch = s.epochs.current.Load()
	l := &s.retired
	if r.kind == retiredPage || r.kind == retiredTable {
		l.pages += r.size
	}
	l.items = append(l.items, r)
}

// reclaim makes up to n retired things usable again, if no reader can see them,
// and reports whether it was stopped by n.
func (s *Store) reclaim(n int) (more bool) {
	l := &s.retired
	for l.first < len(l.items) {
		if n--; n < 0 {
			return true
		}
		r := &l.items[l.first]
		for s.epochs.current.Load() < r.epoch+2 {
			if !s.epochs.advance() {
				l.compact()
				return false
			}
		}
		l.first++
		switch r.kind {
		case retiredPage:
			l.pages -= r.size
			s.mem.freePage(r.ref.slot())
		case retiredLeaf:
			s.tree.leaves.release(r.ref)
		case retiredInner:
			s.tree.inners.release(r.ref)
		case retiredTable:
			l.pages -= r.size
			unmapMemory(r.base, r.size)
			s.mem.mapped.Add(-r.size)
		}
	}
	l.compact()
	return false
}

func (l *retireList) compact() {
	if l.first == len(l.items) {
		l.items, l.first = l.items[:0], 0
		if cap(l.items) > 1<<16 {
			l.items = nil
		}
	} else if l.first > len(l.items)/2 {
		l.items = append(l.items[:0], l.items[l.first:]...)
		l.first = 0
	}
}

// kill tells the page of r that size bytes of it serve nothing any more. The
// last one retires the page.
func (s *Store) kill(r ref, size int64) {
	p := s.mem.page(r.slot())
	p.live -= size
	if p.kind != pageLarge {
		s.compact.dead += size
	}
	s.retireEmpty(r.slot())
}

func (s *Store) retireEmpty(slot uint32) {
	p := s.mem.page(slot)
	if p.live == 0 && !p.open && !p.retired {
		p.retired = true
		if p.kind == pageKeys || p.kind == pageVersions {
			s.compact.dead -= int64(p.top)
		}
		s.retire(retired{kind: retiredPage, ref: ref(slot) << offBits, size: p.size})
	}
}

func (s *Store) killVersion(r ref) {
	v := s.version(r)
	size := v.size()
	v.setHead(v.head() | flagDead)
	s.kill(r, size)
}

func (s *Store) killKey(r ref) {
	k := s.key(r)
	k.setNewest(k.newest() | keyDead)
	s.kill(r, k.size())
}

// slab allocates tree nodes, all of one size.
type slab struct {
	s    *Store
	kind pageKind
	size int64
	free []ref
	slot uint32 // page whose upper part is untouched
	calm int    // no search for a sparse page below this many free nodes
}

// sparse reports whether more than a quarter of the nodes, and of a page, is free.
func (b *slab) sparse() bool {
	free, all := int64(len(b.free))*b.size, b.s.mem.kinds[b.kind].Load()
	if free < pageSize/2 {
		b.calm = 0
	}
	return free > max(pageSize, all/4) && len(b.free) > b.calm
}

// rest is called when no page was worth emptying.
func (b *slab) rest() { b.calm = len(b.free) + int(pageSize/b.size) }

func (b *slab) alloc() ref {
	for n := len(b.free); n > 0; n = len(b.free) {
		r := b.free[n-1]
		b.free = b.free[:n-1]
		if p := b.s.mem.page(r.slot()); p.kind == b.kind && !p.leaving && !p.retired {
			p.live += b.size
			return r
		}
	}
	if b.slot == 0 || int64(b.s.mem.page(b.slot).top)+b.size > pageSize {
		b.seal()
		b.slot = b.s.mem.newPage(b.kind, pageSize)
		b.s.mem.page(b.slot).open = true
	}
	p := b.s.mem.page(b.slot)
	r := ref(b.slot)<<offBits | ref(p.top>>unitShift)
	p.top += uint32(b.size)
	p.live += b.size
	return r
}

func (b *slab) seal() {
	if b.slot != 0 {
		b.s.mem.page(b.slot).open = false
		b.s.mem.filled(b.slot)
		b.s.retireEmpty(b.slot)
		b.slot = 0
	}
}

// release takes a node back that nobody can see any more.
func (b *slab) release(r ref) {
	p := b.s.mem.page(r.slot())
	*b.head(r) &^= nodeLive
	p.live -= b.size
	if p.leaving {
		b.s.retireEmpty(r.slot())
		return
	}
	b.free = append(b.free, r)
}

// head is the word of a node that has nodeLive.
func (b *slab) head(r ref) *uint64 {
	if b.kind == pageLeaves {
		return &b.s.tree.leaf(r).head
	}
	return &b.s.tree.inner(r).head
}

// forget drops the free nodes of a page that is leaving.
func (b *slab) forget(slot uint32) {
	kept := b.free[:0]
	for _, r := range b.free {
		if r.slot() != slot {
			kept = append(kept, r)
		}
	}
	b.free = kept
}
