package discovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// peers answers asks about listeners by their peer address.
type peers struct {
	mu  sync.Mutex
	all map[string]func() Announcement
}

func (p *peers) add(addr string, self func() Announcement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[string]func() Announcement{}
	}
	p.all[addr] = self
}

func (p *peers) ask(_ context.Context, addr string) (Announcement, error) {
	p.mu.Lock()
	self, ok := p.all[addr]
	p.mu.Unlock()
	if !ok {
		return Announcement{}, errors.New("connection refused")
	}
	return self(), nil
}

// gossiping gives a process a gossip key, and a seed that it asks.
func gossiping(p *peers, key byte, seeds ...string) func(*Config) {
	return func(c *Config) {
		c.GossipKeys = [][]byte{append(make([]byte, 31), key)}
		c.Seeds, c.Ask = Seeds{Addrs: seeds}, p.ask
	}
}

// Processes that know one of them, and not each other, learn of all. Who is gone
// is not known for longer because others speak of it, and what changes travels.
func TestGossipTellsOfAll(t *testing.T) {
	p := &peers{}
	hub := live(t, 1, gossiping(p, 1))
	eventually(t, "gossip", func() bool { return hub.GossipAddr() != "" })
	p.add("10.0.0.1:2380", hub.Self)
	var all []*listener
	for id := range uint64(4) {
		all = append(all, live(t, id+2, gossiping(p, 1, "10.0.0.1")))
	}
	for _, l := range append(all, hub) {
		eventually(t, "all others", func() bool { return len(l.Known()) == 4 })
	}
	for _, s := range all[0].Known() {
		if seed := s.ID == 1; seed != (s.Source == "seeds") || seed != (s.From != "") || s.GossipAddr == "" {
			t.Errorf("knows %+v", s)
		}
	}
	all[3].speaker.change(func(a *Announcement) { a.PeerAddrs, a.ClusterID = []string{"10.0.0.77:2380"}, 9 })
	all[3].Announce()
	for _, l := range append(all[:3:3], hub) {
		eventually(t, "what has changed", func() bool {
			return slices.ContainsFunc(l.Known(), func(s Sighting) bool { return s.ID == 5 && s.ClusterID == 9 && s.PeerAddrs[0] == "10.0.0.77:2380" })
		})
	}
	for _, l := range append(all, hub) {
		l.stop()
		if l.GossipAddr() != "" {
			t.Error("gossips after the end")
		}
	}
}

// A process with another key is not told anything, nor heard.
func TestGossipWithAnotherKey(t *testing.T) {
	p := &peers{}
	hub := live(t, 1, gossiping(p, 1))
	eventually(t, "gossip", func() bool { return hub.GossipAddr() != "" })
	p.add("10.0.0.1:2380", hub.Self)
	liar := live(t, 9, gossiping(p, 2, "10.0.0.1")) // it was told of the hub, and has no key
	friend := live(t, 2, gossiping(p, 1, "10.0.0.1"))
	eventually(t, "a failed attempt", func() bool {
		return slices.ContainsFunc(liar.Problems(), func(p Problem) bool { return p.Source == "gossip" && p.Target == hub.GossipAddr() })
	})
	eventually(t, "the friend", func() bool { return slices.Equal(ids(hub.Known()), []uint64{2}) && len(friend.Known()) == 1 })
	if got := ids(liar.Known()); !slices.Equal(got, []uint64{1}) {
		t.Errorf("who has another key knows %v", got)
	}
}

// A process that is started again under another address is in touch at once: it
// has not to wait until others think that its old self is dead.
func TestGossipAfterARestart(t *testing.T) {
	p := &peers{}
	hub := live(t, 1, gossiping(p, 1))
	eventually(t, "gossip", func() bool { return hub.GossipAddr() != "" })
	p.add("10.0.0.1:2380", hub.Self)
	addr := ""
	for incarnation := range uint64(3) {
		l := live(t, 2, func(c *Config) {
			gossiping(p, 1, "10.0.0.1")(c)
			self := c.Self
			c.Self = func() Announcement {
				a := self()
				a.Incarnation += incarnation
				return a
			}
		})
		eventually(t, "the new address", func() bool {
			known := hub.Known()
			return len(known) == 1 && known[0].GossipAddr != addr && known[0].GossipAddr == l.GossipAddr() && known[0].Incarnation == incarnation+1
		})
		addr = l.GossipAddr()
		l.stop()
	}
}

// gossipOf is a source by itself.
func gossipOf(t *testing.T, cfg Gossip, m machine, logger *slog.Logger) (*gossip, *board) {
	t.Helper()
	d, err := New(Config{Cluster: "c", Self: process(1).self, GossipKeys: [][]byte{make([]byte, 32)}, Gossip: cfg, Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	g := d.sources[0].(*gossip)
	g.machine = m
	return g, d.board
}

// onLoopback is a machine without a network.
func onLoopback() machine {
	return machine{func() ([]iface, error) { return []iface{fakeInterface(1, "lo", "ul", "127.0.0.1")}, nil }, func() []netip.Addr { return nil }}
}

func TestGossipTakesAnotherPort(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := busy.Addr().(*net.TCPAddr).Port
	r := &recorder{}
	g, _ := gossipOf(t, Gossip{}, onLoopback(), r.logger())
	w, err := g.listenDefault("127.0.0.1", port)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Shutdown()
	if w.GetAutoBindPort() == port || w.GetAutoBindPort() == 0 {
		t.Errorf("took port %d", w.GetAutoBindPort())
	}
	if lines := r.lines(); len(lines) != 1 || !strings.Contains(lines[0], fmt.Sprintf("port=%d", w.GetAutoBindPort())) {
		t.Errorf("the log was told\n%s", strings.Join(lines, "\n"))
	}
	// One that was asked for is not exchanged.
	g, _ = gossipOf(t, Gossip{Addr: busy.Addr().String()}, onLoopback(), r.logger())
	if err := g.run(t.Context()); err == nil {
		t.Error("gossips at a port that is taken")
	}
}

func TestGossipMovesWithTheMachine(t *testing.T) {
	var mu sync.Mutex
	addrs := []string{"127.0.0.1"}
	set := func(to ...string) {
		mu.Lock()
		defer mu.Unlock()
		addrs = to
	}
	g, b := gossipOf(t, Gossip{Addr: ":0"}, machine{func() ([]iface, error) {
		mu.Lock()
		defer mu.Unlock()
		return []iface{fakeInterface(1, "lo", "ul", addrs...)}, nil
	}, func() []netip.Addr { return nil }}, nil)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- g.run(ctx) }()
	at := func(host string) func() bool {
		return func() bool { return strings.HasPrefix(b.gossipAddr(), host+":") }
	}
	eventually(t, "the first address", at("127.0.0.1"))
	set("127.0.0.3")
	poke(g.changed)
	eventually(t, "the second address", at("127.0.0.3"))
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAdvertisedGossip(t *testing.T) {
	for _, c := range []struct {
		cfg  Gossip
		want string
	}{
		{Gossip{}, "127.0.0.1:5"}, {Gossip{Addr: ":0"}, "127.0.0.1:5"}, {Gossip{Addr: "10.0.0.7:9"}, "10.0.0.7:5"},
		{Gossip{Addr: ":0", Advertise: "203.0.113.1:99"}, "203.0.113.1:99"}, {Gossip{Addr: "[fd00::1]:0"}, "[fd00::1]:5"},
	} {
		g, _ := gossipOf(t, c.cfg, onLoopback(), nil)
		if at, err := g.advertised(5); err != nil || at.String() != c.want {
			t.Errorf("%+v: %v, %v, want %s", c.cfg, at, err, c.want)
		}
	}
	g, _ := gossipOf(t, Gossip{}, machine{func() ([]iface, error) { return nil, nil }, func() []netip.Addr { return nil }}, nil)
	if _, err := g.advertised(5); err == nil {
		t.Error("gossips without an address")
	}
}

func TestIdsInNames(t *testing.T) {
	g, _ := gossipOf(t, Gossip{}, onLoopback(), nil)
	for _, id := range []uint64{1, 1<<64 - 1} {
		if name := g.config(id, netip.MustParseAddrPort("127.0.0.1:1"), nil).Name; idOf(name) != id {
			t.Errorf("%x became %s", id, name)
		}
	}
	for _, name := range []string{"", "host", "-1"} {
		if idOf(name) != 0 {
			t.Errorf("%q is %x", name, idOf(name))
		}
	}
}

func newTestWire(t *testing.T) *wire {
	t.Helper()
	w, err := newWire("127.0.0.1", 0, log.New(io.Discard, "", 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// take lets w's user take n connections of others.
func take(t *testing.T, w *wire, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		raw, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.GetAutoBindPort())))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		conns = append(conns, raw)
	}
	return conns
}

func TestGossipConnectionsAreBounded(t *testing.T) {
	w := newTestWire(t)
	conns := take(t, w, mostStreams)
	var taken []net.Conn
	for range conns {
		taken = append(taken, <-w.StreamCh())
	}
	over := take(t, w, 1)[0]
	_ = over.SetReadDeadline(time.Now().Add(30 * time.Second)) // of a TCP connection: it works
	if _, err := over.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many was not closed: %v", err)
	}
	taken[0].Close()
	taken[0].Close() // counts once
	next := take(t, w, 1)[0]
	s := <-w.StreamCh()
	// So much is read of one, and no more.
	go func() {
		_, _ = next.Write(make([]byte, 2*maxStream)) // it is cut off
	}()
	if n, err := io.Copy(io.Discard, s); n != maxStream || !errors.Is(err, errLongStream) {
		t.Errorf("read %d, %v", n, err)
	}
	if err := w.Shutdown(); err != nil {
		t.Error(err)
	}
	if _, err := taken[1].Read(make([]byte, 1)); err == nil {
		t.Error("a connection is open after the end")
	}
}

func TestGossipConnectionsEnd(t *testing.T) {
	w := newTestWire(t)
	there, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	conn, err := w.DialTimeout(there.Addr().String(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		read <- err
	}()
	w.interrupt()
	if err := <-read; err == nil {
		t.Error("read something")
	}
	if _, err := w.DialTimeout(there.Addr().String(), time.Minute); err == nil {
		t.Error("a connection was made after the end")
	}
}
