package secret

import (
	"crypto/cipher"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// MostSecrets is how many secrets a [Ring] holds at most. Two are enough to
// change from one to another.
const MostSecrets = 8

// certificateAge is how old the certificate of a process gets before the next
// connection is made with another one, which has a key of its own.
const certificateAge = 24 * time.Hour

// Ring is the keys of one cluster while its secret is changed: what this process
// sends is made with the keys of the first secret, and what others send may be
// made with those of any. So a secret can be changed without an end of anything:
// first all processes accept the new one, then all use it, then all forget the
// old one. A Ring may be used concurrently.
type Ring struct {
	cluster string
	now     atomic.Pointer[ringState]

	mu sync.Mutex // held while now is replaced
}

// ringState is a Ring between two changes.
type ringState struct {
	secrets        []string
	keys           []*Keys
	made           time.Time // when the certificate was
	server, client *tls.Config
}

// NewRing derives the keys of the cluster of that name from the lines of
// secrets, of which there are 1 to [MostSecrets]; empty lines do not count.
func NewRing(cluster, secrets string) (*Ring, error) {
	r := &Ring{cluster: cluster}
	if _, err := r.Set(secrets); err != nil {
		return nil, err
	}
	return r, nil
}

// Set puts the secrets of these lines into the place of those that were there,
// and reports whether they are others. After an error nothing has changed.
// Connections that stand are not touched: see [Ring.Accepts].
func (r *Ring) Set(secrets string) (changed bool, err error) {
	list, err := split(secrets)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.now.Load(); old != nil && slices.Equal(old.secrets, list) {
		return false, nil
	}
	next := &ringState{secrets: list}
	for _, s := range list {
		keys, err := Derive(r.cluster, s)
		if err != nil {
			return false, err
		}
		next.keys = append(next.keys, keys)
	}
	if err := next.certify(); err != nil {
		return false, err
	}
	r.now.Store(next)
	return true, nil
}

// split finds the secrets in a file.
func split(text string) (list []string, err error) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !slices.Contains(list, line) {
			list = append(list, line)
		}
	}
	switch {
	case len(list) == 0:
		return nil, ErrTooShort
	case len(list) > MostSecrets:
		return nil, fmt.Errorf("%d secrets of one cluster; at most %d are accepted, and two are enough to change from one to another", len(list), MostSecrets)
	}
	return list, nil
}

// certify makes the configurations of TLS, with a new certificate.
func (s *ringState) certify() error {
	first := s.keys[0]
	leaf, err := first.authority.issue()
	if err != nil {
		return fmt.Errorf("make the certificate of a peer: %w", err)
	}
	pool := x509.NewCertPool()
	for _, k := range s.keys {
		pool.AddCert(k.authority.cert)
	}
	s.server, s.client = peerConfigs(leaf, pool)
	s.made = time.Now()
	return nil
}

// state returns what holds now, with a certificate that is not too old.
func (r *Ring) state() *ringState {
	s := r.now.Load()
	if time.Since(s.made) < certificateAge {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if s = r.now.Load(); time.Since(s.made) < certificateAge {
		return s
	}
	next := &ringState{secrets: s.secrets, keys: s.keys}
	if next.certify() != nil {
		return s // the old one is as good
	}
	r.now.Store(next)
	return next
}

// Gossip returns the keys for gossip, each as [Keys.Gossip]: the first is to be
// used, all are to be accepted.
func (r *Ring) Gossip() [][]byte {
	var out [][]byte
	for _, k := range r.now.Load().keys {
		out = append(out, k.Gossip())
	}
	return out
}

// Beacon seals as [Keys.Beacon] of the first secret, and opens what that of any
// has sealed. It follows the Ring.
func (r *Ring) Beacon() cipher.AEAD { return ringBeacon{r} }

// Server is [Keys.Server] for the certificates of all secrets. It follows the
// Ring, and is the caller's own copy.
func (r *Ring) Server() *tls.Config {
	cfg := r.state().server.Clone()
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return r.state().server, nil }
	return cfg
}

// Client is [Keys.Client] likewise, for one connection: it is as the Ring is now.
func (r *Ring) Client() *tls.Config { return r.state().client.Clone() }

// Accepts reports whether the other side of a connection would be let in now.
func (r *Ring) Accepts(state *tls.ConnectionState) bool {
	if len(state.PeerCertificates) == 0 {
		return false
	}
	now := r.now.Load()
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: now.client.RootCAs, CurrentTime: now.client.Time(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

// Names are what tells the secrets apart in a log, in their order: 32 bits each,
// which say nothing of a secret that is hard to guess.
func (r *Ring) Names() []string {
	var out []string
	for _, k := range r.now.Load().keys {
		out = append(out, k.name)
	}
	return out
}

// String keeps the keys out of logs.
func (*Ring) String() string { return "secret.Ring" }

// GoString is String.
func (r *Ring) GoString() string { return r.String() }

// ringBeacon is the beacon's key of a Ring.
type ringBeacon struct{ ring *Ring }

func (ringBeacon) NonceSize() int { return xaesNonce }
func (ringBeacon) Overhead() int  { return xaesOverhead }

// Seal implements [cipher.AEAD].
func (b ringBeacon) Seal(dst, nonce, plaintext, additional []byte) []byte {
	return b.ring.now.Load().keys[0].beacon.Seal(dst, nonce, plaintext, additional)
}

var errNotSealed = errors.New("none of the secrets has sealed this")

// Open implements [cipher.AEAD].
func (b ringBeacon) Open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	for _, k := range b.ring.now.Load().keys {
		// What cannot be opened may be overwritten in place: dst never is.
		if out, err := k.beacon.Open(dst[:len(dst):len(dst)], nonce, ciphertext, additional); err == nil {
			return out, nil
		}
	}
	return nil, errNotSealed
}
