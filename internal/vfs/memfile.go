package vfs

import (
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
)

const pageSize = 16 << 10

// page is a part of a file. hole: nothing allocated; blank: allocated, zero.
type page *[pageSize]byte

// inode is a file's bytes. What a reader sees is in pages; undo holds what
// stood there before each write since the last sync.
type inode struct {
	pages   []page
	blank   []bool // allocated, though pages has nil
	size    int64
	durable int64 // the size at the last sync
	undo    []undo
	stuck   int  // the first undo records are of a sync that failed
	gone    bool // has no name: its pages are not counted
}

// undo is a write that is not durable. old nil means zeros.
type undo struct {
	off, n int64
	old    []byte
}

func (n *inode) allocated() int64 {
	if n.gone {
		return 0
	}
	var count int64
	for i, p := range n.pages {
		if p != nil || n.blank[i] {
			count++
		}
	}
	return count
}

// grow sets a length that is not smaller.
func (n *inode) grow(size int64) {
	n.size = max(n.size, size)
	if want := int((n.size + pageSize - 1) / pageSize); want > len(n.pages) {
		n.pages = slices.Grow(n.pages, want-len(n.pages))[:want]
		n.blank = slices.Grow(n.blank, want-len(n.blank))[:want]
	}
}

func (n *inode) read(b []byte, off int64) {
	for len(b) > 0 {
		at := off % pageSize
		k := min(int64(len(b)), pageSize-at)
		if p := n.pages[off/pageSize]; p != nil {
			copy(b[:k], p[at:])
		} else {
			clear(b[:k])
		}
		b, off = b[k:], off+k
	}
}

// write changes bytes inside the length, without undo.
func (n *inode) write(b []byte, off int64) {
	for len(b) > 0 {
		at, i := off%pageSize, off/pageSize
		k := min(int64(len(b)), pageSize-at)
		switch {
		case n.pages[i] != nil:
			copy(n.pages[i][at:], b[:k])
		case isZero(b[:k]):
			n.blank[i] = true
		default:
			n.pages[i] = new([pageSize]byte)
			copy(n.pages[i][at:], b[:k])
		}
		b, off = b[k:], off+k
	}
}

// remember keeps what stands in [off, off+k), a page's part at most.
func (n *inode) remember(off, k int64) {
	u := undo{off: off, n: k}
	if p := n.pages[off/pageSize]; p != nil {
		if old := p[off%pageSize:][:k]; !isZero(old) {
			u.old = append([]byte(nil), old...)
		}
	}
	if last := len(n.undo) - 1; last >= n.stuck && u.old == nil {
		// Zeros in a row, each written once, need one record.
		if v := &n.undo[last]; v.old == nil && v.off+v.n == off && off%SectorSize == 0 && v.off%SectorSize == 0 {
			v.n += k
			return
		}
	}
	n.undo = append(n.undo, u)
}

func (n *inode) rememberAll(off, k int64) {
	for k > 0 {
		part := min(k, pageSize-off%pageSize)
		n.remember(off, part)
		off, k = off+part, k-part
	}
}

// newPages counts the pages that a write to [off, off+k) would allocate.
func (n *inode) newPages(off, k int64) int64 {
	var count int64
	for i := off / pageSize; i*pageSize < off+k; i++ {
		if int(i) >= len(n.pages) || n.pages[i] == nil && !n.blank[i] {
			count++
		}
	}
	return count
}

// sync makes all bytes durable but those that an earlier sync failed on and
// that were not written again since.
func (n *inode) sync() {
	if n.stuck == 0 {
		n.undo = n.undo[:0]
	} else {
		fresh := n.undo[n.stuck:]
		var left []undo
		for _, u := range n.undo[:n.stuck] {
			left = append(left, u.without(fresh)...)
		}
		n.undo, n.stuck = left, len(left)
	}
	n.durable = n.size
}

// without cuts the ranges of others out of u.
func (u undo) without(others []undo) []undo {
	parts := []undo{u}
	for _, o := range others {
		var next []undo
		for _, p := range parts {
			lo, hi := max(p.off, o.off), min(p.off+p.n, o.off+o.n)
			if lo >= hi {
				next = append(next, p)
				continue
			}
			if p.off < lo {
				next = append(next, p.part(p.off, lo))
			}
			if hi < p.off+p.n {
				next = append(next, p.part(hi, p.off+p.n))
			}
		}
		parts = next
	}
	return parts
}

func (u undo) part(lo, hi int64) undo {
	v := undo{off: lo, n: hi - lo}
	if u.old != nil {
		v.old = u.old[lo-u.off : hi-u.off]
	}
	return v
}

// crash undoes writes from the newest back, sector by sector, until rng stops.
func (n *inode) crash(rng *rand.Rand) {
	keep := fate(rng)
	kept := make(map[int64]bool)
	for _, u := range slices.Backward(n.undo) {
		for lo := u.off; lo < u.off+u.n; {
			hi := min(u.off+u.n, (lo/SectorSize+1)*SectorSize)
			sector := lo / SectorSize
			if !kept[sector] && rng.Float64() < keep {
				kept[sector] = true
			}
			if !kept[sector] {
				n.revert(u, lo, hi)
			}
			lo = hi
		}
	}
	if n.durable != n.size && rng.Float64() >= keep {
		n.cut(n.durable)
	}
	n.durable = n.size
	n.undo, n.stuck = nil, 0
}

func (n *inode) revert(u undo, lo, hi int64) {
	n.grow(hi)
	if u.old != nil {
		n.write(u.old[lo-u.off:hi-u.off], lo)
		return
	}
	n.write(zeroPage[:hi-lo], lo)
}

// cut sets any length, without undo; what it drops reads as zeros if the file
// grows again.
func (n *inode) cut(size int64) {
	if size >= n.size {
		n.grow(size)
		return
	}
	n.size = size
	want := (size + pageSize - 1) / pageSize
	n.pages, n.blank = n.pages[:want], n.blank[:want]
	clear(n.pages[want:cap(n.pages)])
	clear(n.blank[want:cap(n.blank)])
	if at := size % pageSize; at > 0 && n.pages[want-1] != nil {
		clear(n.pages[want-1][at:])
	}
}

// truncate sets a length; the file system's lock is held.
func (m *Mem) truncate(n *inode, size int64) {
	before := n.allocated()
	if size < n.size {
		n.rememberAll(size, n.size-size)
	}
	n.cut(size)
	m.pages += n.allocated() - before
}

// memFile is a handle.
type memFile struct {
	fs       *Mem
	node     *inode
	name     string
	life     int
	readOnly bool
	closed   bool
}

func (f *memFile) err(op string, err error) error {
	return &fs.PathError{Op: op, Path: f.name, Err: err}
}

// enter locks the file system for an operation on a live handle.
func (f *memFile) enter(op Op) error {
	op.Name = f.name
	err := f.fs.hook(op)
	f.fs.mu.Lock()
	if f.closed || f.life != f.fs.life {
		err = fs.ErrClosed
	}
	if f.readOnly && (op.Kind == OpWrite || op.Kind == OpTruncate || op.Kind == OpAllocate) {
		err = syscall.EBADF
	}
	if err != nil {
		return f.err(op.Kind.String(), err)
	}
	return nil
}

// ReadAt implements File.
func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	err := f.enter(Op{Kind: OpRead, Off: off, Len: int64(len(b))})
	defer f.fs.mu.Unlock()
	switch {
	case err != nil:
		return 0, err
	case off < 0:
		return 0, f.err("read", syscall.EINVAL)
	case off >= f.node.size:
		return 0, io.EOF
	}
	n := min(int64(len(b)), f.node.size-off)
	f.node.read(b[:n], off)
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// WriteAt implements File.
func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.enter(Op{Kind: OpWrite, Off: off, Len: int64(len(b))})
	defer f.fs.mu.Unlock()
	if pe, ok := err.(*fs.PathError); ok {
		short, ok := pe.Err.(*ShortWrite)
		if !ok {
			return 0, err
		}
		b = b[:min(short.N, len(b))]
	}
	if off < 0 {
		return 0, f.err("write", syscall.EINVAL)
	}
	n, k := f.node, int64(len(b))
	if fresh := n.newPages(off, k); !f.fs.room(n, fresh) {
		return 0, f.err("write", syscall.ENOSPC)
	}
	n.grow(off + k)
	n.rememberAll(off, k)
	n.write(b, off)
	return len(b), err
}

// room accounts for pages to be allocated, if there is room for them.
func (m *Mem) room(n *inode, pages int64) bool {
	if n.gone {
		return true
	}
	if m.Capacity > 0 && pages > 0 && (m.pages+pages)*pageSize > m.Capacity {
		return false
	}
	m.pages += pages
	return true
}

// Close implements File.
func (f *memFile) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return f.err("close", fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed || f.life != f.fs.life {
		return 0, f.err("stat", fs.ErrClosed)
	}
	return f.node.size, nil
}

// Sync implements File.
func (f *memFile) Sync() error {
	err := f.enter(Op{Kind: OpSync})
	defer f.fs.mu.Unlock()
	if err != nil {
		if f.life == f.fs.life {
			f.node.stuck = len(f.node.undo)
		}
		return err
	}
	f.node.sync()
	return nil
}

// Truncate implements File.
func (f *memFile) Truncate(size int64) error {
	err := f.enter(Op{Kind: OpTruncate, Off: size})
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	f.fs.truncate(f.node, size)
	return nil
}

// Allocate implements File.
func (f *memFile) Allocate(off, k int64) error {
	err := f.enter(Op{Kind: OpAllocate, Off: off, Len: k})
	defer f.fs.mu.Unlock()
	if err != nil {
		return err
	}
	n := f.node
	if !f.fs.room(n, n.newPages(off, k)) {
		return f.err("allocate", syscall.ENOSPC)
	}
	n.grow(off + k)
	for i := off / pageSize; i*pageSize < off+k; i++ {
		n.blank[i] = true
	}
	return nil
}
