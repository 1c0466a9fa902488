package concord

import (
	"crypto/tls"
	"fmt"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/kv"
)

// peerCertificate is one that signs itself and is everybody's.
func peerCertificate(t testing.TB) (server *tls.Config, client func() *tls.Config) {
	t.Helper()
	cert, pool := certstest.New(t, "member")
	both := &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		Certificates: []tls.Certificate{cert},
	}
	return both, func() *tls.Config { return both }
}

// TestPeerTLS: a cluster is founded, joined and served over TLS, and a member
// that is closed is missed at once.
func TestPeerTLS(t *testing.T) {
	server, client := peerCertificate(t)
	c := newTestCluster(t, 3, PeerTLS(server, client), Timing(100*time.Millisecond, 20*time.Second))
	c.openAll()
	for i, n := range c.nodes {
		if _, err := n.Put(t.Context(), fmt.Sprint(i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	c.close(2)
	c.waitFor(func() error {
		up := 0
		for _, p := range c.nodes[0].transport.Peers() {
			if p.Connected {
				up++
			}
		}
		if up != 1 {
			return fmt.Errorf("%d are up", up)
		}
		return nil
	})
	c.dirs[2] += "-lost"
	c.open(2, Rejoin())
	if r, err := c.nodes[2].Get(t.Context(), "0", kv.Strong); err != nil || string(r.Value) != "x" {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestPeerTLSRefuses: who has no certificate, or speaks no TLS, founds nothing.
func TestPeerTLSRefuses(t *testing.T) {
	server, client := peerCertificate(t)
	_, stranger := peerCertificate(t)
	c := newTestCluster(t, 1, PeerTLS(server, client))
	c.open(0)
	addr := c.peers["n1"]
	for name, p := range map[string]peerTLS{
		"plain":        {},
		"stranger":     {client: stranger},
		"no identity":  {client: func() *tls.Config { return &tls.Config{RootCAs: client().RootCAs} }},
		"wrong server": {client: func() *tls.Config { return &tls.Config{RootCAs: client().RootCAs, ServerName: "x"} }},
	} {
		conn, err := (&config{peerTLS: p}).dialPeer(t.Context(), addr)
		if err == nil { // TLS 1.3 tells with the first byte
			_ = conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
			_, err = conn.Write([]byte("cncd\x01\x00\x04\x00 and more than that, which makes no sense to anybody at all"))
			if err == nil {
				_, err = conn.Read(make([]byte, 1))
			}
			_ = conn.Close()
		}
		if err == nil {
			t.Errorf("%s: let in", name)
		}
	}
}
