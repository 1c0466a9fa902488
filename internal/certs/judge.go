package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
)

// revoked names a certificate on a revocation list.
type revoked struct{ issuer, serial string }

// loadRevoked reads revocation lists. Their signatures are not checked: who may
// write the file may as well write the authorities'.
func loadRevoked(path string) (map[revoked]bool, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load revocation list: %w", err)
	}
	lists := [][]byte{data}
	if block, rest := pem.Decode(data); block != nil {
		lists = nil
		for ; block != nil; block, rest = pem.Decode(rest) {
			lists = append(lists, block.Bytes)
		}
	}
	all := map[revoked]bool{}
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, fmt.Errorf("load revocation list %s: %w", path, err)
		}
		for _, entry := range list.RevokedCertificateEntries {
			all[revoked{string(list.RawIssuer), entry.SerialNumber.String()}] = true
		}
	}
	return all, nil
}

// RevokedError tells that the other side's certificate is on the revocation
// list.
type RevokedError struct{ Serial string }

// Error names the certificate.
func (e *RevokedError) Error() string { return "certificate " + e.Serial + " was revoked" }

func (l *loaded) checkRevoked(chain []*x509.Certificate) error {
	for _, cert := range chain {
		if serial := cert.SerialNumber.String(); l.revoked[revoked{string(cert.RawIssuer), serial}] {
			return &RevokedError{Serial: serial}
		}
	}
	return nil
}

var errNotAllowed = errors.New("client certificate authentication failed: the certificate has none of the names that are allowed")

// judgeClient decides on a client whose certificate comes from the authorities.
func (f *Files) judgeClient(ctx context.Context, l *loaded, state tls.ConnectionState, remote net.Addr) error {
	var err error
	for _, chain := range state.VerifiedChains {
		if err = l.checkRevoked(chain); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	leaf := state.PeerCertificates[0]
	if len(f.AllowedCNs) > 0 && !slices.Contains(f.AllowedCNs, leaf.Subject.CommonName) {
		return errNotAllowed
	}
	hasName := func(name string) bool { return leaf.VerifyHostname(name) == nil }
	if len(f.AllowedNames) > 0 && !slices.ContainsFunc(f.AllowedNames, hasName) {
		return errNotAllowed
	}
	if f.MatchAddress {
		return matchAddress(ctx, leaf, remote)
	}
	return nil
}

// matchAddress makes sure that a certificate with subject alternative names is
// used from an address that one of them stands for, as etcd does for its peers:
// it has the address, or a name that resolves to it, or, with a wildcard, the
// address resolves to a name in it.
func matchAddress(ctx context.Context, leaf *x509.Certificate, remote net.Addr) error {
	if len(leaf.IPAddresses) == 0 && len(leaf.DNSNames) == 0 {
		return nil
	}
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return nil // a socket of this machine
	}
	ip := tcp.IP.String()
	if leaf.VerifyHostname(ip) == nil {
		return nil
	}
	for _, name := range leaf.DNSNames {
		if addrs, err := net.DefaultResolver.LookupHost(ctx, name); err == nil && slices.Contains(addrs, ip) {
			return nil
		}
	}
	names, _ := net.DefaultResolver.LookupAddr(ctx, ip) // none is as good as an error
	for _, name := range names {
		if leaf.VerifyHostname(name) == nil {
			return nil
		}
	}
	return fmt.Errorf("the certificate for %q and %v is not for %s", leaf.DNSNames, leaf.IPAddresses, ip)
}
