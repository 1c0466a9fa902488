package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
)

// http2Preface begins every HTTP/2 connection of a client (RFC 9113, section
// 3.4) and no request of HTTP/1: PRI is reserved there.
const http2Preface = "PRI "

// splitter sorts connections by their first bytes: HTTP/2 goes to gRPC's own
// transport, the rest to net/http. Serving gRPC through net/http instead costs
// 3.5 times the CPU a call.
type splitter struct {
	cfg        Config
	limits     *limits
	grpc, http *connQueue
	open       atomic.Int64
	traffic    traffic
	sorting    sync.WaitGroup
}

// traffic counts bytes on gRPC connections, those of TLS not counted.
type traffic struct{ received, sent atomic.Uint64 }

func newSplitter(cfg Config, addr net.Addr, l *limits) *splitter {
	return &splitter{cfg: cfg, limits: l, grpc: newConnQueue(addr), http: newConnQueue(addr)}
}

// accept sorts the connections of l until ctx ends.
func (s *splitter) accept(ctx context.Context, l net.Listener) error {
	own, ok := l.(*listener)
	if !ok {
		own = &listener{tls: s.cfg.TLS}
	}
	var pause time.Duration
	for {
		raw, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = raw.Close() // it came too late
			}
			return nil
		}
		var temporary interface{ Temporary() bool }
		switch {
		case err == nil:
			pause = 0
			s.admit(ctx, raw, own)
		case errors.As(err, &temporary) && temporary.Temporary():
			// Out of descriptors, most likely: as net/http, wait and go on.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Logger.Warn("could not accept a connection", "err", err, "retry", pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
		default:
			return err
		}
	}
}

// admit takes raw, which came to from, within the limit on connections.
func (s *splitter) admit(ctx context.Context, raw net.Conn, from *listener) {
	key := s.limits.tokens.address(addressFrom(raw.RemoteAddr()))
	if s.open.Add(1) > int64(s.cfg.Connections) || !s.limits.addresses.enter(key) {
		s.open.Add(-1)
		_ = raw.Close()
		s.limits.refuseConnection(raw)
		return
	}
	c := &conn{Conn: raw, what: from.what, slow: s.limits.slow}
	c.waiting.cut = func() { _ = raw.Close() } // what hangs in it gets an error
	forget := s.limits.slow.watch(&c.waiting)
	c.closed = func() {
		forget()
		if c.incoming != nil {
			c.incoming.end()
		}
		s.limits.addresses.leave(key)
		s.open.Add(-1)
	}
	s.sorting.Go(func() {
		if err := s.sort(ctx, c, from.tls); err != nil {
			_ = c.Close()
			s.cfg.Logger.Debug("connection refused", "err", err, "remote", raw.RemoteAddr())
		}
	})
}

// sort finds out what c speaks and hands it on.
func (s *splitter) sort(ctx context.Context, c *conn, cfg *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Handshake)
	defer cancel()
	raw := c.Conn
	unbind := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer unbind()
	if cfg != nil {
		t := tls.Server(c.Conn, cfg)
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		state := t.ConnectionState()
		c.Conn, c.tls = t, &state
	}
	first := make([]byte, len(http2Preface))
	if _, err := io.ReadFull(c.Conn, first); err != nil {
		return err
	}
	c.first = first
	grpc := string(first) == http2Preface
	if err := c.what.allows(grpc); err != nil {
		return err
	}
	// Who has it keeps it, also when ctx ends at that moment.
	if !unbind() {
		return ctx.Err()
	}
	if grpc {
		c.traffic = &s.traffic
		if s.limits.arriving.most > 0 {
			c.incoming = newIncoming(s.limits.arriving, c.waiting.cut)
		}
		return s.grpc.put(ctx, c)
	}
	return s.http.put(ctx, c)
}

// wait returns when no connection is being sorted; their context has ended.
func (s *splitter) wait() { s.sorting.Wait() }

// conn is a connection of which the first bytes were read.
type conn struct {
	net.Conn
	// first is what the next Read gives; only the reader touches it.
	first  []byte
	tls    *tls.ConnectionState // nil without TLS
	what   Serving
	once   sync.Once
	closed func()
	// waiting is watched by slow while it writes.
	slow    *slowReaders
	waiting waiting
	// traffic counts its bytes; nil for HTTP/1. It is set before the first
	// use by more than the sorter. incoming counts what is kept of messages;
	// nil for HTTP/1, and without a limit.
	traffic  *traffic
	incoming *incoming
}

// Read reads what was read ahead, then the connection.
func (c *conn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		n, err := c.Conn.Read(p)
		if c.traffic != nil {
			c.traffic.received.Add(uint64(n))
		}
		if c.incoming != nil {
			c.incoming.received(p[:n])
		}
		return n, err
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// writeAtOnce is what a client has the time of a slow reader for.
const writeAtOnce = 256 << 10

// Write writes to the connection. A client that does not read loses it.
func (c *conn) Write(p []byte) (n int, err error) {
	for part := p; err == nil && (len(part) > 0 || n == 0); part = p[n:] {
		var wrote int
		c.slow.begin(&c.waiting)
		wrote, err = c.Conn.Write(part[:min(len(part), writeAtOnce)])
		c.waiting.end()
		if n += wrote; len(p) == 0 {
			break
		}
	}
	if c.traffic != nil {
		c.traffic.sent.Add(uint64(n))
	}
	if c.incoming != nil {
		c.incoming.sent(p[:n])
	}
	return n, err
}

// Close closes the connection and gives its place free.
func (c *conn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

// connQueue is a net.Listener of connections that were accepted elsewhere.
type connQueue struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newConnQueue(addr net.Addr) *connQueue {
	return &connQueue{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// put hands c to the one who accepts, or fails when there is none any more.
func (q *connQueue) put(ctx context.Context, c *conn) error {
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	select {
	case q.conns <- c:
		return nil
	case <-q.done:
		return net.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Accept returns the next connection.
func (q *connQueue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (q *connQueue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

// Addr is the first listener's.
func (q *connQueue) Addr() net.Addr { return q.addr }

// splitCredentials tell gRPC of the TLS that a connection speaks already.
type splitCredentials struct{}

// ServerHandshake has nothing to do but to say what TLS found out.
func (splitCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if s, ok := c.(*conn); ok && s.tls != nil {
		return c, credentials.TLSInfo{
			State:          *s.tls,
			CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
		}, nil
	}
	return c, nil, nil
}

// ClientHandshake is not for servers.
func (splitCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.ErrUnsupported
}

// Info names the protocol.
func (splitCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "split"}
}

// Clone returns c.
func (c splitCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName has no meaning for servers.
func (splitCredentials) OverrideServerName(string) error { return nil }
