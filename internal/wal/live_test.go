package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
)

// TestRealDisk runs a script on the operating system's file system, with the
// goroutine that prepares segments, opening the log anew now and then.
func TestRealDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "wal")
	o := Options{SegmentSize: 64 << 10}
	s := &script{rng: rand.New(rand.NewPCG(4, 4))}
	for range 10 {
		var err error
		s.l, err = Open(vfs.OS(), dir, o)
		must(t, err)
		must(t, s.m.diff(s.l, true))
		for range 40 {
			must(t, s.step())
		}
		must(t, s.m.diff(s.l, false))
		must(t, s.l.Close())
		must(t, s.l.Close())
		if err := s.l.Append(Batch{State: State{1, 1, 1}}); !errors.Is(err, ErrClosed) {
			t.Fatal(err)
		}
	}
	r, err := Verify(vfs.OS(), dir)
	must(t, err)
	if r.Last != s.m.last() || r.State != s.m.state {
		t.Fatalf("report %+v", r)
	}
	names, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range names {
		info, err := e.Info()
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
	}
}

// TestConcurrentReaders reads while entries are appended, replaced and
// truncated: each entry read has the bytes of its index and term, terms never
// fall along the log, and nothing is read that was dropped before.
func TestConcurrentReaders(t *testing.T) {
	o := Options{SegmentSize: 32 << 10}
	l := mustOpen(t, &vfs.Mem{}, o)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var reads atomic.Int64
	for k := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(k, 0))
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := readSome(l, rng); err != nil {
					t.Error(err)
					reads.Add(1 << 30)
					return
				}
				reads.Add(1)
			}
		})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	last, term := uint64(0), uint64(1)
	for i := 0; i < 1500 || reads.Load() < 3000; i++ {
		first := last + 1
		if rng.IntN(5) == 0 {
			term++
			if low := l.Mark().Index + 1; low < first {
				first = low + rng.Uint64N(first-low)
			}
		}
		b := Batch{Entries: entries(first, first+1+rng.Uint64N(8), term, 16+rng.IntN(600))}
		last = b.Entries[len(b.Entries)-1].Index
		must(t, l.Append(b))
		if rng.IntN(30) == 0 {
			term, err := l.Term(last)
			must(t, err)
			must(t, l.Append(Batch{Mark: Mark{last, term}}))
			must(t, l.TruncateBefore(last-min(last-1, 50)))
		}
	}
	close(stop)
	wg.Wait()
	must(t, l.Close())
	if _, err := l.Entries(last, last+1, 1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func readSome(l *Log, rng *rand.Rand) error {
	first, last := l.FirstIndex(), l.LastIndex()
	if last <= first {
		return nil
	}
	lo := first + rng.Uint64N(last-first+1)
	es, err := l.Entries(lo, last+1, 1<<14)
	if errors.Is(err, ErrCompacted) || errors.Is(err, ErrUnavailable) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, e := range es {
		if e.Index != lo+uint64(i) || i > 0 && e.Term < es[i-1].Term {
			return fmt.Errorf("entry %d of term %d at place %d from %d", e.Index, e.Term, i, lo)
		}
		if binary.LittleEndian.Uint64(e.Data) != e.Index || binary.LittleEndian.Uint64(e.Data[8:]) != e.Term {
			return fmt.Errorf("entry %d of term %d has the bytes of another", e.Index, e.Term)
		}
	}
	return nil
}

// TestAppendAllocations: what Append allocates does not grow with its entries.
func TestAppendAllocations(t *testing.T) {
	l := mustOpen(t, &vfs.Mem{}, Options{SegmentSize: 16 << 20, Synchronous: true})
	defer l.Close()
	payload := make([]byte, 256) // zeros: the file system in memory keeps none
	es := make([]Entry, 1000)
	next := uint64(1)
	n := testing.AllocsPerRun(20, func() {
		for i := range es {
			es[i] = Entry{Index: next, Term: 1, Data: payload}
			next++
		}
		if err := l.Append(Batch{Entries: es}); err != nil {
			t.Error(err)
		}
	})
	if n > 100 { // the file system's pages, the index's growth
		t.Errorf("%v allocations for 1,000 entries", n)
	}
}

// TestLargeBatch: a batch longer than a segment and than the write buffer.
func TestLargeBatch(t *testing.T) {
	fs := &vfs.Mem{}
	l := mustOpen(t, fs, Options{SegmentSize: 64 << 10})
	var m model
	for i, size := range []int{100, 9 << 20, 100, 70 << 10, 100} {
		b := Batch{Entries: entries(uint64(i+1), uint64(i+2), 1, size)}
		must(t, l.Append(b))
		m = m.with(b)
	}
	must(t, m.diff(l, false))
	must(t, l.Close())
	fs.Crash(rand.New(rand.NewPCG(1, 1)))
	l = mustOpen(t, fs, Options{SegmentSize: 64 << 10})
	must(t, m.diff(l, false))
	must(t, l.Close())
}

// FuzzRecover gives recovery two writes of any records, in sectors whose
// checksums and chains are right, and then any bytes. It must not panic, nor
// take what makes no sense: what opens can be read.
func FuzzRecover(f *testing.F) {
	var e encoder
	records := func(fill func()) []byte {
		seg := newSegment(header{key: 1}, "", nil, 1<<20)
		e.seq, e.chain = 1, 0
		e.begin(seg, 1, 0)
		from := e.fill
		fill()
		return append([]byte(nil), e.buf[from:e.fill]...)
	}
	first := records(func() {
		e.base(Mark{}, 1, 0)
		e.entries(entries(1, 5, 1, 40), 0)
		e.state(State{1, 2, 3})
	})
	for _, second := range [][]byte{
		records(func() { e.entries(entries(3, 6, 2, 30), 4); e.mark(kindMark, Mark{3, 2}) }),
		records(func() { e.mark(kindReset, Mark{9, 2}); e.entries(entries(10, 12, 2, 30), 9) }),
		records(func() { e.base(Mark{2, 1}, 1, 4) }),
		nil,
	} {
		f.Add(first, second, []byte(nil))
		f.Add(first, second, second)
	}
	f.Fuzz(func(t *testing.T, first, second, rest []byte) {
		if len(first)+len(second)+len(rest) > 64<<10 {
			return
		}
		fs := &vfs.Mem{}
		must(t, fs.MkdirAll("wal"))
		must(t, fs.WriteFile(segmentPath("wal", 1), forge(t, first, second, rest)))
		rep, err := Verify(fs, "wal")
		l, oerr := Open(fs, "wal", tiny)
		if (err == nil) != (oerr == nil) {
			t.Fatalf("verify: %v, open: %v", err, oerr)
		}
		if err != nil {
			return
		}
		defer l.Close()
		if l.LastIndex() != rep.Last || l.FirstIndex() != rep.First {
			t.Fatalf("log %d to %d, report %+v", l.FirstIndex(), l.LastIndex(), rep)
		}
		es, err := l.Entries(rep.First, rep.Last+1, 1<<30)
		if err != nil || uint64(len(es)) != rep.Last+1-rep.First {
			t.Fatalf("%d of entries %d to %d: %v", len(es), rep.First, rep.Last, err)
		}
		must(t, l.Append(Batch{Entries: entries(rep.Last+1, rep.Last+2, 9, 10)}))
	})
}

// forge makes a segment of two writes with the given records and of the bytes
// that follow them.
func forge(t *testing.T, first, second, rest []byte) []byte {
	fs := &vfs.Mem{}
	file, err := fs.OpenFile("f", os.O_RDWR|os.O_CREATE)
	must(t, err)
	head := header{number: 1, log: 2, key: 3}
	var sector [sectorSize]byte
	head.encode(sector[:])
	_, err = file.WriteAt(sector[:], 0)
	must(t, err)
	var e encoder
	seg, next := newSegment(head, "f", file, 1<<20), int64(1)
	for _, records := range [][]byte{first, second} {
		e.seq++
		e.begin(seg, next, 0)
		e.put(records)
		next, err = e.finish()
		must(t, err)
	}
	b, err := fs.ReadFile("f")
	must(t, err)
	return append(b, rest...)
}
