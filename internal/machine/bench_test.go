package machine

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
	"golang.org/x/sys/unix"
)

// threadTime is the CPU time of this thread: the machine may be busy.
func threadTime() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// benchCommands makes puts of 256 bytes to n keys of 32 bytes, in random order.
func benchCommands(n int) [][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	commands := make([][]byte, n)
	for i, at := range rng.Perm(n) {
		key, value := make([]byte, 32), make([]byte, 256)
		binary.BigEndian.PutUint64(key[24:], uint64(at))
		binary.BigEndian.PutUint64(value, rng.Uint64())
		commands[i] = EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: key, Value: value}}})
	}
	return commands
}

// BenchmarkApplyOverwrite overwrites 100,000 keys in entries of 256 puts, with
// history compacted behind and Maintain called after each entry.
func BenchmarkApplyOverwrite(b *testing.B) {
	for name, wanted := range map[string]bool{"answered": true, "unanswered": false} {
		b.Run(name, func(b *testing.B) {
			const batch, keys = 256, 100_000
			commands := benchCommands(keys)
			m := New(Options{Keys: keys})
			defer m.Close()
			m.Bootstrap(1, nil)
			index := uint64(1)
			apply := func(commands [][]byte) {
				var results []any
				if wanted {
					results = make([]any, len(commands))
				}
				index++
				m.Apply(Position{index, 1, int64(index)}, commands, results)
			}
			for i := 0; i+batch <= keys; i += batch {
				apply(commands[i : i+batch])
			}
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			b.ResetTimer()
			cpu := threadTime()
			for done := 0; done < b.N; done += batch {
				at := done % (keys - batch)
				apply(commands[at : at+batch])
				if done%(64*batch) == 0 {
					if rev := m.store.Revision() - 200_000; rev > m.store.CompactRevision() {
						apply([][]byte{EncodeCompact(nil, rev)})
					}
				}
				m.Maintain()
			}
			b.ReportMetric(float64((threadTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/put")
		})
	}
}

// BenchmarkHash is what the running hash adds to a put of 256 bytes: compare it
// with BenchmarkApplyOverwrite.
func BenchmarkHash(b *testing.B) {
	key, value := make([]byte, 32), make([]byte, 256)
	var h runningHash
	for b.Loop() {
		h.put(key, value, &kv.KeyValue{})
	}
	if h == 0 {
		b.Fatal("the hash vanished")
	}
}

func BenchmarkDecodePut(b *testing.B) {
	command := benchCommands(1)[0]
	b.ReportAllocs()
	for b.Loop() {
		var op kv.Op
		d := decoder{data: command[2:]}
		d.put(&op)
		if d.end() != nil || len(op.Key) != 32 {
			b.Fatal(d.err)
		}
	}
}

func BenchmarkEncodePut(b *testing.B) {
	t := kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: make([]byte, 32), Value: make([]byte, 256)}}}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		buf = EncodeTxn(buf[:0], &t)
	}
}
