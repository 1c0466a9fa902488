package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Channel says which of a peer's three connections carries a message. Messages
// of one channel to one peer arrive in order or not at all; between channels
// there is no order.
type Channel uint8

// The channels.
const (
	// Control is for what is small and urgent: votes, heartbeats, read index.
	Control Channel = iota
	// Append is for log entries and their acknowledgements.
	Append
	// Bulk is for what is large and may wait.
	Bulk

	channels = 3
)

// String gives the channel's name.
func (c Channel) String() string {
	names := [...]string{"control", "append", "bulk", "stream", "call"}
	if int(c) < len(names) {
		return names[c]
	}
	return fmt.Sprintf("Channel(%d)", uint8(c))
}

// Handler takes what arrives. Its methods are called from the connections'
// goroutines, concurrently except where said otherwise.
type Handler interface {
	// Receive takes a message. Calls for one peer and channel come in the
	// order of sending and one at a time; while one runs, that connection is
	// not read, so a handler that is full may block and the sender's queue
	// fills. payload is the handler's; payloads of one connection may lie in
	// one allocation, so keeping a small one for long can keep up to 256 KiB.
	Receive(from uint64, ch Channel, payload []byte)
	// ReceiveStream takes a stream; its error, or nil, goes to the sender. r
	// ends with io.EOF only after everything that was sent. header is the
	// handler's.
	ReceiveStream(from uint64, header []byte, r io.Reader) error
	// ReceiveCall answers a call from the network address from, of which
	// nothing else is known. Its error's text goes to the caller.
	ReceiveCall(from string, payload []byte) ([]byte, error)
	// PeerUp tells that messages to a peer can be sent (again).
	PeerUp(id uint64)
	// PeerDown tells, at once, that a connection to or from a peer was lost.
	// What was queued for it is lost too. It comes once for a loss, however
	// many connections break; the next PeerUp follows when the peer is
	// reached again. Not told are losses that Transport causes itself, by
	// RemovePeer or the end of Run, and those of a link to us in whose place
	// the same process of the peer has put another before the loss was seen.
	// PeerUp and PeerDown of one peer are
	// called one at a time; they must not block, and must not call SetPeer
	// or RemovePeer.
	PeerDown(id uint64)
}

// Config configures a Transport. ID, Listener, Dial and Handler are required.
type Config struct {
	// ID is this member's id, never 0. Cluster is its cluster's id; 0 means
	// that it has none yet, and that only calls are served until SetCluster.
	ID, Cluster uint64
	// Listener accepts connections; Run closes it.
	Listener net.Listener
	// Dial connects to an address as given to SetPeer and Call. It must
	// return when its context ends.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Handler takes what arrives.
	Handler Handler
	// Logger defaults to none.
	Logger *slog.Logger
	// RoundTrip, when set, is told each measured time of a ping to a peer and
	// back, some every second. It must not block.
	RoundTrip func(peer uint64, d time.Duration)
	// PeerTimeout is how long a peer may be silent on Control, where a ping
	// goes every sixth of it, before it counts as lost; default 3s. It should
	// not be below the election timeout, which judges sooner and knows more.
	PeerTimeout time.Duration
	// HandshakeTimeout bounds the handshake of a connection, made or
	// accepted; default 5s.
	HandshakeTimeout time.Duration
	// CallTimeout bounds a call, on both sides; default 5s.
	CallTimeout time.Duration
	// StreamTimeout is how long a stream may make no progress; default 10s.
	StreamTimeout time.Duration
	// MaxMessage is the longest message that is sent or accepted; default
	// 72 MiB: a request of 64 MiB, its keys and its envelope.
	MaxMessage int
	// MaxCall is the longest request, answer or stream header; default 1 MiB.
	MaxCall int
	// QueueBytes bounds what waits to be sent on Append and on Bulk to one
	// peer, Control has a sixteenth; default 64 MiB. One message of any
	// allowed size always fits in an empty queue.
	QueueBytes int
	// MaxPeers bounds the members that may be connected to us at once;
	// default 128. Peers set by SetPeer are always let in.
	MaxPeers int
}

// Errors that Transport returns besides those of the network and
// [RefusedError].
var (
	ErrUnknownPeer = errors.New("transport: unknown peer; it was never set or has been removed")
	ErrTooLarge    = errors.New("transport: message is larger than allowed")
	ErrClosed      = errors.New("transport: closed, or the peer was removed")
)

// bounds on what peers that are not known may use up at once.
const (
	maxHandshakes = 128
	maxCalls      = 64
	maxStreams    = 16
)

func (c Config) withDefaults() Config {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.PeerTimeout, 3*time.Second)
	def(&c.HandshakeTimeout, 5*time.Second)
	def(&c.CallTimeout, 5*time.Second)
	def(&c.StreamTimeout, 10*time.Second)
	size := func(n *int, v int) {
		if *n == 0 {
			*n = v
		}
	}
	size(&c.MaxMessage, 72<<20)
	size(&c.MaxCall, 1<<20)
	size(&c.QueueBytes, 64<<20)
	size(&c.MaxPeers, 128)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func (c Config) queueBytes(ch Channel) int {
	if ch == Control {
		return max(c.QueueBytes/16, 1)
	}
	return c.QueueBytes
}

// Transport connects a member with its peers. All methods may be called
// concurrently, before, during and after Run.
type Transport struct {
	// Set by New, then read only.
	cfg         Config
	incarnation uint64
	start       time.Time

	// Read by anyone.
	cluster atomic.Uint64
	peers   atomic.Pointer[map[uint64]*peer] // replaced whole under mu
	links   atomic.Uint64                    // numbers the links we make

	handshakes, calls, streams gate

	mu      sync.Mutex
	life    context.Context // of Run; nil before, done after
	running sync.WaitGroup
	removed map[uint64]bool
	inbound map[uint64]*inLink
	conns   map[net.Conn]uint64 // accepted, by who is there (0: not known yet)
	told    map[refused]bool    // refusals in the log, at most maxTold
}

// New returns a Transport that does nothing but Call until Run.
func New(cfg Config) *Transport {
	t := &Transport{
		cfg: cfg.withDefaults(), incarnation: rand.Uint64(), start: time.Now(),
		handshakes: make(gate, maxHandshakes), calls: make(gate, maxCalls), streams: make(gate, maxStreams),
		removed: map[uint64]bool{}, inbound: map[uint64]*inLink{}, conns: map[net.Conn]uint64{},
		told: map[refused]bool{},
	}
	t.cluster.Store(cfg.Cluster)
	t.peers.Store(&map[uint64]*peer{})
	return t
}

// SetCluster gives the cluster id of a member that started without one. Peers
// are connected from then on.
func (t *Transport) SetCluster(id uint64) {
	t.cluster.Store(id)
	for _, p := range *t.peers.Load() {
		p.wake()
	}
}

// Run accepts connections and keeps links to the peers until ctx ends, and
// returns when every goroutine and connection of the Transport has ended: nil,
// or why the listener failed. It may be called once.
func (t *Transport) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t.mu.Lock()
	t.life = ctx
	for _, p := range *t.peers.Load() {
		t.startPeer(p)
	}
	t.mu.Unlock()
	stop := context.AfterFunc(ctx, t.closeAll)
	defer stop()

	err := t.accept(ctx)
	if ctx.Err() != nil {
		err = nil
	}
	cancel()
	t.closeAll()
	t.running.Wait()
	return err
}

// closeAll ends what blocks in the network. The links from us come last: a peer
// that loses them first would find us there still.
func (t *Transport) closeAll() {
	t.cfg.Listener.Close()
	t.mu.Lock()
	defer t.mu.Unlock()
	for conn := range t.conns {
		conn.Close()
	}
	for _, p := range *t.peers.Load() {
		p.cancel()
	}
}

// startPeer is called with mu held.
func (t *Transport) startPeer(p *peer) {
	switch {
	case t.life == nil:
	case t.life.Err() != nil:
		p.cancel()
	default:
		t.running.Go(p.run)
	}
}

// SetPeer makes id a peer, reached at the first of addrs that works, or gives a
// peer new addresses; a link that stands is kept. With no addresses the peer
// is known but not dialed. An id that was removed is let in again.
func (t *Transport) SetPeer(id uint64, addrs ...string) {
	if id == t.cfg.ID || id == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.removed, id)
	addrs = slices.Clone(addrs)
	if p := (*t.peers.Load())[id]; p != nil {
		if old := p.addrs.Swap(&addrs); !slices.Equal(*old, addrs) {
			p.wake()
		}
		return
	}
	p := newPeer(t, id, addrs)
	next := maps.Clone(*t.peers.Load())
	next[id] = p
	t.peers.Store(&next)
	t.startPeer(p)
}

// RemovePeer ends every connection with a peer, and refuses those it makes
// until it is set again.
func (t *Transport) RemovePeer(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.removed[id] = true
	if p := (*t.peers.Load())[id]; p != nil {
		next := maps.Clone(*t.peers.Load())
		delete(next, id)
		t.peers.Store(&next)
		p.cancel()
	}
	for conn, from := range t.conns {
		if from == id {
			conn.Close()
		}
	}
}

// Send queues a message for a peer and never blocks. False means that it was
// not taken: the peer is not connected, the queue is full or the message is
// longer than MaxMessage; the caller should tell Raft that the peer is
// unreachable. True means that it will be sent unless the connection is lost,
// which PeerDown tells. From then on payload must not be changed; it may be
// given to several peers.
func (t *Transport) Send(to uint64, ch Channel, payload []byte) bool {
	p := (*t.peers.Load())[to]
	if p == nil || ch >= channels || len(payload) > t.cfg.MaxMessage {
		return false
	}
	l := p.link.Load()
	if l != nil && l.boxes[ch].put(kindMessage, payload) {
		return true
	}
	p.dropped.Add(1)
	if ch == Control {
		p.urgent.Add(1)
	}
	return false
}

// PeerStatus is what Transport knows of a peer.
type PeerStatus struct {
	ID uint64
	// Connected tells whether messages can be sent.
	Connected bool
	// RoundTrip is the last one measured, 0 when there was none.
	RoundTrip time.Duration
	// Silent is since when nothing was heard of it, or since when it has been
	// a peer where that is less.
	Silent time.Duration
	// Queued are the bytes that wait to be sent, by Channel.
	Queued [channels]int64
	// Dropped counts the messages that Send did not take, Urgent those of them
	// that were for Control.
	Dropped, Urgent uint64
	// Sent and Received count the bytes on the link to the peer and the one
	// from it, without those of TLS. Streams and calls are not among them.
	Sent, Received uint64
	// Err is why the last attempt to connect failed, or nil.
	Err error
}

// Peers returns the state of all peers, by id.
func (t *Transport) Peers() []PeerStatus {
	peers := *t.peers.Load()
	out := make([]PeerStatus, 0, len(peers))
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		out = append(out, peers[id].status())
	}
	return out
}

// now is the time on the Transport's own clock, which pings carry.
func (t *Transport) now() time.Duration { return time.Since(t.start) }

// gate admits a bounded number at once.
type gate chan struct{}

func (g gate) enter() bool {
	select {
	case g <- struct{}{}:
		return true
	default:
		return false
	}
}

func (g gate) leave() { <-g }
