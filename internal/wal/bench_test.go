package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
)

// BenchmarkAppend measures batches of entries of 256 B on the real disk, each
// paired in turns with what the bare disk does: one pwrite of the same length
// and an fdatasync, in a file prepared in the same way. It reports entries/s,
// CPU per entry, and how many times the bare write's time one append takes.
func BenchmarkAppend(b *testing.B) {
	for _, n := range []int{1, 16, 128, 1024} {
		b.Run(fmt.Sprintf("batch=%d", n), func(b *testing.B) { benchmarkAppend(b, n) })
	}
}

func benchmarkAppend(b *testing.B, n int) {
	const round, segment = 64, 256 << 20
	dir := b.TempDir()
	l, err := Open(vfs.OS(), filepath.Join(dir, "wal"), Options{SegmentSize: segment, Synchronous: true, Reserve: -1})
	must(b, err)
	defer l.Close()
	l.pre.size = segment
	must(b, l.Append(Batch{State: State{1, 1, 1}}))
	zeroAhead(b, l) // leaves the small first segment and the one prepared with it
	zeroAhead(b, l)
	size := max(4096, n*(256+recordHeader+1)*sectorSize/payloadSize/sectorSize*sectorSize)
	bare := newBare(b, filepath.Join(dir, "bare"), segment)
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	es := make([]Entry, n)
	next := uint64(1)
	var took, bareTook, cpu, bareCPU time.Duration
	b.ResetTimer()
	rounds := 0
	for ; rounds*round < b.N; rounds++ {
		if room := l.seg.size - l.seg.used.Load()*sectorSize; room < int64(round*(size+4096)) {
			b.StopTimer()
			zeroAhead(b, l)
			b.StartTimer()
		}
		c, t := processCPU(), time.Now()
		for range round {
			for i := range es {
				es[i] = Entry{Index: next, Term: 1, Data: data[i%8*256:][:256]}
				next++
			}
			if err := l.Append(Batch{Entries: es}); err != nil {
				b.Fatal(err)
			}
		}
		took += time.Since(t)
		cpu += processCPU() - c
		c = processCPU()
		bareTook += bare.write(b, data, round)
		bareCPU += processCPU() - c
	}
	appends := float64(rounds * round)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(appends*float64(n)/took.Seconds(), "entries/s")
	b.ReportMetric(float64(cpu.Nanoseconds())/appends/float64(n), "cpu-ns/entry")
	b.ReportMetric(float64(bareCPU.Nanoseconds())/appends/float64(n), "bare-cpu-ns/entry")
	b.ReportMetric(float64(took.Microseconds())/appends, "µs/append")
	b.ReportMetric(float64(took)/float64(bareTook), "×bare")
}

// zeroAhead makes the log go on in a segment whose zeros are written, which is
// what the goroutine does between bursts.
func zeroAhead(b *testing.B, l *Log) {
	l.mu.Lock()
	l.seg.size = l.seg.used.Load() * sectorSize // full
	l.mu.Unlock()
	must(b, l.Append(Batch{State: State{1, 1, 1}}))
	seg := l.seg
	zeros := make([]byte, 1<<20)
	for off := seg.used.Load() * sectorSize; off < seg.size; off += int64(len(zeros)) {
		_, err := seg.file.WriteAt(zeros[:min(int64(len(zeros)), seg.size-off)], off)
		must(b, err)
	}
	must(b, seg.file.Sync())
}

func processCPU() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// bareDisk overwrites a preallocated, zeroed file.
type bareDisk struct {
	file vfs.File
	off  int64
	size int64
}

func newBare(b *testing.B, path string, size int64) *bareDisk {
	f, err := vfs.OS().OpenFile(path, os.O_RDWR|os.O_CREATE)
	must(b, err)
	b.Cleanup(func() { _ = f.Close() })
	must(b, f.Allocate(0, size))
	d := &bareDisk{file: f, size: size}
	d.zero(b)
	return d
}

func (d *bareDisk) zero(b *testing.B) {
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < d.size; off += int64(len(zeros)) {
		_, err := d.file.WriteAt(zeros, off)
		must(b, err)
	}
	must(b, d.file.Sync())
}

func (d *bareDisk) write(b *testing.B, data []byte, times int) time.Duration {
	if d.off+int64(times*len(data)) > d.size {
		d.off = 0
	}
	t := time.Now()
	for range times {
		if _, err := d.file.WriteAt(data, d.off); err != nil {
			b.Fatal(err)
		}
		if err := d.file.Sync(); err != nil {
			b.Fatal(err)
		}
		d.off += int64(len(data))
	}
	return time.Since(t)
}

// BenchmarkEncode is Append without a disk: the log's own work.
func BenchmarkEncode(b *testing.B) {
	l := mustOpen(b, nullFS{&vfs.Mem{}}, Options{SegmentSize: 1 << 36, Synchronous: true, Reserve: -1})
	defer l.Close()
	l.seg.size = 1 << 38
	es := make([]Entry, 1024)
	data := make([]byte, 256)
	next, start := uint64(1), processCPU()
	b.ReportAllocs()
	b.SetBytes(256 * 1024)
	for b.Loop() {
		for i := range es {
			es[i] = Entry{Index: next, Term: 1, Data: data}
			next++
		}
		if err := l.Append(Batch{Entries: es}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((processCPU()-start).Nanoseconds())/float64(next), "cpu-ns/entry")
}

// nullFS forgets what is written behind the first MiB.
type nullFS struct{ vfs.FS }

type nullFile struct{ vfs.File }

func (n nullFS) OpenFile(name string, flag int) (vfs.File, error) {
	f, err := n.FS.OpenFile(name, flag)
	return nullFile{f}, err
}

func (nullFile) WriteAt(b []byte, off int64) (int, error) { return len(b), nil }
func (nullFile) Sync() error                              { return nil }
func (nullFile) Allocate(off, n int64) error              { return nil }
func (nullFile) Truncate(int64) error                     { return nil }

// BenchmarkOpen reads a log of 64 MiB at start, and the segment prepared next.
func BenchmarkOpen(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "wal")
	l, err := Open(vfs.OS(), dir, Options{})
	must(b, err)
	next := uint64(1)
	for l.Size() < 64<<20 {
		must(b, l.Append(Batch{Entries: entries(next, next+1024, 1, 256)}))
		next += 1024
	}
	must(b, l.Close())
	b.SetBytes(64 << 20)
	for b.Loop() {
		l, err := Open(vfs.OS(), dir, Options{})
		must(b, err)
		b.StopTimer()
		must(b, l.Close())
		b.StartTimer()
	}
}

// BenchmarkEntries reads a log back, 1 MiB at a time.
func BenchmarkEntries(b *testing.B) {
	l, err := Open(vfs.OS(), filepath.Join(b.TempDir(), "wal"), Options{})
	must(b, err)
	defer l.Close()
	next := uint64(1)
	for l.Size() < 32<<20 {
		must(b, l.Append(Batch{Entries: entries(next, next+1024, 1, 256)}))
		next += 1024
	}
	b.SetBytes(int64(next-1) * 256)
	for b.Loop() {
		for lo := uint64(1); lo < next; {
			es, err := l.Entries(lo, next, 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			lo += uint64(len(es))
		}
	}
}
