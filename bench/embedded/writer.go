package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
)

// writerLoad describes a measurement of one writer beside the bare disk.
type writerLoad struct {
	rounds, calls int
	// record is the length of a bare write in bytes; make it what the log
	// writes for one put.
	record, value int
}

// measureWriter measures, in turns in one run, what the disk needs to make one
// record durable in the way the log does (a write into blocks that were
// allocated and zeroed before, and fdatasync), and what a put takes on an
// embedded member of its own with one writer on the same disk.
func measureWriter(ctx context.Context, dir string, l writerLoad) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	bare, err := newBareLog(filepath.Join(dir, "bare"), l)
	if err != nil {
		return err
	}
	defer bare.file.Close()
	s, err := openConcord(filepath.Join(dir, "member"), 1)
	if err != nil {
		return err
	}
	defer s.Close()
	n := uint64(0)
	value := make([]byte, l.value)
	put := func() error {
		n++
		binary.LittleEndian.PutUint64(value, n)
		return s.Put(ctx, keyOf(int64(n%1000)), value)
	}
	if _, err := latencies(l.calls, put); err != nil { // the first ones meet an empty store
		return err
	}
	var ofBare, ofPut []time.Duration
	var ratios []float64
	for round := range l.rounds {
		var a, b []time.Duration
		var errs [2]error
		if round%2 == 0 {
			a, errs[0] = latencies(l.calls, bare.write)
			b, errs[1] = latencies(l.calls, put)
		} else {
			b, errs[1] = latencies(l.calls, put)
			a, errs[0] = latencies(l.calls, bare.write)
		}
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		ofBare, ofPut = append(ofBare, a...), append(ofPut, b...)
		ratios = append(ratios, float64(quantile(b, 0.5))/float64(quantile(a, 0.5)))
	}
	if err := readBack(ctx, s, n, l); err != nil {
		return err
	}
	show := func(name string, all []time.Duration) {
		fmt.Printf("%-28s median %-9v p99 %v\n", name, quantile(all, 0.5), quantile(all, 0.99))
	}
	show(fmt.Sprintf("write of %d B, fdatasync", l.record), ofBare)
	show(fmt.Sprintf("put of %d B, one member", l.value), ofPut)
	low, middle, high := medianInterval(ratios)
	fmt.Printf("ratio of medians, a round    %.2f (95 %% interval %.2f to %.2f, %d rounds of %d calls each; goal at most 1.5)\n",
		middle, low, high, l.rounds, l.calls)
	return nil
}

// readBack compares what was written last with what is there.
func readBack(ctx context.Context, s store, last uint64, l writerLoad) error {
	for n := last; n > 0 && n > last-1000; n-- {
		value, err := s.Get(ctx, keyOf(int64(n%1000)))
		if err != nil || len(value) != l.value || binary.LittleEndian.Uint64(value) != n {
			return fmt.Errorf("read back write %d: another value is there, %w", n, err)
		}
	}
	return nil
}

func latencies(n int, call func() error) ([]time.Duration, error) {
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if err := call(); err != nil {
			return nil, err
		}
		took[i] = time.Since(start)
	}
	return took, nil
}

// bareLog is a file that is written as the log's segments are.
type bareLog struct {
	file vfs.File
	data []byte
	off  int64
}

func newBareLog(path string, l writerLoad) (*bareLog, error) {
	f, err := vfs.OS().OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, err
	}
	size := int64(l.rounds * l.calls * l.record)
	if err := f.Allocate(0, size); err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return nil, err
		}
	}
	b := &bareLog{file: f, data: make([]byte, l.record)}
	for i := range b.data {
		b.data[i] = byte(i * 7)
	}
	return b, f.Sync()
}

func (b *bareLog) write() error {
	if _, err := b.file.WriteAt(b.data, b.off); err != nil {
		return err
	}
	b.off += int64(len(b.data))
	return b.file.Sync()
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1))].Round(100 * time.Nanosecond)
}

// medianInterval is the median and its 95 % interval by order statistics.
// Source: Conover, "Practical Nonparametric Statistics", 3rd ed. 1999, 3.2.
func medianInterval(all []float64) (low, median, high float64) {
	sorted := slices.Sorted(slices.Values(all))
	n := float64(len(sorted))
	half := 1.96 * math.Sqrt(n) / 2
	at := func(rank float64) float64 {
		return sorted[max(0, min(len(sorted)-1, int(rank)))]
	}
	return at(math.Floor(n/2 - half)), sorted[len(sorted)/2], at(math.Ceil(n/2 + half))
}
