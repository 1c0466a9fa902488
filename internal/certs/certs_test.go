package certs

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs certificates into files of one directory.
type authority struct {
	t      *testing.T
	dir    string
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key = a.newKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	// Under another name first, as careful people replace files.
	if err := writePEM(a.path(name), kind, der); err != nil {
		a.t.Fatal(err)
	}
}

// issue makes NAME.pem and NAME.key for a common name and alternative names.
func (a *authority) issue(name, cn string, alt ...string) (cert, key string) {
	a.t.Helper()
	a.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1000 + a.serial), Subject: pkix.Name{CommonName: cn},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, s := range alt {
		if ip := net.ParseIP(s); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, s)
		}
	}
	private := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", secret)
	a.write(name+".pem", "CERTIFICATE", der)
	return a.path(name + ".pem"), a.path(name + ".key")
}

// revoke writes crl.pem with the certificates of these serials.
func (a *authority) revoke(serials ...int64) string {
	a.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write("crl.pem", "X509 CRL", der)
	return a.path("crl.pem")
}

// shake runs a handshake and returns what the client saw of the server, and how
// it went for both.
func shake(t *testing.T, server, client *tls.Config) (state tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			ended <- err
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		if err = conn.HandshakeContext(t.Context()); err == nil {
			_, err = conn.Write([]byte("x")) // after it the client knows that it was let in
		}
		ended <- err
	}()
	cfg := client.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = "127.0.0.1"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, cfg)
	if clientErr = conn.HandshakeContext(ctx); clientErr == nil {
		state = conn.ConnectionState()
		_, clientErr = conn.Read(make([]byte, 1))
	}
	raw.Close()
	return state, <-ended, clientErr
}

func open(t *testing.T, f Files, log *slog.Logger) *Source {
	t.Helper()
	s, err := Open(f, log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func serverOf(t *testing.T, f Files) *tls.Config {
	t.Helper()
	cfg, err := open(t, f, nil).Server("h2", "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func TestWhoIsLetIn(t *testing.T) {
	ours, theirs := newAuthority(t, "ours"), newAuthority(t, "theirs")
	cert, key := ours.issue("server", "server", "127.0.0.1")
	aliceCert, aliceKey := ours.issue("alice", "alice", "alice.test")
	bobCert, bobKey := ours.issue("bob", "bob")
	farCert, farKey := ours.issue("far", "far", "192.0.2.1")
	evilCert, evilKey := theirs.issue("alice", "alice", "alice.test")
	strict := Files{Cert: cert, Key: key, CA: ours.path("ca.pem"), RequireClient: true}
	with := func(change func(*Files)) Files { f := strict; change(&f); return f }
	as := func(cert, key string) Files { return Files{Cert: cert, Key: key, CA: ours.path("ca.pem")} }
	nobody := Files{CA: ours.path("ca.pem")}
	for name, c := range map[string]struct {
		server, client Files
		ok             bool
	}{
		"no client certificate wanted":   {Files{Cert: cert, Key: key}, nobody, true},
		"none shown":                     {strict, nobody, false},
		"good":                           {strict, as(bobCert, bobKey), true},
		"another authority's":            {strict, as(evilCert, evilKey), false},
		"an unknown server":              {Files{Cert: evilCert, Key: evilKey}, nobody, false},
		"an unknown server is trusted":   {Files{Cert: evilCert, Key: evilKey}, Files{TrustServer: true}, true},
		"allowed common name":            {with(func(f *Files) { f.AllowedCNs = []string{"x", "bob"} }), as(bobCert, bobKey), true},
		"other common name":              {with(func(f *Files) { f.AllowedCNs = []string{"x", "bo"} }), as(bobCert, bobKey), false},
		"allowed name":                   {with(func(f *Files) { f.AllowedNames = []string{"alice.test"} }), as(aliceCert, aliceKey), true},
		"other name":                     {with(func(f *Files) { f.AllowedNames = []string{"alice.test"} }), as(bobCert, bobKey), false},
		"revoked":                        {with(func(f *Files) { f.CRL = ours.revoke(1003) }), as(bobCert, bobKey), false},
		"another is revoked":             {with(func(f *Files) { f.CRL = ours.revoke(1003) }), as(aliceCert, aliceKey), true},
		"revoked by another authority":   {with(func(f *Files) { f.CRL = theirs.revoke(1003) }), as(bobCert, bobKey), true},
		"a revoked server":               {Files{Cert: cert, Key: key}, Files{CA: ours.path("ca.pem"), CRL: ours.revoke(1001, 1003)}, false},
		"from its address":               {with(func(f *Files) { f.MatchAddress = true }), as(cert, key), true},
		"from another address":           {with(func(f *Files) { f.MatchAddress = true }), as(farCert, farKey), false},
		"no address in it":               {with(func(f *Files) { f.MatchAddress = true }), as(bobCert, bobKey), true},
		"another certificate as client":  {strict, Files{Cert: evilCert, Key: evilKey, ClientCert: bobCert, ClientKey: bobKey, CA: ours.path("ca.pem")}, true},
		"both versions, the newest":      {with(func(f *Files) { f.MinVersion = tls.VersionTLS13 }), as(bobCert, bobKey), true},
		"no version in common":           {with(func(f *Files) { f.MinVersion = tls.VersionTLS13 }), Files{CA: ours.path("ca.pem"), MaxVersion: tls.VersionTLS12}, false},
		"a suite of one's own, with 1.2": {with(func(f *Files) { f.Suites, f.MaxVersion = modern[:1], tls.VersionTLS12 }), as(bobCert, bobKey), true},
	} {
		_, serverErr, clientErr := shake(t, serverOf(t, c.server), open(t, c.client, nil).Client())
		if ok := serverErr == nil && clientErr == nil; ok != c.ok {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	// The common name is there for who asks.
	l := serverOf(t, strict)
	var seen string
	inner := l.GetConfigForClient
	l.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		cfg, err := inner(h)
		judge := cfg.VerifyConnection
		cfg.VerifyConnection = func(s tls.ConnectionState) error {
			seen = s.VerifiedChains[0][0].Subject.CommonName
			return judge(s)
		}
		return cfg, err
	}
	if _, _, err := shake(t, l, open(t, as(aliceCert, aliceKey), nil).Client()); err != nil || seen != "alice" {
		t.Errorf("common name %q, %v", seen, err)
	}
}

// TestOldSuites: a client that has only what is old gets nothing.
func TestOldSuites(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key := ca.issue("server", "server", "127.0.0.1")
	for name, old := range map[string]*tls.Config{
		"TLS 1.1": {MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, InsecureSkipVerify: true},
		"CBC":     {MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}, InsecureSkipVerify: true},
	} {
		if _, _, err := shake(t, serverOf(t, Files{Cert: cert, Key: key}), old); err == nil {
			t.Errorf("%s is spoken", name)
		}
	}
}

type logged struct{ lines chan string }

func (l logged) Write(b []byte) (int, error) { l.lines <- string(b); return len(b), nil }

// TestReload: new files count from the next handshake on, bad ones do not, and
// are spoken of once.
func TestReload(t *testing.T) {
	ca, next := newAuthority(t, "ca"), newAuthority(t, "next")
	cert, key := ca.issue("server", "first", "127.0.0.1")
	lines := make(chan string, 100)
	source := open(t, Files{Cert: cert, Key: key, CA: ca.path("ca.pem"), CRL: ca.revoke(), RequireClient: true},
		slog.New(slog.NewTextHandler(logged{lines}, nil)))
	server, err := source.Server()
	if err != nil {
		t.Fatal(err)
	}
	bobCert, bobKey := ca.issue("bob", "bob")
	client := open(t, Files{Cert: bobCert, Key: bobKey, CA: ca.path("ca.pem")}, nil)
	check := func(want string) {
		t.Helper()
		state, _, err := shake(t, server, client.Client())
		got := "refused"
		if err == nil {
			got = state.PeerCertificates[0].Subject.CommonName
		}
		if got != want {
			t.Errorf("got %s (%v), want %s", got, err, want)
		}
	}
	check("first")
	ca.issue("server", "second", "127.0.0.1")
	check("second")
	if err := os.WriteFile(key, []byte("no key at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	check("second")
	check("second")
	ca.issue("server", "third", "127.0.0.1")
	check("third")
	ca.revoke(1002)
	check("refused")
	ca.revoke()
	check("third")
	// Another authority, on both sides.
	old, err := os.ReadFile(ca.path("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next.path("ca.pem"), ca.path("ca.pem")); err != nil {
		t.Fatal(err)
	}
	check("refused")
	if err := os.WriteFile(ca.path("ca.pem"), old, 0o600); err != nil {
		t.Fatal(err)
	}
	check("third")
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	check("third")
	close(lines)
	var failed int
	for line := range lines {
		if strings.Contains(line, "not reloaded") {
			failed++
		}
	}
	if failed != 2 {
		t.Errorf("%d failures in the log", failed)
	}
}

// TestReloadIsTriedAgain: files that cannot be read now are read later, though
// nothing about them has changed meanwhile.
func TestReloadIsTriedAgain(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key := ca.issue("server", "first", "127.0.0.1")
	lines := make(chan string, 100)
	source := open(t, Files{Cert: cert, Key: key}, slog.New(slog.NewTextHandler(logged{lines}, nil)))
	ca.issue("server", "second", "127.0.0.1")
	name := func() string { return source.current().cert.Leaf.Subject.CommonName }
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, without := os.ReadFile(cert)
	before := []string{name(), name()}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(without, syscall.EMFILE) || before[0] != "first" || before[1] != "first" {
		t.Errorf("%v, then %v is in use", without, before)
	}
	if got := name(); got != "second" {
		t.Errorf("%s is in use when there are descriptors again", got)
	}
	close(lines)
	var all []string
	for line := range lines {
		all = append(all, line)
	}
	if len(all) != 2 || !strings.Contains(all[0], "too many open files") || !strings.Contains(all[1], "certificates reloaded") {
		t.Errorf("the log has %q", all)
	}
}

func TestOpenFails(t *testing.T) {
	ca := newAuthority(t, "ca")
	cert, key := ca.issue("server", "server")
	garbage := ca.path("garbage")
	if err := os.WriteFile(garbage, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]Files{
		"no key":         {Cert: cert},
		"no certificate": {ClientKey: key},
		"none there":     {Cert: cert + "x", Key: key},
		"key of another": {Cert: cert, Key: ca.path("ca.pem")},
		"bad client":     {ClientCert: garbage, ClientKey: key},
		"bad CA":         {CA: garbage},
		"empty CA":       {CA: key + "x"},
		"key as CA":      {CA: os.DevNull},
		"bad CRL":        {CRL: garbage},
		"no CRL":         {CRL: garbage + "x"},
	} {
		if _, err := Open(f, nil); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := open(t, Files{CA: ca.path("ca.pem")}, nil).Server(); !errors.Is(err, errNoCertificate) {
		t.Errorf("a server without a certificate: %v", err)
	}
}

func TestSelfSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	cert, key, err := SelfSigned(dir, []string{"127.0.0.1", "localhost", ""}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, _, err := shake(t, serverOf(t, Files{Cert: cert, Key: key}), open(t, Files{CA: cert}, nil).Client()); err != nil {
		t.Error(err)
	}
	for i, c := range []struct {
		before func() error
		kept   bool
	}{
		{func() error { return nil }, true},
		{func() error { return os.Remove(key) }, false},
		{func() error { _, _, err := SelfSigned(filepath.Join(dir, "expired"), nil, -time.Second); return err }, true},
	} {
		if err := c.before(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := SelfSigned(dir, nil, time.Hour); err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(cert)
		if err != nil || (string(now) == string(first)) != c.kept {
			t.Errorf("case %d: kept %v, %v", i, !c.kept, err)
		}
		first = now
	}
	expired := filepath.Join(dir, "expired", "cert.pem")
	before, err := os.ReadFile(expired)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := SelfSigned(filepath.Join(dir, "expired"), nil, time.Hour); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(expired); string(now) == string(before) {
		t.Error("an expired one was kept")
	}
	if err := os.WriteFile(cert, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := SelfSigned(dir, nil, time.Hour); err == nil {
		t.Error("garbage was replaced")
	}
}

// FuzzRevoked: no bytes of a list make it panic.
func FuzzRevoked(f *testing.F) {
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"))
	f.Add([]byte("0\x000\x00"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(dir, "crl")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if all, err := loadRevoked(path); err == nil && all == nil {
			t.Error("no list and no error")
		}
	})
}
