package concordtest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how much one end may have sent that the other has not read: a
// sender blocks behind a cut as it does behind TCP's window.
const window = 256 << 10

// line is a connection between two addresses.
type line struct {
	net  *network
	mu   sync.Mutex
	news sync.Cond // something below has changed
	dark bool      // cut
	ends [2]end
}

// end is one end of a line; it is a net.Conn. All below line is guarded by
// line.mu.
type end struct {
	line *line
	peer *end
	at   address

	inbox       []byte // sent by the peer and not read
	closed      bool
	read, write deadline
}

func newLine(n *network, from, to string) *line {
	l := &line{net: n}
	l.news.L = &l.mu
	l.ends[0] = end{line: l, at: address(from), peer: &l.ends[1]}
	l.ends[1] = end{line: l, at: address(to), peer: &l.ends[0]}
	return l
}

func (l *line) cut(dark bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dark = dark
	l.news.Broadcast()
}

// deadline ends waiting. Its timer only wakes those who wait.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(at time.Time, wake func()) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if wait := time.Until(at); !at.IsZero() && wait > 0 {
		d.timer = time.AfterFunc(wait, wake)
	}
}

// Read implements net.Conn.
func (e *end) Read(b []byte) (int, error) {
	l := e.line
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		switch {
		case e.closed:
			return 0, e.fail("read", net.ErrClosed)
		case e.read.passed():
			return 0, e.fail("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case !l.dark && len(e.inbox) > 0:
			n := copy(b, e.inbox)
			if e.inbox = e.inbox[n:]; len(e.inbox) == 0 {
				e.inbox = nil
			}
			l.news.Broadcast() // there is room
			return n, nil
		case !l.dark && e.peer.closed:
			return 0, io.EOF
		}
		l.news.Wait()
	}
}

// Write implements net.Conn.
func (e *end) Write(b []byte) (sent int, err error) {
	l := e.line
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		room := window - len(e.peer.inbox)
		switch {
		case e.closed:
			return sent, e.fail("write", net.ErrClosed)
		case e.write.passed():
			return sent, e.fail("write", os.ErrDeadlineExceeded)
		case !l.dark && e.peer.closed:
			return sent, e.fail("write", syscall.EPIPE)
		case len(b) == 0:
			return sent, nil
		case room > 0:
			n := min(room, len(b))
			e.peer.inbox = append(e.peer.inbox, b[:n]...)
			sent, b = sent+n, b[n:]
			l.news.Broadcast()
			continue
		}
		l.news.Wait()
	}
}

// Close implements net.Conn. What was sent before still arrives.
func (e *end) Close() error {
	l := e.line
	l.mu.Lock()
	if e.closed {
		l.mu.Unlock()
		return e.fail("close", net.ErrClosed)
	}
	e.closed, e.inbox = true, nil
	e.read.set(time.Time{}, nil)
	e.write.set(time.Time{}, nil)
	l.news.Broadcast()
	over := e.peer.closed
	l.mu.Unlock()
	if over {
		l.net.forget(l)
	}
	return nil
}

func (e *end) fail(op string, err error) error {
	return &net.OpError{Op: op, Net: e.at.Network(), Source: e.at, Addr: e.peer.at, Err: err}
}

func (e *end) wake() {
	e.line.mu.Lock()
	defer e.line.mu.Unlock()
	e.line.news.Broadcast()
}

// LocalAddr implements net.Conn.
func (e *end) LocalAddr() net.Addr { return e.at }

// RemoteAddr implements net.Conn.
func (e *end) RemoteAddr() net.Addr { return e.peer.at }

// SetDeadline implements net.Conn.
func (e *end) SetDeadline(t time.Time) error { return e.setDeadlines(t, &e.read, &e.write) }

// SetReadDeadline implements net.Conn.
func (e *end) SetReadDeadline(t time.Time) error { return e.setDeadlines(t, &e.read) }

// SetWriteDeadline implements net.Conn.
func (e *end) SetWriteDeadline(t time.Time) error { return e.setDeadlines(t, &e.write) }

func (e *end) setDeadlines(t time.Time, which ...*deadline) error {
	e.line.mu.Lock()
	defer e.line.mu.Unlock()
	if e.closed {
		return e.fail("set", net.ErrClosed)
	}
	for _, d := range which {
		d.set(t, e.wake)
	}
	e.line.news.Broadcast()
	return nil
}
