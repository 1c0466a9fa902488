package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tally is the least machine there can be.
type tally struct{ machine }

func (m *tally) Apply(index, _ uint64, _ int64, commands [][]byte, results []any) {
	m.state.Index = index
	for i := range commands {
		results[i] = nil
	}
}

// hammer has callers propose b.N commands, in equal shares on the given members.
func hammer(b *testing.B, nodes []*node, callers, size int) {
	cmd := make([]byte, size)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	began, cpu := time.Now(), cpuTime()
	for i := range callers {
		wg.Go(func() {
			r := nodes[i%len(nodes)].r
			for next.Add(1) <= int64(b.N) {
				if _, err := r.Propose(context.Background(), cmd); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "proposals/s")
	b.ReportMetric(float64(cpuTime()-cpu)/float64(b.N), "cpu-ns/op")
}

// cpuTime is what the process has used: the steadiest figure on a shared machine.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func benchCluster(b *testing.B, n int, log func(i int) Log) *cluster {
	c := &cluster{t: b, net: newNetwork(), nodes: map[uint64]*node{}, opt: Options{SnapshotBytes: 1 << 50}}
	var voters []uint64
	for i := range n {
		voters = append(voters, uint64(i+1))
	}
	for i, id := range voters {
		node := c.add(id)
		node.log, node.m = log(i), &tally{}
		node.found(b, voters...)
	}
	for _, id := range voters {
		c.nodes[id].start(b)
	}
	return c
}

func BenchmarkPropose(b *testing.B) {
	for _, n := range []int{1, 3} {
		for _, callers := range []int{1, 128, 1024, 8192} {
			b.Run(fmt.Sprintf("%d/callers=%d", n, callers), func(b *testing.B) {
				c := benchCluster(b, n, func(int) Log { return &nullLog{} })
				defer c.stop()
				lead := c.leader()
				hammer(b, []*node{lead}, callers, 256)
			})
		}
	}
}
