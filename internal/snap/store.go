package snap

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/concord-kv/concord/internal/vfs"
)

const (
	suffix     = ".snap"
	tempSuffix = ".tmp"
	// syncEvery bounds the dirty bytes that a sync of the log may wait behind.
	syncEvery = 8 << 20
	// keepAtLeast snapshots stay: the one in use and the one to fall back on.
	keepAtLeast = 2
)

// Store holds the snapshots of one member. All methods may be called
// concurrently.
type Store struct {
	fs    vfs.FS
	dir   string
	chunk int

	mu    sync.Mutex
	temps int
	files []file // the newest first, damaged ones too
}

// file is one snapshot file.
type file struct {
	meta     Meta
	path     string
	verified bool // read whole in this process
	damage   *CorruptError
}

// Open lists the snapshots in dir, which it makes if needed, and removes
// leftovers of interrupted writes. A file in a newer format is ErrFormat.
func Open(fs vfs.FS, dir string, o Options) (*Store, error) {
	if o.ChunkSize == 0 {
		o.ChunkSize = defaultChunk
	}
	s := &Store{fs: fs, dir: dir, chunk: min(max(o.ChunkSize, 1), maxChunk)}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("make snapshot directory: %w", err)
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, tempSuffix) {
			if err := fs.Remove(path); err != nil {
				return nil, fmt.Errorf("remove leftover snapshot: %w", err)
			}
		} else if index, ok := parseName(name); ok {
			if err := s.inspect(path, index); err != nil {
				return nil, err
			}
		}
	}
	// Names that a stopped process gave may not be durable yet.
	if err := fs.SyncDir(dir); err != nil {
		return nil, fmt.Errorf("sync snapshot directory: %w", err)
	}
	return s, nil
}

func (s *Store) path(index uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%016x%s", index, suffix))
}

func parseName(name string) (uint64, bool) {
	hex, ok := strings.CutSuffix(name, suffix)
	if !ok || len(hex) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(hex, 16, 64)
	return n, err == nil
}

// inspect lists one file by its header and end.
func (s *Store) inspect(path string, index uint64) error {
	r, err := openReader(s.fs, path)
	f := file{path: path, meta: Meta{Index: index}}
	if err == nil {
		f.meta = r.Meta()
		err = r.Close()
		if f.meta.Index != index {
			err = &CorruptError{File: path, Reason: fmt.Sprintf("it is the snapshot of index %d under another name", f.meta.Index)}
			f.meta.Index = index
		}
	}
	if err != nil && !errors.As(err, &f.damage) {
		return fmt.Errorf("open snapshot: %w", err)
	}
	s.insert(f)
	return nil
}

// insert replaces the file of the same index.
func (s *Store) insert(f file) {
	s.files = slices.DeleteFunc(s.files, func(g file) bool { return g.meta.Index == f.meta.Index })
	s.files = append(s.files, f)
	slices.SortFunc(s.files, func(a, b file) int { return cmp.Compare(b.meta.Index, a.meta.Index) })
}

// List returns what there is, the newest first. Files that are known to be
// damaged are not in it but in Damaged.
func (s *Store) List() []Meta {
	s.mu.Lock()
	defer s.mu.Unlock()
	var metas []Meta
	for _, f := range s.files {
		if f.damage == nil {
			metas = append(metas, f.meta)
		}
	}
	return metas
}

// Damaged returns the damage found so far, the newest snapshot's first.
func (s *Store) Damaged() []*CorruptError {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*CorruptError
	for _, f := range s.files {
		if f.damage != nil {
			all = append(all, f.damage)
		}
	}
	return all
}

// Create writes a snapshot of what write produces; one of the same index is
// replaced. When it returns nil, the file was synced, read back, verified and
// given its name durably. The result is m with its Size. After an error there
// is no such snapshot, or, if only the name may not be durable, after Open.
func (s *Store) Create(m Meta, write func(io.Writer) error) (Meta, error) {
	return s.save(func(w io.Writer) (Meta, error) { return encode(w, m, s.chunk, write) })
}

// Receive stores what SendTo sent elsewhere, under the same promises as
// Create. It reads r up to the end of the snapshot.
func (s *Store) Receive(r io.Reader) (Meta, error) {
	return s.save(func(w io.Writer) (Meta, error) {
		d, err := newDecoder(r, "", w)
		if err != nil {
			return Meta{}, err
		}
		return d.all()
	})
}

// save makes a file of what fill writes.
func (s *Store) save(fill func(io.Writer) (Meta, error)) (Meta, error) {
	s.mu.Lock()
	s.temps++
	temp := filepath.Join(s.dir, fmt.Sprintf("%d%s", s.temps, tempSuffix))
	s.mu.Unlock()
	f, err := s.fs.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return Meta{}, fmt.Errorf("create snapshot: %w", err)
	}
	m, err := fill(&fileWriter{file: f})
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.readBack(f, temp, m)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return Meta{}, fmt.Errorf("write snapshot: %w", errors.Join(err, s.fs.Remove(temp)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.path(m.Index)
	if err := s.fs.Rename(temp, path); err != nil {
		return Meta{}, fmt.Errorf("name snapshot: %w", errors.Join(err, s.fs.Remove(temp)))
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return Meta{}, fmt.Errorf("name snapshot: %w", err)
	}
	s.insert(file{meta: m, path: path, verified: true})
	return m, nil
}

// readBack verifies a file that was just written.
func (s *Store) readBack(f vfs.File, name string, want Meta) error {
	r, err := NewReader(f, name)
	if err != nil {
		return err
	}
	got, err := r.verify(nil)
	if err == nil && (got.Index != want.Index || got.Term != want.Term || got.Size != want.Size) {
		err = &CorruptError{File: name, Reason: "what is read back is another snapshot than was written"}
	}
	return err
}

// verify reads the whole file and gives raw, unless nil, its bytes.
func (r *Reader) verify(raw io.Writer) (Meta, error) {
	d, err := r.stream(raw)
	if err != nil {
		return Meta{}, err
	}
	return d.all()
}

// fileWriter appends to a file and syncs it now and then.
type fileWriter struct {
	file  vfs.File
	off   int64
	dirty int64
}

// Write implements io.Writer.
func (w *fileWriter) Write(p []byte) (int, error) {
	n, err := w.file.WriteAt(p, w.off)
	w.off += int64(n)
	w.dirty += int64(n)
	if err == nil && w.dirty >= syncEvery {
		w.dirty = 0
		err = w.file.Sync()
	}
	return n, err
}

// find returns the file of an index.
func (s *Store) find(index uint64) (file, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.files {
		if f.meta.Index == index {
			if f.damage != nil {
				return file{}, f.damage
			}
			return f, nil
		}
	}
	return file{}, fmt.Errorf("%w: index %d", ErrNotFound, index)
}

// Open opens the snapshot at index for reading. It stays readable while it is
// open, whatever Retain does.
func (s *Store) Open(index uint64) (*Reader, error) {
	f, err := s.find(index)
	if err != nil {
		return nil, err
	}
	r, err := openReader(s.fs, f.path)
	if err != nil {
		return nil, fmt.Errorf("open snapshot: %w", err)
	}
	return r, nil
}

// SendTo writes the file's bytes to w, verifying them as it goes: a damaged
// file ends early with a *CorruptError.
func (s *Store) SendTo(index uint64, w io.Writer) error {
	r, err := s.Open(index)
	if err != nil {
		return err
	}
	_, err = r.verify(w)
	return errors.Join(err, r.Close())
}

// Verify reads the snapshot at index whole. Damage is remembered: List leaves
// it out from then on.
func (s *Store) Verify(index uint64) (Meta, error) {
	r, err := s.Open(index)
	if err != nil {
		return Meta{}, err
	}
	m, err := r.verify(nil)
	err = errors.Join(err, r.Close())
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.files {
		if f := &s.files[i]; f.meta.Index == index && !errors.As(err, &f.damage) {
			f.verified = f.verified || err == nil
		}
	}
	return m, err
}

// Retain removes what is older than the newest n good snapshots; n below 2
// counts as 2. Before it removes anything it reads those that this process has
// neither written nor read yet, and passes over damaged ones.
func (s *Store) Retain(n int) error {
	n = max(n, keepAtLeast)
	s.mu.Lock()
	files := slices.Clone(s.files)
	s.mu.Unlock()
	if len(files) <= n {
		return nil
	}
	good := 0
	for i := 0; i < len(files); i++ {
		f := files[i]
		if good == n {
			if err := s.remove(f); err != nil {
				return err
			}
			continue
		}
		if f.damage == nil && !f.verified {
			var c *CorruptError
			if _, err := s.Verify(f.meta.Index); errors.As(err, &c) {
				continue
			} else if err != nil {
				return fmt.Errorf("verify snapshot: %w", err)
			}
		}
		if f.damage == nil {
			good++
		}
	}
	return nil
}

func (s *Store) remove(f file) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.fs.Remove(f.path); err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	s.files = slices.DeleteFunc(s.files, func(g file) bool { return g.path == f.path })
	return nil
}
