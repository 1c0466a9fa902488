package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is a connection through the door of member 1, dialed by member 0.
type wire struct {
	net *network
	// Dialer and taker of the connection.
	here, there net.Conn
}

func newWire(t *testing.T) wire {
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	n, err := newNetwork([]string{"127.0.0.1:1", target.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.close)
	here, err := net.Dial("tcp", n.addr(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { here.Close() })
	greeting := make([]byte, greetingStart)
	binary.LittleEndian.PutUint64(greeting[dialerAt:], 77)
	if _, err := here.Write(greeting); err != nil {
		t.Fatal(err)
	}
	there, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	w := wire{n, here, there}
	w.hears(t, there, string(greeting))
	n.know(77, 0) // who is who may become known after connections are there
	return w
}

func (w wire) says(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func (w wire) hears(t *testing.T, c net.Conn, text string) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second)) // of a TCP connection: it works
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

// hearsNothing holds for as long as nothing is sent through, so that the time it
// takes cannot make it fail.
func (w wire) hearsNothing(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // as above
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes and %v came through a cut", n, err)
	}
}

func TestCutHoldsBothWays(t *testing.T) {
	w := newWire(t)
	w.says(t, w.there, "welcome")
	w.hears(t, w.here, "welcome")
	for _, victim := range []int{0, 1} {
		w.net.cut(victim, true, true)
		w.says(t, w.here, "ping")
		w.says(t, w.there, "pong")
		w.hearsNothing(t, w.there)
		w.hearsNothing(t, w.here)
		w.net.heal()
		w.hears(t, w.there, "ping")
		w.hears(t, w.here, "pong")
	}
}

func TestCutOneWay(t *testing.T) {
	w := newWire(t)
	w.net.cut(0, true, false) // 0 does not hear, and is heard
	w.says(t, w.here, "ping")
	w.hears(t, w.there, "ping")
	w.says(t, w.there, "pong")
	w.hearsNothing(t, w.here)
	w.net.cut(0, false, true) // the other way round
	w.hears(t, w.here, "pong")
	w.says(t, w.here, "ping")
	w.hearsNothing(t, w.there)
	w.says(t, w.there, "pong")
	w.hears(t, w.here, "pong")
}

// The end of a connection is not heard through a cut, in either way.
func TestCutHoldsTheEnd(t *testing.T) {
	w := newWire(t)
	w.net.cut(0, true, true)
	if err := w.here.Close(); err != nil {
		t.Fatal(err)
	}
	w.says(t, w.there, "pong") // which nobody takes any more
	w.hearsNothing(t, w.there)
	w.net.heal()
	_ = w.there.SetReadDeadline(time.Now().Add(30 * time.Second)) // as above
	if _, err := w.there.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the end did not come through a healed network: %v", err)
	}
}

// A connection that is made during a cut begins when it is healed.
func TestCutHoldsNewConnections(t *testing.T) {
	w := newWire(t)
	w.net.cut(1, true, true)
	c, err := net.Dial("tcp", w.net.addr(0))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	greeting := make([]byte, greetingStart)
	binary.LittleEndian.PutUint64(greeting[dialerAt:], 88)
	w.net.know(88, 1)
	w.says(t, c, string(greeting))
	w.hearsNothing(t, c)
	w.net.heal()
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second)) // as above
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("member 0 is not there, and the connection to it goes on: %v", err)
	}
}

func TestSummaryCountsElectionTimeouts(t *testing.T) {
	o := outages{"pause": {3 * time.Second, time.Second, 2 * time.Second}, "leader": {40 * time.Millisecond}}
	want := "outage leader: median 40ms, p99 40ms, worst 40ms of 1; " +
		"pause: median 2s (4.00 election timeouts), p99 3s (6.00 election timeouts), worst 3s (6.00 election timeouts) of 3"
	if got := o.summary(500 * time.Millisecond); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if o["pause"][0] != 3*time.Second {
		t.Error("the order of the outages was changed")
	}
}
