package vfs

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
)

// Kind names an operation of a file system.
type Kind uint8

// The operations that [Mem] tells its hook of.
const (
	OpOpen Kind = iota
	OpMkdir
	OpReadDir
	OpRename
	OpRemove
	OpSyncDir
	OpLock
	OpRead
	OpWrite
	OpSync
	OpTruncate
	OpAllocate
)

// String gives the operation's name.
func (k Kind) String() string {
	return [...]string{"open", "mkdir", "readdir", "rename", "remove", "syncdir",
		"lock", "read", "write", "sync", "truncate", "allocate"}[k]
}

// Op is an operation about to be done.
type Op struct {
	Kind Kind
	Name string
	// Off and Len are the range of a read, write or allocation; Off is the new
	// length of a truncation.
	Off, Len int64
}

// ShortWrite is an error that a hook gives to a write of which N bytes are
// still done.
type ShortWrite struct {
	N   int
	Err error
}

// Error gives the cause.
func (e *ShortWrite) Error() string { return fmt.Sprintf("short write of %d bytes: %v", e.N, e.Err) }

// Unwrap returns the cause.
func (e *ShortWrite) Unwrap() error { return e.Err }

// Mem is a file system in memory that knows which bytes and names are durable
// and can lose the others. The same calls and the same random numbers give the
// same bytes. Memory is taken for pages that were written, not for those that
// were only allocated or are zero.
//
// The zero Mem is an empty file system without limit. Its methods may be called
// concurrently; set the fields before.
type Mem struct {
	// Hook, if not nil, is called before each operation, without locks held: it
	// may block. An error is the operation's result and nothing else happens,
	// but for a *ShortWrite, and for a sync, after which the bytes written since
	// the sync before are in the cache only, for ever, as on Linux.
	Hook func(Op) error
	// Capacity bounds the allocated bytes; 0 means no bound. Beyond it is
	// ENOSPC.
	Capacity int64

	mu    sync.Mutex
	dirs  map[string]*memDir
	locks map[string]int // name → life of the holder
	pages int64          // allocated in all files with a name or handle
	life  int            // counts crashes: handles of another life are dead
}

type memDir struct {
	names   map[string]*inode
	durable map[string]*inode
	changes []nameChange // since the last SyncDir
}

// nameChange is one atomic change of a directory: from loses its name, if it
// is not empty, and name stands for node, nil for removal.
type nameChange struct {
	from, name string
	node       *inode
}

var _ FS = (*Mem)(nil)

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

func (m *Mem) hook(op Op) error {
	if m.Hook == nil {
		return nil
	}
	return m.Hook(op)
}

// dir returns the directory of that cleaned name, nil if there is none. The
// root and the current directory always exist.
func (m *Mem) dir(name string) *memDir {
	if m.dirs == nil {
		m.dirs = make(map[string]*memDir)
	}
	d := m.dirs[name]
	if d == nil && (name == "." || name == "/") {
		d = &memDir{names: map[string]*inode{}, durable: map[string]*inode{}}
		m.dirs[name] = d
	}
	return d
}

func (m *Mem) find(name string) (*memDir, string, *inode) {
	name = path.Clean(name)
	d := m.dir(path.Dir(name))
	if d == nil {
		return nil, "", nil
	}
	base := path.Base(name)
	return d, base, d.names[base]
}

func (d *memDir) change(c nameChange) {
	c.apply(d.names)
	d.changes = append(d.changes, c)
}

func (c nameChange) apply(names map[string]*inode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.node == nil {
		delete(names, c.name)
	} else {
		names[c.name] = c.node
	}
}

// OpenFile implements FS. It knows O_CREATE, O_EXCL and O_TRUNC.
func (m *Mem) OpenFile(name string, flag int) (File, error) {
	if err := m.hook(Op{Kind: OpOpen, Name: name}); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, n := m.find(name)
	switch {
	case d == nil || n == nil && flag&os.O_CREATE == 0:
		return nil, notExist("open", name)
	case n != nil && flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case m.dirs[path.Clean(name)] != nil:
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EISDIR}
	case n == nil:
		n = &inode{}
		d.change(nameChange{name: base, node: n})
	case flag&os.O_TRUNC != 0:
		m.truncate(n, 0)
	}
	return &memFile{fs: m, node: n, name: name, life: m.life, readOnly: flag&(os.O_RDWR|os.O_WRONLY) == 0}, nil
}

// MkdirAll implements FS. Directories are durable at once.
func (m *Mem) MkdirAll(dir string) error {
	if err := m.hook(Op{Kind: OpMkdir, Name: dir}); err != nil {
		return &fs.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir = path.Clean(dir); m.dir(dir) == nil; dir = path.Dir(dir) {
		if _, _, n := m.find(dir); n != nil {
			return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		m.dirs[dir] = &memDir{names: map[string]*inode{}, durable: map[string]*inode{}}
	}
	return nil
}

// ReadDir implements FS.
func (m *Mem) ReadDir(dir string) ([]string, error) {
	if err := m.hook(Op{Kind: OpReadDir, Name: dir}); err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	dir = path.Clean(dir)
	d := m.dir(dir)
	if d == nil {
		return nil, notExist("open", dir)
	}
	names := make([]string, 0, len(d.names))
	for name := range d.names {
		names = append(names, name)
	}
	for name := range m.dirs {
		if name != dir && path.Dir(name) == dir {
			names = append(names, path.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Rename implements FS, for files inside one directory.
func (m *Mem) Rename(oldpath, newpath string) error {
	if err := m.hook(Op{Kind: OpRename, Name: oldpath}); err != nil {
		return &fs.PathError{Op: "rename", Path: oldpath, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, from, n := m.find(oldpath)
	to, name, old := m.find(newpath)
	switch {
	case n == nil || to == nil:
		return notExist("rename", oldpath)
	case to != d:
		return &fs.PathError{Op: "rename", Path: oldpath, Err: syscall.EXDEV}
	case from != name:
		if old != nil {
			m.unname(old)
		}
		d.change(nameChange{from: from, name: name, node: n})
	}
	return nil
}

// unname gives the pages of a file back whose name is gone.
func (m *Mem) unname(n *inode) {
	m.pages -= n.allocated()
	n.gone = true
}

// Remove implements FS, for files.
func (m *Mem) Remove(name string) error {
	if err := m.hook(Op{Kind: OpRemove, Name: name}); err != nil {
		return &fs.PathError{Op: "remove", Path: name, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, n := m.find(name)
	if n == nil {
		return notExist("remove", name)
	}
	d.change(nameChange{name: base})
	m.unname(n)
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	if err := m.hook(Op{Kind: OpSyncDir, Name: dir}); err != nil {
		return &fs.PathError{Op: "sync", Path: dir, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dir(path.Clean(dir))
	if d == nil {
		return notExist("sync", dir)
	}
	for _, c := range d.changes {
		c.apply(d.durable)
	}
	d.changes = d.changes[:0]
	return nil
}

// Lock implements FS. A crash gives the lock up.
func (m *Mem) Lock(name string) (io.Closer, error) {
	if err := m.hook(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	name = path.Clean(name)
	if m.dir(path.Dir(name)) == nil {
		return nil, notExist("lock", name)
	}
	if life, held := m.locks[name]; held && life == m.life {
		return nil, &LockedError{Name: name}
	}
	if m.locks == nil {
		m.locks = make(map[string]int)
	}
	m.locks[name] = m.life
	return &memLock{fs: m, name: name, life: m.life}, nil
}

type memLock struct {
	fs   *Mem
	name string
	life int
}

func (l *memLock) Close() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	if life, held := l.fs.locks[l.name]; !held || life != l.life {
		return fs.ErrClosed
	}
	delete(l.fs.locks, l.name)
	return nil
}

// Kill ends the process: handles are dead and locks free, but the cache
// stays, unsynced bytes and names with it.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
}

// Crash cuts the power. Of each 512-byte sector that was not synced rng keeps
// the newest bytes, those of the last sync or some in between; of unsynced
// changes of names it keeps some, none a change to a name whose earlier change
// is lost. A single rng decides whether to lose all, keep all, or mix.
func (m *Mem) Crash(rng *rand.Rand) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	var nodes []*inode
	seen := make(map[*inode]bool)
	names := make([]string, 0, len(m.dirs))
	for name := range m.dirs {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		d := m.dirs[name]
		d.crash(rng)
		files := make([]string, 0, len(d.names))
		for file := range d.names {
			files = append(files, file)
		}
		slices.Sort(files)
		for _, file := range files {
			if n := d.names[file]; !seen[n] {
				seen[n] = true
				nodes = append(nodes, n)
			}
		}
	}
	m.pages = 0
	for _, n := range nodes {
		n.crash(rng)
		n.gone = false
		m.pages += n.allocated()
	}
}

func (d *memDir) crash(rng *rand.Rand) {
	keep := fate(rng)
	lost := make(map[string]bool)
	for _, c := range d.changes {
		if lost[c.name] || lost[c.from] && c.from != "" || rng.Float64() >= keep {
			lost[c.name], lost[c.from] = true, true
			continue
		}
		c.apply(d.durable)
	}
	d.changes = nil
	d.names = make(map[string]*inode, len(d.durable))
	for name, n := range d.durable {
		d.names[name] = n
	}
}

// fate draws how likely something unsynced is to survive: certainly, never,
// or in between.
func fate(rng *rand.Rand) float64 {
	switch rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return 1
	}
	return rng.Float64()
}

// Flip inverts the bits of mask in a byte of a file, as a failing disk does:
// durable at once and unnoticed.
func (m *Mem) Flip(name string, off int64, mask byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n := m.find(name)
	if n == nil {
		return notExist("flip", name)
	}
	if off < 0 || off >= n.size {
		return fmt.Errorf("flip %s: byte %d is behind its end at %d", name, off, n.size)
	}
	var b [1]byte
	n.read(b[:], off)
	b[0] ^= mask
	n.write(b[:], off)
	for i := range n.undo {
		if u := &n.undo[i]; u.old != nil && off >= u.off && off < u.off+u.n {
			u.old[off-u.off] ^= mask
		}
	}
	return nil
}

// ReadFile returns a copy of a file as a reader sees it now.
func (m *Mem) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, _, n := m.find(name)
	if n == nil {
		return nil, notExist("read", name)
	}
	b := make([]byte, n.size)
	n.read(b, 0)
	return b, nil
}

// WriteFile makes a file with the given bytes, all of it durable.
func (m *Mem) WriteFile(name string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, n := m.find(name)
	if d == nil {
		return notExist("write", name)
	}
	if n != nil {
		m.pages -= n.allocated()
	}
	n = &inode{}
	n.grow(int64(len(data)))
	n.write(data, 0)
	n.durable = n.size
	m.pages += n.allocated()
	c := nameChange{name: base, node: n}
	c.apply(d.names)
	c.apply(d.durable)
	return nil
}

var zeroPage [pageSize]byte

func isZero(b []byte) bool {
	for len(b) > pageSize {
		if !bytes.Equal(b[:pageSize], zeroPage[:]) {
			return false
		}
		b = b[pageSize:]
	}
	return bytes.Equal(b, zeroPage[:len(b)])
}
