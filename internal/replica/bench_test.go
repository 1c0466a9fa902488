package replica

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
)

// tally is the least machine there can be.
type tally struct{ machine }

func (m *tally) Apply(_ Position, commands [][]byte, results []any) {
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

// benchCluster starts n members with logs and transports of the given make.
func benchCluster(b *testing.B, n int, real bool) *cluster {
	c := &cluster{t: b, net: newNetwork(), nodes: map[uint64]*node{}, opt: Options{SnapshotBytes: 1 << 50}}
	var voters []uint64
	for i := range n {
		voters = append(voters, uint64(i+1))
	}
	for _, id := range voters {
		node := c.add(id)
		node.m = &tally{}
		node.log = &nullLog{}
		if real {
			log, err := wal.Open(vfs.OS(), b.TempDir(), wal.Options{})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = log.Close() })
			node.log = log
		}
		node.found(b, voters...)
	}
	var links []*link
	for _, id := range voters {
		if real && n > 1 {
			links = append(links, newLink(b, c.nodes[id]))
		}
	}
	for _, id := range voters {
		c.nodes[id].start(b)
	}
	for _, l := range links {
		l.connect(b, links)
	}
	return c
}

// link joins a node to the others over TCP.
type link struct {
	*node
	t    *transport.Transport
	addr string
}

// newLink makes the node's transport a real one.
func newLink(b *testing.B, n *node) *link {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	l := &link{node: n, addr: listener.Addr().String()}
	l.t = transport.New(transport.Config{
		ID: n.id, Cluster: 7, Listener: listener, Handler: l,
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		},
	})
	n.over = l.t
	return l
}

func (l *link) connect(b *testing.B, all []*link) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.t.Run(ctx) }()
	b.Cleanup(func() { cancel(); <-done })
	for _, o := range all {
		if o != l {
			l.t.SetPeer(o.id, o.addr)
		}
	}
}

// The link is its node's transport.Handler.
func (l *link) Receive(from uint64, ch Channel, p []byte)  { l.r.Receive(from, ch, p) }
func (l *link) ReceiveCall(string, []byte) ([]byte, error) { return nil, errors.New("no calls") }
func (l *link) PeerUp(id uint64)                           { l.r.PeerUp(id) }
func (l *link) PeerDown(id uint64)                         { l.r.PeerDown(id) }
func (l *link) ReceiveStream(from uint64, h []byte, r io.Reader) error {
	return l.r.ReceiveStream(from, h, r)
}

func BenchmarkPropose(b *testing.B) {
	for _, real := range []bool{false, true} {
		for _, n := range []int{1, 3} {
			for _, callers := range []int{1, 128, 1024, 8192} {
				name := fmt.Sprintf("%d/memory/callers=%d", n, callers)
				if real {
					name = fmt.Sprintf("%d/disk+tcp/callers=%d", n, callers)
				}
				b.Run(name, func(b *testing.B) {
					c := benchCluster(b, n, real)
					defer c.stop()
					hammer(b, []*node{c.leader()}, callers, 256)
				})
			}
		}
	}
}

// BenchmarkLogAlone is what one caller on one member could reach at best: an
// entry of 256 bytes made durable, one after the other.
func BenchmarkLogAlone(b *testing.B) {
	log, err := wal.Open(vfs.OS(), b.TempDir(), wal.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	data, next := make([]byte, 300), uint64(1)
	for b.Loop() {
		if err := log.Append(Batch{Entries: []Entry{{Index: next, Term: 1, Data: data}}}); err != nil {
			b.Fatal(err)
		}
		next++
	}
}

// BenchmarkForward is BenchmarkPropose with the callers on all three members.
func BenchmarkForward(b *testing.B) {
	c := benchCluster(b, 3, true)
	defer c.stop()
	c.leader()
	hammer(b, []*node{c.nodes[1], c.nodes[2], c.nodes[3]}, 1024, 256)
}

func BenchmarkLeaderRead(b *testing.B) {
	c := benchCluster(b, 1, false)
	defer c.stop()
	n := c.leader()
	for b.Loop() {
		n.r.LeaderRead()
	}
}
