// Package authority makes the certificates of a test, and the flags by which
// etcd and the program under its command line use them.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is the name under which Path has the authority's own certificate.
const CA = "ca"

// Authority signs certificates for this machine, which are good for an hour. It
// ends with its test and is not for several goroutines at once.
type Authority struct {
	tb   testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

// New makes an authority in a directory of the test, and a certificate of each
// name.
func New(tb testing.TB, names ...string) *Authority {
	tb.Helper()
	a := &Authority{tb: tb, dir: tb.TempDir()}
	a.cert = &x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	a.cert = a.sign(CA, a.cert, a.key)
	for _, name := range names {
		a.Issue(name)
	}
	return a
}

func (a *Authority) newKey() *ecdsa.PrivateKey {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatal(err)
	}
	return key
}

// sign writes NAME.pem and NAME.key.
func (a *Authority) sign(name string, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	a.tb.Helper()
	a.next++
	template.SerialNumber = big.NewInt(a.next)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.tb.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.tb.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{
		a.Path(name): {Type: "CERTIFICATE", Bytes: der},
		a.Key(name):  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			a.tb.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.tb.Fatal(err)
	}
	return cert
}

// Issue makes a certificate for servers and clients on this machine with a name
// as its common name, in the place of an earlier one of that name.
func (a *Authority) Issue(name string) {
	a.tb.Helper()
	a.sign(name, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.newKey())
}

// Path is the file of a certificate.
func (a *Authority) Path(name string) string { return filepath.Join(a.dir, name+".pem") }

// Key is the file of a certificate's key.
func (a *Authority) Key(name string) string { return filepath.Join(a.dir, name+".key") }

// Flags are those of etcd for a member that shows the certificates server and
// peer, and lets in whoever has one.
func (a *Authority) Flags() []string {
	return []string{
		"--cert-file", a.Path("server"), "--key-file", a.Key("server"),
		"--trusted-ca-file", a.Path(CA), "--client-cert-auth",
		"--peer-cert-file", a.Path("peer"), "--peer-key-file", a.Key("peer"),
		"--peer-trusted-ca-file", a.Path(CA), "--peer-client-cert-auth=true",
	}
}

// Client is what a client needs that has the certificate of a name.
func (a *Authority) Client(name string) *tls.Config {
	a.tb.Helper()
	cert, err := tls.LoadX509KeyPair(a.Path(name), a.Key(name))
	if err != nil {
		a.tb.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots}
}
