// Package secret turns the secret of a cluster, which all its processes share,
// into the keys they use: for gossip, for the beacon on the local network, and
// for TLS between peers. Nothing else proves that a process belongs to a cluster.
//
// Each key is HKDF-SHA256 (RFC 5869) of the secret with a label and the name of
// the cluster, so that no key tells anything of another, and one secret used for
// two clusters makes two sets of keys. The derivation is fast: it is the secret
// that must be hard to guess, as one of [New] is.
package secret

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// MinLength is how many bytes a secret has at least, without the white space
// around it.
const MinLength = 16

// ErrTooShort is returned for a secret of less than [MinLength] bytes.
var ErrTooShort = errors.New("the secret of a cluster has at least 16 bytes; concord secret makes a good one")

// New makes a secret of 130 random bits: 26 characters that can be typed and
// stand in a file, a flag or a URL as they are.
func New() string { return rand.Text() }

// Keys are what one secret gives one cluster. They may be used concurrently.
type Keys struct {
	gossip         []byte
	beacon         cipher.AEAD
	authority      authority
	name           string
	server, client *tls.Config
}

// labels keep the keys apart. They are part of what processes have to agree on:
// a change makes all clusters unreadable to programs from before.
const (
	gossipLabel = "concord v1 gossip"
	beaconLabel = "concord v1 beacon"
	peerLabel   = "concord v1 peer authority"
	nameLabel   = "concord v1 name of a secret"
)

// Derive returns the keys of the cluster of that name, with a certificate for
// this process that is made anew at each call and never leaves memory. White
// space around the secret, as the end of a line in a file, does not count. A
// secret that is too short is [ErrTooShort].
func Derive(cluster, secret string) (*Keys, error) {
	secret = strings.TrimSpace(secret)
	if len(secret) < MinLength {
		return nil, ErrTooShort
	}
	root, err := hkdf.Extract(sha256.New, []byte(secret), nil)
	if err != nil {
		return nil, fmt.Errorf("derive the keys of cluster %q: %w", cluster, err)
	}
	var keys [4][]byte
	for i, label := range []string{gossipLabel, beaconLabel, peerLabel, nameLabel} {
		// A label has no zero byte, so no two pairs of label and name are equal.
		if keys[i], err = hkdf.Expand(sha256.New, root, label+"\x00"+cluster, 32); err != nil {
			return nil, fmt.Errorf("derive the keys of cluster %q: %w", cluster, err)
		}
	}
	beacon, err := newXAES(keys[1])
	if err != nil {
		return nil, fmt.Errorf("derive the keys of cluster %q: %w", cluster, err)
	}
	authority, err := newAuthority(keys[2])
	if err != nil {
		return nil, fmt.Errorf("make the authority of cluster %q: %w", cluster, err)
	}
	leaf, err := authority.issue()
	if err != nil {
		return nil, fmt.Errorf("make the certificate of a peer of cluster %q: %w", cluster, err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	k := &Keys{gossip: keys[0], beacon: beacon, authority: authority, name: hex.EncodeToString(keys[3][:4])}
	k.server, k.client = peerConfigs(leaf, pool)
	return k, nil
}

// Gossip returns the key of 32 bytes, for AES-256-GCM, that gossip is encrypted
// with. It is the caller's own copy.
func (k *Keys) Gossip() []byte { return append([]byte(nil), k.gossip...) }

// Beacon seals what is sent to everyone on a network. Its nonces have 24 bytes,
// so that processes may draw them at random for ever.
func (k *Keys) Beacon() cipher.AEAD { return k.beacon }

// Server returns how a process accepts connections of peers: TLS 1.3 with a
// certificate on both sides, signed by the authority whose key is derived from
// the secret. A process with another secret, or the secret of another cluster,
// fails the handshake. Neither side looks at the clock or at host names. It is
// the caller's own copy.
func (k *Keys) Server() *tls.Config { return k.server.Clone() }

// Client returns how a process makes connections to peers, likewise.
func (k *Keys) Client() *tls.Config { return k.client.Clone() }

// String keeps the keys out of logs.
func (k Keys) String() string { return "secret.Keys" }

// GoString is String.
func (k Keys) GoString() string { return k.String() }
