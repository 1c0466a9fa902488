package concordtest

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// network connects the members of one cluster in memory. What is cut off is
// silent: nothing arrives and nothing is refused, and when it is whole again all
// that waited arrives, as TCP would send it again.
type network struct {
	mu        sync.Mutex
	listeners map[string]*listener // by address
	down      map[string]bool      // addresses of processes that have ended
	group     map[string]int       // address → group; others are in group 0
	changed   chan struct{}        // closed when the groups change
	lines     map[*line]struct{}
}

func newNetwork() *network {
	return &network{listeners: map[string]*listener{}, down: map[string]bool{}, changed: make(chan struct{}), lines: map[*line]struct{}{}}
}

// address is where a member listens; it is a net.Addr.
type address string

func (address) Network() string  { return "concordtest" }
func (a address) String() string { return string(a) }

// backlog is how many connections wait to be accepted.
const backlog = 64

type listener struct {
	net    *network
	at     address
	queue  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

// listen takes an address, which whoever had it before has closed.
func (n *network) listen(addr string) net.Listener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &listener{net: n, at: address(addr), queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	n.listeners[addr] = l
	delete(n.down, addr)
	return l
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	case c := <-l.queue:
		return c, nil
	}
	return nil, &net.OpError{Op: "accept", Net: l.at.Network(), Addr: l.at, Err: net.ErrClosed}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		if l.net.listeners[string(l.at)] == l {
			delete(l.net.listeners, string(l.at))
		}
		l.net.mu.Unlock()
		close(l.closed)
		for { // what nobody accepts any more
			select {
			case c := <-l.queue:
				_ = c.Close()
			default:
				return
			}
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.at }

// dial connects two addresses. Across a cut it waits until that is healed or ctx
// ends.
func (n *network) dial(ctx context.Context, from, to string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: address("").Network(), Addr: address(to), Err: err}
	}
	for {
		if err := ctx.Err(); err != nil {
			return fail(err)
		}
		conn, changed, err := n.tryDial(from, to)
		if changed == nil {
			if err != nil {
				return fail(err)
			}
			return conn, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// tryDial returns what to wait for where the addresses cannot reach each other.
func (n *network) tryDial(from, to string) (conn net.Conn, changed <-chan struct{}, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.down[from]:
		return nil, nil, net.ErrClosed
	case n.group[from] != n.group[to]:
		return nil, n.changed, nil
	}
	l := n.listeners[to]
	if l == nil || len(l.queue) == cap(l.queue) {
		return nil, nil, syscall.ECONNREFUSED
	}
	line := newLine(n, from, to)
	n.lines[line] = struct{}{}
	l.queue <- &line.ends[1] // it has room, and only here is something put in
	return &line.ends[0], nil, nil
}

// split puts addresses into groups that cannot reach each other. Those of no
// group are one together.
func (n *network) split(groups map[string]int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.group = groups
	close(n.changed)
	n.changed = make(chan struct{})
	for line := range n.lines {
		line.cut(groups[string(line.ends[0].at)] != groups[string(line.ends[1].at)])
	}
}

// hangUp closes all that a process had open, as the end of that process does. It
// makes no more connections until it listens again.
func (n *network) hangUp(addr string) {
	n.mu.Lock()
	n.down[addr] = true
	l := n.listeners[addr]
	var ends []*end
	for line := range n.lines {
		for i := range line.ends {
			if string(line.ends[i].at) == addr {
				ends = append(ends, &line.ends[i])
			}
		}
	}
	n.mu.Unlock()
	if l != nil {
		_ = l.Close()
	}
	for _, e := range ends {
		_ = e.Close()
	}
}

// forget drops a line that both ends have closed.
func (n *network) forget(l *line) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.lines, l)
}

// describe says on which side of a cut an address is, for failures.
func (n *network) describe(addr string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.group) == 0 {
		return ""
	}
	return fmt.Sprintf(", in group %d of a partition", n.group[addr])
}
