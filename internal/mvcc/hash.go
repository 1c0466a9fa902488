package mvcc

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

// A slot of the hash is a key reference (40 bits) and a tag of 24 bits of the
// key's hash, in one word that readers load atomically; 0 is free, slotGone was
// used. Probing is linear. The hash is seeded at random, so that nobody can
// choose keys that collide; nothing that can be observed depends on it.
const (
	slotGone  = 1
	tagShift  = 40
	minSlots  = 512
	stepSlots = 32 // of the old table, moved with each insert
)

// table is one array of slots. A larger or smaller one takes over in steps: the
// old one keeps its slots until it is dropped, so a reader that missed a key in
// the new table finds it in the old.
type table struct {
	mem   unsafe.Pointer
	slots uint64
}

// tables is what readers load, the pair at once.
type tables struct {
	cur table
	old table // slots 0: none
}

// hashIndex finds key records. Only the writer changes it.
type hashIndex struct {
	s     *Store
	seed  maphash.Seed
	both  atomic.Pointer[tables]
	live  atomic.Int64 // keys in it
	used  uint64       // slots of cur that are not free
	moved uint64       // slots of old that were looked at

	warmed kv.Revision // keeps the compiler from leaving Warm out
}

func newTable(slots uint64) table {
	slots = (max(slots, minSlots) + minSlots - 1) &^ (minSlots - 1)
	n := int64(slots * 8)
	if n < pageSize {
		return table{mapMemory(n), slots}
	}
	return table{mapAligned(n), slots}
}

// full is called when most of a table has been written to.
func (t table) full() {
	if n := int64(t.slots * 8); n >= pageSize {
		adviseHuge(t.mem, n)
	}
}

// slotsFor gives a table that n keys fill to about half.
func slotsFor(n int64) uint64 { return uint64(n)*2 + uint64(n)/8 }

func (t table) at(i uint64) *uint64 { return (*uint64)(unsafe.Add(t.mem, i<<3)) }

// home maps the upper 32 bits of a hash to a slot (Lemire, "Fast random integer
// generation in an interval", 2019), so that a table has any size.
func (t table) home(hash uint32) uint64 {
	hi, _ := bits.Mul64(uint64(hash)<<32, t.slots)
	return hi
}

func (t table) next(i uint64) uint64 {
	if i++; i == t.slots {
		return 0
	}
	return i
}

func (h *hashIndex) init(s *Store, keys int) {
	h.s, h.seed = s, maphash.MakeSeed()
	t := newTable(slotsFor(int64(keys)))
	s.mem.mapped.Add(int64(t.slots * 8))
	h.both.Store(&tables{cur: t})
}

// presize replaces the table of an empty hash.
func (h *hashIndex) presize(keys int64) {
	old := h.both.Load().cur
	if slotsFor(keys) <= old.slots {
		return
	}
	t := newTable(slotsFor(keys))
	h.s.mem.mapped.Add(int64(t.slots*8) - int64(old.slots*8))
	h.both.Store(&tables{cur: t})
	unmapMemory(old.mem, int64(old.slots*8))
}

func (h *hashIndex) sum(key []byte) uint64 { return maphash.Bytes(h.seed, key) }

// find returns the key's record, or 0. Readers and the writer.
func (h *hashIndex) find(sum uint64, key []byte) ref {
	both := h.both.Load()
	if _, r := h.probe(both.cur, sum, key); r != 0 {
		return r
	}
	if both.old.slots != 0 {
		_, r := h.probe(both.old, sum, key)
		return r
	}
	return 0
}

func (h *hashIndex) probe(t table, sum uint64, key []byte) (slot uint64, r ref) {
	tag := sum & (1<<24 - 1)
	for i := t.home(uint32(sum >> 32)); ; i = t.next(i) {
		x := atomic.LoadUint64(t.at(i))
		if x>>tagShift == tag && x > slotGone {
			r := ref(x & refMask)
			if bytes.Equal(h.s.key(r).bytes(), key) {
				return i, r
			}
		}
		if x == 0 {
			return 0, 0
		}
	}
}

// insert adds a key that is not there, and moves a part of the old table.
func (h *hashIndex) insert(sum uint64, r ref) {
	h.live.Add(1)
	both := h.both.Load()
	h.used += h.place(both.cur, sum, r)
	if both.old.slots != 0 {
		h.step(stepSlots * (1 + both.old.slots/both.cur.slots))
	} else if h.used*4 > both.cur.slots*3 {
		h.resize()
	}
}

// place returns 1 if it took a free slot and 0 if a used one.
func (h *hashIndex) place(t table, sum uint64, r ref) uint64 {
	entry := sum<<tagShift | uint64(r)
	for i := t.home(uint32(sum >> 32)); ; i = t.next(i) {
		if x := *t.at(i); x <= slotGone {
			atomic.StoreUint64(t.at(i), entry)
			return 1 - x
		}
	}
}

// placeShared is place for several goroutines that load a snapshot.
func (h *hashIndex) placeShared(t table, sum uint64, r ref) {
	entry := sum<<tagShift | uint64(r)
	for i := t.home(uint32(sum >> 32)); ; i = t.next(i) {
		if atomic.LoadUint64(t.at(i)) == 0 && atomic.CompareAndSwapUint64(t.at(i), 0, entry) {
			return
		}
	}
}

// replace puts to where from is, in both tables; to 0 removes it.
func (h *hashIndex) replace(sum uint64, from, to ref) {
	both := h.both.Load()
	entry := sum<<tagShift | uint64(to)
	if to == 0 {
		entry = slotGone
		h.live.Add(-1)
	}
	for _, t := range [...]table{both.cur, both.old} {
		if t.slots == 0 {
			continue
		}
		for i := t.home(uint32(sum >> 32)); ; i = t.next(i) {
			x := *t.at(i)
			if x > slotGone && ref(x&refMask) == from {
				atomic.StoreUint64(t.at(i), entry)
				break
			}
			if x == 0 {
				break
			}
		}
	}
}

// resize starts a table that the keys fill to about half.
func (h *hashIndex) resize() {
	both := h.both.Load()
	t := newTable(slotsFor(h.live.Load()))
	h.s.mem.mapped.Add(int64(t.slots * 8))
	h.used, h.moved = 0, 0
	h.both.Store(&tables{cur: t, old: both.cur})
}

// step moves n slots of the old table and drops it after the last.
func (h *hashIndex) step(n uint64) {
	both := h.both.Load()
	if both.old.slots == 0 {
		return
	}
	for end := min(h.moved+n, both.old.slots); h.moved < end; h.moved++ {
		x := *both.old.at(h.moved)
		if x <= slotGone {
			continue
		}
		r := ref(x & refMask)
		sum := uint64(h.s.key(r).hash())<<32 | x>>tagShift
		h.used += h.place(both.cur, sum, r)
	}
	if h.moved == both.old.slots {
		old := both.old
		h.both.Store(&tables{cur: both.cur})
		both.cur.full()
		h.s.retire(retired{kind: retiredTable, base: old.mem, size: int64(old.slots * 8)})
	}
}

// shrink starts a smaller table when most of the slots serve nothing.
func (h *hashIndex) shrink() (more bool) {
	both := h.both.Load()
	if both.old.slots != 0 {
		h.step(4 * stepSlots)
		return true
	}
	if both.cur.slots > 16*minSlots && slotsFor(h.live.Load())*4 < both.cur.slots {
		h.resize()
		return true
	}
	return false
}

func (h *hashIndex) close() {
	both := h.both.Load()
	for _, t := range [...]table{both.cur, both.old} {
		if t.slots != 0 {
			unmapMemory(t.mem, int64(t.slots*8))
		}
	}
}

func (h *hashIndex) bytes() int64 {
	both := h.both.Load()
	return int64(both.cur.slots+both.old.slots) * 8
}
