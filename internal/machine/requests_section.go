package machine

import (
	"cmp"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// write writes the clients in the order of the ring, and the results of each in
// that of its slots, so that no number shows. It only reads what copy captured.
func (r *requests) write(s *sectionWriter) {
	all := slices.Clone(r.windows[1:])
	slices.SortFunc(all, func(a, b *window) int { return cmp.Compare(a.order, b.order) })
	s.uint(uint64(len(all)))
	for _, w := range all {
		w.write(s)
	}
}

func (w *window) write(s *sectionWriter) {
	s.raw(string(w.id[:]))
	s.uint(w.floor)
	s.uint(w.highest)
	s.uint(uint64(w.last))
	s.uint(uint64(len(w.slots)))
	results := uint64(0)
	for i := range w.slots {
		if w.slots[i].seq != 0 {
			results++
		}
	}
	s.uint(results)
	for i := range w.slots {
		if e := &w.slots[i]; e.seq != 0 {
			s.uint(e.seq)
			s.uint(uint64(e.at))
			s.string(e.data())
		}
	}
}

// read fills r, which is new. It takes at most maxBytes of memory beside what it
// reads.
func (r *requests) read(s *sectionReader) {
	s.each(uint64(r.maxClients), func() {
		w := &window{}
		w.read(s, r.maxBytes-r.bytes)
		if s.err == nil && !r.restore(w) {
			s.failf("clients do not belong together")
		}
	})
}

// restore adds a window behind the others, and tells whether it belongs there.
func (r *requests) restore(w *window) bool {
	newest := r.windows[r.ring[0].older]
	_, twice := r.byID[w.id]
	if twice || newest != nil && newest.last > w.last || r.live != 0 && len(w.slots) == 0 {
		return false
	}
	r.order++
	w.order = r.order
	r.bytes += w.bytes
	r.touch(r.add(w))
	if len(w.slots) == 0 {
		r.live = 0
	}
	return r.bytes <= r.maxBytes
}

// read reads a window, of which the slots take at most that many bytes.
func (w *window) read(s *sectionReader, most int64) {
	copy(w.id[:], s.take(uint64(len(w.id))))
	w.floor, w.highest, w.last = s.uint(), s.uint(), kv.Time(s.int())
	n := s.most(windowSlots)
	w.bytes = int64(n) * slotBytes
	if n&(n-1) != 0 || w.floor > w.highest || w.highest-w.floor > windowSlots || n == 0 && w.floor != w.highest || w.bytes > most {
		s.failf("a client has %d slots between %d and %d", n, w.floor, w.highest)
		return
	}
	if n > 0 {
		w.slots = make([]slot, n)
	}
	s.each(n, func() {
		seq, at, data := s.uint(), kv.Time(s.int()), s.bytes(resultBytes)
		if s.err != nil {
			return
		}
		if seq == 0 || seq > w.highest || at > w.last || w.slot(seq).seq != 0 {
			s.failf("a result has no place")
			return
		}
		w.put(seq, at, data)
	})
}
