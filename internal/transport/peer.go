package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = time.Second
	// dialTimeout bounds making a connection. It is short because a lost SYN
	// is sent again only after 1, 3, 7 s (RFC 6298): a new attempt finds a
	// healed network sooner.
	dialTimeout = time.Second
	// maxNoted bounds the errors that are remembered as logged.
	maxNoted = 32
)

var (
	errNoAddress  = errors.New("transport: no address of the peer is known")
	errRestarted  = errors.New("transport: the peer has started anew")
	errUnexpected = errors.New("transport: unexpected frame")
	errReplaced   = errors.New("transport: another link has taken its place")
)

// peerCounts are of a peer, read by anyone.
type peerCounts struct {
	rtt     atomic.Int64
	heard   atomic.Int64 // when a ping was answered, or it became a peer
	dropped atomic.Uint64
	urgent  atomic.Uint64 // dropped on Control
	// Bytes of frames.
	sent, received atomic.Uint64
}

// peer keeps one member connected.
type peer struct {
	// Set by newPeer, then read only.
	t      *Transport
	id     uint64
	ctx    context.Context // ends with RemovePeer or Run
	cancel context.CancelFunc
	kick   chan struct{} // try to connect now
	fresh  chan struct{} // make the link anew

	// Read by anyone.
	addrs atomic.Pointer[[]string]
	link  atomic.Pointer[outLink] // nil when not connected
	peerCounts

	mu    sync.Mutex // held while the handler is told
	live  bool       // connected, either way, since the last PeerDown
	isUp  bool       // PeerUp was the last that was told
	probe time.Duration
	err   error           // of the last attempt to connect
	noted map[string]bool // the errors that were logged since there was a link
}

func newPeer(t *Transport, id uint64, addrs []string) *peer {
	p := &peer{t: t, id: id, kick: make(chan struct{}, 1), fresh: make(chan struct{}, 1), noted: map[string]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.addrs.Store(&addrs)
	p.heard.Store(int64(t.now()))
	return p
}

func (p *peer) wake() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

func (p *peer) status() PeerStatus {
	s := PeerStatus{ID: p.id, RoundTrip: time.Duration(p.rtt.Load()), Dropped: p.dropped.Load(), Urgent: p.urgent.Load(), Sent: p.sent.Load(), Received: p.received.Load()}
	s.Silent = max(0, p.t.now()-time.Duration(p.heard.Load()))
	if l := p.link.Load(); l != nil {
		s.Connected = true
		for ch, b := range l.boxes {
			s.Queued[ch] = b.queued()
		}
	}
	p.mu.Lock()
	s.Err = p.err
	p.mu.Unlock()
	return s
}

// run connects, and connects again, until the peer is removed or Run ends.
func (p *peer) run() {
	var wait time.Duration
	for attempt := 0; p.ctx.Err() == nil; attempt++ {
		l, err := p.connect(attempt)
		p.note(err)
		if err == nil {
			began := p.t.now()
			p.link.Store(l)
			for l != nil {
				l = l.serve()
			}
			if p.t.now()-began >= lastRetry {
				wait = 0 // it was a good link: the first retry is at once
				continue
			}
		}
		if wait = p.pause(wait); wait == 0 {
			attempt = -1 // the addresses may be new: from the first
		}
	}
}

// pause waits before the next attempt and returns how long the one after it
// should wait at least. A kick ends it.
func (p *peer) pause(wait time.Duration) time.Duration {
	if wait == 0 {
		wait = firstRetry
	}
	timer := time.NewTimer(wait/2 + rand.N(wait))
	defer timer.Stop()
	select {
	case <-timer.C:
		return min(2*wait, lastRetry)
	case <-p.kick:
		return 0
	case <-p.ctx.Done():
		return 0
	}
}

// note keeps the outcome of an attempt and logs it when it is a new one: of a peer
// with several addresses each says its own.
func (p *peer) note(err error) {
	if p.ctx.Err() != nil {
		return
	}
	p.mu.Lock()
	p.err = err
	known := err == nil || p.noted[err.Error()]
	switch {
	case err == nil || len(p.noted) >= maxNoted:
		p.noted = map[string]bool{} // what comes is news again
	case !known:
		p.noted[err.Error()] = true
	}
	p.mu.Unlock()
	if !known {
		level := slog.LevelWarn
		if refusal := (*RefusedError)(nil); errors.As(err, &refusal) && refusal.Reason == NoCluster {
			level = slog.LevelDebug // it is about to be founded, or joins
		}
		p.t.cfg.Logger.Log(context.Background(), level, "peer cannot be reached", "peer", fmt.Sprintf("%x", p.id), "error", err)
	}
}

// connect makes a link to one of the peer's addresses.
func (p *peer) connect(attempt int) (*outLink, error) {
	addrs := *p.addrs.Load()
	if len(addrs) == 0 {
		return nil, errNoAddress
	}
	if p.t.cluster.Load() == 0 {
		return nil, errNoCluster
	}
	l := &outLink{p: p, dead: make(chan struct{})}
	h := p.t.hello(p.id)
	h.link = p.t.links.Add(1)
	ctx, cancel := context.WithTimeout(p.ctx, p.t.cfg.HandshakeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var welcomes [channels]welcome
	var errs [channels]error
	for ch := range channels {
		l.boxes[ch] = newOutbox(p.t.cfg.queueBytes(Channel(ch)))
		l.boxes[ch].sent = &p.sent
		wg.Go(func() {
			h := h
			h.purpose = uint8(ch)
			l.conns[ch], welcomes[ch], errs[ch] = p.t.dial(ctx, addrs[attempt%len(addrs)], h)
			if errs[ch] != nil {
				cancel() // all or none
			}
		})
	}
	wg.Wait()
	if err := firstCause(errs[:]); err != nil {
		for _, conn := range l.conns {
			if conn != nil {
				conn.Close()
			}
		}
		return nil, err
	}
	l.incarnation = welcomes[Control].incarnation
	return l, nil
}

// firstCause returns the error that ended the others.
func firstCause(errs []error) (first error) {
	for _, err := range errs {
		if err != nil && (first == nil || errors.Is(first, context.Canceled)) {
			first = err
		}
	}
	return first
}

func (t *Transport) hello(to uint64) hello {
	return hello{cluster: t.cluster.Load(), from: t.cfg.ID, to: to, incarnation: t.incarnation}
}

// dial makes a connection and greets. ctx bounds it, and dialTimeout the first
// part.
func (t *Transport) dial(ctx context.Context, addr string, h hello) (_ net.Conn, w welcome, err error) {
	dctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := t.cfg.Dial(dctx, addr)
	if err != nil {
		return nil, w, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			conn.Close()
		}
	}()
	w, err = exchange(ctx, conn, addr, h)
	return conn, w, err
}

// ended replaces the error of a connection that was closed because ctx ended.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// up tells that a link stands. The link is already usable.
func (p *peer) up(l *outLink) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.link.Load() != l || p.isUp {
		return // lost again meanwhile
	}
	p.live, p.isUp = true, true
	p.t.cfg.Handler.PeerUp(p.id)
}

// down tells that a connection was lost, unless that was told already. A loss
// of a link to us that belongs to an earlier life of the peer than the link
// from us is no news.
func (p *peer) down(incarnation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.link.Load()
	if !p.live || p.ctx.Err() != nil || l != nil && l.incarnation != incarnation {
		return
	}
	p.live, p.isUp = false, false
	p.t.cfg.Handler.PeerDown(p.id)
	if l != nil { // lost one way only: a ping finds out whether the other stands
		p.probe = p.t.now()
		l.ping()
	}
}

// inboundUp notes a new link from the peer.
func (p *peer) inboundUp(incarnation uint64) {
	if l := p.link.Load(); l != nil && l.incarnation != incarnation {
		l.fail(errRestarted)
	}
	p.mu.Lock()
	p.live = true
	p.mu.Unlock()
	p.wake()
}

// pong takes the answer to a ping.
func (p *peer) pong(l *outLink, sent time.Duration) {
	rtt := p.t.now() - sent
	if rtt < 0 {
		return
	}
	p.rtt.Store(int64(rtt))
	p.heard.Store(int64(sent + rtt))
	if tell := p.t.cfg.RoundTrip; tell != nil {
		tell(p.id, rtt)
	}
	p.mu.Lock()
	again := !p.isUp && sent >= p.probe
	p.mu.Unlock()
	if again {
		p.up(l)
	}
}

// outLink is the three connections on which messages go to a peer.
type outLink struct {
	p           *peer
	incarnation uint64 // of the peer
	conns       [channels]net.Conn
	boxes       [channels]*outbox
	retired     atomic.Bool            // another is about to take its place: its loss is not told
	ponged      [channels]atomic.Int64 // when the last ping was sent that was answered

	once sync.Once
	dead chan struct{} // closed by fail
}

// serve carries the link, which is usable, and returns when it is lost and all has ended: nil,
// or the link that has taken its place, which is to be served.
func (l *outLink) serve() (next *outLink) {
	p := l.p
	stop := context.AfterFunc(p.ctx, func() { l.fail(context.Canceled) })
	defer stop()
	p.t.cfg.Logger.Info("peer connected", "peer", fmt.Sprintf("%x", p.id))
	p.up(l)
	var wg sync.WaitGroup
	defer wg.Wait()
	l.carry(&wg)
	tick := time.NewTicker(max(p.t.cfg.PeerTimeout/6, time.Millisecond))
	defer tick.Stop()
	again := time.NewTimer(0)
	again.Stop()
	defer again.Stop()
	l.ping()
	for {
		select {
		case <-tick.C:
			l.ping()
			continue
		case <-l.dead:
			return nil
		case <-p.fresh:
		case <-again.C:
		}
		if next = p.replace(l); next != nil {
			return next
		}
		again.Reset(renewAgain)
	}
}

// carry writes what is sent and reads what is answered, until the link is lost.
func (l *outLink) carry(wg *sync.WaitGroup) {
	for ch, conn := range l.conns {
		wg.Go(func() {
			if err := l.boxes[ch].writeTo(conn); err != nil {
				l.fail(err)
			}
		})
		wg.Go(func() {
			l.fail(l.readPongs(conn, Channel(ch)))
		})
	}
}

// fail ends the link, and tells at once.
func (l *outLink) fail(err error) {
	l.once.Do(func() {
		p := l.p
		p.link.CompareAndSwap(l, nil)
		if !l.retired.Load() {
			p.down(l.incarnation)
		}
		for ch := range channels {
			l.conns[ch].Close()
			l.boxes[ch].close()
		}
		if p.ctx.Err() == nil && !l.retired.Load() {
			p.t.cfg.Logger.Info("peer connection lost", "peer", fmt.Sprintf("%x", p.id), "error", err)
		}
		close(l.dead)
	})
}

func (l *outLink) ping() { l.pingOn(Control) }

func (l *outLink) pingOn(ch Channel) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], uint64(l.p.t.now()))
	l.boxes[ch].put(kindPing, b[:])
}

// readPongs reads the answers to pings, on Control until the peer is silent for
// too long. The other connections have pings only before their end, see drain.
func (l *outLink) readPongs(conn net.Conn, ch Channel) error {
	r := frameReader{r: conn, max: 8, reuse: true}
	if ch == Control {
		r.r = newPatient(conn, l.p.t.cfg.PeerTimeout)
	}
	for {
		k, b, err := r.next()
		switch {
		case err != nil:
			return err
		case k != kindPong || len(b) != 8:
			return errUnexpected
		}
		sent := time.Duration(binary.LittleEndian.Uint64(b))
		l.ponged[ch].Store(int64(sent))
		if ch == Control {
			l.p.pong(l, sent)
		}
	}
}

// patient is a connection whose reads and writes fail when nothing moves for a
// while. Deadlines are set again only after an eighth of it, as that costs.
type patient struct {
	net.Conn
	timeout       time.Duration
	read, written time.Time // when the deadlines were set
}

func newPatient(conn net.Conn, timeout time.Duration) *patient {
	return &patient{Conn: conn, timeout: timeout}
}

func (c *patient) Read(b []byte) (int, error) {
	if now := time.Now(); now.Sub(c.read) > c.timeout/8 {
		c.read = now
		if err := c.SetReadDeadline(now.Add(c.timeout)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Read(b)
}

func (c *patient) Write(b []byte) (int, error) {
	if err := c.armWrite(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *patient) armWrite() error {
	now := time.Now()
	if now.Sub(c.written) <= c.timeout/8 {
		return nil
	}
	c.written = now
	return c.SetWriteDeadline(now.Add(c.timeout))
}
