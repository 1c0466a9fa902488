package transport

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// version of the wire format.
const version = 1

const (
	magic         = "cncd"
	preambleBytes = 8 // magic, version and one byte: the same in every version
	helloBytes    = 52
	welcomeBytes  = 36
)

// purpose says what a connection is for: a channel of a link, or one of these.
const (
	purposeStream = channels + iota
	purposeCall
	purposes
)

// hello is what a dialer says first.
type hello struct {
	purpose  uint8
	cluster  uint64
	from, to uint64 // to is 0 in a call: whoever is there
	// incarnation and link say which of the dialer's links a connection
	// belongs to; link is 0 when to none.
	incarnation, link uint64
}

// welcome is what the other answers.
type welcome struct {
	version     uint16
	refusal     Refusal
	cluster, id uint64
	incarnation uint64
}

// Refusal says why a connection was not made.
type Refusal uint8

// The refusals. Their numbers are on the wire.
const (
	// WrongCluster: the other belongs to another cluster.
	WrongCluster Refusal = iota + 1
	// UnknownVersion: the other speaks another version of the protocol.
	UnknownVersion
	// WrongMember: at that address is another member than the one looked for.
	WrongMember
	// Self: the address is our own.
	Self
	// Removed: the other knows us as removed from the cluster.
	Removed
	// NoCluster: the other has not joined a cluster yet.
	NoCluster
	// Busy: the other has too many connections.
	Busy
	// Superseded: a newer connection of ours has taken this one's place.
	Superseded
)

var refusals = [...]string{
	"none", "wrong cluster", "unknown version", "wrong member", "self", "removed", "no cluster yet", "busy", "superseded",
}

// String gives the reason in words.
func (r Refusal) String() string {
	if int(r) < len(refusals) {
		return refusals[r]
	}
	return fmt.Sprintf("Refusal(%d)", uint8(r))
}

// RefusedError tells why a connection to another process was refused, by
// either side.
type RefusedError struct {
	Reason Refusal
	// Addr is where the other was looked for.
	Addr string
	// Cluster, ID and Version are the other's; WantCluster and WantID what we
	// looked for.
	Cluster, ID         uint64
	WantCluster, WantID uint64
	Version             uint16
}

// Error names both sides of the disagreement and what to look at.
func (e *RefusedError) Error() string {
	switch e.Reason {
	case WrongCluster:
		return fmt.Sprintf("%s belongs to cluster %x, this member to %x; check its address, or whose data directory it runs on", e.Addr, e.Cluster, e.WantCluster)
	case UnknownVersion:
		return fmt.Sprintf("%s speaks version %d of the peer protocol, this member %d; run releases that fit each other", e.Addr, e.Version, version)
	case WrongMember:
		return fmt.Sprintf("%s is member %x, not %x; check the addresses of both", e.Addr, e.ID, e.WantID)
	case Self:
		return fmt.Sprintf("%s is this member's own address; check the address of %x", e.Addr, e.WantID)
	case Removed:
		return fmt.Sprintf("%s knows this member as removed from the cluster; it may come back only as a new member", e.Addr)
	case NoCluster:
		return fmt.Sprintf("%s has not joined a cluster yet; it will be tried again", e.Addr)
	case Busy:
		return fmt.Sprintf("%s has too many connections; it will be tried again", e.Addr)
	case Superseded:
		return fmt.Sprintf("%s has a newer connection from this member", e.Addr)
	}
	return fmt.Sprintf("%s refused the connection for reason %d, which this release does not know", e.Addr, e.Reason)
}

var (
	errNotOurs  = errors.New("transport: the other does not speak the peer protocol")
	errGreeting = errors.New("transport: damaged greeting")
)

func (h hello) encode() []byte {
	b := make([]byte, 0, helloBytes)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = append(b, h.purpose, 0)
	for _, v := range [...]uint64{h.cluster, h.from, h.to, h.incarnation, h.link} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readHello reads no more than the greeting. known is false when it is of
// another version, which is all that is known of it then.
func readHello(r io.Reader) (h hello, known bool, err error) {
	var b [helloBytes]byte
	if _, err := io.ReadFull(r, b[:preambleBytes]); err != nil {
		return h, false, err
	}
	if string(b[:4]) != magic {
		return h, false, errNotOurs
	}
	if binary.LittleEndian.Uint16(b[4:]) != version {
		return h, false, nil
	}
	if _, err := io.ReadFull(r, b[preambleBytes:]); err != nil {
		return h, false, err
	}
	if crc32.Checksum(b[:helloBytes-4], castagnoli) != binary.LittleEndian.Uint32(b[helloBytes-4:]) || b[6] >= purposes || b[7] != 0 {
		return h, false, errGreeting
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[preambleBytes+8*i:]) }
	h = hello{purpose: b[6], cluster: u(0), from: u(1), to: u(2), incarnation: u(3), link: u(4)}
	if h.from == 0 {
		return h, false, errGreeting
	}
	return h, true, nil
}

func (w welcome) encode() []byte {
	b := make([]byte, 0, welcomeBytes)
	b = append(b, magic...)
	b = binary.LittleEndian.AppendUint16(b, version)
	b = append(b, byte(w.refusal), 0)
	for _, v := range [...]uint64{w.cluster, w.id, w.incarnation} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readWelcome reads no more than the answer. Of another version only version
// and refusal are known.
func readWelcome(r io.Reader) (w welcome, err error) {
	var b [welcomeBytes]byte
	if _, err := io.ReadFull(r, b[:preambleBytes]); err != nil {
		return w, err
	}
	if string(b[:4]) != magic {
		return w, errNotOurs
	}
	w.version, w.refusal = binary.LittleEndian.Uint16(b[4:]), Refusal(b[6])
	if w.version != version {
		return w, nil
	}
	if _, err := io.ReadFull(r, b[preambleBytes:]); err != nil {
		return w, err
	}
	if crc32.Checksum(b[:welcomeBytes-4], castagnoli) != binary.LittleEndian.Uint32(b[welcomeBytes-4:]) || b[7] != 0 {
		return w, errGreeting
	}
	u := func(i int) uint64 { return binary.LittleEndian.Uint64(b[preambleBytes+8*i:]) }
	w.cluster, w.id, w.incarnation = u(0), u(1), u(2)
	return w, nil
}

// judge returns why we refuse h, or 0. The caller checks for Removed, Busy and
// Superseded.
func (t *Transport) judge(h hello) Refusal {
	cluster := t.cluster.Load()
	switch {
	case h.purpose == purposeCall:
		return 0
	case cluster == 0:
		return NoCluster
	case h.cluster != cluster:
		return WrongCluster
	case h.from == t.cfg.ID:
		return Self
	case h.to != t.cfg.ID:
		return WrongMember
	}
	return 0
}

// judgeWelcome returns why a connection to addr that we made with h cannot be
// used, or nil. It does not trust the other to have checked.
func judgeWelcome(addr string, h hello, w welcome) error {
	reason := w.refusal
	switch {
	case w.version != version:
		reason = UnknownVersion
	case reason != 0 || h.purpose == purposeCall:
	case w.cluster != h.cluster:
		reason = WrongCluster
	case w.id == h.from:
		reason = Self
	case w.id != h.to:
		reason = WrongMember
	}
	if reason == 0 {
		return nil
	}
	return &RefusedError{
		Reason: reason, Addr: addr, Cluster: w.cluster, ID: w.id, Version: w.version,
		WantCluster: h.cluster, WantID: h.to,
	}
}
