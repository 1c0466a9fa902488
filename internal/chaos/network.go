package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
)

// network carries what members say to each other, so that the way between them
// can be cut. Each member has a door: an address that stands in the list of
// peers instead of the one on which it listens.
//
// What goes into a cut way waits until the cut is healed, the end of a
// connection too: neither side sees anything but silence, as with packets that
// vanish and that TCP sends again later.
type network struct {
	doors []*door

	mu      sync.Mutex
	changed sync.Cond
	closed  bool
	ids     map[uint64]int // whose connection it is, by what its greeting says
	victim  int            // -1: nobody is cut off
	in, out bool           // what the victim does not get, and what is not got of it
	conns   map[net.Conn]bool

	group sync.WaitGroup
}

// door takes the connections to one member.
type door struct {
	listener net.Listener
	member   int
	target   string
}

// nobody is the index of a member that is not known.
const nobody = -1

// newNetwork makes a door for each of the addresses.
func newNetwork(targets []string) (_ *network, err error) {
	n := &network{ids: map[uint64]int{}, victim: nobody, conns: map[net.Conn]bool{}}
	n.changed.L = &n.mu
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	for i, target := range targets {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		d := &door{l, i, target}
		n.doors = append(n.doors, d)
		n.group.Go(func() { n.accept(d) })
	}
	return n, nil
}

// addr is where member i is reached through its door.
func (n *network) addr(i int) string { return n.doors[i].listener.Addr().String() }

// know tells which id a member has. Until then nothing from it is cut.
func (n *network) know(id uint64, member int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ids[id] = member
}

// cut parts a member from all others: from what they send it (in), from what it
// sends them (out), or both.
func (n *network) cut(member int, in, out bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.victim, n.in, n.out = member, in, out
	n.changed.Broadcast()
}

// heal lets everything through again, what waited first.
func (n *network) heal() { n.cut(nobody, false, false) }

// dialed is a connection from the member with the id dialer to the one with the
// index taker. Who the dialer is may become known later.
type dialed struct {
	dialer uint64
	taker  int
}

func (n *network) isCut(d dialed, back bool) bool {
	if n.victim == nobody {
		return false
	}
	from, known := n.ids[d.dialer]
	if !known {
		from = nobody
	}
	to := d.taker
	if back {
		from, to = to, from
	}
	return n.in && n.victim == to || n.out && n.victim == from
}

// pass waits until the way there, or back, is open; it is false when the network
// has ended.
func (n *network) pass(d dialed, back bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for n.isCut(d, back) && !n.closed {
		n.changed.Wait()
	}
	return !n.closed
}

// keep remembers a connection, so that close can end it.
func (n *network) keep(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = c.Close() // nobody has used it
		return false
	}
	n.conns[c] = true
	return true
}

func (n *network) drop(conns ...net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range conns {
		_ = c.Close() // the other side has ended already
		delete(n.conns, c)
	}
}

// close ends everything; what still waits is lost.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	for c := range n.conns {
		_ = c.Close() // its use is over
	}
	n.changed.Broadcast()
	n.mu.Unlock()
	for _, d := range n.doors {
		_ = d.listener.Close() // accept ends by it
	}
	n.group.Wait()
}

func (n *network) accept(d *door) {
	for {
		c, err := d.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n.keep(c) {
			n.group.Go(func() { n.forward(d, c) })
		}
	}
}

// The greeting of a peer connection: its dialer's id is the second number behind
// eight bytes. Source: internal/transport, hello.
const (
	greetingStart = 24
	dialerAt      = 16
)

// forward carries one connection, in both ways.
func (n *network) forward(d *door, here net.Conn) {
	start := make([]byte, greetingStart)
	if _, err := io.ReadFull(here, start); err != nil {
		n.drop(here)
		return
	}
	who := dialed{binary.LittleEndian.Uint64(start[dialerAt:]), d.member}
	if !n.pass(who, false) {
		n.drop(here)
		return
	}
	there, err := net.Dial("tcp", d.target)
	if err != nil || !n.keep(there) {
		n.drop(here)
		return
	}
	ended := make(chan struct{}, 2)
	n.group.Go(func() {
		pump(there, io.MultiReader(bytes.NewReader(start), here), func() bool { return n.pass(who, false) })
		ended <- struct{}{}
	})
	n.group.Go(func() {
		pump(here, there, func() bool { return n.pass(who, true) })
		ended <- struct{}{}
	})
	<-ended
	// The end is news too, and goes only where news gets through.
	n.pass(who, false)
	n.pass(who, true)
	n.drop(here, there)
}

// pump copies what may pass, until either side ends.
func pump(to io.Writer, from io.Reader, pass func() bool) {
	buf := make([]byte, 64<<10)
	for {
		k, err := from.Read(buf)
		if !pass() {
			return
		}
		if _, werr := to.Write(buf[:k]); err != nil || werr != nil {
			return
		}
	}
}
