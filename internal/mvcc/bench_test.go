package mvcc

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"runtime/metrics"
	"testing"
	"time"
	"unsafe"

	"github.com/concord-kv/concord/kv"
	"golang.org/x/sys/unix"
)

// benchKey is the i-th of many keys of 32 bytes, in no order.
func benchKey(dst []byte, i int) []byte {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(i)*0x9E3779B97F4A7C15)
	return append(hex.AppendEncode(append(dst[:0], "/bench/key/"...), b[:]), "/tail"...)
}

// threadTime is the CPU time of this thread: the machine may be busy.
func threadTime() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func gcCPU() float64 {
	s := []metrics.Sample{{Name: "/cpu/classes/gc/total:cpu-seconds"}}
	metrics.Read(s)
	return s[0].Value.Float64()
}

func heapObjects() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapObjects
}

// BenchmarkStore measures the figures that the design asks for, at two sizes.
// Each part is one pass over its operations, whatever b.N.
func BenchmarkStore(b *testing.B) {
	for _, size := range []struct{ keys, value int }{{1_000_000, 256}, {5_000_000, 64}} {
		b.Run(fmt.Sprintf("keys=%d/value=%d", size.keys, size.value), func(b *testing.B) {
			for range b.N {
				benchStore(b, size.keys, size.value)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func timed(b *testing.B, n int, name string, f func(i int)) {
	start, cpu := time.Now(), threadTime()
	for i := range n {
		f(i)
	}
	b.ReportMetric(float64((threadTime()-cpu).Nanoseconds())/float64(n), "cpu-ns/"+name)
	b.ReportMetric(float64(time.Since(start).Nanoseconds())/float64(n), "ns/"+name)
}

func benchStore(b *testing.B, keys, valueSize int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const n = 1_000_000
	objects := heapObjects()
	s := New(Options{})
	defer s.Close()
	value := bytes.Repeat([]byte("v"), valueSize)
	rng := rand.New(rand.NewPCG(1, 2))
	picks := make([]uint32, n)
	for i := range picks {
		picks[i] = rng.Uint32N(uint32(keys))
	}
	var key []byte
	put := func(i int) {
		key = benchKey(key, i)
		tx := s.Begin()
		tx.Put(key, value, 0, 0)
		tx.Commit()
	}
	timed(b, n, "makekey", func(i int) { key = benchKey(key, int(picks[i])) })
	timed(b, keys, "insert", put)
	st := s.Stats()
	b.ReportMetric(float64(st.MemoryBytes)/float64(keys)-float64(32+valueSize), "B-overhead/key")
	b.ReportMetric(float64(st.MemoryBytes)/(1<<20), "MiB")
	b.ReportMetric((float64(heapObjects())-float64(objects))/float64(keys), "objects/key")
	cpu := gcCPU()
	runtime.GC()
	b.ReportMetric((gcCPU()-cpu)*1000, "ms-gc")
	timed(b, n, "get", func(i int) {
		key = benchKey(key, int(picks[i]))
		if x, ok := s.Get(key); !ok || len(x.Value) != valueSize {
			b.Fatal("not found")
		}
	})
	timed(b, n, "view", func(int) { s.View().Close() })
	timed(b, n, "overwrite", func(i int) { put(int(picks[i])) })
	v := s.View()
	timed(b, n, "overwrite-viewed", func(i int) { put(int(picks[i])) })
	v.Close()
	v = s.View()
	defer v.Close()
	count := 0
	timed(b, 1, "scan-all", func(int) {
		s.scan([]byte{0}, []byte{0}, v.rev, func(found []found) bool {
			for _, f := range found {
				count += int(record(s.key(f.key), s.version(f.version)).Value[0] & 1)
			}
			return true
		})
	})
	whole := &kv.Range{Key: []byte{0}, End: []byte{0}}
	timed(b, 1, "count-all", func(int) {
		r, err := v.Range(&kv.Range{Key: whole.Key, End: whole.End, CountOnly: true})
		if err != nil || r.Count != int64(keys) {
			b.Fatal(r.Count, err)
		}
	})
	timed(b, 1, "range-all", func(int) {
		r, err := v.Range(whole)
		if err != nil || len(r.KVs) != keys {
			b.Fatal(err)
		}
	})
}

// BenchmarkGoMap is the yardstick for a busy machine: a Go map with slices.
func BenchmarkGoMap(b *testing.B) {
	const keys, n = 1_000_000, 1_000_000
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rng := rand.New(rand.NewPCG(1, 2))
	for range b.N {
		m := map[string][]byte{}
		var key []byte
		timed(b, keys, "insert", func(i int) {
			key = benchKey(key, i)
			m[string(key)] = bytes.Repeat([]byte("v"), 256)
		})
		timed(b, n, "get", func(i int) {
			key = benchKey(key, int(rng.Uint32N(keys)))
			if x := bytes.Clone(m[string(key)]); len(x) != 256 {
				b.Fatal("not found")
			}
		})
	}
}

// BenchmarkSnapshot writes and loads a million keys of 256 bytes.
func BenchmarkSnapshot(b *testing.B) {
	const keys = 1_000_000
	s := New(Options{})
	defer s.Close()
	value := bytes.Repeat([]byte("v"), 256)
	var key []byte
	for i := range keys {
		key = benchKey(key, i)
		tx := s.Begin()
		tx.Put(key, value, 0, 0)
		tx.Commit()
	}
	v := s.View()
	defer v.Close()
	var buf bytes.Buffer
	if _, err := v.WriteTo(&buf); err != nil {
		b.Fatal(err)
	}
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			if _, err := v.WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			s := New(Options{})
			if err := s.Load(bytes.NewReader(buf.Bytes()), 2); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(s.Stats().MemoryBytes)/(1<<20), "MiB")
			s.Close()
		}
	})
}

// BenchmarkSnapshotHistory writes 100,000 keys of 256 bytes with ten versions
// each, made in no order: what a snapshot costs under overwrites.
func BenchmarkSnapshotHistory(b *testing.B) {
	const keys, versions = 100_000, 10
	s := New(Options{})
	defer s.Close()
	value := bytes.Repeat([]byte("v"), 256)
	rng := rand.New(rand.NewPCG(1, 2))
	var key []byte
	for i := range keys * versions {
		if i >= keys {
			i = int(rng.Uint32N(keys))
		}
		key = benchKey(key, i)
		tx := s.Begin()
		tx.Put(key, value, 0, 0)
		tx.Commit()
	}
	v := s.View()
	defer v.Close()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cpu := threadTime()
	for b.Loop() {
		if _, err := v.WriteTo(io.Discard); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64((threadTime()-cpu).Nanoseconds())/float64(b.N*keys*versions), "cpu-ns/version")
}

// BenchmarkGet reads keys picked at random out of a million with values of 256
// bytes, most of which are in no cache.
func BenchmarkGet(b *testing.B) {
	const keys = 1_000_000
	s := New(Options{})
	defer s.Close()
	value := bytes.Repeat([]byte("v"), 256)
	var key []byte
	for i := range keys {
		key = benchKey(key, i)
		tx := s.Begin()
		tx.Put(key, value, 0, 0)
		tx.Commit()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	rng := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	b.ResetTimer()
	cpu := threadTime()
	for range b.N {
		key = benchKey(key, int(rng.Uint32N(keys)))
		if x, ok := s.Get(key); !ok || len(x.Value) != len(value) {
			b.Fatal("not found")
		}
	}
	b.ReportMetric(float64((threadTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/get")
	b.ReportMetric(missTime(b), "cpu-ns/miss")
}

// missTime is what one cache miss costs that the next waits for, in as much
// memory: the yardstick for a get, which has a chain of four.
func missTime(b *testing.B) float64 {
	const words, steps = 300 << 20 / 8, 1_000_000
	p := mapAligned(words * 8)
	defer unmapMemory(p, words*8)
	w := unsafe.Slice((*uint64)(p), words)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := 0; i < words; i += 8 { // a line each; a walk through a random map
		w[i] = rng.Uint64N(words) &^ 7
	}
	at, cpu := uint64(0), threadTime()
	for i := range uint64(steps) {
		at = (w[at] + i*8) % words // i keeps it out of short cycles
	}
	took := threadTime() - cpu
	if at > words {
		b.Fatal("the walk went astray")
	}
	return float64(took.Nanoseconds()) / steps
}
