// Package certs makes TLS configurations of files that may be replaced while
// they are in use. Every handshake looks whether they have changed; files that
// cannot be read, or are no good, leave the last good ones in force, which is
// logged once.
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"
)

// Files name what a process shows of itself and how it judges others. All files
// are PEM; empty names and zero fields mean none.
type Files struct {
	// Cert and Key are shown to clients, and to servers where ClientCert and
	// ClientKey are empty.
	Cert, Key             string
	ClientCert, ClientKey string
	// CA has the authorities that the other side's certificate must come
	// from; the system's, when it is empty.
	CA string
	// CRL has revocation lists, of any number of authorities. They may be DER.
	CRL string
	// RequireClient makes clients show a certificate of CA.
	RequireClient bool
	// AllowedCNs and AllowedNames restrict clients to certificates with one of
	// these common names or subject alternative names.
	AllowedCNs, AllowedNames []string
	// MatchAddress restricts clients whose certificate has subject alternative
	// names to the addresses that these stand for.
	MatchAddress bool
	// TrustServer takes any server's certificate: for self-signed ones.
	TrustServer bool
	// MinVersion and MaxVersion default to TLS 1.2 and the newest. Suites
	// restrict TLS 1.2; the default are the six with forward secrecy and
	// authenticated encryption.
	MinVersion, MaxVersion uint16
	Suites                 []uint16
}

// modern are the cipher suites of TLS 1.2 that RFC 9325, section 4.2,
// recommends, with ChaCha20 for machines without AES instructions.
var modern = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// loaded is what the files held, whole and good.
type loaded struct {
	cert, clientCert *tls.Certificate
	roots            *x509.CertPool // nil means the system's
	revoked          map[revoked]bool
}

// Source follows the files. All methods may be called concurrently.
type Source struct {
	// Set by Open, then read only.
	files Files
	log   *slog.Logger

	mu     sync.Mutex
	stamps map[string]stamp // as they were when they were last read
	good   *loaded
	failed string // why they could not be loaded the last time; empty if they could
}

// stamp tells versions of a file apart.
type stamp struct {
	changed time.Time
	size    int64
	inode   os.FileInfo
}

// Open loads the files, all of which must be good. log hears of later ones that
// are not; nil means nobody.
func Open(files Files, log *slog.Logger) (*Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if (files.Cert == "") != (files.Key == "") || (files.ClientCert == "") != (files.ClientKey == "") {
		return nil, errors.New("certificate and key belong together; give both files, or none")
	}
	s := &Source{files: files, log: log, stamps: files.stamps()}
	good, err := files.load()
	if err != nil {
		return nil, err
	}
	s.good = good
	return s, nil
}

func (f *Files) paths() []string {
	return []string{f.Cert, f.Key, f.ClientCert, f.ClientKey, f.CA, f.CRL}
}

// stamps of the files that are there.
func (f *Files) stamps() map[string]stamp {
	m := map[string]stamp{}
	for _, path := range f.paths() {
		if path == "" {
			continue
		}
		if info, err := os.Stat(path); err == nil {
			m[path] = stamp{info.ModTime(), info.Size(), info}
		}
	}
	return m
}

func same(a, b map[string]stamp) bool {
	if len(a) != len(b) {
		return false
	}
	for path, x := range a {
		y, ok := b[path]
		if !ok || !x.changed.Equal(y.changed) || x.size != y.size || !os.SameFile(x.inode, y.inode) {
			return false
		}
	}
	return true
}

// current returns what holds now.
func (s *Source) current() *loaded {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.files.stamps()
	if same(now, s.stamps) {
		return s.good
	}
	good, err := s.files.load()
	if err != nil {
		// Files that could not be read, for want of descriptors or a right that
		// comes late, may be good: the next handshake tries again.
		if unread := (*fs.PathError)(nil); !errors.As(err, &unread) {
			s.stamps = now
		}
		if err.Error() != s.failed {
			s.log.Error("certificates not reloaded; the last good ones stay in use", "error", err)
		}
		s.failed = err.Error()
		return s.good
	}
	s.stamps, s.failed = now, ""
	s.good = good
	s.log.Info("certificates reloaded", "cert", s.files.Cert, "ca", s.files.CA)
	return good
}

// load reads all files.
func (f *Files) load() (*loaded, error) {
	l := new(loaded)
	var err error
	if l.cert, err = loadPair(f.Cert, f.Key); err != nil {
		return nil, err
	}
	if l.clientCert, err = loadPair(f.ClientCert, f.ClientKey); err != nil {
		return nil, err
	}
	if l.clientCert == nil {
		l.clientCert = l.cert
	}
	if l.roots, err = Authorities(f.CA); err != nil {
		return nil, err
	}
	l.revoked, err = loadRevoked(f.CRL)
	return l, err
}

func loadPair(cert, key string) (*tls.Certificate, error) {
	if cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", cert, key, err)
	}
	return &pair, nil
}

// Authorities reads certificates to trust; nil, for the system's, when path is
// empty.
func Authorities(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load authorities: %w", err)
	}
	pool, n := x509.NewCertPool(), 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("load authorities of %s: %w", path, err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("load authorities: there is no certificate in %s", path)
	}
	return pool, nil
}

func (f *Files) base() *tls.Config {
	cfg := &tls.Config{MinVersion: f.MinVersion, MaxVersion: f.MaxVersion, CipherSuites: f.Suites}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
	}
	if len(cfg.CipherSuites) == 0 {
		cfg.CipherSuites = modern
	}
	return cfg
}

var errNoCertificate = errors.New("certs: a server needs a certificate and its key")

// Server returns a configuration for the accepting side, that follows the
// files; protocols are those of ALPN.
func (s *Source) Server(protocols ...string) (*tls.Config, error) {
	if s.files.Cert == "" {
		return nil, errNoCertificate
	}
	cfg := s.files.base()
	cfg.NextProtos = protocols
	cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return s.accept(hello, protocols), nil
	}
	return cfg, nil
}

// accept is the configuration of one handshake.
func (s *Source) accept(hello *tls.ClientHelloInfo, protocols []string) *tls.Config {
	now := s.current()
	cfg := s.files.base()
	cfg.NextProtos = protocols
	cfg.Certificates = []tls.Certificate{*now.cert}
	if !s.files.RequireClient {
		return cfg
	}
	cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, now.roots
	// A ticket would let in whoever was let in before.
	cfg.SessionTicketsDisabled = true
	remote := hello.Conn.RemoteAddr()
	ctx := hello.Context()
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		return s.files.judgeClient(ctx, now, state, remote)
	}
	return cfg
}

// Client returns a configuration for one connection, or a few in short order:
// it has what the files hold now. ServerName is left to the caller.
func (s *Source) Client() *tls.Config {
	now := s.current()
	cfg := s.files.base()
	cfg.RootCAs = now.roots
	// Peers are judged without names of authorities being compared: whoever
	// asks for a certificate gets the one there is, as curl and etcd do.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if now.clientCert == nil {
			return new(tls.Certificate), nil
		}
		return now.clientCert, nil
	}
	if s.files.TrustServer {
		cfg.InsecureSkipVerify = true
	}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		return now.checkRevoked(state.PeerCertificates)
	}
	return cfg
}
