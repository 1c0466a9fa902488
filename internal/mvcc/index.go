package mvcc

import (
	"sync/atomic"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

// entryList marks an index entry that refers to a list of versions.
const entryList = 1 << 63

// revIndex leads from a revision to its versions: an array with an entry a
// revision, from the oldest kept on, in pages. An entry is the reference of the
// only version or of a list record; 0 where nothing is kept.
type revIndex struct {
	mem *arena
	dir atomic.Pointer[indexDir]
}

// indexDir lists the pages; readers load it whole. It is replaced every 2^18
// revisions.
type indexDir struct {
	first uint64 // revision >> offBits of pages[0]
	pages []ref
}

func (x *revIndex) init(mem *arena) {
	x.mem = mem
	x.dir.Store(&indexDir{})
}

func (x *revIndex) slot(rev kv.Revision) *uint64 {
	d := x.dir.Load()
	i := uint64(rev)>>offBits - d.first
	if i >= uint64(len(d.pages)) || d.pages[i] == 0 {
		return nil
	}
	return (*uint64)(x.mem.at(d.pages[i] + ref(rev)&offMask))
}

// get returns the entry of rev.
func (x *revIndex) get(rev kv.Revision) uint64 {
	if p := x.slot(rev); p != nil {
		return atomic.LoadUint64(p)
	}
	return 0
}

func (x *revIndex) set(rev kv.Revision, entry uint64) {
	p := x.slot(rev)
	if p == nil {
		x.grow(rev)
		p = x.slot(rev)
	}
	atomic.StoreUint64(p, entry)
}

// grow adds the page of rev, which lies behind all others or between them.
func (x *revIndex) grow(rev kv.Revision) {
	d := x.dir.Load()
	n := uint64(rev) >> offBits
	next := &indexDir{first: d.first, pages: append([]ref(nil), d.pages...)}
	if len(next.pages) == 0 {
		next.first = n
	}
	for ; n < next.first; next.first-- {
		next.pages = append([]ref{0}, next.pages...)
	}
	for n-next.first >= uint64(len(next.pages)) {
		next.pages = append(next.pages, 0)
	}
	slot := x.mem.newPage(pageIndex, pageSize)
	next.pages[n-next.first] = ref(slot) << offBits
	x.dir.Store(next)
}

// drop retires the pages that lie wholly below rev.
func (x *revIndex) drop(s *Store, rev kv.Revision) {
	d := x.dir.Load()
	n := uint64(rev)>>offBits - d.first
	if uint64(rev)>>offBits <= d.first || len(d.pages) == 0 {
		return
	}
	n = min(n, uint64(len(d.pages)))
	x.dir.Store(&indexDir{first: d.first + n, pages: d.pages[n:]})
	for _, r := range d.pages[:n] {
		if r != 0 {
			s.mem.page(r.slot()).retired = true
			s.retire(retired{kind: retiredPage, ref: r, size: pageSize})
		}
	}
}

// entryRefs lists the versions of an entry; buf serves for a single one.
func (s *Store) entryRefs(entry uint64, buf *[1]uint64) []uint64 {
	switch {
	case entry == 0:
		return nil
	case entry&entryList == 0:
		buf[0] = entry
		return buf[:]
	}
	w := s.mem.words(ref(entry & refMask))
	return unsafe.Slice((*uint64)(unsafe.Add(unsafe.Pointer(w), 32)), w[3])
}

// newList writes a list record and returns its entry.
func (s *Store) newList(refs []ref, rev kv.Revision) uint64 {
	size := 32 + 8*int64(len(refs))
	var r ref
	var p unsafe.Pointer
	if size >= largeRecord {
		r, p = s.mem.allocLarge(size, int64(rev))
	} else {
		r, p = s.versions.alloc(size)
		s.versions.maxRev = max(s.versions.maxRev, int64(rev))
	}
	w := (*[4]uint64)(p)
	w[0], w[1], w[2], w[3] = flagList, 0, uint64(rev), uint64(len(refs))
	dst := unsafe.Slice((*uint64)(unsafe.Add(p, 32)), len(refs))
	for i, v := range refs {
		dst[i] = uint64(v)
	}
	return uint64(r) | entryList
}
