package concord

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// benchNode opens a member with n keys of 256 bytes.
func benchNode(b *testing.B, n int) *Node {
	b.Helper()
	node, err := Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := node.Close(); err != nil {
			b.Error(err)
		}
	})
	ops := make([]kv.Op, 0, 1000)
	for i := range n {
		ops = append(ops, kv.Op{Kind: kv.OpPut, Key: fmt.Appendf(nil, "key/%08d", i), Value: make([]byte, 256)})
		if len(ops) == cap(ops) || i == n-1 {
			if _, err := node.Txn(b.Context(), kv.Txn{Success: ops}); err != nil {
				b.Fatal(err)
			}
			ops = ops[:0]
		}
	}
	return node
}

// Overwrites by 1,024 callers, durable on the disk below the temporary
// directory.
func BenchmarkPut(b *testing.B) {
	n := benchNode(b, 100_000)
	var next atomic.Int64
	b.SetParallelism(512)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		value := make([]byte, 256)
		var key []byte
		for pb.Next() {
			key = fmt.Appendf(key[:0], "key/%08d", next.Add(1)%100_000)
			if _, err := kv.Put(b.Context(), n, key, value); err != nil {
				b.Error(err)
			}
		}
	})
}

// A single writer: what one put takes from call to answer.
func BenchmarkPutAlone(b *testing.B) {
	n := benchNode(b, 1)
	value := make([]byte, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := kv.Put(b.Context(), n, "key/00000000", value); err != nil {
			b.Fatal(err)
		}
	}
}

// Point reads at a million keys.
func BenchmarkGet(b *testing.B) {
	n := benchNode(b, 1_000_000)
	s := n.Settings()
	s.LeaderReads = true
	if err := n.SetSettings(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	for n.replica.LeaderRead() == false {
	}
	keys := make([]string, 1<<16)
	for i := range keys {
		keys[i] = fmt.Sprintf("key/%08d", (i*7919)%1_000_000)
	}
	for _, level := range []kv.ReadLevel{kv.Eventual, kv.Leader, kv.Strong} {
		b.Run(level.String(), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, err := n.Get(b.Context(), keys[i&(1<<16-1)], level); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// Point reads of one key, which the caches hold: what a read costs beside cache
// misses.
func BenchmarkGetHot(b *testing.B) {
	n := benchNode(b, 1)
	s := n.Settings()
	s.LeaderReads = true
	if err := n.SetSettings(b.Context(), s); err != nil {
		b.Fatal(err)
	}
	for n.replica.LeaderRead() == false {
	}
	for _, level := range []kv.ReadLevel{kv.Eventual, kv.Leader} {
		b.Run(level.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.Get(b.Context(), "key/00000000", level); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Opening a member with a million keys: with all of them in the snapshot, and
// with half of them written again behind it.
func BenchmarkReopen(b *testing.B) {
	dir := b.TempDir()
	fill := func(n *Node, count int) { // by callers that put one key each
		var next atomic.Int64
		var group sync.WaitGroup
		for range 200 {
			group.Go(func() {
				for i := next.Add(1); i <= int64(count); i = next.Add(1) {
					if _, err := kv.Put(b.Context(), n, fmt.Appendf(nil, "key/%08d", i), make([]byte, 256)); err != nil {
						b.Error(err)
					}
				}
			})
		}
		group.Wait()
	}
	reopen := func(b *testing.B) *Node {
		n, err := Open(b.Context(), dir)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := n.Put(b.Context(), "first", "put"); err != nil {
			b.Fatal(err)
		}
		return n
	}
	n := reopen(b)
	fill(n, 1_000_000)
	if _, err := n.replica.Snapshot(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Run("fresh", func(b *testing.B) {
		for b.Loop() {
			if err := n.Close(); err != nil {
				b.Fatal(err)
			}
			n = reopen(b)
		}
	})
	fill(n, 500_000)
	b.Run("half", func(b *testing.B) {
		for b.Loop() {
			if err := n.Close(); err != nil {
				b.Fatal(err)
			}
			n = reopen(b)
		}
	})
	if err := n.Close(); err != nil {
		b.Fatal(err)
	}
}
