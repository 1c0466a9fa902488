package lease

import (
	"encoding/binary"
	"iter"
	"slices"

	"github.com/tidwall/btree"
)

// pageBytes is how large a page grows before it is split: searching a page is a
// scan, and 2 KiB are some 50 entries.
const pageBytes = 2 << 10

// set is an ordered set of byte strings: a tree of pages that hold the strings
// packed, so that an entry costs a tenth of a heap object. A copy costs O(1);
// what changes afterwards is copied page by page.
type set struct {
	// pages are found by a lower bound of their entries; the first has "".
	pages *btree.Map[string, *page]
	// epoch tells pages that a copy may share from our own.
	epoch uint64
	n     int
}

// page holds entries in order, each a varint length and the bytes.
type page struct {
	epoch uint64
	data  []byte
}

func newSet() *set { return &set{pages: new(btree.Map[string, *page])} }

// copy returns a set that never changes, and may be read by any goroutine.
func (s *set) copy() *set {
	frozen := &set{pages: s.pages.Copy(), epoch: s.epoch, n: s.n}
	s.epoch++
	return frozen
}

// floor returns the page that e belongs in, and its bound; nil when the set has
// no page at all.
func (s *set) floor(e string) (bound string, p *page) {
	s.pages.Descend(e, func(k string, v *page) bool {
		bound, p = k, v
		return false
	})
	return bound, p
}

// find returns where in data e is, and its size there, or where it would be.
func find(data []byte, e string) (at, size int, found bool) {
	for at < len(data) {
		n, w := entry(data[at:])
		if here := data[at+w : at+w+n]; string(here) >= e {
			return at, w + n, string(here) == e
		}
		at += w + n
	}
	return at, 0, false
}

// entry returns the length of the first entry in data and of what says so.
func entry(data []byte) (n, w int) {
	if data[0] < 0x80 {
		return int(data[0]), 1
	}
	u, w := binary.Uvarint(data)
	return int(u), w
}

// own returns a page that may be changed in place.
func (s *set) own(bound string, p *page) *page {
	if p.epoch == s.epoch {
		return p
	}
	p = &page{epoch: s.epoch, data: append(make([]byte, 0, len(p.data)+len(p.data)/4), p.data...)}
	s.pages.Set(bound, p)
	return p
}

// insert adds e unless it is there.
func (s *set) insert(e string) {
	bound, p := s.floor(e)
	if p == nil {
		p = &page{epoch: s.epoch}
		s.pages.Set("", p)
	}
	at, _, found := find(p.data, e)
	if found {
		return
	}
	p = s.own(bound, p)
	var head [binary.MaxVarintLen64]byte
	w := binary.PutUvarint(head[:], uint64(len(e)))
	p.data = slices.Grow(p.data, w+len(e))
	old := len(p.data)
	p.data = p.data[:old+w+len(e)]
	copy(p.data[at+w+len(e):], p.data[at:old])
	copy(p.data[at:], head[:w])
	copy(p.data[at+w:], e)
	s.n++
	if len(p.data) > pageBytes {
		s.split(p)
	}
}

// split moves about the upper half of p to a page of its own. A page of one
// long entry stays.
func (s *set) split(p *page) {
	at, before := 0, 0
	for at < len(p.data)/2 {
		n, w := entry(p.data[at:])
		at, before = at+w+n, at
	}
	if at == len(p.data) {
		at = before // the last entry is longer than the others together
	}
	if at == 0 {
		return
	}
	n, w := entry(p.data[at:])
	upper := &page{epoch: s.epoch, data: slices.Clone(p.data[at:])}
	p.data = slices.Clone(p.data[:at])
	s.pages.Set(string(upper.data[w:w+n]), upper)
}

// remove takes e out and reports whether it was there.
func (s *set) remove(e string) bool {
	bound, p := s.floor(e)
	if p == nil {
		return false
	}
	at, size, found := find(p.data, e)
	if !found {
		return false
	}
	s.n--
	if size == len(p.data) && bound != "" {
		s.pages.Delete(bound)
		return true
	}
	p = s.own(bound, p)
	p.data = slices.Delete(p.data, at, at+size)
	return true
}

// from yields the entries at and above e in order. They alias the set: they
// must not be changed, and the set must not be changed while they are used.
func (s *set) from(e string) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		start, _ := s.floor(e)
		s.pages.Ascend(start, func(bound string, p *page) bool {
			at := 0
			if bound == start {
				at, _, _ = find(p.data, e)
			}
			for at < len(p.data) {
				n, w := entry(p.data[at:])
				if !yield(p.data[at+w : at+w+n : at+w+n]) {
					return false
				}
				at += w + n
			}
			return true
		})
	}
}
