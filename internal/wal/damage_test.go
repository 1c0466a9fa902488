package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
)

// buildLog makes a log of about 64 KiB in several segments and returns its
// files and the model after all but the last write and after the last.
func buildLog(t testing.TB, o Options, lastSize int) (files map[string][]byte, before, after model) {
	t.Helper()
	fs := &vfs.Mem{}
	l := mustOpen(t, fs, o)
	rng := rand.New(rand.NewPCG(1, 2))
	var m model
	write := func(b Batch) {
		must(t, l.Append(b))
		before, m = m, m.with(b)
	}
	for l.Size() < 60<<10 {
		last := m.last()
		n := uint64(rng.IntN(8))
		b := Batch{State: State{1 + last/50, 3, last}, Entries: entries(last+1, last+1+n, 1+last/50, rng.IntN(900))}
		if last > 20 && rng.IntN(4) == 0 {
			b.Entries = entries(last-2, last+3, 2+last/50, 300)
		}
		if rng.IntN(5) == 0 {
			b.Mark = Mark{last / 2, 0}
			if term, err := l.Term(last / 2); err == nil {
				b.Mark.Term = term
			}
		}
		write(b)
	}
	write(Batch{Entries: entries(m.last()+1, m.last()+4, 99, lastSize)})
	must(t, l.Close())
	return contents(t, fs), before, m
}

func contents(t testing.TB, fs *vfs.Mem) map[string][]byte {
	files := make(map[string][]byte)
	for _, name := range walFiles(t, fs) {
		b, err := fs.ReadFile(name)
		must(t, err)
		files[name] = b
	}
	return files
}

func load(t testing.TB, files map[string][]byte) *vfs.Mem {
	fs := &vfs.Mem{}
	must(t, fs.MkdirAll("wal"))
	for name, b := range files {
		must(t, fs.WriteFile(name, b))
	}
	return fs
}

// TestEveryFlip flips each byte of the log in turn, one bit, and now and then
// all. The log must tell, or the byte must be in space that nothing uses.
func TestEveryFlip(t *testing.T) {
	o := Options{SegmentSize: 16 << 10, Synchronous: true}
	files, _, _ := buildLog(t, o, 700)
	fs := load(t, files)
	rep, err := Verify(fs, "wal")
	must(t, err)
	flips := 0
	for _, info := range rep.Segments {
		end := max(info.Used, sectorSize)
		for off, step := int64(0), int64(1); off < info.Size; off += step {
			if off >= end {
				step = 61 // never written
			}
			masks := [...]byte{1 << (off * 5 % 8), 0xff}
			for _, mask := range masks[:1+btoi(off%7 == 0)] {
				flips++
				must(t, fs.Flip(info.File, off, mask))
				if err := checkFlip(fs, info.File, off, off < end); err != nil {
					t.Fatalf("%s byte %d of %d used, mask %x: %v", info.File, off, info.Used, mask, err)
				}
				must(t, fs.Flip(info.File, off, mask))
			}
		}
	}
	t.Logf("%d flips in %d segments", flips, len(rep.Segments))
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func checkFlip(fs *vfs.Mem, file string, off int64, used bool) error {
	_, err := Verify(fs, "wal")
	var c *CorruptError
	if used {
		if !errors.As(err, &c) {
			return fmt.Errorf("the damage was not told: %v", err)
		}
		if c.File != file || off < c.Offset || off >= c.Offset+sectorSize {
			return fmt.Errorf("the damage was told at the wrong place: %v", err)
		}
		return nil
	}
	if err != nil && !errors.As(err, &c) {
		return err
	}
	return nil
}

// TestFlipWhileOpen flips bytes under an open log: Entries never returns wrong
// data.
func TestFlipWhileOpen(t *testing.T) {
	files, _, m := buildLog(t, tiny, 700)
	fs := load(t, files)
	l := mustOpen(t, fs, tiny)
	defer l.Close()
	told := 0
	for _, seg := range l.segs {
		for off := int64(sectorSize); off < seg.used.Load()*sectorSize; off += 7 {
			must(t, fs.Flip(seg.path, off, 1<<(off%8)))
			err := m.diff(l, false)
			var c *CorruptError
			switch {
			case errors.As(err, &c):
				told++
			case err != nil:
				t.Fatalf("%s byte %d: %v", seg.path, off, err)
			}
			must(t, fs.Flip(seg.path, off, 1<<(off%8)))
		}
	}
	if told == 0 {
		t.Fatal("no damage was met")
	}
}

// lastWrite returns where the last write stands.
func lastWrite(t testing.TB, files map[string][]byte) (file string, lo, hi int64) {
	f, err := scanDir(load(t, files), "wal", 0)
	must(t, err)
	defer f.close()
	seg := f.segs[f.active]
	return seg.path, f.writeStart * sectorSize, seg.used.Load() * sectorSize
}

// TestTornTail cuts the last write at each byte, in three ways, and loses each
// set of a few sectors of it. The log must start with all that was written
// before, or all of it, and go on.
func TestTornTail(t *testing.T) {
	for _, size := range []int{0, 100, 700} {
		files, before, after := buildLog(t, tiny, size)
		file, lo, hi := lastWrite(t, files)
		whole := files[file]
		tries := 0
		try := func(what string, b []byte) {
			t.Helper()
			tries++
			files[file] = b
			if err := tornStarts(load(t, files), [2]model{before, after}, string(b) == string(whole), tries%16 == 0); err != nil {
				t.Fatalf("size %d, %s: %v", size, what, err)
			}
		}
		for cut := lo; cut <= hi; cut++ {
			b := append([]byte(nil), whole...)
			clear(b[cut:hi])
			try(fmt.Sprintf("zeros from byte %d", cut-lo), b)
			try(fmt.Sprintf("file ends at byte %d", cut-lo), whole[:cut:cut])
		}
		n := (hi - lo) / sectorSize
		for set := range int64(1) << min(n, 10) {
			b := append([]byte(nil), whole...)
			for k := range n {
				if set>>k&1 == 1 {
					clear(b[lo+k*sectorSize:][:sectorSize])
				}
			}
			try(fmt.Sprintf("sectors %b of %d lost", set, n), b)
		}
	}
}

func tornStarts(fs *vfs.Mem, may [2]model, whole, goOn bool) error {
	before, after := &may[0], &may[1]
	l, err := Open(fs, "wal", tiny)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := after.diff(l, true); err == nil {
		return nil
	} else if whole {
		return err
	}
	if err := before.diff(l, true); err != nil {
		return err
	}
	m := *before
	for i := 0; goOn && i < 5; i++ { // what the torn write left must not disturb
		b := Batch{Entries: entries(m.last()+1, m.last()+2, 100, 450)}
		if err := l.Append(b); err != nil {
			return err
		}
		m = m.with(b)
		fs.Kill()
		if l, err = Open(fs, "wal", tiny); err != nil {
			return fmt.Errorf("second start: %w", err)
		}
		defer l.Close()
		if err := m.diff(l, true); err != nil {
			return err
		}
	}
	return nil
}

// TestZeroPayload: a flipped bit in an acknowledged write is told also when
// a whole sector of the write is zeros by right.
func TestZeroPayload(t *testing.T) {
	fs := &vfs.Mem{}
	l := mustOpen(t, fs, tiny)
	must(t, l.Append(Batch{Entries: []Entry{{Index: 1, Term: 1, Data: make([]byte, 4000)}}}))
	must(t, l.Close())
	file := walFiles(t, fs)[0]
	for off := int64(sectorSize); off < 10*sectorSize; off++ {
		must(t, fs.Flip(file, off, 0x10))
		var c *CorruptError
		if _, err := Open(fs, "wal", tiny); !errors.As(err, &c) {
			t.Fatalf("byte %d: %v", off, err)
		}
		must(t, fs.Flip(file, off, 0x10))
	}
}

// TestLostSectors zeroes each run of sectors of acknowledged writes but the
// last one: that is damage, never a torn tail.
func TestLostSectors(t *testing.T) {
	files, _, _ := buildLog(t, tiny, 700)
	last, lo, _ := lastWrite(t, files)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 3000 {
		fs := load(t, files)
		rep, err := Verify(fs, "wal")
		must(t, err)
		info := rep.Segments[rng.IntN(len(rep.Segments))]
		end := info.Used / sectorSize
		if info.File == last {
			end = lo / sectorSize
		}
		if end < 2 {
			continue
		}
		from := 1 + rng.Int64N(end-1)
		to := min(from+1+rng.Int64N(8), info.Used/sectorSize)
		b := append([]byte(nil), files[info.File]...)
		clear(b[from*sectorSize : to*sectorSize])
		must(t, fs.WriteFile(info.File, b))
		var c *CorruptError
		if _, err := Open(fs, "wal", tiny); !errors.As(err, &c) {
			if info.File == last && to*sectorSize > lo {
				continue // reaches into the last write: as if it and all before it were under way
			}
			t.Fatalf("sectors %d to %d of %s (%d used): %v", from, to, info.File, end, err)
		}
	}
}

func TestLostSegments(t *testing.T) {
	files, _, _ := buildLog(t, tiny, 700)
	last, _, _ := lastWrite(t, files)
	for name := range files {
		fs := load(t, files)
		must(t, fs.Remove(name))
		_, err := Open(fs, "wal", tiny)
		var c *CorruptError
		if name <= last && !errors.As(err, &c) {
			t.Errorf("without %s: %v", name, err)
		} else if name <= last && !strings.Contains(c.Reason, "lost") {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// TestStaleSegment puts a segment of another log, and an older one of this log,
// in the place of one.
func TestStaleSegment(t *testing.T) {
	files, _, _ := buildLog(t, tiny, 700)
	others, _, _ := buildLog(t, tiny, 700)
	var names []string
	fs := load(t, files)
	names = walFiles(t, fs)
	for i, name := range names {
		fs := load(t, files)
		must(t, fs.WriteFile(name, others[name]))
		var c *CorruptError
		if _, err := Open(fs, "wal", tiny); !errors.As(err, &c) {
			t.Errorf("%s of another log: %v", name, err)
		}
		if i > 0 {
			fs = load(t, files)
			must(t, fs.WriteFile(name, files[names[i-1]]))
			if _, err := Open(fs, "wal", tiny); !errors.As(err, &c) {
				t.Errorf("%s under the name of %s: %v", names[i-1], name, err)
			}
		}
	}
}

func TestNewerFormat(t *testing.T) {
	files, _, _ := buildLog(t, tiny, 700)
	fs := load(t, files)
	name := walFiles(t, fs)[1]
	b := files[name]
	b[12]++
	seal(b[:sectorSize], place{}, markHeader)
	must(t, fs.WriteFile(name, b))
	_, err := Open(fs, "wal", tiny)
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "format 2") || !strings.Contains(err.Error(), name) {
		t.Fatal(err)
	}
}

// TestSplice puts sectors in the place of others that are whole themselves:
// same file, same place, same write number, but of a write that was cut and
// written anew. Only the chain can tell.
func TestSplice(t *testing.T) {
	version := func(term uint64) []byte {
		var e encoder
		e.begin(newSegment(header{key: 1}, "", nil, 1<<20), 1, 0)
		from := e.fill
		e.entries([]Entry{{Index: 1, Term: 1, Data: data(1, term, 400)}, {Index: 2, Term: 1, Data: data(2, term, 1500)}}, 0)
		// The encoder's buffer has trailers between the payloads.
		var records []byte
		for at := 0; at <= e.at; at += sectorSize {
			records = append(records, e.buf[at:at+payloadSize]...)
		}
		return forge(t, records[from:e.at/sectorSize*payloadSize+e.fill], nil, nil)
	}
	a, b := version(1), version(2)
	if len(a) != len(b) {
		t.Fatal("the versions differ in length")
	}
	// Header, the first write, the second in one sector; then without that one.
	for sectors := len(a) / sectorSize; sectors >= len(a)/sectorSize-1; sectors-- {
		for lo := 1; lo < sectors; lo++ {
			for hi := lo + 1; hi <= sectors; hi++ {
				file := append([]byte(nil), a[:sectors*sectorSize]...)
				copy(file[lo*sectorSize:hi*sectorSize], b[lo*sectorSize:])
				_, err := Verify(load(t, map[string][]byte{segmentPath("wal", 1): file}), "wal")
				var c *CorruptError
				if all := lo == 1 && hi == sectors; all && err != nil || !all && !errors.As(err, &c) {
					t.Errorf("sectors %d to %d of another write: %v", lo, hi, err)
				}
			}
		}
	}
}
