package backup

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/concord-kv/concord/internal/vfs"
)

// overlay lets a check open a data directory as a start would, which may repair
// a torn end, without changing a byte of it: what is written stays in memory and
// over the files of base. Locks are base's. Renaming directories is not for it.
type overlay struct {
	base vfs.FS

	mu     sync.Mutex
	nodes  map[string]*node // what was opened or changed; nil is a name that is gone
	hidden []*node          // files without a name that may still be open
}

func newOverlay(base vfs.FS) *overlay { return &overlay{base: base, nodes: map[string]*node{}} }

// close closes the files of base.
func (o *overlay) close() (err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, n := range slices.AppendSeq(o.hidden, maps.Values(o.nodes)) {
		if n != nil && n.base != nil {
			err = errors.Join(err, n.base.Close())
		}
	}
	return err
}

// OpenFile implements vfs.FS.
func (o *overlay) OpenFile(name string, flag int) (vfs.File, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	name = filepath.Clean(name)
	n, err := o.find(name)
	switch {
	case err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrExist}
	case errors.Is(err, fs.ErrNotExist) && flag&os.O_CREATE != 0:
		n = &node{pages: map[int64][]byte{}}
		o.nodes[name] = n
	case err != nil:
		return nil, err
	}
	if flag&os.O_TRUNC != 0 {
		return n, n.Truncate(0)
	}
	return n, nil
}

// find returns the file of that name. It is called with mu held.
func (o *overlay) find(name string) (*node, error) {
	if n, known := o.nodes[name]; n != nil {
		return n, nil
	} else if known {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	f, err := o.base.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	n := &node{base: f, below: size, size: size, pages: map[int64][]byte{}}
	o.nodes[name] = n
	return n, nil
}

// MkdirAll implements vfs.FS for directories that exist.
func (o *overlay) MkdirAll(dir string) error {
	_, err := o.base.ReadDir(dir)
	return err
}

// ReadDir implements vfs.FS.
func (o *overlay) ReadDir(dir string) ([]string, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	names, err := o.base.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	there := map[string]bool{}
	for _, name := range names {
		there[name] = true
	}
	for name, n := range o.nodes { // in any order: they are sorted below
		if filepath.Dir(name) == filepath.Clean(dir) {
			there[filepath.Base(name)] = n != nil
		}
	}
	maps.DeleteFunc(there, func(_ string, is bool) bool { return !is })
	return slices.Sorted(maps.Keys(there)), nil
}

// Rename implements vfs.FS.
func (o *overlay) Rename(oldpath, newpath string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	oldpath, newpath = filepath.Clean(oldpath), filepath.Clean(newpath)
	n, err := o.find(oldpath)
	if err != nil || oldpath == newpath {
		return err
	}
	o.drop(newpath)
	o.nodes[oldpath], o.nodes[newpath] = nil, n
	return nil
}

// Remove implements vfs.FS for files.
func (o *overlay) Remove(name string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	name = filepath.Clean(name)
	if _, err := o.find(name); err != nil {
		return err
	}
	o.drop(name)
	return nil
}

// drop takes a name away. It is called with mu held.
func (o *overlay) drop(name string) {
	if n := o.nodes[name]; n != nil {
		o.hidden = append(o.hidden, n)
	}
	o.nodes[name] = nil
}

// SyncDir implements vfs.FS.
func (o *overlay) SyncDir(string) error { return nil }

// Lock implements vfs.FS.
func (o *overlay) Lock(name string) (io.Closer, error) { return o.base.Lock(name) }

// pageBytes is the unit of what is kept in memory.
const pageBytes = 4096

// node is a file: pages that were written over a file of base.
type node struct {
	base vfs.File // nil for a new file

	mu    sync.RWMutex
	below int64 // how much of base still shows
	size  int64
	pages map[int64][]byte // by number
}

// ReadAt implements vfs.File.
func (n *node) ReadAt(b []byte, off int64) (int, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if off >= n.size {
		return 0, io.EOF
	}
	var end error
	if left := n.size - off; int64(len(b)) > left {
		b, end = b[:left], io.EOF
	}
	for done := 0; done < len(b); {
		at := off + int64(done)
		part := b[done:min(len(b), done+int(pageBytes-at%pageBytes))]
		if page := n.pages[at/pageBytes]; page != nil {
			copy(part, page[at%pageBytes:])
		} else if err := n.readBelow(part, at); err != nil {
			return done, err
		}
		done += len(part)
	}
	return len(b), end
}

// readBelow reads what shows of base, and zeros behind it.
func (n *node) readBelow(b []byte, off int64) error {
	k := int(max(min(n.below-off, int64(len(b))), 0))
	clear(b[k:])
	if k == 0 {
		return nil
	}
	if m, err := n.base.ReadAt(b[:k], off); m < k {
		return err
	}
	return nil
}

// WriteAt implements vfs.File.
func (n *node) WriteAt(b []byte, off int64) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for done := 0; done < len(b); {
		at := off + int64(done)
		page := n.pages[at/pageBytes]
		if page == nil {
			page = make([]byte, pageBytes)
			if err := n.readBelow(page, at/pageBytes*pageBytes); err != nil {
				return done, err
			}
			n.pages[at/pageBytes] = page
		}
		done += copy(page[at%pageBytes:], b[done:])
	}
	n.size = max(n.size, off+int64(len(b)))
	return len(b), nil
}

// Truncate implements vfs.File.
func (n *node) Truncate(size int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.below = min(n.below, size)
	if size < n.size {
		for i, page := range n.pages { // in any order: each by itself
			if at := i * pageBytes; at+pageBytes > size {
				clear(page[max(size-at, 0):])
			}
		}
	}
	n.size = size
	return nil
}

// Allocate implements vfs.File.
func (n *node) Allocate(off, length int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.size = max(n.size, off+length)
	return nil
}

// Size implements vfs.File.
func (n *node) Size() (int64, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.size, nil
}

// Sync implements vfs.File.
func (n *node) Sync() error { return nil }

// Close implements vfs.File. The overlay closes base.
func (n *node) Close() error { return nil }
