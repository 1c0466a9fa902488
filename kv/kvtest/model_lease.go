package kvtest

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Grant implements [kv.Leaser]. It chooses the lowest free id where none is
// wanted.
func (m *Model) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	if err := ctx.Err(); err != nil {
		return kv.LeaseResult{}, err
	}
	if err := m.limits.CheckGrant(&g); err != nil {
		return kv.LeaseResult{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.leases[g.ID]; ok {
		return kv.LeaseResult{}, kv.ErrLeaseExists
	}
	if g.ID == 0 {
		for g.ID = 1; m.hasLease(g.ID); g.ID++ {
		}
	}
	m.leases[g.ID] = modelLease{ttl: g.TTL, deadline: m.now.Add(g.TTL)}
	return m.describe(g.ID), nil
}

// KeepAlive implements [kv.Leaser].
func (m *Model) KeepAlive(ctx context.Context, id kv.LeaseID) (kv.LeaseResult, error) {
	if err := ctx.Err(); err != nil {
		return kv.LeaseResult{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leases[id]
	if !ok {
		return kv.LeaseResult{}, kv.ErrLeaseNotFound
	}
	l.deadline = m.now.Add(l.ttl)
	m.leases[id] = l
	return m.describe(id), nil
}

// Revoke implements [kv.Leaser].
func (m *Model) Revoke(ctx context.Context, id kv.LeaseID) (kv.Header, error) {
	if err := ctx.Err(); err != nil {
		return kv.Header{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasLease(id) {
		return kv.Header{}, kv.ErrLeaseNotFound
	}
	m.endLease(id)
	return m.header(), nil
}

// TimeToLive implements [kv.Leaser].
func (m *Model) TimeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	if err := ctx.Err(); err != nil {
		return kv.LeaseResult{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.hasLease(id) {
		return kv.LeaseResult{}, kv.ErrLeaseNotFound
	}
	res := m.describe(id)
	if keys {
		for _, key := range m.attached(id) {
			res.Keys = append(res.Keys, bytes.Clone([]byte(key)))
		}
	}
	return res, nil
}

// Leases implements [kv.Leaser].
func (m *Model) Leases(ctx context.Context) (kv.LeasesResult, error) {
	if err := ctx.Err(); err != nil {
		return kv.LeasesResult{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	ids := slices.Sorted(maps.Keys(m.leases))
	return kv.LeasesResult{Header: m.header(), IDs: ids}, nil
}

func (m *Model) hasLease(id kv.LeaseID) bool {
	_, ok := m.leases[id]
	return ok
}

func (m *Model) describe(id kv.LeaseID) kv.LeaseResult {
	l := m.leases[id]
	return kv.LeaseResult{Header: m.header(), ID: id, TTL: l.ttl, Left: l.deadline.Sub(m.now)}
}

// attached lists the keys of a lease, in order.
func (m *Model) attached(id kv.LeaseID) []string {
	var keys []string
	for key, k := range m.keys {
		if k.Lease == id {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// endLease removes a lease and, at one revision, its keys.
func (m *Model) endLease(id kv.LeaseID) {
	delete(m.leases, id)
	m.deleteKeys(m.attached(id))
}

// dueLeases lists the leases whose deadline has come, by deadline and id.
func (m *Model) dueLeases() []kv.LeaseID {
	var due []kv.LeaseID
	for id, l := range m.leases {
		if l.deadline <= m.now {
			due = append(due, id)
		}
	}
	slices.SortFunc(due, func(a, b kv.LeaseID) int {
		return cmp.Or(cmp.Compare(m.leases[a].deadline, m.leases[b].deadline), cmp.Compare(a, b))
	})
	return due
}
