package discovery

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
)

// A beacon's packet. In clear: the magic number, the format's byte, its kind, the
// sender's instance (8 bytes, little-endian, drawn at each start), and the
// cluster's name behind a byte with its length. Then a nonce, and sealed: what
// the sender says of itself, or nothing when it only listens. All that is in
// clear is sealed with it as associated data. Who has no key sends the part in
// clear, with an empty name.
const (
	beaconMagic  = "CNCD"
	beaconFormat = 1
	// beaconName is where the length of the name is.
	beaconName = len(beaconMagic) + 2 + 8
	// maxBeacon is the most bytes of a packet: 40 more with their headers, it is
	// below what every network carries in one piece.
	maxBeacon = beaconName + 1 + MaxName + 24 + maxAnnouncement + 16
)

// kind is what a packet is for.
type kind byte

const (
	// telling is said for all to hear, and asks for nothing.
	telling kind = iota
	// asking is telling, and has all who hear it tell.
	asking
	// wondering is asking by one that only listens, and is nobody.
	wondering
)

// beacon is a packet, opened as far as the key goes.
type beacon struct {
	kind     kind
	instance uint64
	cluster  string
	// sealed is what was behind the part in clear, which is header.
	header, sealed []byte
}

var (
	errNoBeacon = errors.New("not a beacon")
	errSealed   = errors.New("a beacon that another secret has sealed")
)

// appendHeader writes the part in clear.
func (p beacon) appendHeader(b []byte) []byte {
	b = append(b, beaconMagic...)
	b = append(b, beaconFormat, byte(p.kind))
	b = binary.LittleEndian.AppendUint64(b, p.instance)
	b = append(b, byte(len(p.cluster)))
	return append(b, p.cluster...)
}

// encode makes the packet with body, which may be empty. Without a key the part
// in clear is all.
func (p beacon) encode(key cipher.AEAD, body []byte) []byte {
	b := p.appendHeader(make([]byte, 0, maxBeacon))
	if key == nil {
		return b
	}
	head := len(b)
	b = b[:head+key.NonceSize()]
	_, _ = rand.Read(b[head:]) // never fails, by its documentation
	return key.Seal(b, b[head:], body, b[:head])
}

// decodeBeacon reads the part in clear. What it returns shares b.
func decodeBeacon(b []byte) (beacon, error) {
	if len(b) > maxBeacon || len(b) <= beaconName || !bytes.HasPrefix(b, []byte(beaconMagic)) || b[len(beaconMagic)] != beaconFormat {
		return beacon{}, errNoBeacon
	}
	p := beacon{kind: kind(b[len(beaconMagic)+1]), instance: binary.LittleEndian.Uint64(b[len(beaconMagic)+2:])}
	end := beaconName + 1 + int(b[beaconName])
	if end > len(b) || p.kind > wondering {
		return beacon{}, errNoBeacon
	}
	p.cluster, p.header, p.sealed = string(b[beaconName+1:end]), b[:end], b[end:]
	if !speakable(p.cluster) {
		return beacon{}, errNoBeacon
	}
	return p, nil
}

// open unseals the body.
func (p beacon) open(key cipher.AEAD) ([]byte, error) {
	if key == nil || len(p.sealed) < key.NonceSize()+key.Overhead() {
		return nil, errSealed
	}
	nonce := p.sealed[:key.NonceSize()]
	body, err := key.Open(nil, nonce, p.sealed[len(nonce):], p.header)
	if err != nil {
		return nil, errSealed
	}
	return body, nil
}
