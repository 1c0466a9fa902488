package concordtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/nettest"
)

// connected are the ends of a line from a to b.
func connected(t *testing.T) (n *network, a, b net.Conn) {
	t.Helper()
	n = newNetwork()
	l := n.listen("b")
	a, err := n.dial(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return n, a, b
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if n, err := io.WriteString(c, text); n != len(text) || err != nil {
		t.Fatalf("sent %d of %d bytes: %v", n, len(text), err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("received %q, not %q: %v", got, want, err)
	}
}

// TestLine: a line carries bytes both ways, in order, and ends as TCP's do.
func TestLine(t *testing.T) {
	n, a, b := connected(t)
	if a.LocalAddr().String() != "a" || a.RemoteAddr().String() != "b" || b.RemoteAddr() != a.LocalAddr() || a.LocalAddr().Network() == "" {
		t.Errorf("from %v to %v", a.LocalAddr(), a.RemoteAddr())
	}
	send(t, a, "one ")
	send(t, a, "two")
	receive(t, b, "one two")
	send(t, b, "three")
	receive(t, a, "three")
	send(t, a, "last words")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	receive(t, b, "last words")
	if _, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read behind the end: %v", err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to one who is gone: %v", err)
	}
	for what, err := range map[string]error{
		"close": a.Close(), "deadline": a.SetDeadline(time.Now()),
		"read": second(a.Read(make([]byte, 1))), "write": second(a.Write([]byte("x"))),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s after the end: %v", what, err)
		}
	}
	if err := b.Close(); err != nil || len(n.lines) != 0 {
		t.Errorf("%d lines are left: %v", len(n.lines), err)
	}
}

func second(_ int, err error) error { return err }

// TestLineCut: across a cut nothing arrives and nothing is refused; when it is
// healed, all that was sent arrives, the end too.
func TestLineCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := connected(t)
		n.split(map[string]int{"b": 1})
		sent := make(chan int)
		go func() { // more than the window takes
			n, _ := io.WriteString(a, strings.Repeat("x", window+1))
			_ = a.Close()
			sent <- n
		}()
		if err := b.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Hour {
			t.Errorf("read across a cut, after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := n.dial(ctx, "a", "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial across a cut: %v", err)
		}
		dialed := make(chan error)
		go func() {
			c, err := n.dial(t.Context(), "a", "b")
			if err == nil {
				err = c.Close()
			}
			dialed <- err
		}()
		synctest.Wait()
		select {
		case n := <-sent:
			t.Errorf("%d bytes were sent across a cut", n)
		case err := <-dialed:
			t.Errorf("dialed across a cut: %v", err)
		default:
		}
		if err := b.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		n.split(nil)
		if err := <-dialed; err != nil {
			t.Error(err)
		}
		if all, err := io.ReadAll(b); len(all) != window+1 || err != nil {
			t.Errorf("%d bytes arrived: %v", len(all), err)
		}
		if n := <-sent; n != window+1 {
			t.Errorf("%d bytes were sent", n)
		}
	})
}

// TestLineDeadlines: a deadline ends what waits, and one that is moved does not.
func TestLineDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, a, b := connected(t)
		if err := a.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.WriteString(a, strings.Repeat("x", window+1)); n != window || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("wrote %d bytes: %v", n, err)
		}
		if err := b.SetDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read after the deadline: %v", err)
		}
		if err := a.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		go func() {
			_ = a.SetReadDeadline(time.Now().Add(time.Hour))
			<-time.After(30 * time.Minute)
			_ = b.SetDeadline(time.Time{})
			_, _ = b.Write([]byte("y"))
		}()
		receive(t, a, "y")
		for _, c := range []net.Conn{a, b} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestNetwork: who does not listen is refused, and who has ended reaches nobody
// and is reached by nobody.
func TestNetwork(t *testing.T) {
	n, a, b := connected(t)
	if _, err := n.dial(t.Context(), "b", "a"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial where nobody listens: %v", err)
	}
	l := n.listeners["b"]
	for range backlog {
		if _, err := n.dial(t.Context(), "a", "b"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.dial(t.Context(), "a", "b"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial where too many wait: %v", err)
	}
	n.hangUp("b")
	for _, conn := range []net.Conn{a, b} {
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("read: %v", err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) || l.Addr().String() != "b" {
		t.Errorf("accept: %v", err)
	}
	n.listen("a")
	if _, err := n.dial(t.Context(), "b", "a"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("dial by one that has ended: %v", err)
	}
	n.hangUp("a")
	if len(n.lines) != 0 {
		t.Errorf("%d lines are left", len(n.lines))
	}
}

// TestLineAsConn: a line is a net.Conn as Go's own test has it.
func TestLineAsConn(t *testing.T) {
	nettest.TestConn(t, func() (a, b net.Conn, stop func(), err error) {
		_, a, b = connected(t)
		return a, b, func() {
			_ = a.Close()
			_ = b.Close()
		}, nil
	})
}
