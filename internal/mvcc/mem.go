package mvcc

import (
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// pageSize is the unit of allocation and of giving memory back: one huge
	// page of x86-64 and of arm64 with a 4 KiB granule.
	pageSize = 1 << pageShift
	// pageShift, unitShift and slotBits make a ref of 40 bits: 4 Mi pages.
	pageShift = 21
	unitShift = 3
	offBits   = pageShift - unitShift
	offMask   = 1<<offBits - 1
	slotBits  = 22
	maxSlots  = 1 << slotBits
	refMask   = 1<<(slotBits+offBits) - 1
	// largeRecord is from where a record has a mapping of its own; below it,
	// at most an eighth of a page is lost at its end.
	largeRecord = 256 << 10
	// hugeFrom is how many pages a store has before it asks for huge pages,
	// so that small stores stay small. It asks when a page is full, so that
	// the kernel joins it in the background: to fault in a huge page takes
	// milliseconds, which the writer would wait for.
	hugeFrom = 16
	// Freed pages are kept for the next need, sparePages and one in spareShare,
	// so that a steady load does not fault in new memory all the time.
	sparePages = 2
	spareShare = 32
	// populateBytes are faulted in at once: two thirds of the cost.
	populateBytes = 64 << 10
)

// ref names a place in the pages: page slot and offset in units of 8 bytes.
// Zero is no place; slot 0 is never used.
type ref uint64

func (r ref) slot() uint32 { return uint32(r >> offBits) }

type pageKind uint8

const (
	pageFree pageKind = iota
	pageVersions
	pageKeys
	pageLeaves
	pageInners
	pageIndex
	pageLarge
	pageKinds
)

// page is the writer's account of one page slot.
type page struct {
	kind pageKind
	// open pages are still allocated from; a leaving one is being emptied and
	// gets nothing new; a retired one waits for the views that may see it.
	open, leaving, retired bool
	top                    uint32 // bytes handed out, from the start
	live                   int64  // bytes of it in use; in an open page without those that its bump counts
	size                   int64  // bytes mapped
	maxRev                 int64  // newest revision in a page of versions
}

const accountSize = int64(unsafe.Sizeof(page{}))

// arena hands out pages and translates refs. Slot table and pages are mapped
// outside the Go heap, which therefore neither scans nor moves them.
//
// Readers use at only. A slot's base is written before any ref into the slot is
// published with an atomic store, and a slot is used again only when no reader
// can hold a ref into it (see epochs); so the plain loads in at are ordered.
type arena struct {
	table unsafe.Pointer // maxSlots page addresses

	// The account of each slot, mapped like the table: it never moves, so the
	// goroutines of Load may use those of their own pages.
	accounts unsafe.Pointer

	mu    sync.Mutex // Load allocates from several goroutines
	slots uint32     // used so far
	free  []uint32   // slots to use again
	spare []unsafe.Pointer
	// bytes by kind; mapped is their sum plus spare pages and hash tables.
	mapped atomic.Int64
	kinds  [pageKinds]atomic.Int64
}

func newArena() *arena {
	return &arena{table: mapMemory(maxSlots * 8), accounts: mapMemory(maxSlots * accountSize), slots: 1}
}

func (a *arena) page(slot uint32) *page {
	return (*page)(unsafe.Add(a.accounts, int64(slot)*accountSize))
}

// mapMemory panics when the system has no memory: limits are checked before
// the log, and a member that cannot hold its state must not go on.
func mapMemory(n int64) unsafe.Pointer {
	p, err := tryMap(n)
	if err != nil {
		panic(err)
	}
	return p
}

func tryMap(n int64) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(-1, 0, nil, uintptr(n), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of memory: %w", n, err)
	}
	return p, nil
}

// mapAligned maps n bytes at a multiple of pageSize. The kernel mostly puts a
// mapping right below the last one, so the first try mostly fits.
func mapAligned(n int64) unsafe.Pointer {
	p := mapMemory(n)
	if uintptr(p)%pageSize == 0 {
		return p
	}
	unmapMemory(p, n)
	p = mapMemory(n + pageSize)
	head := int64((pageSize - uintptr(p)%pageSize) % pageSize)
	if head > 0 {
		unmapMemory(p, head)
	}
	if tail := pageSize - head; tail > 0 {
		unmapMemory(unsafe.Add(p, head+n), tail)
	}
	return unsafe.Add(p, head)
}

func unmapMemory(p unsafe.Pointer, n int64) {
	if err := unix.MunmapPtr(p, uintptr(n)); err != nil {
		panic(fmt.Errorf("unmap %d bytes of memory: %w", n, err))
	}
}

// at translates a ref. It is the hottest line of the package.
func (a *arena) at(r ref) unsafe.Pointer {
	base := *(*unsafe.Pointer)(unsafe.Add(a.table, uintptr(r>>offBits)<<3))
	return unsafe.Add(base, uintptr(r&offMask)<<unitShift)
}

func (a *arena) words(r ref) *[4]uint64 { return (*[4]uint64)(a.at(r)) }

// newPage takes a slot and maps a page of size bytes for it.
func (a *arena) newPage(kind pageKind, size int64) uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	var base unsafe.Pointer
	switch n := len(a.spare); {
	case size == pageSize && n > 0 && kind != pageIndex: // an index wants zeros
		base = a.spare[n-1]
		a.spare = a.spare[:n-1]
		a.mapped.Add(-pageSize)
	case size == pageSize:
		base = mapAligned(size)
	default:
		base = mapMemory(size)
	}
	var slot uint32
	if n := len(a.free); n > 0 {
		slot = a.free[n-1]
		a.free = a.free[:n-1]
	} else {
		if a.slots == maxSlots {
			panic("mvcc: all 4 Mi page slots are in use")
		}
		slot = a.slots
		a.slots++
	}
	*(*unsafe.Pointer)(unsafe.Add(a.table, uintptr(slot)<<3)) = base
	*a.page(slot) = page{kind: kind, size: size}
	a.mapped.Add(size)
	a.kinds[kind].Add(size)
	return slot
}

// filled is called when nothing more is allocated from a page.
func (a *arena) filled(slot uint32) {
	if slot > hugeFrom {
		adviseHuge(a.at(ref(slot)<<offBits), pageSize)
	}
}

// freePage gives a page back. No reader may hold a ref into it any more.
func (a *arena) freePage(slot uint32) {
	p := a.page(slot)
	base := a.at(ref(slot) << offBits)
	a.kinds[p.kind].Add(-p.size)
	if p.size == pageSize && int64(len(a.spare)) < sparePages+a.mapped.Load()/(spareShare*pageSize) {
		a.spare = append(a.spare, base) // not zeroed: every byte handed out is written
	} else {
		unmapMemory(base, p.size)
		a.mapped.Add(-p.size)
	}
	*p = page{}
	a.free = append(a.free, slot)
}

// close unmaps everything. Nobody reads any more.
func (a *arena) close() {
	for slot := range a.slots {
		if p := a.page(slot); p.kind != pageFree {
			unmapMemory(a.at(ref(slot)<<offBits), p.size)
		}
	}
	for _, base := range a.spare {
		unmapMemory(base, pageSize)
	}
	unmapMemory(a.table, maxSlots*8)
	unmapMemory(a.accounts, maxSlots*accountSize)
	a.spare, a.table, a.accounts = nil, nil, nil
}

// bump allocates one after another from pages of one kind. Each belongs to one
// goroutine.
type bump struct {
	a      *arena
	kind   pageKind
	slot   uint32
	base   unsafe.Pointer
	top    uint32
	ready  uint32 // faulted in up to here
	live   int64
	maxRev int64
}

// alloc returns n bytes, a multiple of 8 and less than largeRecord. They are
// not zeroed.
func (b *bump) alloc(n int64) (ref, unsafe.Pointer) {
	if b.slot == 0 || int64(b.top)+n > pageSize {
		b.seal()
		b.slot = b.a.newPage(b.kind, pageSize)
		b.a.page(b.slot).open = true
		b.base = b.a.at(ref(b.slot) << offBits)
	}
	r := ref(b.slot)<<offBits | ref(b.top>>unitShift)
	p := unsafe.Add(b.base, b.top)
	b.top += uint32(n)
	b.live += n
	if b.top > b.ready {
		populate(unsafe.Add(b.base, b.ready), populateBytes)
		b.ready += populateBytes
	}
	return r, p
}

// seal closes the page that is allocated from, so that it can be emptied.
func (b *bump) seal() {
	if b.slot == 0 {
		return
	}
	p := b.a.page(b.slot)
	p.open, p.top = false, b.top
	p.live += b.live
	p.maxRev = max(p.maxRev, b.maxRev)
	b.a.filled(b.slot)
	*b = bump{a: b.a, kind: b.kind}
}

// allocLarge maps n bytes for one record.
func (a *arena) allocLarge(n int64, maxRev int64) (ref, unsafe.Pointer) {
	slot := a.newPage(pageLarge, (n+4095)&^4095)
	p := a.page(slot)
	p.live, p.maxRev = n, maxRev
	r := ref(slot) << offBits
	return r, a.at(r)
}
