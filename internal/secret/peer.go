package secret

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// PeerProtocol is what peers name in the TLS handshake (ALPN), so that nothing
// else that speaks TLS under the same authority is taken for a peer.
const PeerProtocol = "concord-peer"

// peerName is the name in every peer's certificate. Peers are known by who
// signed them, not by host: their addresses change.
const peerName = "peer.concord.internal"

// Certificates hold at all times: a clock that is wrong must not end a cluster.
// 9999-12-31 is how RFC 5280, section 4.1.2.5, writes that there is no end.
var validity = [2]time.Time{time.Unix(0, 0).UTC(), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}

// peerConfigs are both ends of TLS between peers: leaf is shown, and who was
// signed by one of pool let in.
func peerConfigs(leaf tls.Certificate, pool *x509.CertPool) (server, client *tls.Config) {
	base := tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{leaf},
		NextProtos:   []string{PeerProtocol},
		Time:         func() time.Time { return validity[0].Add(time.Hour) },
		// A ticket would outlive the process whose certificate it stands for.
		SessionTicketsDisabled: true,
	}
	server, client = base.Clone(), base.Clone()
	server.ClientAuth, server.ClientCAs = tls.RequireAndVerifyClientCert, pool
	client.RootCAs, client.ServerName = pool, peerName
	return server, client
}

// authority signs peers' certificates.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// newAuthority is the same in every process that has the secret: Ed25519 signs
// without chance (RFC 8032).
func newAuthority(seed []byte) (authority, error) {
	key := ed25519.NewKeyFromSeed(seed)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "concord peers"},
		NotBefore: validity[0], NotAfter: validity[1],
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return authority{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return authority{cert, key}, err
}

// issue makes a certificate for both sides of a connection.
func (a authority) issue() (tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(2)), // the authority has 1, nothing has 0
		Subject:      pkix.Name{CommonName: "concord peer"}, DNSNames: []string{peerName},
		NotBefore: validity[0], NotAfter: validity[1], BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: leaf}, err
}
