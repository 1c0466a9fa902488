package discovery

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of an [Announcement]. Others refuse what is beyond them.
const (
	// MaxName is the most bytes in the name of a cluster or process, and in a
	// version.
	MaxName = 128
	// MaxAddrs is how many addresses of a kind a process announces. It is no
	// error to have more: the first are taken.
	MaxAddrs = 8
	// maxAddr is the longest address: a host name of 253 bytes (RFC 1035), a
	// colon and a port.
	maxAddr = 253 + 1 + 5
	// maxAnnouncement is the most bytes in an encoded announcement, so that one
	// fits, sealed, into a packet that no network has to cut: IPv6 carries 1,280
	// bytes everywhere (RFC 8200), 48 of them headers. Addresses that do not
	// fit, clients' first, are left out.
	maxAnnouncement = 1024
)

// Announcement is what a process says of itself. It is a hint: who it is has to
// be proved to the transport.
type Announcement struct {
	// Cluster is the name that the processes of a cluster share. It is filled in
	// from [Config].
	Cluster string
	// ClusterID is the cluster that the process belongs to, 0 as long as it
	// waits for one to be founded or to let it in.
	ClusterID uint64
	// ID is the process's, random and kept; never 0.
	ID uint64
	// Name is what people call the process; nothing keeps two from having the
	// same.
	Name string
	// PeerAddrs and ClientAddrs are where it can be reached, as HOST:PORT, the
	// best first.
	PeerAddrs, ClientAddrs []string
	// GossipAddr is where it gossips, as IP:PORT; empty when it does not. It is
	// filled in.
	GossipAddr string
	// Incarnation counts the starts of the process: what a later one says is
	// newer.
	Incarnation uint64
	// Stamp counts what the process has said since it started. It is filled in.
	Stamp uint64
	// Version is of the program.
	Version string
}

// Same reports whether both say the same, whenever they said it.
func (a Announcement) Same(b Announcement) bool {
	return a.Cluster == b.Cluster && a.ClusterID == b.ClusterID && a.ID == b.ID && a.Name == b.Name &&
		slices.Equal(a.PeerAddrs, b.PeerAddrs) && slices.Equal(a.ClientAddrs, b.ClientAddrs) &&
		a.GossipAddr == b.GossipAddr && a.Incarnation == b.Incarnation && a.Version == b.Version
}

// newer reports whether a was said after b, which the same process said.
func (a Announcement) newer(b Announcement) bool {
	if a.Incarnation != b.Incarnation {
		return a.Incarnation > b.Incarnation
	}
	return a.Stamp > b.Stamp
}

// check tells what others would refuse.
func (a Announcement) check() error {
	switch {
	case a.ID == 0:
		return errors.New("an announcement without an id")
	case a.Cluster == "":
		return errors.New("an announcement without the name of a cluster")
	case !speakable(a.Cluster), !speakable(a.Name), !speakable(a.Version):
		return fmt.Errorf("a name in the announcement of process %x is no text of at most %d bytes", a.ID, MaxName)
	case len(a.PeerAddrs) > MaxAddrs, len(a.ClientAddrs) > MaxAddrs:
		return fmt.Errorf("process %x announces more than %d addresses", a.ID, MaxAddrs)
	}
	for _, addr := range slices.Concat(a.PeerAddrs, a.ClientAddrs) {
		if !isAddr(addr) {
			return fmt.Errorf("process %x announces %q, which is no HOST:PORT", a.ID, addr)
		}
	}
	if _, err := netip.ParseAddrPort(a.GossipAddr); a.GossipAddr != "" && err != nil {
		return fmt.Errorf("process %x announces gossip at %q, which is no IP:PORT", a.ID, a.GossipAddr)
	}
	return nil
}

// speakable reports whether s may be shown on a terminal and in a log as it is.
func speakable(s string) bool {
	return len(s) <= MaxName && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func isAddr(s string) bool {
	host, port, err := net.SplitHostPort(s)
	if err != nil || len(s) > maxAddr || host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n != 0
}

// fit leaves out what is over the limits of count and size. What is left may
// still be refused for its form.
func (a Announcement) fit() Announcement {
	a.PeerAddrs = a.PeerAddrs[:min(len(a.PeerAddrs), MaxAddrs)]
	a.ClientAddrs = a.ClientAddrs[:min(len(a.ClientAddrs), MaxAddrs)]
	for len(a.append(nil)) > maxAnnouncement && len(a.ClientAddrs)+len(a.PeerAddrs) > 0 {
		if n := len(a.ClientAddrs); n > 0 {
			a.ClientAddrs = a.ClientAddrs[:n-1]
		} else {
			a.PeerAddrs = a.PeerAddrs[:len(a.PeerAddrs)-1]
		}
	}
	return a
}

// announcementFormat is the first byte of an encoded announcement.
const announcementFormat = 1

// append writes a behind b: the format's byte; cluster id, id, incarnation and
// stamp, 8 bytes each, little-endian; cluster, name, version and gossip address
// as a uvarint of the length and the bytes; peer and client addresses as a
// uvarint of the count and each like a name. A later program may write more
// behind that, which this one skips.
func (a Announcement) append(b []byte) []byte {
	b = append(b, announcementFormat)
	for _, n := range []uint64{a.ClusterID, a.ID, a.Incarnation, a.Stamp} {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	for _, s := range []string{a.Cluster, a.Name, a.Version, a.GossipAddr} {
		b = appendText(b, s)
	}
	for _, list := range [][]string{a.PeerAddrs, a.ClientAddrs} {
		b = binary.AppendUvarint(b, uint64(len(list)))
		for _, s := range list {
			b = appendText(b, s)
		}
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decodeAnnouncement reads what append wrote. What it returns keeps nothing of b.
func decodeAnnouncement(b []byte) (Announcement, error) {
	var a Announcement
	if len(b) > maxAnnouncement {
		return a, fmt.Errorf("an announcement of %d bytes; at most %d are taken", len(b), maxAnnouncement)
	}
	if len(b) == 0 || b[0] != announcementFormat {
		return a, errors.New("an announcement in a format of another version of concord")
	}
	r := reader{rest: b[1:]}
	for _, n := range []*uint64{&a.ClusterID, &a.ID, &a.Incarnation, &a.Stamp} {
		*n = r.number()
	}
	for _, s := range []*string{&a.Cluster, &a.Name, &a.Version, &a.GossipAddr} {
		*s = r.text()
	}
	for _, list := range []*[]string{&a.PeerAddrs, &a.ClientAddrs} {
		for n := r.length(MaxAddrs); n > 0; n-- {
			*list = append(*list, r.text())
		}
	}
	if r.failed {
		return Announcement{}, errors.New("an announcement that is cut off")
	}
	if err := a.check(); err != nil {
		return Announcement{}, err
	}
	return a, nil
}

// reader takes bytes from the front. After the first failure all is zero.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(n int) []byte {
	if r.failed || n > len(r.rest) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) number() uint64 {
	if b := r.take(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// length reads a uvarint of at most most.
func (r *reader) length(most int) int {
	n, size := binary.Uvarint(r.rest)
	if size <= 0 || n > uint64(most) {
		r.failed, r.rest = true, nil
		return 0
	}
	r.take(size)
	return int(n)
}

func (r *reader) text() string { return string(r.take(r.length(maxAnnouncement))) }
