package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type message struct {
	from    uint64
	ch      Channel
	payload []byte
}

func TestMessagesArriveInOrder(t *testing.T) {
	const each = 2000
	got := make(chan message, 3*each)
	a, _ := pair(t, loopback{}, func(_ *Config, r *recorder) {
		r.receive = func(from uint64, ch Channel, p []byte) { got <- message{from, ch, p} }
	})
	for i := range each {
		for ch := range Channel(channels) {
			// sizes on both sides of every threshold
			size := 8 + i%100
			switch i % 50 {
			case 1:
				size = inlineBytes + i%2
			case 2:
				size = maxSlab + i
			}
			p := make([]byte, size)
			binary.LittleEndian.PutUint64(p, uint64(i))
			p[size-1] ^= byte(i)
			for !a.Send(2, ch, p) {
				<-time.After(time.Millisecond) // the queue is full
			}
		}
	}
	var next [channels]uint64
	for range 3 * each {
		m := <-got
		i := next[m.ch]
		last := m.payload[len(m.payload)-1]
		if len(m.payload) == 8 {
			last ^= byte(0)
		}
		if m.from != 1 || binary.LittleEndian.Uint64(m.payload)&^(0xff<<56) != i || len(m.payload) > 8 && last != byte(i) {
			t.Fatalf("channel %v: got message %x… from %d, want number %d", m.ch, m.payload[:8], m.from, i)
		}
		next[m.ch]++
	}
}

func TestPayloadsAreTheHandlers(t *testing.T) {
	const n = 5000
	got := make(chan []byte, n)
	a, _ := pair(t, loopback{}, func(_ *Config, r *recorder) {
		r.receive = func(_ uint64, _ Channel, p []byte) { got <- p }
	})
	want := func(i int) string { return strings.Repeat(string(rune('a'+i%26)), 1+i%300) }
	for i := range n {
		if !a.Send(2, Append, []byte(want(i))) {
			t.Fatal("queue full")
		}
	}
	kept := make([][]byte, n)
	for i := range kept {
		kept[i] = <-got
		_ = append(kept[i], "overwrites no neighbour"...)
	}
	for i, p := range kept {
		if string(p) != want(i) {
			t.Fatalf("payload %d changed to %q", i, p)
		}
	}
}

func TestSendRefuses(t *testing.T) {
	a := start(t, loopback{}, 1, func(c *Config, _ *recorder) { c.MaxMessage = 100 })
	if a.Send(2, Control, nil) {
		t.Error("sent to a stranger")
	}
	a.SetPeer(2, "127.0.0.1:1")
	if a.Send(2, Control, nil) {
		t.Error("sent without a connection")
	}
	b := start(t, loopback{}, 3, nil)
	a.SetPeer(3, b.addr)
	a.want(t, true, 3)
	if a.Send(3, Control, make([]byte, 101)) {
		t.Error("sent more than MaxMessage")
	}
	if a.Send(3, 3, nil) {
		t.Error("sent on a channel that does not exist")
	}
	if !a.Send(3, Bulk, make([]byte, 100)) {
		t.Error("not sent")
	}
	peers := a.Peers()
	if len(peers) != 2 || peers[0].ID != 2 || peers[0].Connected || peers[0].Dropped != 1 || peers[0].Urgent != 1 || !peers[1].Connected {
		t.Errorf("peers = %+v", peers)
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	hold := make(chan struct{})
	var received atomic.Int64
	a, _ := pair(t, loopback{}, func(c *Config, r *recorder) {
		c.QueueBytes = 1 << 20
		r.receive = func(_ uint64, ch Channel, p []byte) {
			if ch == Append {
				<-hold
			}
			received.Add(1)
		}
	})
	payload := make([]byte, 100<<10)
	sent := int64(0)
	for full := 0; full < 100; {
		if a.Send(2, Append, payload) {
			sent++
			full = 0
			continue
		}
		full++
		if q := a.Peers()[0].Queued[Append]; q > 1<<20 {
			t.Fatalf("%d bytes wait, limit is 1 MiB", q)
		}
		<-time.After(100 * time.Microsecond)
	}
	if !a.Send(2, Control, []byte("heartbeat")) {
		t.Error("a full append queue blocks control")
	}
	for received.Load() == 0 { // the heartbeat passes all appends
		<-time.After(time.Millisecond)
	}
	close(hold)
	for received.Load() != sent+1 {
		<-time.After(time.Millisecond)
	}
	for a.Peers()[0].Queued[Append] != 0 { // what has arrived may not count as written yet
		<-time.After(time.Millisecond)
	}
	if !a.Send(2, Append, make([]byte, 2<<20)) {
		t.Error("a message over QueueBytes must fit in an empty queue")
	}
}

func TestPeerDownComesAtOnceAndOnce(t *testing.T) {
	patient := func(c *Config, _ *recorder) { c.PeerTimeout = time.Hour } // so that silence tells nothing
	a, b := pair(t, loopback{}, patient)
	for range 10 {
		b.stop() // closes its connections, as the kernel does for a dead process
		a.want(t, false, 2)
		for len(*a.peers.Load()) != 1 || a.inbounds() != 0 {
			<-time.After(time.Millisecond)
		}
		a.none(t)
		b = start(t, loopback{}, 2, patient)
		b.SetPeer(1, a.addr)
		a.SetPeer(2, b.addr)
		a.want(t, true, 2)
		b.want(t, true, 1)
	}
	a.none(t)
}

// inbounds counts the links to us that are served.
func (t *Transport) inbounds() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.inbound)
}

func TestRefusalsAreNamed(t *testing.T) {
	type side struct {
		id, cluster uint64
	}
	for name, c := range map[string]struct {
		target  side
		lookFor uint64
		removed bool
		reason  Refusal
		text    string
	}{
		"cluster":   {target: side{2, 0xdd}, lookFor: 2, reason: WrongCluster, text: "belongs to cluster dd, this member to c1"},
		"member":    {target: side{0x77, cluster}, lookFor: 2, reason: WrongMember, text: "is member 77, not 2"},
		"self":      {target: side{1, cluster}, lookFor: 2, reason: Self, text: "own address"},
		"nocluster": {target: side{2, 0}, lookFor: 2, reason: NoCluster, text: "not joined a cluster"},
		"removed":   {target: side{2, cluster}, lookFor: 2, removed: true, reason: Removed, text: "as removed"},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, loopback{}, 1, nil)
			b := start(t, loopback{}, c.target.id, func(cfg *Config, _ *recorder) { cfg.Cluster = c.target.cluster })
			if c.removed {
				b.SetPeer(1, a.addr)
				b.RemovePeer(1)
			}
			a.SetPeer(c.lookFor, b.addr)
			var refused *RefusedError
			for !errors.As(a.Peers()[0].Err, &refused) {
				<-time.After(time.Millisecond)
			}
			if refused.Reason != c.reason || !strings.Contains(refused.Error(), c.text) || !strings.Contains(refused.Error(), b.addr) {
				t.Errorf("got %v: %v", refused.Reason, refused)
			}
			a.none(t)
		})
	}
}

// TestDialerDoesNotTrustTheWelcome: the other admits whoever comes.
func TestDialerDoesNotTrustTheWelcome(t *testing.T) {
	h := hello{cluster: 1, from: 2, to: 3}
	for _, c := range []struct {
		w    welcome
		want Refusal
	}{
		{welcome{version: 1, cluster: 1, id: 3}, 0},
		{welcome{version: 1, cluster: 9, id: 3}, WrongCluster},
		{welcome{version: 1, cluster: 1, id: 2}, Self},
		{welcome{version: 1, cluster: 1, id: 4}, WrongMember},
		{welcome{version: 2, cluster: 1, id: 3}, UnknownVersion},
		{welcome{version: 1, cluster: 1, id: 3, refusal: Busy}, Busy},
	} {
		err := judgeWelcome("x", h, c.w)
		var refused *RefusedError
		if errors.As(err, &refused) != (c.want != 0) || c.want != 0 && refused.Reason != c.want {
			t.Errorf("%+v: %v, want %v", c.w, err, c.want)
		}
	}
}

func TestUnknownVersionIsRefusedByName(t *testing.T) {
	a := start(t, loopback{}, 1, nil)
	conn, err := net.Dial("tcp", a.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("cncd\xff\x00\x00\x00")); err != nil {
		t.Fatal(err)
	}
	w, err := readWelcome(conn)
	if err != nil || w.version != version || w.refusal != UnknownVersion {
		t.Fatalf("welcome %+v, %v", w, err)
	}
}

func TestNoClusterThenOne(t *testing.T) {
	none := func(c *Config, _ *recorder) { c.Cluster = 0 }
	a, b := start(t, loopback{}, 1, none), start(t, loopback{}, 2, none)
	a.SetPeer(2, b.addr)
	b.SetPeer(1, a.addr)
	b.SetCluster(cluster)
	a.SetCluster(cluster)
	a.want(t, true, 2)
	b.want(t, true, 1)
}

func TestRemovedPeerIsCutOffWithoutACallback(t *testing.T) {
	a, b := pair(t, loopback{}, nil)
	a.RemovePeer(2)
	b.want(t, false, 1)
	for a.inbounds() != 0 {
		<-time.After(time.Millisecond)
	}
	a.none(t)
	if a.Send(2, Control, nil) || len(a.Peers()) != 0 {
		t.Error("a removed peer is still there")
	}
	a.SetPeer(2, b.addr)
	b.SetPeer(1, a.addr, a.addr)
	a.want(t, true, 2)
	b.want(t, true, 1)
}

// TestNewerLinkDoesNotOvertake blocks the delivery of an old link's message
// while the same peer, which restarted, sends another.
func TestNewerLinkDoesNotOvertake(t *testing.T) {
	hold := make(chan struct{})
	got := make(chan string, 10)
	a := start(t, loopback{}, 1, func(_ *Config, r *recorder) {
		r.receive = func(_ uint64, _ Channel, p []byte) {
			if string(p) == "old" {
				got <- "old begins"
				<-hold
			}
			got <- string(p)
		}
	})
	b := start(t, loopback{}, 2, nil)
	b.SetPeer(1, a.addr)
	b.want(t, true, 1)
	b.Send(1, Append, []byte("old"))
	if s := <-got; s != "old begins" {
		t.Fatal(s)
	}
	b.stop()
	b = start(t, loopback{}, 2, nil)
	b.SetPeer(1, a.addr)
	b.want(t, true, 1)
	if !b.Send(1, Append, []byte("new")) {
		t.Fatal("not sent")
	}
	select {
	case s := <-got:
		t.Fatalf("%q was delivered during the old message", s)
	case <-time.After(50 * time.Millisecond):
	}
	close(hold)
	if x, y := <-got, <-got; x != "old" || y != "new" {
		t.Errorf("got %q, then %q", x, y)
	}
}

// TestLostOneWay breaks only the link from b to a: a learns of a loss, and that
// b is there after all.
func TestLostOneWay(t *testing.T) {
	a, b := pair(t, loopback{}, nil)
	b.SetPeer(1) // so that it cannot connect again before a has seen the loss
	p := (*b.peers.Load())[1]
	p.link.Load().conns[Append].Close()
	a.want(t, false, 2)
	a.want(t, true, 2)
	b.want(t, false, 1)
	b.SetPeer(1, a.addr)
	b.want(t, true, 1)
}

// TestRestartSeenFromTheOtherSide: the old process is gone without a word (no
// FIN came), and the new one dials. The old link is given up at once.
func TestRestartSeenFromTheOtherSide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		a, b := pair(t, mem, nil)
		mem.cutOff()
		b.stop() // or it would dial a beside its next life
		a.none(t)
		mem.heal()
		c := start(t, mem, 2, nil)
		a.SetPeer(2, c.addr)
		began := time.Now()
		c.SetPeer(1, a.addr)
		if e := a.want(t, false, 2); e.at.Sub(began) > 100*time.Millisecond {
			t.Errorf("loss seen after %v", e.at.Sub(began))
		}
		a.want(t, true, 2)
		c.want(t, true, 1)
		synctest.Wait()
		a.none(t)
		c.none(t)
		c.stop()
		a.stop()
	})
}

func TestSilentPeerIsLostAfterPeerTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		a, b := pair(t, mem, nil)
		<-time.After(time.Hour) // idle, and nothing is lost
		a.none(t)
		b.none(t)
		if d := a.Peers()[0].RoundTrip; d < 0 || d > time.Millisecond {
			t.Errorf("round trip %v", d)
		}
		if d := a.Peers()[0].Silent; d > time.Second {
			t.Errorf("silent for %v", d)
		}
		cut := time.Now()
		mem.cutOff()
		for _, e := range []event{a.want(t, false, 2), b.want(t, false, 1)} {
			// the last sign of life is at most a ping old, deadlines an eighth early
			if d := e.at.Sub(cut); d < 2*time.Second || d > 3500*time.Millisecond {
				t.Errorf("lost after %v", d)
			}
		}
		<-time.After(10 * time.Second)
		if d := time.Since(cut) - a.Peers()[0].Silent; d < -time.Second || d > 0 {
			t.Errorf("silent since %v after the cut", d)
		}
		mem.heal()
		healed := time.Now()
		if d := a.want(t, true, 2).at.Sub(healed); d > 2500*time.Millisecond {
			t.Errorf("found again after %v", d)
		}
		b.want(t, true, 1)
		a.stop()
		b.stop()
	})
}

func TestRetriesBackOffWithJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		a := start(t, mem, 1, nil)
		a.SetPeer(2, "nobody")
		<-time.After(time.Minute)
		synctest.Wait()
		mem.mu.Lock()
		dials := mem.dials
		mem.mu.Unlock()
		// three connections an attempt: 25…75 ms, then up to 1 s ± half
		if n := len(dials) / channels; n < 45 || n > 130 {
			t.Errorf("%d attempts in a minute", n)
		}
		if d := dials[channels].Sub(dials[0]); d < 25*time.Millisecond || d > 75*time.Millisecond {
			t.Errorf("second attempt after %v", d)
		}
		a.stop()
	})
}

func TestHandshakeHasADeadlineAndACap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMemory()
		a := start(t, mem, 1, nil)
		var idle []net.Conn
		for range maxHandshakes + 10 {
			c, err := mem.dial(context.Background(), a.addr)
			if err != nil {
				t.Fatal(err)
			}
			idle = append(idle, c)
		}
		synctest.Wait()
		if n := len(a.handshakes); n != maxHandshakes {
			t.Errorf("%d handshakes at once", n)
		}
		began := time.Now()
		for _, c := range idle {
			if _, err := c.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("read: %v", err)
			}
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("closed after %v", d)
		}
		a.stop()
	})
}

func TestMaxPeersSparesThoseWeKnow(t *testing.T) {
	a := start(t, loopback{}, 1, func(c *Config, _ *recorder) { c.MaxPeers = 1 })
	b := start(t, loopback{}, 2, nil)
	b.SetPeer(1, a.addr)
	b.want(t, true, 1)
	c := start(t, loopback{}, 3, nil)
	c.SetPeer(1, a.addr)
	var refused *RefusedError
	for !errors.As(c.Peers()[0].Err, &refused) {
		<-time.After(time.Millisecond)
	}
	if refused.Reason != Busy {
		t.Errorf("refused: %v", refused)
	}
	a.SetPeer(3, c.addr)
	c.want(t, true, 1)
}

func TestDamagedFrameEndsTheLink(t *testing.T) {
	a, b := pair(t, loopback{}, nil)
	p := (*b.peers.Load())[1]
	if _, err := p.link.Load().conns[Bulk].Write([]byte("\x03\x00\x00\x00\x01\x00\x00\x00abcdefg")); err != nil {
		t.Fatal(err)
	}
	a.want(t, false, 2)
	b.want(t, false, 1)
	b.want(t, true, 1)
}

func TestRunEndsWithItsListener(t *testing.T) {
	l := loopback{}.listen(t)
	tr := New(Config{ID: 1, Listener: l, Dial: loopback{}.dial, Handler: newRecorder()})
	l.Close()
	if err := tr.Run(context.Background()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
}
