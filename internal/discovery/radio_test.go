package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeInterface has the flags that a letter stands for each: u(p), m(ulticast),
// l(oopback).
func fakeInterface(index int, name, flags string, addrs ...string) iface {
	i := iface{Interface: net.Interface{Index: index, Name: name}}
	for letter, flag := range map[string]net.Flags{"u": net.FlagUp, "m": net.FlagMulticast, "l": net.FlagLoopback} {
		if strings.Contains(flags, letter) {
			i.Flags |= flag
		}
	}
	for _, addr := range addrs {
		i.addrs = append(i.addrs, netip.MustParseAddr(addr))
	}
	return i
}

// fakeLink writes down what is done to it.
type fakeLink struct {
	joined  map[string]bool
	written []string
	bad     map[string]error
	reads   []func() (int, net.Addr, bool, error)
}

func (l *fakeLink) join(i *net.Interface) error {
	if err := l.bad[i.Name]; err != nil {
		return err
	}
	l.joined[i.Name] = true
	return nil
}

func (l *fakeLink) leave(i *net.Interface) error {
	delete(l.joined, i.Name)
	return nil
}

func (l *fakeLink) write(_ []byte, on *net.Interface) error {
	l.written = append(l.written, on.Name)
	return l.bad[on.Name+" write"]
}

func (l *fakeLink) read([]byte) (int, net.Addr, bool, error) {
	next := l.reads[0]
	l.reads = l.reads[1:]
	return next()
}

func (l *fakeLink) Close() error { return nil }

func TestInterfacesAreFollowed(t *testing.T) {
	lo, eth0, eth1 := fakeInterface(1, "lo", "ul", "127.0.0.1"), fakeInterface(2, "eth0", "um", "10.0.0.1"), fakeInterface(3, "eth1", "um", "10.1.0.1")
	again := fakeInterface(9, "eth1", "um", "10.1.0.1") // with another number
	l := &fakeLink{joined: map[string]bool{}, bad: map[string]error{}}
	var list []iface
	var listErr error
	trouble := map[string]error{}
	s := &sockets{link: l, v4: true, list: func() ([]iface, error) { return list, listErr }, note: func(target string, err error) {
		if delete(trouble, target); err != nil {
			trouble[target] = err
		}
	}}
	step := func(what string, came bool, want ...string) {
		t.Helper()
		if got := s.follow(); got != came {
			t.Errorf("%s: came is %v", what, got)
		}
		l.written = nil
		s.send(nil)
		if !slices.Equal(l.written, want) {
			t.Errorf("%s: sent on %v, want %v", what, l.written, want)
		}
	}
	step("nothing", false)
	if trouble[""] == nil {
		t.Error("no interface is no trouble")
	}
	list = []iface{eth0, lo}
	step("first", true, "lo", "eth0")
	step("the same", false, "lo", "eth0")
	list = []iface{lo, eth0, eth1}
	step("one more", true, "lo", "eth0", "eth1")
	list = []iface{lo, eth0, again}
	step("made anew", true, "lo", "eth0", "eth1")
	list = []iface{lo, again}
	l.bad["eth1 write"] = errors.New("no buffer space")
	step("one less", false, "lo", "eth1")
	if l.joined["eth0"] || trouble["eth1"] == nil || trouble[""] != nil {
		t.Errorf("joined %v, trouble %v", l.joined, trouble)
	}
	list = []iface{lo}
	step("the troubled one goes", false, "lo")
	if len(trouble) != 0 {
		t.Errorf("trouble %v", trouble)
	}
	l.bad["eth0"] = errors.New("too many groups")
	list = []iface{lo, eth0}
	step("one that cannot be joined", false, "lo")
	if trouble["eth0"] == nil {
		t.Error("it is no trouble")
	}
	delete(l.bad, "eth0")
	step("now it can", true, "lo", "eth0")
	listErr = errors.New("no list")
	step("no list", false, "lo", "eth0")
	if trouble[""] == nil {
		t.Error("no list is no trouble")
	}
}

func TestWhichInterfacesAreUsed(t *testing.T) {
	list := []iface{
		fakeInterface(2, "eth0", "um", "10.0.0.1", "fe80::1"), fakeInterface(3, "down", "m", "10.0.0.2"), fakeInterface(4, "tun", "u", "10.0.0.3"),
		fakeInterface(5, "bare", "um"), fakeInterface(6, "six", "um", "fd00::1"), fakeInterface(1, "lo", "ul", "127.0.0.1", "::1"),
	}
	names := func(v4 bool) (out []string) {
		for _, i := range usable(list, v4) {
			out = append(out, i.Name)
		}
		return out
	}
	if got := names(true); !slices.Equal(got, []string{"lo", "eth0"}) {
		t.Errorf("IPv4: %v", got)
	}
	if got := names(false); !slices.Equal(got, []string{"eth0", "six"}) {
		t.Errorf("IPv6: %v", got)
	}
	for i := range 100 {
		list = append(list, fakeInterface(10+i, fmt.Sprint("veth", i), "um", "10.0.0.1"))
	}
	if n := len(usable(list, true)); n != mostInterfaces {
		t.Errorf("%d of 100", n)
	}
}

// What was sent to this machine alone is not heard: it may come from anywhere.
func TestOnlyMulticastIsHeard(t *testing.T) {
	from := net.UDPAddrFromAddrPort(netip.MustParseAddrPort("[::ffff:10.0.0.9]:7"))
	l := &fakeLink{reads: []func() (int, net.Addr, bool, error){
		func() (int, net.Addr, bool, error) { return 3, from, false, nil },
		func() (int, net.Addr, bool, error) { return 5, from, true, nil },
		func() (int, net.Addr, bool, error) { return 0, nil, false, net.ErrClosed },
	}}
	s := &sockets{link: l}
	if n, from, err := s.receive(nil); n != 5 || from.String() != "10.0.0.9:7" || err != nil {
		t.Errorf("%d from %v, %v", n, from, err)
	}
	if _, _, err := s.receive(nil); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// multicastPort is one that is free, and stays this test's.
func multicastPort(t *testing.T) int {
	t.Helper()
	lc := net.ListenConfig{Control: shareAddress}
	conn, err := lc.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // nothing was sent
	return conn.LocalAddr().(*net.UDPAddr).Port
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for bound := time.After(60 * time.Second); !ok(); {
		select {
		case <-tick.C:
		case <-bound:
			t.Fatal("waited in vain for " + what)
		}
	}
}

// live starts a process with sockets of the system, on loopback alone.
func live(t *testing.T, id uint64, change func(*Config)) *listener {
	t.Helper()
	l := &listener{speaker: process(id), diary: &diary{}}
	cfg := Config{
		Cluster: "c", Self: l.speaker.self, Handler: l.diary, Multicast: Multicast{Off: true},
		Gossip: Gossip{Addr: "127.0.0.1:0"},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if l.Discovery, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) }) // it is nil
	l.stop = func() { stop(); wg.Wait() }
	t.Cleanup(l.stop)
	return l
}

// Three processes of one machine hear each other by multicast, and a survey
// beside them hears all.
func TestProcessesOfOneMachine(t *testing.T) {
	port := multicastPort(t)
	air := func(c *Config) { c.Seal, c.Multicast = testKey(1), Multicast{Port: port} }
	var all []*listener
	for id := range uint64(3) {
		all = append(all, live(t, id+1, air))
	}
	for _, l := range all {
		eventually(t, "all others", func() bool { return len(l.Known()) == 2 })
		for _, s := range l.Known() {
			if s.Source != "multicast4" && s.Source != "multicast6" || s.From == "" || s.PeerAddrs[0] != fmt.Sprintf("10.0.0.%d:2380", s.ID) {
				t.Errorf("knows %+v", s)
			}
		}
	}
	f, err := Survey(t.Context(), Config{Cluster: "c", Seal: testKey(1), Multicast: Multicast{Port: port}}, 2*time.Second)
	if err != nil || !slices.Equal(ids(f.Known), []uint64{1, 2, 3}) || len(f.Strangers) != 0 {
		t.Errorf("a survey finds %+v, %v", f, err)
	}
	f, err = Survey(t.Context(), Config{Multicast: Multicast{Port: port}}, 3*time.Second)
	if err != nil || len(f.Strangers) != 3 || f.Strangers[0].Cluster != "c" || len(f.Known) != 0 {
		t.Errorf("a survey without the secret finds %+v, %v", f, err)
	}
	for _, l := range all {
		if _, conflicts, strangers := l.diary.read(); len(conflicts)+len(strangers) != 0 {
			t.Errorf("told of %+v, %+v", conflicts, strangers)
		}
	}
}
