package wal

import (
	"errors"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
)

// TestCut damages each sector of a log in turn: the log then ends with a write
// before the damage, and later damage leaves no less than earlier damage.
func TestCut(t *testing.T) {
	o := Options{SegmentSize: 4 << 10, Synchronous: true}
	fs := &vfs.Mem{}
	l := mustOpen(t, fs, o)
	states := []model{{}}
	for last := uint64(0); last < 60; last = l.LastIndex() {
		m := states[len(states)-1]
		b := Batch{State: State{1 + last/20, 3, last}, Entries: entries(last+1, last+4, 1+last/20, int(last)*11)}
		must(t, l.Append(b))
		states = append(states, m.with(b))
	}
	must(t, l.Close())
	files := contents(t, fs)
	info, err := Verify(load(t, files), "wal")
	must(t, err)
	if len(info.Segments) < 4 {
		t.Fatalf("%d segments are too few", len(info.Segments))
	}
	kept := 0
	for _, seg := range info.Segments {
		for off := int64(0); off < seg.Used; off += sectorSize {
			fs := load(t, files)
			must(t, fs.Flip(seg.File, off+off/sectorSize%sectorSize, 1))
			_, want := Verify(fs, "wal")
			damage, err := Cut(fs, "wal")
			if err != nil || damage == nil || damage.Error() != want.Error() {
				t.Fatalf("%s at %d: %v, %v, want %v", seg.File, off, damage, err, want)
			}
			k, err := written(fs, o, states)
			if err != nil || k < kept {
				t.Fatalf("%s at %d: %d writes are left, %v; it was %d", seg.File, off, k, err, kept)
			}
			kept = k
		}
	}
	if kept != len(states)-2 {
		t.Errorf("%d writes are left with the last one damaged, of %d", kept, len(states)-1)
	}
	if damage, err := Cut(load(t, files), "wal"); damage != nil || err != nil {
		t.Errorf("sound: %v, %v", damage, err)
	}
}

// written tells how many writes the log has, as far as it can be read and goes
// on.
func written(fs vfs.FS, o Options, states []model) (int, error) {
	l, err := Open(fs, "wal", o)
	if err != nil {
		return 0, err
	}
	defer l.Close()
	for i := range states {
		if states[i].diff(l, false) == nil {
			b := Batch{Entries: entries(l.LastIndex()+1, l.LastIndex()+2, 99, 10)}
			after := states[i].with(b)
			return i, errors.Join(l.Append(b), after.diff(l, false))
		}
	}
	return 0, errors.New("the log is none that ever was")
}

// TestCutMissing takes whole segments away.
func TestCutMissing(t *testing.T) {
	o := Options{SegmentSize: 16 << 10, Synchronous: true}
	files, _, _ := buildLog(t, o, 700)
	info, err := Verify(load(t, files), "wal")
	must(t, err)
	for _, seg := range info.Segments {
		fs := load(t, files)
		must(t, fs.Remove(seg.File))
		_, want := Verify(fs, "wal")
		damage, err := Cut(fs, "wal")
		if err != nil || (damage == nil) != (want == nil) {
			t.Fatalf("without %s: %v, %v, want %v", seg.File, damage, err, want)
		}
		l, err := Open(fs, "wal", o)
		if err != nil {
			t.Fatalf("without %s: %v", seg.File, err)
		}
		must(t, l.Close())
	}
}
