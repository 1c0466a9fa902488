package main

import (
	"crypto/tls"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/certs"
)

// tlsVersions are the versions of TLS by etcd's names.
var tlsVersions = map[string]uint16{"TLS1.2": tls.VersionTLS12, "TLS1.3": tls.VersionTLS13}

// cipherSuites finds suites by name. Those that Go takes for weak are left out,
// with a warning; none of TLS 1.3 can be chosen.
func cipherSuites(names []string, log *slog.Logger) ([]uint16, error) {
	var ids []uint16
	for _, name := range names {
		is := func(s *tls.CipherSuite) bool { return s.Name == name }
		if i := slices.IndexFunc(tls.CipherSuites(), is); i >= 0 {
			ids = append(ids, tls.CipherSuites()[i].ID)
		} else if slices.ContainsFunc(tls.InsecureCipherSuites(), is) {
			log.Warn("weak cipher suite left out", "suite", name)
		} else {
			return nil, usagef("unexpected TLS cipher suite %q", name)
		}
	}
	if len(names) > 0 && len(ids) == 0 {
		return nil, usagef("--cipher-suites names weak suites only; leave it out, or add a better one")
	}
	return ids, nil
}

// makeCertificate fills f with a certificate of the member's own, kept below
// its data directory.
func makeCertificate(f *certs.Files, dataDir, use string, hosts []string, validity time.Duration) (err error) {
	f.Cert, f.Key, err = certs.SelfSigned(filepath.Join(dataDir, "fixtures", use), hosts, validity)
	return err
}
