package machine

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// The running hash covers the logical effects of every entry: which key got
// which value, lease, expiry and revisions, what was deleted, leases, members,
// settings, what is remembered and staged. How often a member compacts or takes
// snapshots leaves no trace in it.
//
// Bytes are hashed with xxHash64 and numbers are folded in by a multiplication
// of 64 by 64 bits whose halves are combined, as in wyhash (Wang Yi, 2019). It
// finds faults, not attackers.
type runningHash uint64

const (
	mixA = 0xa0761d6478bd642f // the first two secrets of wyhash
	mixB = 0xe7037ed1a0b428db
)

// mix folds two numbers in.
func (h *runningHash) mix(a, b uint64) {
	hi, lo := bits.Mul64(uint64(*h)^a^mixA, b^mixB)
	// The old value is kept in, so that a product of zero cannot wipe out
	// what came before.
	*h = runningHash(hi ^ lo ^ bits.RotateLeft64(uint64(*h), 29))
}

// bytes folds the contents of two byte strings in.
func (h *runningHash) bytes(a, b []byte) { h.mix(xxhash.Sum64(a), xxhash.Sum64(b)) }

func (m *membership) hash(h *runningHash) {
	var buf []byte
	for i := range m.members {
		buf = appendMember(buf, &m.members[i])
	}
	h.mix(uint64(m.cluster), xxhash.Sum64(buf))
	for _, id := range m.removed {
		h.mix(uint64(id), uint64(kindMembers))
	}
}

func (s *Settings) hash(h *runningHash) {
	h.mix(uint64(boolByte(s.LeaderReads)), xxhash.Sum64String(s.Version))
	h.mix(uint64(s.Retention), uint64(s.HistoryBytes))
}
