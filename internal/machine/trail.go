package machine

import "github.com/concord-kv/concord/kv"

// trail remembers the running hash at entries that were applied lately: at each
// of the last ones, and for longer at those whose index is a multiple of
// trailStep, so that members that are not equally far can be compared.
type trail struct {
	fine, coarse [trailKept]step
}

// step is the hash at an entry.
type step struct {
	index kv.Index
	hash  runningHash
}

const (
	trailKept = 256
	trailStep = 256
)

// note adds an entry.
func (t *trail) note(index kv.Index, hash runningHash) {
	t.fine[index%trailKept] = step{index, hash}
	if index%trailStep == 0 {
		t.coarse[index/trailStep%trailKept] = step{index, hash}
	}
}

// at finds the hash at an entry.
func (t *trail) at(index kv.Index) (hash runningHash, ok bool) {
	s := t.fine[index%trailKept]
	if s.index != index && index%trailStep == 0 {
		s = t.coarse[index/trailStep%trailKept]
	}
	return s.hash, s.index == index && index > 0
}

// HashAt returns the running hash at an entry that was applied lately: one of the
// last 256, or of those with an index that 256 divides, one of the last 65,536.
// Any goroutine.
func (m *Machine) HashAt(index kv.Index) (hash uint64, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, ok := m.shared.trail.at(index)
	return uint64(h), ok
}
