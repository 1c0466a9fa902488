package discovery

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// memoryBase is what any input may cost: a packet's buffer, and what gossip
	// does meanwhile; memoryGrowth is what a byte of it may cost, garbage included.
	memoryBase   = 2 << 20
	memoryGrowth = 64
)

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// FuzzGossip sends packets and streams of those who have no key to a process that
// gossips.
func FuzzGossip(f *testing.F) {
	d, err := New(Config{Cluster: "c", Self: process(1).self, GossipKeys: [][]byte{make([]byte, 32)}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	g := d.sources[0].(*gossip)
	w, err := newWire("127.0.0.1", 0, g.quiet())
	if err != nil {
		f.Fatal(err)
	}
	list, err := memberlist.Create(g.config(1, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(w.GetAutoBindPort())), w))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := list.Shutdown(); err != nil {
			f.Error(err)
		}
	})
	for kind := range byte(15) { // memberlist's kinds of messages
		f.Add([]byte{kind}, kind%2 == 0)
		f.Add(append([]byte{kind}, "\x83\xa4Name\xa1a\xa4Addr\xc4\x04\x7f\x00\x00\x01\xa4Port\xcd\x1f\x90"...), kind%2 == 1)
	}
	f.Add([]byte("\x0a\xff\xff\xff\xff"), true)                                         // encrypted, four gigabytes
	f.Add([]byte("\x0a\x00\x0f\xff\xff\x01"+strings.Repeat("x", 100)), true)            // encrypted, a megabyte
	f.Add([]byte("\xf4\x05label\x0a\x00\x00\x00\x40"+strings.Repeat("\x01", 64)), true) // with a label
	f.Add(append([]byte{1}, make([]byte, 60)...), false)                                // as if encrypted
	f.Fuzz(func(t *testing.T, data []byte, asStream bool) {
		before := allocated()
		if asStream {
			far, near := net.Pipe()
			if err := w.NetTransport.IngestStream(near); err != nil {
				t.Fatal(err)
			}
			go func() {
				_, _ = far.Write(data) // it may be refused before the end
				_ = far.Close()
			}()
			_, _ = io.Copy(io.Discard, far) // until it is closed
		} else if len(data) > 0 {
			// Once one has been taken, the one before was looked at.
			for _, packet := range [][]byte{data, {0}} {
				if err := w.NetTransport.IngestPacket(reading{bytes.NewReader(packet)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, time.Now(), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		if cost, most := allocated()-before, uint64(memoryBase+memoryGrowth*len(data)); cost > most {
			t.Errorf("%d bytes cost %d bytes of memory; at most %d are in order", len(data), cost, most)
		}
		if known := d.Known(); len(known) > 0 || list.NumMembers() != 1 {
			t.Errorf("a stranger without a key was believed: %+v", known)
		}
	})
}

// TestGossipIsSealed listens to all that a process sends when it gossips.
func TestGossipIsSealed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan []byte, 1)
	go func() {
		defer l.Close()
		conn, err := l.Accept()
		if err != nil {
			heard <- nil
			return
		}
		defer conn.Close()
		_ = conn.SetReadDeadline(time.Now().Add(time.Second)) // the other waits for an answer
		data, _ := io.ReadAll(conn)
		heard <- data
	}()
	p := &peers{}
	p.add("10.0.0.9:2380", func() Announcement {
		return Announcement{Cluster: "c", ID: 9, Name: "ear", GossipAddr: l.Addr().String(), Incarnation: 1}
	})
	self := live(t, 1, func(c *Config) {
		gossiping(p, 1, "10.0.0.9")(c)
		c.Self = func() Announcement {
			return Announcement{Cluster: "c", ID: 0x0102030405060708, Name: "a-name-to-be-heard", PeerAddrs: []string{"10.11.12.13:2380"}, Version: "version-to-be-heard"}
		}
	})
	stream := <-heard
	if err := packets.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	packet := make([]byte, 64<<10)
	n, _, _ := packets.ReadFromUDP(packet) // there may be none: nobody has answered
	self.stop()
	_ = packets.Close()
	if len(stream) < 100 {
		t.Fatalf("only %d bytes were sent", len(stream))
	}
	for _, data := range [][]byte{stream, packet[:n]} {
		for _, plain := range []string{"to-be-heard", "10.11.12.13", "\x01\x02\x03\x04\x05\x06\x07\x08", "0102030405060708"} {
			if bytes.Contains(data, []byte(plain)) {
				t.Errorf("%q is in what is sent: %.200q", plain, data)
			}
		}
	}
}

// reading is a connection of which only Read is called.
type reading struct{ io.Reader }

func (reading) Write([]byte) (int, error)        { return 0, io.ErrClosedPipe }
func (reading) Close() error                     { return nil }
func (reading) LocalAddr() net.Addr              { return nil }
func (reading) RemoteAddr() net.Addr             { return nil }
func (reading) SetDeadline(time.Time) error      { return nil }
func (reading) SetReadDeadline(time.Time) error  { return nil }
func (reading) SetWriteDeadline(time.Time) error { return nil }

// liar is DNS that answers with anything.
type liar struct {
	target string
	port   uint16
}

func (l liar) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	addr, _ := netip.ParseAddr(l.target) // the zero Addr is an answer too
	return []netip.Addr{addr, addr}, nil
}

func (l liar) LookupSRV(context.Context, string, string, string) (string, []*net.SRV, error) {
	srv := make([]*net.SRV, 1000)
	for i := range srv {
		srv[i] = &net.SRV{Target: l.target, Port: l.port}
	}
	return "", srv, nil
}

// FuzzSeeds reads any file of seeds and any answers of DNS, and believes only what
// may be announced, whoever is found there.
func FuzzSeeds(f *testing.F) {
	f.Add("h:1\n# nobody\n[::1]:2380 # me\n_concord-peer._tcp.x\n", "10.0.0.1", uint16(2380), "c")
	f.Add("\x00\n:\n::\n[\n]:1", "h.", uint16(0), "\x1b[31m")
	f.Add(strings.Repeat("a\n", 2000), "", uint16(1), strings.Repeat("x", 1000))
	f.Fuzz(func(t *testing.T, file, target string, port uint16, name string) {
		path := filepath.Join(t.TempDir(), "seeds")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		asked := make(chan string, 10*mostAsked)
		d, err := New(Config{
			Cluster: "c", Self: process(1).self, Gossip: Gossip{Off: true}, Multicast: Multicast{Off: true}, Logger: slog.New(slog.DiscardHandler),
			Seeds: Seeds{File: path, DNS: []string{"x", "_y._tcp.z"}, Resolver: liar{target, port}},
			Ask: func(_ context.Context, addr string) (Announcement, error) {
				asked <- addr
				return Announcement{Cluster: name, ID: 7, Name: name, Version: file, GossipAddr: target, PeerAddrs: []string{target, file}, ClientAddrs: strings.Split(file, "\n")}, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		before := allocated()
		d.sources[0].(*seeds).round(t.Context())
		size := len(file) + len(target) + len(name)
		if cost := allocated() - before; cost > uint64(4<<20+1024*size) { // a lookup a line, with its error
			t.Errorf("%d bytes cost %d bytes of memory", size, cost)
		}
		if len(asked) > mostAsked {
			t.Errorf("%d addresses were asked", len(asked))
		}
		for _, s := range d.Known() {
			if err := s.check(); err != nil {
				t.Errorf("believed %+v: %v", s, err)
			}
		}
	})
}
