package machine

import (
	"iter"
	"slices"

	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/kv"
)

// Image returns the state as it stands between two commands: unlike those of a
// [View], its leases are the ones of its keys. It costs O(1) and a copy of the
// member table; what is pinned is let go by its Close. Any goroutine.
func (m *Machine) Image() kv.Image {
	m.swap.RLock()
	// A command that touches both keys and leases holds mu until it is done.
	m.mu.Lock()
	keys := m.store.View()
	leases, at := m.shared.leases.Copy(), m.shared.published
	m.mu.Unlock()
	m.swap.RUnlock()
	c := m.config.Load()
	h := kv.Header{Revision: keys.Revision(), Time: at.now}
	img := kv.Image{
		Header: h, Cluster: c.cluster, Index: at.index, Term: at.term, Compacted: keys.CompactRevision(),
		Alarms: slices.Clone(c.alarms), Downgrade: c.downgrade, Removed: slices.Clone(c.removed), Leases: leasesOf(leases, h),
		Versions: keys.History, Range: keys.Range, Close: keys.Close,
	}
	img.Auth = m.Access().Image()
	for i := range c.members {
		img.Members = append(img.Members, cloneMember(&c.members[i]))
	}
	return img
}

// leasesOf yields the leases by id as they stood then.
func leasesOf(leases *lease.Table, h kv.Header) iter.Seq[kv.LeaseResult] {
	return func(yield func(kv.LeaseResult) bool) {
		for l := range leases.All() {
			if !yield(kv.LeaseResult{Header: h, ID: l.ID, TTL: l.Duration(), Left: l.Left(h.Time)}) {
				return
			}
		}
	}
}
