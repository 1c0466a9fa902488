package discovery

import (
	"context"
	"errors"
	"log"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Bounds of connections, which memberlist has none for: it reads before it knows
// that the other has the key.
const (
	// mostStreams is how many connections of others are served at once.
	mostStreams = 32
	// maxStream is the most bytes that are read of one. All state is
	// [mostKnown] announcements, and memberlist's own of each.
	maxStream = 1 << 20
)

// wire is memberlist's transport with bounds, and an end to its connections.
type wire struct {
	*memberlist.NetTransport
	streams chan net.Conn
	ctx     context.Context // of connections that are made
	stop    context.CancelFunc
	wg      sync.WaitGroup

	mu     sync.Mutex
	closed bool
	conns  map[*stream]bool // true for those of others
	theirs int
}

func newWire(host string, port int, logger *log.Logger) (*wire, error) {
	tries := 1
	if port == 0 {
		tries = 10 // TCP's free port may be taken for UDP
	}
	var inner *memberlist.NetTransport
	var err error
	for range tries {
		inner, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{host}, BindPort: port, Logger: logger})
		if err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	w := &wire{NetTransport: inner, streams: make(chan net.Conn), conns: map[*stream]bool{}}
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.wg.Go(w.accept)
	return w, nil
}

// accept passes connections of others on, as many as may be.
func (w *wire) accept() {
	for {
		select {
		case <-w.ctx.Done():
			return
		case raw := <-w.NetTransport.StreamCh():
			if s := w.track(raw, true); s != nil {
				select {
				case w.streams <- s:
				case <-w.ctx.Done():
					_ = s.Close() // nobody will
				}
			}
		}
	}
}

// track bounds a connection; nil is one too many, which has been closed.
func (w *wire) track(raw net.Conn, theirs bool) *stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || theirs && w.theirs >= mostStreams {
		_ = raw.Close() // it was not used
		return nil
	}
	s := &stream{Conn: raw, wire: w, left: maxStream}
	w.conns[s] = theirs
	if theirs {
		w.theirs++
	}
	return s
}

// StreamCh implements [memberlist.Transport].
func (w *wire) StreamCh() <-chan net.Conn { return w.streams }

// DialTimeout implements [memberlist.Transport].
func (w *wire) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	raw, err := dialer.DialContext(w.ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if s := w.track(raw, false); s != nil {
		return s, nil
	}
	return nil, net.ErrClosed
}

// DialAddressTimeout implements [memberlist.NodeAwareTransport].
func (w *wire) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return w.DialTimeout(a.Addr, timeout)
}

// interrupt ends connections, and makes and takes no more. Packets still go.
func (w *wire) interrupt() {
	w.stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for s := range w.conns {
		_ = s.Conn.Close() // it ends whoever reads or writes
	}
}

// Shutdown implements [memberlist.Transport].
func (w *wire) Shutdown() error {
	w.interrupt()
	w.wg.Wait()
	// The listeners end when nobody takes what they have got.
	done := make(chan struct{})
	w.wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-w.NetTransport.PacketCh():
			case raw := <-w.NetTransport.StreamCh():
				_ = raw.Close() // it was not used
			}
		}
	})
	err := w.NetTransport.Shutdown()
	close(done)
	w.wg.Wait()
	return err
}

// stream is a connection of which so much is read, and no more.
type stream struct {
	net.Conn
	wire *wire
	left int // owned by the reader
	once sync.Once
}

var errLongStream = errors.New("more than 1 MiB in a gossip connection")

// Read implements [net.Conn].
func (s *stream) Read(b []byte) (int, error) {
	if s.left == 0 {
		return 0, errLongStream
	}
	n, err := s.Conn.Read(b[:min(len(b), s.left)])
	s.left -= n
	return n, err
}

// Close implements [net.Conn].
func (s *stream) Close() error {
	s.once.Do(func() {
		s.wire.mu.Lock()
		defer s.wire.mu.Unlock()
		if s.wire.conns[s] {
			s.wire.theirs--
		}
		delete(s.wire.conns, s)
	})
	return s.Conn.Close()
}
