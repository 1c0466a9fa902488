package machine

import "github.com/concord-kv/concord/kv"

// StateFigures tell what the keys take. Any goroutine.
func (m *Machine) StateFigures() kv.StateFigures {
	m.swap.RLock()
	s := m.store.Stats()
	m.swap.RUnlock()
	return kv.StateFigures{
		Puts: uint64(s.Puts), Deletes: uint64(s.Deletes), Versions: s.Versions, Pinned: s.PinnedBytes,
		Keys: s.KeyBytes, Records: s.VersionBytes, Tree: s.TreeBytes, Hash: s.HashBytes, Index: s.IndexBytes,
	}
}

// LeaseFigures count leases. Any goroutine.
func (m *Machine) LeaseFigures() kv.LeaseFigures {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.shared.leases
	return kv.LeaseFigures{Live: int64(l.Len()), Attached: int64(l.Attached()), TTLs: int64(l.TTLs())}
}

// Watchers counts those that [Machine.Watch] made and that are not closed. Any
// goroutine.
func (m *Machine) Watchers() int64 {
	m.swap.RLock()
	defer m.swap.RUnlock()
	return m.store.Hub().Watchers()
}
