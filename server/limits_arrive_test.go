package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// stranger speaks HTTP/2 to a server, and sends what it likes.
type stranger struct {
	*http2.Framer
	conn   io.Writer
	header []byte
}

func newStranger(t *testing.T, conn io.Writer) *stranger {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", "/etcdserverpb.KV/Put"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		if err := enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil { // no table: all blocks are the same
			t.Fatal(err)
		}
	}
	s := &stranger{Framer: http2.NewFramer(conn, nil), conn: conn, header: block.Bytes()}
	s.AllowIllegalWrites = true
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stranger) open(id uint32) error {
	return s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: s.header, EndHeaders: true})
}

func prefix(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(n)) }

// sentStream is what a stranger has sent on a stream.
type sentStream struct {
	data   []byte
	frames []sentFrame
}

type sentFrame struct{ end, size int } // end in data

// keeps is what has to be kept of a stream: the frames with bytes of a message
// that is not whole.
func (s *sentStream) keeps(header int) (n int64) {
	whole := 0
	for rest := s.data; len(rest) >= prefixBytes; {
		next := prefixBytes + int(binary.BigEndian.Uint32(rest[1:]))
		if len(rest) < next {
			break
		}
		whole += next
		rest = rest[next:]
	}
	if whole == 0 {
		n = waitingCall + int64(header)
	}
	for _, f := range s.frames {
		if f.end > whole {
			n += kept(f.size)
		}
	}
	return n
}

// TestIncoming counts what is not whole, however messages lie in frames and
// frames in what is read at once.
func TestIncoming(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 300 {
		var wire bytes.Buffer
		s := newStranger(t, &wire)
		open := map[uint32]*sentStream{}
		answers := map[int][]byte{} // after so many bytes
		for id := uint32(1); id < 2*uint32(1+r.IntN(8)); id += 2 {
			must(t, s.open(id))
			open[id] = new(sentStream)
		}
		for range r.IntN(60) {
			id := 1 + 2*uint32(r.IntN(9))
			stream := open[id]
			data := make([]byte, 1+r.IntN(7))
			if r.IntN(4) == 0 {
				data = bytes.Join([][]byte{prefix(r.IntN(3)), data, prefix(2000 + r.IntN(9000)), make([]byte, r.IntN(9000))}, nil)
			}
			end := r.IntN(12) == 0
			var pad []byte
			if r.IntN(5) == 0 {
				pad = make([]byte, r.IntN(20))
			}
			size := wire.Len()
			must(t, s.WriteDataPadded(id, end, data, pad))
			size = wire.Len() - size - frameHeader
			if stream != nil {
				stream.data = append(stream.data, data...)
				stream.frames = append(stream.frames, sentFrame{len(stream.data), size})
			}
			switch {
			case end:
				delete(open, id)
			case r.IntN(20) == 0:
				must(t, s.WriteRSTStream(id, http2.ErrCodeCancel))
				delete(open, id)
			case r.IntN(20) == 0:
				var answer bytes.Buffer
				must(t, http2.NewFramer(&answer, nil).WriteRSTStream(id, http2.ErrCodeNo))
				answers[wire.Len()] = answer.Bytes()
				delete(open, id)
			}
		}
		var want int64
		for _, stream := range open {
			want += stream.keeps(len(s.header))
		}
		all := newArrivals(1<<40, func(uint64) { t.Error("cut") })
		in := newIncoming(all, nil)
		replay(r, in, wire.Bytes(), answers)
		if got := all.held.Load(); got != want || got != in.sum {
			t.Fatalf("round %d: %d bytes are kept, and %d counted, %d by the connection", round, want, got, in.sum)
		}
		in.end()
		if all.held.Load() != 0 || len(all.all) != 0 {
			t.Fatalf("after the end: %d bytes, %d connections", all.held.Load(), len(all.all))
		}
	}
}

// replay has in see what a client has sent, in random pieces, with the server's
// answers where they came.
func replay(r *rand.Rand, in *incoming, wire []byte, answers map[int][]byte) {
	b := wire[len(http2Preface):]
	for at := len(http2Preface); len(b) > 0; {
		n := 1 + r.IntN(min(len(b), 1+r.IntN(5000)))
		for k := 1; k < n; k++ {
			if answers[at+k] != nil {
				n = k
			}
		}
		in.received(b[:n])
		at, b = at+n, b[n:]
		for _, c := range answers[at] {
			in.sent([]byte{c})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWhoIsCut: who holds most, for longest, and only until the others may hold
// what they do.
func TestWhoIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cut []string
		all := newArrivals(100, func(uint64) {})
		add := func(name string, holds int64) *arrival {
			a := &arrival{of: all, cut: func() { cut = append(cut, name) }}
			all.watch(a)
			a.hold(holds)
			<-time.After(time.Second)
			return a
		}
		add("old and small", 10)
		add("large", 60)
		waxing := add("waxing", 1)
		<-time.After(10 * time.Second)
		add("new", 20)
		waxing.hold(20) // 110 in all
		if fmt.Sprint(cut) != "[large]" || all.held.Load() != 50 {
			t.Errorf("cut: %v, which leaves %d", cut, all.held.Load())
		}
		add("at once", 90)
		if fmt.Sprint(cut) != "[large waxing old and small new]" || all.held.Load() != 90 {
			t.Errorf("cut: %v, which leaves %d", cut, all.held.Load())
		}
		waxing.hold(1000)
		waxing.end()
		if all.held.Load() != 90 {
			t.Error("who is cut is counted")
		}
	})
}

// besieged is a server that strangers talk to.
func besieged(t *testing.T, limit int64) (s *Server, connect func() net.Conn) {
	t.Helper()
	s, err := New(kvtest.NewModel(kv.Limits{}), lonely{}, Config{Addrs: []string{"127.0.0.1:0"}, Clients: ClientLimits{ArrivingBytes: limit}})
	must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		must(t, <-done)
	})
	return s, func() net.Conn {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
}

// lonely is a cluster that leads itself.
type lonely struct{ kv.Cluster }

func (lonely) Status() kv.Status { return kv.Status{Member: 1, Leader: 1} }

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(until) {
			t.Fatalf("not in a minute: %s", what)
		}
		runtime.Gosched()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestWhatIsKept: what is counted is what it costs, whatever frames messages come
// in, and a call that sends nothing costs something too.
func TestWhatIsKept(t *testing.T) {
	for _, size := range []int{1, 300, 1025, 16 << 10, 0} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			s, connect := besieged(t, 1<<40)
			before := heap()
			c := connect()
			go func() { _, _ = io.Copy(io.Discard, c) }()
			a := newStranger(t, c)
			var want int64
			for id := uint32(1); want < 8<<20; id += 2 {
				must(t, a.open(id))
				if want += waitingCall; size == 0 {
					continue
				}
				must(t, a.WriteData(id, false, prefix(1<<20)))
				data := make([]byte, size)
				for sent := 0; sent+size <= 32<<10; sent += size {
					must(t, a.WriteData(id, false, data))
					want += kept(size)
				}
			}
			within(t, "all is read", func() bool { return s.limits.arriving.held.Load() >= want })
			counted, cost := s.limits.arriving.held.Load(), heap()-before
			t.Logf("frames of %d bytes: %d KiB are counted, the heap has %d KiB more", size, counted>>10, cost>>10)
			if cost > 3*counted/2+4<<20 {
				t.Errorf("frames of %d bytes: %d bytes are counted, the heap has %d more", size, counted, cost)
			}
			must(t, c.Close())
			within(t, "nothing is held after the end", func() bool { return s.limits.arriving.held.Load() == 0 })
		})
	}
}

// TestStrangersHoldSoMuch: many who each send most of a large message are cut,
// those who send theirs whole go on, and in the end nothing is held.
func TestStrangersHoldSoMuch(t *testing.T) {
	const limit = 4 << 20
	s, connect := besieged(t, limit)
	conn, err := grpc.NewClient(s.Addrs()[0].String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	put := func(size int) {
		t.Helper()
		if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: make([]byte, size)}); err != nil {
			t.Errorf("who sends all of %d bytes: %v", size, err)
		}
	}
	put(512 << 10)
	cut := make(chan struct{}, 64)
	data := make([]byte, 16<<10)
	grpcStranger := func(c net.Conn) {
		a := newStranger(t, c)
		_ = a.open(1)
		_ = a.WriteData(1, false, prefix(1<<20))
		for range 14 {
			_ = a.WriteData(1, false, data) // it may be cut by now
		}
	}
	webStranger := func(c net.Conn) {
		fmt.Fprintf(c, "POST /v3/kv/put HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"value\":\"%s", bytes.Repeat([]byte("a"), 224<<10))
	}
	for i := range 64 {
		c := connect()
		go func() { _, _ = io.Copy(io.Discard, c); cut <- struct{}{} }()
		if i%2 == 0 {
			grpcStranger(c)
		} else {
			webStranger(c)
		}
		if i%8 == 7 {
			put(4 << 10) // always less than what others hold
		}
	}
	for range 64 - 2*limit/(224<<10) { // others may hold what they hold
		select {
		case <-cut:
		case <-time.After(time.Minute):
			t.Fatal("strangers are not cut")
		}
	}
	within(t, "the limit is kept", func() bool { return s.limits.arriving.held.Load() <= limit })
	put(4 << 10)
}

func BenchmarkIncoming(b *testing.B) {
	var wire bytes.Buffer
	f := http2.NewFramer(&wire, nil)
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 12), EndHeaders: true})
	_ = f.WriteData(1, true, append(prefix(300), make([]byte, 300)...))
	var answer bytes.Buffer
	f = http2.NewFramer(&answer, nil)
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: make([]byte, 12), EndHeaders: true, EndStream: true})
	i := newIncoming(newArrivals(1<<30, nil), nil)
	i.in.left = 0
	b.ReportAllocs()
	for b.Loop() {
		i.received(wire.Bytes())
		i.sent(answer.Bytes())
	}
}
