package transport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

var errNoCluster = errors.New("transport: this member has no cluster yet")

// accept serves connections until the listener fails or is closed.
func (t *Transport) accept(ctx context.Context) error {
	for wait := time.Duration(0); ; {
		conn, err := t.cfg.Listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return ctx.Err()
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept peers: %w", err)
		case err != nil: // out of descriptors, or a connection that ended at once
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			t.cfg.Logger.Warn("cannot accept a peer connection", "error", err)
			pause(ctx, wait)
			continue
		}
		wait = 0
		if !t.handshakes.enter() {
			conn.Close()
			continue
		}
		t.track(conn)
		t.running.Go(func() {
			defer t.untrack(conn)
			t.serve(conn)
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// track makes conn end with Run.
func (t *Transport) track(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.conns[conn] = 0
	if t.life.Err() != nil { // closeAll has been here
		conn.Close()
	}
}

func (t *Transport) untrack(conn net.Conn) {
	conn.Close()
	t.mu.Lock()
	delete(t.conns, conn)
	t.mu.Unlock()
}

// serve greets and serves one connection to its end.
func (t *Transport) serve(conn net.Conn) {
	from := conn.RemoteAddr().String()
	h, l, err := t.greet(conn)
	t.handshakes.leave()
	if err != nil {
		t.cfg.Logger.Debug("peer connection refused", "address", from, "error", err)
		return
	}
	switch h.purpose {
	case purposeStream:
		defer t.streams.leave()
		err = t.serveStream(conn, h.from)
	case purposeCall:
		defer t.calls.leave()
		err = t.serveCall(conn)
	default:
		err = l.serve(conn, Channel(h.purpose))
	}
	t.cfg.Logger.Debug("peer connection ended", "address", from, "error", err)
}

// greet runs the accepting side of the handshake, which either admits the
// connection or tells the other why not.
func (t *Transport) greet(conn net.Conn) (h hello, l *inLink, err error) {
	if err := conn.SetDeadline(time.Now().Add(t.cfg.HandshakeTimeout)); err != nil {
		return h, nil, err
	}
	h, known, err := readHello(conn)
	if err != nil {
		return h, nil, err
	}
	reason := UnknownVersion
	if known {
		if reason = t.judge(h); reason == 0 {
			l, reason = t.admit(conn, h)
		}
	}
	w := welcome{refusal: reason, cluster: t.cluster.Load(), id: t.cfg.ID, incarnation: t.incarnation}
	_, err = conn.Write(w.encode())
	if err == nil && reason != 0 {
		err = fmt.Errorf("transport: refused: %s", reason)
		t.cfg.Logger.Log(context.Background(), t.refusalLevel(h, reason), "peer refused", "peer", fmt.Sprintf("%x", h.from), "cluster", fmt.Sprintf("%x", h.cluster),
			"address", conn.RemoteAddr().String(), "reason", reason.String())
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil && reason == 0 {
		t.dismiss(h, l)
	}
	return h, l, err
}

// refused is a refusal that was logged.
type refused struct {
	from   uint64
	reason Refusal
}

// maxTold bounds how many refusals are remembered as logged.
const maxTold = 256

// refusalLevel is Debug for a refusal that belongs to a start or a reconnection,
// or was logged before: the other tries again for as long as it lives.
func (t *Transport) refusalLevel(h hello, reason Refusal) slog.Level {
	switch reason {
	case NoCluster, Self, Superseded:
		return slog.LevelDebug
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	this := refused{h.from, reason}
	if t.told[this] {
		return slog.LevelDebug
	}
	if len(t.told) >= maxTold {
		clear(t.told)
	}
	t.told[this] = true
	return slog.LevelWarn
}

// dismiss takes back what admit gave.
func (t *Transport) dismiss(h hello, l *inLink) {
	switch h.purpose {
	case purposeStream:
		t.streams.leave()
	case purposeCall:
		t.calls.leave()
	default:
		l.leave(true)
	}
}

// admit reserves a place for a connection that judge has nothing against.
func (t *Transport) admit(conn net.Conn, h hello) (*inLink, Refusal) {
	if h.purpose == purposeCall {
		if !t.calls.enter() {
			return nil, Busy
		}
		return nil, 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.removed[h.from] {
		return nil, Removed
	}
	if h.purpose == purposeStream {
		if !t.streams.enter() {
			return nil, Busy
		}
		t.conns[conn] = h.from
		return nil, 0
	}
	l, reason := t.join(conn, h)
	if reason == 0 {
		t.conns[conn] = h.from
	}
	return l, reason
}

// join finds or makes the link that a connection belongs to. A newer link of a
// peer ends its older one. It is called with mu held.
func (t *Transport) join(conn net.Conn, h hello) (*inLink, Refusal) {
	l := t.inbound[h.from]
	if l != nil && l.incarnation == h.incarnation {
		if h.link < l.number {
			return nil, Superseded
		}
		if h.link == l.number {
			if l.closed || l.conns[h.purpose] != nil {
				return nil, Superseded
			}
			l.conns[h.purpose] = conn
			l.active++
			return l, 0
		}
	}
	if l == nil && len(t.inbound) >= t.cfg.MaxPeers && (*t.peers.Load())[h.from] == nil {
		return nil, Busy
	}
	next := &inLink{t: t, from: h.from, incarnation: h.incarnation, number: h.link, active: 1, done: make(chan struct{})}
	next.conns[h.purpose] = conn
	if l != nil {
		l.end()
		next.before = l.done
	}
	t.inbound[h.from] = next
	return next, 0
}

// inLink is the connections on which a peer sends to us.
type inLink struct {
	t                   *Transport
	from                uint64
	incarnation, number uint64
	before              <-chan struct{} // closed when the link before this one has ended; nil when there was none
	done                chan struct{}   // closed when nothing more will be delivered

	// Guarded by t.mu.
	conns  [channels]net.Conn
	active int  // connections that are served
	closed bool // by a loss or a newer link
}

// end closes the connections. It is called with mu held.
func (l *inLink) end() {
	l.closed = true
	for _, conn := range l.conns {
		if conn != nil {
			conn.Close()
		}
	}
}

// serve delivers what comes on one connection until it ends.
func (l *inLink) serve(conn net.Conn, ch Channel) error {
	if l.before != nil {
		<-l.before
	}
	if ch == Control {
		if p := (*l.t.peers.Load())[l.from]; p != nil {
			p.inboundUp(l.incarnation)
		}
	}
	err := l.deliver(conn, ch)
	l.leave(false)
	return err
}

// leave ends the link after the loss of one of its connections, and tells once.
// The last to leave lets the next link begin. quiet: nothing was served.
func (l *inLink) leave(quiet bool) {
	t := l.t
	t.mu.Lock()
	lost := !l.closed
	l.end()
	stopping := t.life.Err() != nil
	t.mu.Unlock()
	if p := (*t.peers.Load())[l.from]; lost && !quiet && !stopping && p != nil {
		p.down(l.incarnation)
	}
	if l.before != nil {
		<-l.before
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.active--; l.active == 0 {
		close(l.done)
		if t.inbound[l.from] == l {
			delete(t.inbound, l.from)
		}
	}
}

// deliver hands the messages of one connection to the handler.
func (l *inLink) deliver(conn net.Conn, ch Channel) error {
	r := frameReader{r: conn, max: l.t.cfg.MaxMessage}
	if ch == Control { // pings come often
		r.r = newPatient(conn, l.t.cfg.PeerTimeout)
	}
	for {
		k, payload, err := r.next()
		if err != nil {
			return err
		}
		if p := (*l.t.peers.Load())[l.from]; p != nil {
			p.received.Add(uint64(frameHeader + len(payload)))
		}
		switch {
		case k == kindMessage:
			l.t.cfg.Handler.Receive(l.from, ch, payload)
		case k == kindPing && len(payload) == 8:
			h := header(kindPong, payload)
			if _, err := conn.Write(append(h[:], payload...)); err != nil {
				return err
			}
		default:
			return errUnexpected
		}
	}
}
