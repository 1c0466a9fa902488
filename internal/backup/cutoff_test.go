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
				_, err := salvageFor(dir, steps, exchange)
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

// salvageFor is Salvage in a process that dies after some steps.
func salvageFor(dir string, steps int64, exchange bool) (Salvaged, error) {
	m := mortal{vfs.OS(), new(atomic.Int64)}
	m.left.Store(steps)
	s := salvage{fs: m, dir: dir}
	if exchange {
		s.fs = exchanging{m}
	}
	return s.do(s.replace)
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
	_, damage := Check(dir)
	if err == nil && damage != nil && !maps.Equal(relative(tree(t, dir), dir), old) {
		t.Errorf("neither the old directory nor a good one: %v", damage)
	}
	found, err := Survey(dir)
	if err == nil && damage == nil != (len(found.Damage) == 0) && cut == nil {
		t.Errorf("the survey found %v, the check %v", found.Damage, damage)
	}
	if err == nil && len(found.Damage) > 0 {
		_, err = salvageFor(dir, forEver, exchange)
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
	if begun, err := filepath.Glob(dir + "*/" + building); err != nil || len(begun) > 0 && damage != nil {
		t.Error("taken for unfinished:", begun, err)
	}
	if damage != nil && cut == nil {
		return // the recovery began anew
	}
	// Another one finds nothing that is not what it seems.
	if s, err := salvageFor(dir, forEver, exchange); err != nil || s.Aside == names[1] {
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
	fsys := dyingAt{mortal{vfs.OS(), new(atomic.Int64)}, dir}
	fsys.left.Store(forEver)
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

// forEver is more steps than there are.
const forEver = 1 << 30

// mortal is a file system of a process that dies after some steps. What it has
// done stays: no sync is needed for that, nor made.
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
	return m.then(func() error { return os.MkdirAll(dir, 0o700) })
}

func (m mortal) Rename(from, to string) error {
	return m.then(func() error { return m.FS.Rename(from, to) })
}

func (m mortal) Remove(name string) error {
	return m.then(func() error { return m.FS.Remove(name) })
}

func (m mortal) SyncDir(string) error { return m.then(func() error { return nil }) }

// mortalFile is one of its files.
type mortalFile struct {
	vfs.File
	fs mortal
}

func (f mortalFile) WriteAt(b []byte, off int64) (n int, err error) {
	err = f.fs.then(func() error { n, err = f.File.WriteAt(b, off); return err })
	return n, err
}

func (f mortalFile) Sync() error { return f.fs.SyncDir("") }

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
