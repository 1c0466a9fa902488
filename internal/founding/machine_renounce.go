package founding

import (
	"maps"
	"slices"
)

// A proposer whose disk is lost after others have promised themselves to it
// never says what became of its proposal. They end it in two steps. First each
// member of the proposal renounces it, durably: it never promises it any more,
// and does not take the proposer's word that it was founded. When all but the
// proposer have renounced it, they are free: the proposer may have founded it,
// but is alone, without a majority, and finds nobody. If there is one among them
// that has been founded before it could renounce, it never does, so that nobody
// is freed; the others hear of it from that one, whose word they take.
//
// It is the quorum-based termination of Skeen ("A Quorum-Based Commit Protocol",
// 1982), with all members but one for the quorum.

// renounce makes the first step for the proposal that this process has promised
// itself to when its proposer was replaced, and for any that it is a member of
// when another member has made it.
func (m *Machine) renounce() bool {
	if len(m.rec.Renounced) >= maxDead {
		return false
	}
	dead := m.rec.Proposal
	if m.rec.Phase != Promised || m.rec.renounced(dead) || !m.replaced(dead) {
		dead = nil
	}
	for _, key := range slices.Sorted(maps.Keys(m.known)) {
		s := m.known[key].status
		if s == nil || s.Record.Phase != Promised || !s.Record.renounced(s.Record.Proposal) {
			continue
		}
		if p := s.Record.Proposal; p.holds(m.rec.ID) && p.Proposer != m.rec.ID && !m.rec.renounced(p) {
			dead = p
		}
	}
	if dead == nil || m.isFounded(dead) {
		return false
	}
	m.rec.Renounced = append(slices.Clone(m.rec.Renounced), dead.Cluster)
	return true
}

// replaced reports whether another process answers for the proposer of p, and
// has done so when that one had not been heard for longer than any answer is
// under way.
func (m *Machine) replaced(p *Proposal) bool {
	o := m.member(p.member(p.Proposer))
	return o != nil && o.status != nil && o.status.Record.ID != p.Proposer && m.near(o) && o.last-m.bound > m.set.Lost
}

// isFounded reports whether anybody is known to belong to the cluster of p.
func (m *Machine) isFounded(p *Proposal) bool {
	for _, o := range m.known { // in any order: one is enough
		if o.status != nil && o.status.Record.in(p.Cluster) {
			return true
		}
	}
	return false
}

// abandoned reports whether all members of p but its proposer have renounced it,
// or belong elsewhere for good.
func (m *Machine) abandoned(p *Proposal) bool {
	for i := range p.Members {
		x := &p.Members[i]
		if x.Placeholder || x.ID == p.Proposer {
			continue
		}
		if x.ID == m.rec.ID {
			if !m.rec.renounced(p) {
				return false
			}
			continue
		}
		o := m.member(x)
		if o == nil || o.status == nil || o.status.Record.ID != x.ID {
			return false
		}
		if r := &o.status.Record; !r.renounced(p) && (r.Phase != Founded || r.in(p.Cluster)) {
			return false
		}
	}
	return true
}
