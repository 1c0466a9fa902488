package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const cluster = 0xc1

// recorder is a Handler that keeps what it is told, in order.
type recorder struct {
	receive func(from uint64, ch Channel, payload []byte)
	stream  func(from uint64, header []byte, r io.Reader) error
	call    func(from string, payload []byte) ([]byte, error)
	events  chan event
}

type event struct {
	up bool
	id uint64
	at time.Time
}

func newRecorder() *recorder { return &recorder{events: make(chan event, 1000)} }

func (r *recorder) Receive(from uint64, ch Channel, payload []byte) {
	if r.receive != nil {
		r.receive(from, ch, payload)
	}
}

func (r *recorder) ReceiveStream(from uint64, header []byte, in io.Reader) error {
	if r.stream == nil {
		return errors.New("no streams here")
	}
	return r.stream(from, header, in)
}

func (r *recorder) ReceiveCall(from string, payload []byte) ([]byte, error) {
	if r.call == nil {
		return nil, errors.New("no calls here")
	}
	return r.call(from, payload)
}

func (r *recorder) PeerUp(id uint64)   { r.events <- event{up: true, id: id, at: time.Now()} }
func (r *recorder) PeerDown(id uint64) { r.events <- event{id: id, at: time.Now()} }

// want waits for the next event and checks it.
func (r *recorder) want(t testing.TB, up bool, id uint64) event {
	t.Helper()
	select {
	case e := <-r.events:
		if e.up != up || e.id != id {
			t.Fatalf("event up=%v peer=%d, want up=%v peer=%d", e.up, e.id, up, id)
		}
		return e
	case <-time.After(time.Minute):
		t.Fatalf("no event; want up=%v peer=%d", up, id)
	}
	return event{}
}

// none checks that no event is waiting.
func (r *recorder) none(t testing.TB) {
	t.Helper()
	select {
	case e := <-r.events:
		t.Fatalf("unexpected event up=%v peer=%d", e.up, e.id)
	default:
	}
}

// network is where members listen and dial: TCP or memory.
type network interface {
	listen(t testing.TB) net.Listener
	dial(ctx context.Context, addr string) (net.Conn, error)
}

type loopback struct{}

func (loopback) listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (loopback) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", addr)
}

// node is one member under test.
type node struct {
	*Transport
	*recorder
	addr string
	stop func()
}

// start runs a member until stop or the test's end.
func start(t testing.TB, on network, id uint64, change func(*Config, *recorder)) *node {
	t.Helper()
	l := on.listen(t)
	rec := newRecorder()
	cfg := Config{ID: id, Cluster: cluster, Listener: l, Dial: on.dial, Handler: rec}
	if change != nil {
		change(&cfg, rec)
	}
	n := &node{Transport: New(cfg), recorder: rec, addr: l.Addr().String()}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("member %d: %v", id, err)
		}
	})
	n.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(n.stop)
	return n
}

// pair starts two members that know each other, and waits until both are up.
func pair(t testing.TB, on network, change func(*Config, *recorder)) (a, b *node) {
	t.Helper()
	a, b = start(t, on, 1, change), start(t, on, 2, change)
	a.SetPeer(2, b.addr)
	b.SetPeer(1, a.addr)
	a.want(t, true, 2)
	b.want(t, true, 1)
	return a, b
}

// memory is a network of pipes, for tests in synthetic time. Connections can be
// cut off: then nothing arrives any more, not even that the other end closed.
type memory struct {
	mu        sync.Mutex
	listeners map[string]*memListener
	gates     []chan struct{} // of the connections; closed when cut
	dials     []time.Time
	cut       bool
	next      int // for an address
}

func newMemory() *memory { return &memory{listeners: map[string]*memListener{}} }

func (m *memory) listen(testing.TB) net.Listener {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	l := &memListener{m: m, addr: memAddr(rune('a' + m.next)), backlog: make(chan net.Conn, 1000)}
	m.listeners[l.addr.String()] = l
	return l
}

func (m *memory) dial(ctx context.Context, addr string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dials = append(m.dials, time.Now())
	if m.cut {
		m.mu.Unlock()
		<-ctx.Done()
		m.mu.Lock()
		return nil, ctx.Err()
	}
	l := m.listeners[addr]
	if l == nil {
		return nil, errors.New("connection refused")
	}
	here, a := net.Pipe()
	b, there := net.Pipe()
	gate := make(chan struct{})
	m.gates = append(m.gates, gate)
	l.backlog <- there
	go relay(a, b, gate)
	go relay(b, a, gate)
	return here, nil
}

// relay carries one direction of a connection until its end, which it tells the
// other side unless the connection is cut.
func relay(from, to net.Conn, cut <-chan struct{}) {
	var buf [4 << 10]byte
	isCut := func() bool {
		select {
		case <-cut:
			return true
		default:
			return false
		}
	}
	for {
		n, err := from.Read(buf[:])
		if n > 0 && !isCut() { // else into the void, as the kernel's buffer takes it
			_, err = to.Write(buf[:n])
		}
		switch {
		case err == nil:
		case isCut():
			return
		default:
			from.Close()
			to.Close()
			return
		}
	}
}

// cutOff makes every connection silent, old and new.
func (m *memory) cutOff() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = true
	for _, gate := range m.gates {
		close(gate)
	}
	m.gates = nil
}

func (m *memory) heal() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cut = false
}

type memAddr string

func (memAddr) Network() string  { return "memory" }
func (a memAddr) String() string { return string(a) }

type memListener struct {
	m       *memory
	addr    memAddr
	backlog chan net.Conn // closed, under m.mu, with the listener
}

func (l *memListener) Accept() (net.Conn, error) {
	if c, ok := <-l.backlog; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

// Close ends also what was not accepted yet.
func (l *memListener) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if l.m.listeners[l.addr.String()] != l {
		return net.ErrClosed
	}
	delete(l.m.listeners, l.addr.String())
	close(l.backlog)
	for c := range l.backlog {
		c.Close()
	}
	return nil
}

func (l *memListener) Addr() net.Addr { return l.addr }
