// Command embedded measures stores inside one process, side by side in one run:
// Concord, hashicorp/raft with raft-wal and a bare map, and etcd's embed. Every
// write is durable when it is counted, and what was written is read back and
// compared before a figure is printed.
//
//	go run ./embedded -stores concord,hashicorp -members 1 -writers 1024 -rounds 3
//	go run ./embedded -mode writer -rounds 40
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// store is what is measured.
type store interface {
	// Put returns when the write is durable on a majority.
	Put(ctx context.Context, key, value []byte) error
	// Get reads what the member that takes the writes has applied.
	Get(ctx context.Context, key []byte) ([]byte, error)
	Close() error
}

// load describes one measurement.
type load struct {
	members, writers, keys, value int
	insert                        bool
	duration                      time.Duration
}

var openers = map[string]func(dir string, members int) (store, error){
	"concord":   openConcord,
	"hashicorp": openHashicorp,
	"etcd":      openEtcd,
}

func main() {
	var l load
	stores := flag.String("stores", "concord,hashicorp,etcd", "which stores, in turn")
	rounds := flag.Int("rounds", 3, "how often each is measured, alternating")
	dir := flag.String("dir", "", "where data goes (default: a temporary directory); it must be a real disk")
	mode := flag.String("mode", "overwrite", "overwrite (of -keys keys), insert (new keys), writer (one writer beside the bare disk)")
	w := writerLoad{}
	flag.IntVar(&w.calls, "calls", 200, "of -mode writer: calls in a round")
	flag.IntVar(&w.record, "record", 512, "of -mode writer: bytes a bare write; the log writes one sector for a put of 256 B")
	flag.IntVar(&l.members, "members", 1, "members in this process")
	flag.IntVar(&l.writers, "writers", 1024, "concurrent writers")
	flag.IntVar(&l.keys, "keys", 100_000, "keys for overwrites")
	flag.IntVar(&l.value, "value", 256, "bytes a value")
	flag.DurationVar(&l.duration, "duration", 5*time.Second, "length of one measurement")
	profile := flag.String("cpuprofile", "", "write a CPU profile of everything here")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			log.Fatal(err)
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			log.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	l.insert = *mode == "insert"
	if *dir == "" {
		d, err := os.MkdirTemp("", "concord-bench-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(d)
		*dir = d
	}
	if *mode == "writer" {
		w.rounds, w.value = max(*rounds, 1), l.value
		if err := measureWriter(context.Background(), *dir, w); err != nil {
			log.Fatal(err)
		}
		return
	}
	fmt.Printf("%s, members %d, writers %d, value %d B, GOMAXPROCS %d\n", *mode, l.members, l.writers, l.value, runtime.GOMAXPROCS(0))
	rates := map[string][]float64{}
	for round := range *rounds {
		for name := range strings.SplitSeq(*stores, ",") {
			rate, err := measure(name, fmt.Sprintf("%s/%s-%d", *dir, name, round), l)
			if err != nil {
				log.Fatalf("%s: %v", name, err)
			}
			rates[name] = append(rates[name], rate)
		}
	}
	for name := range strings.SplitSeq(*stores, ",") {
		slices.Sort(rates[name])
		fmt.Printf("median %-10s %10.0f ops/s\n", name, rates[name][len(rates[name])/2])
	}
}

// measure runs the load against a fresh store and returns writes a second.
func measure(name, dir string, l load) (float64, error) {
	open, ok := openers[name]
	if !ok {
		return 0, fmt.Errorf("unknown store; use concord, hashicorp or etcd")
	}
	s, err := open(dir, l.members)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	defer s.Close()
	ctx := context.Background()
	if !l.insert {
		if err := fill(ctx, s, l); err != nil {
			return 0, err
		}
	}
	runtime.GC()
	before, cpu := mallocs(), cpuTime()
	w := newWriters(s, l)
	start := time.Now()
	ops, err := w.run(ctx, l.duration)
	elapsed := time.Since(start)
	if err != nil {
		return 0, err
	}
	cpuPerOp := (cpuTime() - cpu) / time.Duration(ops)
	allocs := float64(mallocs()-before) / float64(ops)
	if err := w.verify(ctx); err != nil {
		return 0, err
	}
	p50, p99 := w.percentile(0.50), w.percentile(0.99)
	rate := float64(ops) / elapsed.Seconds()
	fmt.Printf("%-10s %10.0f ops/s  p50 %-10v p99 %-10v  %6.2f µs CPU/op  %5.1f allocs/op\n",
		name, rate, p50.Round(time.Microsecond), p99.Round(time.Microsecond), float64(cpuPerOp.Nanoseconds())/1e3, allocs)
	return rate, nil
}

// fill writes every key once, so that the measurement overwrites.
func fill(ctx context.Context, s store, l load) error {
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make(chan error, l.writers)
	for range max(l.writers, 64) {
		group.Go(func() {
			value := make([]byte, l.value)
			for {
				n := next.Add(1) - 1
				if n >= int64(l.keys) {
					return
				}
				if err := s.Put(ctx, keyOf(n), value); err != nil {
					select {
					case errs <- err:
					default:
					}
					return
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-errs:
		return err
	default:
		return nil
	}
}

func keyOf(n int64) []byte { return fmt.Appendf(nil, "key/%012d", n) }

// writers are the concurrent callers. Each has keys of its own, so that what it
// wrote last is what must be read back.
type writers struct {
	store store
	load  load
	mine  []writer
}

type writer struct {
	// stamps holds what was written last to each of the writer's keys: to all
	// for overwrites, to the first ones for inserts.
	stamps    []uint64
	keys      [][]byte
	latencies []time.Duration
}

// checkedInserts is how many of its inserts a writer reads back.
const checkedInserts = 64

func newWriters(s store, l load) *writers {
	return &writers{store: s, load: l, mine: make([]writer, l.writers)}
}

func (w *writers) run(ctx context.Context, d time.Duration) (int64, error) {
	var stop atomic.Bool
	var total atomic.Int64
	errs := make(chan error, len(w.mine))
	var group sync.WaitGroup
	for i := range w.mine {
		group.Go(func() {
			n, err := w.write(ctx, i, &stop)
			total.Add(n)
			if err != nil {
				errs <- err
			}
		})
	}
	time.Sleep(d)
	stop.Store(true)
	group.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
		return total.Load(), nil
	}
}

func (w *writers) write(ctx context.Context, i int, stop *atomic.Bool) (n int64, err error) {
	me := &w.mine[i]
	per := max(1, w.load.keys/len(w.mine))
	if w.load.insert {
		per = checkedInserts
	}
	me.stamps = make([]uint64, per)
	for j := range per {
		me.keys = append(me.keys, keyOf(w.number(i, int64(j), per)))
	}
	value := make([]byte, w.load.value)
	for !stop.Load() {
		slot := int(n % int64(per))
		key := me.keys[slot]
		if w.load.insert && n >= int64(per) {
			key, slot = keyOf(w.number(i, n, per)), -1
		}
		binary.LittleEndian.PutUint64(value, uint64(n)+1)
		start := time.Now()
		if err := w.store.Put(ctx, key, value); err != nil {
			return n, err
		}
		if n%16 == 0 {
			me.latencies = append(me.latencies, time.Since(start))
		}
		if slot >= 0 {
			me.stamps[slot] = uint64(n) + 1
		}
		n++
	}
	return n, nil
}

// number is the key that writer i puts as its n-th.
func (w *writers) number(i int, n int64, per int) int64 {
	if w.load.insert {
		return int64(i) + n*int64(len(w.mine))
	}
	return int64(i)*int64(per) + n
}

// verify reads back what each writer wrote last.
func (w *writers) verify(ctx context.Context) error {
	checked := 0
	for i := range w.mine {
		for slot, stamp := range w.mine[i].stamps {
			if stamp == 0 {
				continue
			}
			if checked++; checked > 20_000 {
				return nil
			}
			key := w.mine[i].keys[slot]
			value, err := w.store.Get(ctx, key)
			if err != nil {
				return fmt.Errorf("read back %s: %w", key, err)
			}
			want := binary.LittleEndian.AppendUint64(nil, stamp)
			if len(value) != w.load.value || !bytes.Equal(value[:8], want) {
				return fmt.Errorf("read back %s: it holds another value than the one acknowledged last", key)
			}
		}
	}
	return nil
}

func (w *writers) percentile(p float64) time.Duration {
	var all []time.Duration
	for i := range w.mine {
		all = append(all, w.mine[i].latencies...)
	}
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[int(p*float64(len(all)-1))]
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
