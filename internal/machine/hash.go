package machine

import (
	"encoding/binary"
	"math/bits"

	"github.com/concord-kv/concord/kv"
)

// The running hash covers the logical effects of every entry: which key got
// which value, lease, expiry and revisions, what was deleted, leases, members,
// settings, what is remembered and staged. How often a member compacts or takes
// snapshots leaves no trace in it.
//
// It is built as wyhash is (Wang Yi, 2019; four lanes of 128-bit products whose
// halves are combined), with the lane kept in each product, so that a product of
// zero cannot wipe out what came before. It finds faults, not attackers. What
// goes in is summed apart first, so that the sums of one put overlap in the
// processor: the chain from one state to the next is what costs time.
type runningHash uint64

const ( // the secrets of wyhash
	secret0 = 0xa0761d6478bd642f
	secret1 = 0xe7037ed1a0b428db
	secret2 = 0x8ebc6af09c88c6e3
	secret3 = 0x589965cc75374cc3
)

func fold(lane, a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b^lane)
	return hi ^ lo ^ bits.RotateLeft64(lane, 29)
}

// mix folds two numbers in.
func (h *runningHash) mix(a, b uint64) {
	*h = runningHash(fold(uint64(*h), a^secret0, b^secret1))
}

// bytes folds the length and contents of p in.
func (h *runningHash) bytes(p []byte) { h.mix(sum(p), secret2) }

// put folds in what a put made of a key.
func (h *runningHash) put(key, value []byte, k *kv.KeyValue) {
	h.mix(sum(key), sum(value))
	h.mix(fold(uint64(k.CreateRevision), uint64(k.ModRevision)^secret0, uint64(k.Version)^secret1),
		fold(uint64(k.Lease), uint64(k.Expires)^secret2, secret3))
}

// sum hashes the length and contents of p.
func sum(p []byte) uint64 {
	s := uint64(len(p)) ^ secret3
	if len(p) >= 64 {
		a, b, c, d := s, s^secret1, s^secret2, s^secret0
		for ; len(p) >= 64; p = p[64:] {
			a = fold(a, word(p[0:])^secret0, word(p[8:]))
			b = fold(b, word(p[16:])^secret1, word(p[24:]))
			c = fold(c, word(p[32:])^secret2, word(p[40:]))
			d = fold(d, word(p[48:])^secret3, word(p[56:]))
		}
		s = fold(a, b, c) ^ bits.RotateLeft64(d, 17)
	}
	for ; len(p) >= 16; p = p[16:] {
		s = fold(s, word(p)^secret1, word(p[8:]))
	}
	if len(p) >= 8 { // the two words overlap
		s = fold(s, word(p)^secret2, word(p[len(p)-8:]))
	} else if len(p) > 0 {
		last := uint64(0)
		for _, b := range p {
			last = last<<8 | uint64(b)
		}
		s = fold(s, last^secret2, secret3)
	}
	return s
}

func word(p []byte) uint64 { return binary.LittleEndian.Uint64(p) }

func (m *membership) hash(h *runningHash) {
	var buf []byte
	for i := range m.members {
		buf = appendMember(buf, &m.members[i])
	}
	h.mix(uint64(m.cluster), uint64(len(m.members)))
	h.bytes(buf)
	for _, id := range m.removed {
		h.mix(uint64(id), uint64(kindMembers))
	}
}

func (s *Settings) hash(h *runningHash) {
	h.mix(uint64(boolByte(s.LeaderReads)), 0)
	h.bytes(nil) // a setting that is no more
	h.mix(uint64(s.Retention), uint64(s.HistoryBytes))
	if d := DefaultSettings(); s.Autopilot != d.Autopilot || s.Voters != d.Voters || s.DeadAfter != d.DeadAfter || s.Level != d.Level {
		h.mix(uint64(s.Voters)<<1|uint64(boolByte(s.Autopilot)), uint64(s.DeadAfter))
		h.mix(uint64(s.Level), uint64(kindSettings))
	}
}
