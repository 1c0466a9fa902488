package machine

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/kv"
)

// Due returns at most max of the leases, and at most max of the keys with a
// TTL, that are over at now, earliest first, as [EncodeExpire] wants them. More
// says that there may be others. Any goroutine.
func (m *Machine) Due(now kv.Time, max int) (leases []ExpiredLease, keys []ExpiredKey, more bool) {
	if m.suspended() {
		return nil, nil, false
	}
	m.mu.Lock()
	due, more := m.shared.leases.Due(nil, now, max)
	for _, key := range m.shared.leases.DueKeys(now) {
		if len(keys) == max {
			more = true
			break
		}
		keys = append(keys, ExpiredKey{Key: slices.Clone(key)})
	}
	m.mu.Unlock()
	slices.SortFunc(due, func(a, b lease.Lease) int {
		return cmp.Or(cmp.Compare(a.Deadline, b.Deadline), cmp.Compare(a.ID, b.ID))
	})
	for _, l := range due {
		leases = append(leases, ExpiredLease{ID: l.ID, Generation: l.Generation})
	}
	return leases, m.revisions(keys, now), more
}

// revisions fills in the revisions of keys, and leaves out those that were
// changed in the meantime.
func (m *Machine) revisions(keys []ExpiredKey, now kv.Time) []ExpiredKey {
	if len(keys) == 0 {
		return nil
	}
	v := m.View()
	defer v.Close()
	kept := keys[:0]
	for _, k := range keys {
		res, err := v.Range(&kv.Range{Key: k.Key, KeysOnly: true})
		if err != nil || len(res.KVs) == 0 || res.KVs[0].Expires == 0 || res.KVs[0].Expires > now {
			continue
		}
		kept = append(kept, ExpiredKey{Key: k.Key, Mod: res.KVs[0].ModRevision})
	}
	return kept
}

// Expiry returns the command that ends, in the name of the leader of term, at
// most max leases and max keys that are over at now; nil when there are none, and
// no access token is over, which its time alone ends. More says that there may be others. Any goroutine.
func (m *Machine) Expiry(term kv.Term, now kv.Time, max int) (command []byte, more bool) {
	leases, keys, more := m.Due(now, max)
	if len(leases)+len(keys) == 0 && now < m.Access().NextExpiry() {
		return nil, more
	}
	return EncodeExpire(nil, term, leases, keys), more
}

// Beat returns a command for the leader of term that does nothing but bring the
// time into the log: nil where nothing ends by time, or an entry of since or
// later was applied. Where only access tokens end, it comes less often. Any
// goroutine.
func (m *Machine) Beat(term kv.Term, since kv.Time) []byte {
	now, access := kv.Time(m.clock.Load()), m.gate.open.Load()
	if now >= since || m.nextLease() == math.MaxInt64 && access.latest <= now && !access.accessBeat(now, since) {
		return nil
	}
	return EncodeExpire(nil, term, nil, nil)
}

// NextDeadline returns a cluster time before which nothing is due,
// math.MaxInt64 where nothing ever is. Any goroutine.
func (m *Machine) NextDeadline() kv.Time { return min(m.nextLease(), m.Access().NextExpiry()) }

// nextLease is the same for leases and keys alone.
func (m *Machine) nextLease() kv.Time {
	if m.suspended() {
		return math.MaxInt64
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shared.leases.Next()
}

// Retention returns how long history is to be kept, and how many bytes of it:
// the settings, where the live keys do not take more. Any goroutine.
func (m *Machine) Retention() (age time.Duration, bytes int64) {
	s := m.config.Load().settings
	m.swap.RLock()
	live := m.store.Stats().LiveBytes
	m.swap.RUnlock()
	return s.Retention, max(s.HistoryBytes, live)
}

// RevisionAt returns the latest revision known to have been current at t, or 0
// when none is. Any goroutine.
func (m *Machine) RevisionAt(t kv.Time) kv.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shared.history.at(t)
}

// RevisionWithin returns the earliest known revision after which at most that
// many bytes were written, or 0 when all of history is within. Any goroutine.
func (m *Machine) RevisionWithin(bytes int64) kv.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shared.history.within(bytes, m.shared.published.written, m.store.Revision())
}

// CompactRevision is the oldest revision that can be read; 0 before the first
// compaction. Any goroutine.
func (m *Machine) CompactRevision() kv.Revision {
	m.swap.RLock()
	defer m.swap.RUnlock()
	return m.store.CompactRevision()
}
