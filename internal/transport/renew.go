package transport

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"
)

// Times of a renewal.
const (
	// renewAgain is after how long one that has failed is tried again.
	renewAgain = 2 * time.Second
	// drainTime is how long the old connections may take to get empty.
	drainTime = time.Second
)

// Renew makes every link to a peer anew: connections of their own go through
// Config.Dial, and when they stand they take the place of the old ones, so that
// what Dial has them prove holds from now on. It does not wait. What is sent
// meanwhile waits, in order, and no loss is told; what is under way on an old
// connection is given the time to arrive. A link stays as it is for as long as
// no other can be made, which is tried again and said in the log.
func (t *Transport) Renew() {
	for _, p := range *t.peers.Load() {
		select {
		case p.fresh <- struct{}{}:
		default: // it is about to
		}
	}
}

// replace makes a link in the place of l, which stays as it is when that fails
// before the peer has heard of it. What it returns is to be served.
func (p *peer) replace(l *outLink) *outLink {
	ctx, cancel := context.WithTimeout(p.ctx, p.t.cfg.HandshakeTimeout)
	defer cancel()
	next := &outLink{p: p, dead: make(chan struct{}), incarnation: l.incarnation}
	addr, err := p.dialAll(ctx, next)
	if err != nil {
		if p.ctx.Err() == nil {
			p.t.cfg.Logger.Warn("peer connection not renewed; the old one stays in use", "peer", fmt.Sprintf("%x", p.id), "error", err)
		}
		return nil
	}
	for ch := range channels {
		next.boxes[ch] = newOutbox(p.t.cfg.queueBytes(Channel(ch)))
	}
	if !p.link.CompareAndSwap(l, next) { // lost meanwhile
		next.close()
		return nil
	}
	l.drain(ctx)
	l.retired.Store(true) // the peer ends it with the first greeting
	h := p.t.hello(p.id)
	h.link = p.t.links.Add(1)
	if err := p.greetAll(ctx, next, addr, h); err != nil {
		next.fail(err)
		l.fail(err)
		return nil
	}
	l.fail(errReplaced)
	return next
}

// dialAll makes the connections of a link to the first address that works.
func (p *peer) dialAll(ctx context.Context, l *outLink) (addr string, err error) {
	err = errNoAddress
	for _, addr = range *p.addrs.Load() {
		var wg sync.WaitGroup
		var errs [channels]error
		for ch := range channels {
			wg.Go(func() {
				dctx, cancel := context.WithTimeout(ctx, dialTimeout)
				defer cancel()
				l.conns[ch], errs[ch] = p.t.cfg.Dial(dctx, addr)
			})
		}
		wg.Wait()
		if err = firstCause(errs[:]); err == nil {
			return addr, nil
		}
		for ch, conn := range l.conns {
			if conn != nil {
				_ = conn.Close() // nothing was said on it
				l.conns[ch] = nil
			}
		}
	}
	return "", err
}

// greetAll greets on connections that stand.
func (p *peer) greetAll(ctx context.Context, l *outLink, addr string, h hello) error {
	var wg sync.WaitGroup
	var welcomes [channels]welcome
	var errs [channels]error
	for ch := range channels {
		wg.Go(func() {
			h := h
			h.purpose = uint8(ch)
			stop := context.AfterFunc(ctx, func() { _ = l.conns[ch].Close() })
			defer stop()
			welcomes[ch], errs[ch] = exchange(ctx, l.conns[ch], addr, h)
		})
	}
	wg.Wait()
	if err := firstCause(errs[:]); err != nil {
		return err
	}
	if welcomes[Control].incarnation != l.incarnation {
		return errRestarted
	}
	return ctx.Err()
}

// exchange greets, and judges the answer.
func exchange(ctx context.Context, conn net.Conn, addr string, h hello) (w welcome, err error) {
	if _, err := conn.Write(h.encode()); err != nil {
		return w, ended(ctx, err)
	}
	if w, err = readWelcome(conn); err != nil {
		return w, fmt.Errorf("greet %s: %w", addr, ended(ctx, err))
	}
	return w, judgeWelcome(addr, h, w)
}

// drain waits until the peer has read all that l was given: until it answers, on
// each connection, a ping that was sent behind it.
func (l *outLink) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	pinged := l.p.t.now()
	for ch := range Channel(channels) {
		l.pingOn(ch)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		read := true
		for ch := range l.ponged {
			read = read && l.ponged[ch].Load() >= int64(pinged)
		}
		if read {
			return
		}
		select {
		case <-tick.C:
		case <-l.dead:
			return
		case <-ctx.Done():
			return
		}
	}
}

// close ends a link that nobody has heard of.
func (l *outLink) close() {
	for ch := range channels {
		_ = l.conns[ch].Close() // nothing was said on it
		l.boxes[ch].close()
	}
}
