package sim

import "time"

// maxNodes bounds the processes that one run may ever start.
const maxNodes = 16

// Channels of the real transport: order holds within one, not across them.
const (
	chControl = iota
	chAppend
	chBulk
	channels
)

// netOptions are the network of one run.
type netOptions struct {
	latency   time.Duration // mean of the exponential part
	floor     time.Duration // least latency
	drop, dup float64       // per message
	slow      float64       // chance of a latency a hundred times as long
	bandwidth float64       // bytes per second
	queue     int           // messages in flight per channel before a send is refused
}

// packet is one message under way.
type packet struct{ payload []byte }

// link is one channel from one node to another. Its packets arrive in order.
type link struct {
	epoch  uint64 // counts connections: a reset loses what is under way
	last   int64  // arrival of the newest packet
	flying int
	held   []packet // kept by a cut that stalls instead of losing
}

// cutMode says what a cut does to the packets sent into it.
type cutMode uint8

const (
	cutNone cutMode = iota
	cutLose         // the route is a black hole
	cutHold         // as TCP does: they arrive after the cut heals
)

// route is one channel from one node to another.
type route struct{ from, to, ch int }

// network carries payloads between nodes as the transport does: per channel in
// order, lossy when connections break, with word to both sides when one does.
type network struct {
	loop  *loop
	rnd   chance
	opt   netOptions
	links [maxNodes][maxNodes][channels]link
	cuts  [maxNodes][maxNodes]cutMode

	// deliver hands a packet to its target, down tells node at of the loss of
	// its connection to peer.
	deliver func(r route, payload []byte)
	down    func(at, peer int)

	healed bool
	stats  struct{ sent, lost, resets uint64 }
}

func (n *network) link(r route) *link { return &n.links[r.from][r.to][r.ch] }

// send takes a payload; false means that the transport refused it, as it does
// when its queue is full.
func (n *network) send(r route, payload []byte) bool {
	l := n.link(r)
	n.stats.sent++
	if l.flying >= n.opt.queue {
		n.stats.lost++
		return false
	}
	if !n.healed && n.rnd.is(n.opt.drop) {
		n.stats.lost++
		return n.rnd.is(0.5) // the sender does not always learn of it
	}
	n.transmit(r, payload)
	if !n.healed && n.rnd.is(n.opt.dup) {
		n.transmit(r, payload)
	}
	return true
}

func (n *network) transmit(r route, payload []byte) {
	l := n.link(r)
	if n.cuts[r.from][r.to] == cutLose || len(l.held) >= n.opt.queue {
		n.stats.lost++
		return
	}
	delay := n.opt.floor + n.rnd.exp(n.opt.latency)
	if !n.healed && n.rnd.is(n.opt.slow) {
		delay *= 100
	}
	if n.opt.bandwidth > 0 {
		delay += time.Duration(float64(len(payload)) / n.opt.bandwidth * 1e9)
	}
	l.last = max(l.last, n.loop.now+int64(delay))
	l.flying++
	epoch := l.epoch
	n.loop.at(l.last, func() { n.arrive(r, epoch, payload) })
}

func (n *network) arrive(r route, epoch uint64, payload []byte) {
	l := n.link(r)
	if l.epoch != epoch {
		return // its connection broke while it was under way
	}
	l.flying--
	switch mode := n.cuts[r.from][r.to]; {
	case mode == cutLose:
		n.stats.lost++
	case mode == cutHold || len(l.held) > 0: // behind what is held
		l.held = append(l.held, packet{payload})
	default:
		n.deliver(r, payload)
	}
}

// cut stops traffic from one node to another.
func (n *network) cut(from, to int, mode cutMode) { n.cuts[from][to] = mode }

// heal lets it flow again; what was held arrives in order, and ahead of what is
// sent from now on.
func (n *network) heal(from, to int) {
	if n.cuts[from][to] == cutNone {
		return
	}
	n.cuts[from][to] = cutNone
	for ch := range channels {
		r := route{from, to, ch}
		if l := n.link(r); len(l.held) > 0 {
			epoch := l.epoch
			n.loop.after(n.opt.floor+n.rnd.exp(n.opt.latency), func() { n.drain(r, epoch) })
		}
	}
}

// drain delivers what a cut held, unless there is a cut again.
func (n *network) drain(r route, epoch uint64) {
	l := n.link(r)
	if l.epoch != epoch || n.cuts[r.from][r.to] != cutNone {
		return
	}
	held := l.held
	l.held = nil
	for _, p := range held {
		n.deliver(r, p.payload)
	}
}

// reset breaks the connections between a and b: what is under way is lost, and
// both sides hear of it, as after a RST, unless they are cut off.
func (n *network) reset(a, b int) {
	n.stats.resets++
	n.drop(a, b)
	n.drop(b, a)
	for _, side := range [...][2]int{{a, b}, {b, a}} {
		at, peer := side[0], side[1]
		if n.cuts[peer][at] == cutNone {
			n.loop.after(n.opt.floor+n.rnd.exp(n.opt.latency), func() { n.down(at, peer) })
		}
	}
}

func (n *network) drop(from, to int) {
	for ch := range channels {
		l := &n.links[from][to][ch]
		l.epoch++
		l.flying, l.held = 0, nil
	}
}

// crashed breaks all connections of a node. The kernel of a killed process
// closes them, that of a machine without power does not: then its peers hear
// nothing.
func (n *network) crashed(node int, loud bool) {
	for peer := range maxNodes {
		if peer == node {
			continue
		}
		n.drop(node, peer)
		n.drop(peer, node)
		if loud && n.cuts[node][peer] == cutNone {
			n.loop.after(n.opt.floor+n.rnd.exp(n.opt.latency), func() { n.down(peer, node) })
		}
	}
}
