package concord

import (
	"context"
	"crypto/tls"
	"net"
)

// peerTLS is how members speak to each other; the zero value is without TLS.
type peerTLS struct {
	server *tls.Config
	client func() *tls.Config
	conns  *peerConns // those that stand; nil where nobody asks for them
}

// PeerTLS has members speak TLS with each other, in everything: founding,
// joining, messages and snapshots. server is for the connections that others
// make, and says which certificates they must show. client is called for every
// connection that this member makes, so that what it returns may change; where
// its ServerName is empty, the host that is connected to takes its place. Both
// are needed, on all members.
func PeerTLS(server *tls.Config, client func() *tls.Config) Option {
	return func(c *config) { c.peerTLS = peerTLS{server: server, client: client} }
}

// listen adds TLS to l. The handshake runs with the first bytes that are read,
// within the transport's time for its own.
func (p peerTLS) listen(l net.Listener) net.Listener {
	if p.server == nil {
		return l
	}
	return peerListener{l, p}
}

// dialPeer makes a connection to another member, with TLS where they speak it.
func (c *config) dialPeer(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := c.reach(ctx, addr)
	if err != nil || c.peerTLS.client == nil {
		return raw, err
	}
	cfg := c.peerTLS.client().Clone()
	if cfg.ServerName == "" {
		if cfg.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			_ = raw.Close()
			return nil, err
		}
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return c.peerTLS.keep(conn, raw), nil
}

// keep notes a connection until it is closed.
func (p peerTLS) keep(conn *tls.Conn, raw net.Conn) net.Conn {
	c := &peerConn{conn, raw, p.conns}
	p.conns.add(c)
	return c
}

type peerListener struct {
	net.Listener
	tls peerTLS
}

func (l peerListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.tls.keep(tls.Server(raw, l.tls.server), raw), nil
}

// peerConn closes without TLS's farewell, which may wait seconds for a peer that
// does not read. The transport's own frames tell whether all has arrived.
type peerConn struct {
	*tls.Conn
	raw net.Conn
	all *peerConns
}

// Close implements [net.Conn].
func (c *peerConn) Close() error {
	c.all.remove(c)
	return c.raw.Close()
}

// PeerScheme is how URLs of members' peer addresses begin: https with [PeerTLS],
// else http.
func (n *Node) PeerScheme() string {
	if n.cfg.peerTLS.server != nil {
		return "https"
	}
	return "http"
}
