package backup

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
)

// TestSalvageIsCutOff at each of its steps, on file systems that can exchange
// names and on others. The old files are never lost, a start finds the old
// directory or the whole new one, or is refused, and the next recovery ends it.
func TestSalvageIsCutOff(t *testing.T) {
	master, _ := busy(t)
	flip(t, only(t, master, "wal/*.wal"), 3)
	for name, exchange := range map[string]bool{"exchange": true, "two renames": false} {
		t.Run(name, func(t *testing.T) {
			for steps := int64(0); ; steps++ {
				dir := filepath.Join(t.TempDir(), "d")
				if err := os.CopyFS(dir, os.DirFS(master)); err != nil {
					t.Fatal(err)
				}
				old := relative(tree(t, dir), dir)
				var left atomic.Int64
				left.Store(steps)
				var fsys vfs.FS = mortal{vfs.OS(), &left}
				if exchange {
					fsys = exchanging{mortal{vfs.OS(), &left}}
				}
				s := salvage{fs: fsys, dir: dir}
				_, err := s.do(s.replace)
				if err != nil && !errors.Is(err, errPower) {
					t.Fatalf("step %d: %v", steps, err)
				}
				checkCutOff(t, dir, old, exchange)
				if t.Failed() {
					t.Fatalf("after step %d", steps)
				}
				if err == nil {
					if steps < 20 {
						t.Errorf("only %d steps were tried", steps)
					}
					return
				}
			}
		})
	}
}

// checkCutOff looks at what a crash has left, and recovers dir again.
func checkCutOff(t *testing.T, dir string, old map[string]string, exchange bool) {
	t.Helper()
	_, err := os.Stat(dir)
	if exchange && err != nil {
		t.Error("there is no directory")
	}
	cut := CutOff(vfs.OS(), dir)
	if (cut != nil) != (err != nil) || cut != nil && kv.CodeOf(cut) != kv.FailedPrecondition {
		t.Errorf("a start is told %v, there being the directory is %v", cut, err)
	}
	if err == nil {
		if _, damage := Check(dir); damage != nil && !maps.Equal(relative(tree(t, dir), dir), old) {
			t.Errorf("neither the old directory nor a good one: %v", damage)
		}
	}
	found, err := Survey(dir)
	if err == nil && len(found.Damage) > 0 {
		_, err = Salvage(dir)
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := Check(dir); err != nil {
		t.Error(err)
	}
	names, err := filepath.Glob(dir + "*")
	if err != nil || len(names) != 2 || names[0] != dir {
		t.Fatal(names, err)
	}
	if got := relative(tree(t, names[1]), names[1]); !maps.Equal(got, old) {
		t.Errorf("%s has %v, not the old files", names[1], slices.Sorted(maps.Keys(got)))
	}
	// A second recovery finds nothing that is not what it seems.
	if s, err := Salvage(dir); err != nil || s.Aside == names[1] {
		t.Errorf("%+v, %v", s, err)
	}
	if got := relative(tree(t, names[1]), names[1]); !maps.Equal(got, old) {
		t.Error("the second recovery changed the old files")
	}
	if begun, err := filepath.Glob(dir + "*/" + building); err != nil || len(begun) > 0 {
		t.Error("taken for unfinished:", begun, err)
	}
}

// relative is a tree without the lock's file, by names in dir.
func relative(all map[string]string, dir string) map[string]string {
	out := map[string]string{}
	for path, data := range all {
		if name, err := filepath.Rel(dir, path); err == nil && filepath.Base(name) != "LOCK" {
			out[name] = data
		}
	}
	return out
}

// TestRestoreIsCutOff before its rename: a start does not begin from nothing.
func TestRestoreIsCutOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	var left atomic.Int64
	left.Store(1 << 30)
	fsys := dyingAt{mortal{vfs.OS(), &left}, dir}
	if _, err := restore(fsys, dir, bytes.NewReader(first(t)), Plan{}); !errors.Is(err, errPower) {
		t.Fatal(err)
	}
	for range 2 {
		if err := CutOff(vfs.OS(), dir); kv.CodeOf(err) != kv.FailedPrecondition || !strings.Contains(err.Error(), "backup restore") {
			t.Error(err)
		}
		if err := os.MkdirAll(dir, 0o700); err != nil { // an empty one is no other
			t.Fatal(err)
		}
	}
	if _, err := Restore(dir, bytes.NewReader(first(t)), Plan{}); err != nil {
		t.Fatal(err)
	}
	if err := CutOff(vfs.OS(), dir); err != nil {
		t.Error(err)
	}
	if err := CutOff(vfs.OS(), dir+"x"); err != nil {
		t.Error(err)
	}
}

var errPower = errors.New("the power is cut")

// mortal is a file system of a process that dies after some steps.
type mortal struct {
	vfs.FS
	left *atomic.Int64
}

func (m mortal) then(do func() error) error {
	if m.left.Add(-1) < 0 {
		return errPower
	}
	return do()
}

func (m mortal) OpenFile(name string, flag int) (vfs.File, error) {
	if flag&os.O_CREATE != 0 {
		if err := m.then(func() error { return nil }); err != nil {
			return nil, err
		}
	}
	f, err := m.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return mortalFile{f, m}, nil
}

func (m mortal) MkdirAll(dir string) error {
	return m.then(func() error { return m.FS.MkdirAll(dir) })
}

func (m mortal) Rename(from, to string) error {
	return m.then(func() error { return m.FS.Rename(from, to) })
}

func (m mortal) Remove(name string) error {
	return m.then(func() error { return m.FS.Remove(name) })
}

func (m mortal) SyncDir(dir string) error {
	return m.then(func() error { return m.FS.SyncDir(dir) })
}

// mortalFile is one of its files.
type mortalFile struct {
	vfs.File
	fs mortal
}

func (f mortalFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.fs.then(func() error { n, err = f.File.WriteAt(b, off); return err })
	return n, err
}

func (f mortalFile) Sync() error { return f.fs.then(f.File.Sync) }

// exchanging can exchange names, too.
type exchanging struct{ mortal }

func (e exchanging) Exchange(a, b string) error {
	return e.then(func() error { return vfs.Exchange(e.FS, a, b) })
}

// dyingAt dies before it gives a directory this name.
type dyingAt struct {
	mortal
	to string
}

func (d dyingAt) Rename(from, to string) error {
	if to == d.to {
		d.left.Store(0)
	}
	return d.mortal.Rename(from, to)
}
