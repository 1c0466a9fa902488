package founding

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// foundElsewhere fails the attempt when another has founded what we have no
// part in. A proposal of ours is given up first, and a promise has to end first:
// whoever fails may join with its id, which must not be counted on elsewhere.
func (m *Machine) foundElsewhere(out *Output) bool {
	for _, key := range slices.Sorted(maps.Keys(m.known)) {
		o := m.known[key]
		if o.status == nil || o.status.Record.Phase != Founded {
			continue
		}
		p := o.status.Record.Proposal
		if m.rec.Proposal != nil && p.Cluster == m.rec.Proposal.Cluster {
			out.Err = nil
			return false // it is ours too
		}
		if m.rec.renounced(p) && o.status.Record.ID == p.Proposer {
			continue // it is the only one
		}
		founded := FoundedError{Name: o.name, Cluster: p.Cluster, Addrs: append(slices.Clone(o.status.PeerAddrs), p.addrs()...)}
		if m.rec.Phase == Promised {
			o.problem = fmt.Errorf("%w; this member has promised itself to another cluster, and has to hear first that it will not be", &founded)
			continue
		}
		out.Err = &founded
		if place := p.place(m.set.Name); place != nil && m.names != nil {
			out.Err = &PlaceError{FoundedError: founded, Place: place.ID}
		}
	}
	return out.Err != nil && m.rec.Phase != Proposed
}

// promise accepts the proposal of the lowest id, if there is one for us.
func (m *Machine) promise() bool {
	var best *Proposal
	for _, key := range slices.Sorted(maps.Keys(m.known)) {
		o := m.known[key]
		if o.status == nil || o.status.Record.Phase != Proposed || m.now-o.heard > m.set.Lost || m.clashes() {
			continue
		}
		p := o.status.Record.Proposal
		if best != nil && best.Proposer < p.Proposer {
			continue
		}
		if me := p.member(m.rec.ID); me == nil || m.rec.renounced(p) {
			continue // it will notice, and give up
		}
		if m.fits(p) {
			best = p
		} else if m.names != nil {
			o.problem = fmt.Errorf("proposes a cluster of %q, this member's list is %q", p.names(), m.names)
		} else {
			o.problem = fmt.Errorf("proposes a cluster of %q, with this member as it was started before", p.names())
		}
	}
	if best == nil {
		return false
	}
	m.rec.Phase, m.rec.Proposal, m.bound = Promised, best, m.now
	return true
}

// fits reports whether a proposal goes with the settings of this process.
func (m *Machine) fits(p *Proposal) bool {
	me := p.member(m.rec.ID)
	if me.Placeholder || me.Name != m.set.Name {
		return false
	}
	if m.names != nil {
		return slices.Equal(m.names, p.names())
	}
	empty := func(x Member) bool { return x.Placeholder }
	return len(p.Members) == m.set.Expect && !slices.ContainsFunc(p.Members, empty) && slices.Equal(me.PeerAddrs, m.set.Addrs)
}

// propose makes a proposal if that is for us to do.
func (m *Machine) propose() bool {
	free := m.candidates()
	if !m.ready(len(free)+1) || m.clashes() {
		return false
	}
	for _, o := range m.known { // in any order: one is enough
		if s := o.status; o.problem == nil && m.now-o.heard <= m.set.Lost &&
			s.Record.Phase == Free && s.Record.ID < m.rec.ID && s.Free >= m.need() {
			return false // that is for it to do, and it can
		}
	}
	if m.names == nil {
		free = free[:m.set.Expect-1]
	}
	members := []Member{{ID: m.rec.ID, Name: m.set.Name, PeerAddrs: m.set.own(), ClientAddrs: m.set.ClientAddrs}}
	there := map[string]bool{m.set.Name: true}
	for _, s := range free {
		x := Member{ID: s.Record.ID, Name: s.Name, PeerAddrs: s.PeerAddrs, ClientAddrs: s.ClientAddrs}
		if m.names != nil {
			x.PeerAddrs = m.set.Peers[s.Name]
		}
		there[s.Name] = true
		members = append(members, x)
	}
	for _, name := range m.names {
		if !there[name] {
			members = append(members, Member{ID: max(m.random(), 1), Name: name, PeerAddrs: m.set.Peers[name], Placeholder: true})
		}
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	p := &Proposal{Cluster: max(m.random(), 1), Proposer: m.rec.ID, Seq: m.rec.Seq + 1, Members: members}
	m.rec.Phase, m.rec.Proposal, m.proposed = Proposed, p, m.now
	if len(members) == 1 {
		m.rec.Phase = Founded
	}
	return true
}

// ready reports whether so many are enough, and have waited for the rest.
func (m *Machine) ready(there int) bool {
	if m.names == nil {
		return there >= m.set.Expect && m.now-m.begun >= m.set.Listen
	}
	for _, o := range m.known { // in any order: one is enough
		if o.problem != nil && m.now-o.heard <= m.set.Lost {
			return false // people have to see to that first
		}
	}
	return there == len(m.names) || m.isGathered && m.now-m.gathered >= m.set.Stragglers
}

// conclude ends a promise when its fate is known.
func (m *Machine) conclude() bool {
	p := m.rec.Proposal
	for _, o := range m.known { // in any order: one is enough
		if o.status != nil && o.status.Record.in(p.Cluster) && (!m.rec.renounced(p) || o.status.Record.ID != p.Proposer) {
			m.rec.Phase = Founded
			return true
		}
	}
	for _, o := range m.known { // in any order: one is enough
		if m.names != nil && o.status != nil && o.status.Record.Phase == Founded && slices.Equal(o.status.Record.Proposal.names(), m.names) {
			// A majority of the list has promised itself to that cluster for
			// good, so there is none for the one that we are promised to.
			m.rec.Phase, m.rec.Proposal = Free, nil
			return true
		}
		if o.status != nil && o.status.Record.ID == p.Proposer && o.status.Record.newer(p.Seq) && !o.status.Record.Proposal.same(p) {
			m.rec.Phase, m.rec.Proposal = Free, nil
			return true
		}
	}
	if m.abandoned(p) {
		m.rec.Phase, m.rec.Proposal = Free, nil
		return true
	}
	const lost = "If that one's data directory is lost for good, start this member on a new one: it holds no data yet"
	x := p.member(p.Proposer)
	switch o := m.member(x); {
	case o != nil && o.status != nil && o.status.Record.ID != x.ID:
		o.problem = fmt.Errorf("is member %x now; this member has promised itself to %x, which was there before. %s", o.status.Record.ID, x.ID, lost)
	case m.now-m.begun > m.set.Lost && (o == nil || !m.near(o)):
		if o = m.remember(m.key(x.ID, x.Name), x.Name); o != nil {
			o.problem = fmt.Errorf("does not answer, and this member has promised itself to the cluster that it proposed: start it again at %q. %s", x.PeerAddrs, lost)
		}
	}
	return false
}

// decide founds the cluster when all have promised, or gives the proposal up
// when they cannot.
func (m *Machine) decide(out *Output) bool {
	p := m.rec.Proposal
	missing := 0
	hopeless := out.Err != nil || !m.mine(p)
	for i := range p.Members {
		x := &p.Members[i]
		if x.ID == m.rec.ID || x.Placeholder {
			continue
		}
		switch m.stance(p, x) {
		case refused:
			hopeless = true
		case undecided:
			missing++
		}
	}
	switch {
	case hopeless:
		m.rec.Phase, m.rec.Proposal = Free, nil
	case missing == 0:
		m.rec.Phase = Founded
	default:
		return false
	}
	return true
}

// mine reports whether a proposal of this process still goes with its settings.
func (m *Machine) mine(p *Proposal) bool {
	return m.fits(p) && (m.names == nil || !slices.ContainsFunc(p.Members, func(x Member) bool {
		return !slices.Equal(x.PeerAddrs, m.set.Peers[x.Name])
	}))
}

// stance is what a member has to say to a proposal.
type stance int

const (
	undecided stance = iota
	promised
	refused
)

// stance tells what x says to the proposal p of this process.
func (m *Machine) stance(p *Proposal, x *Member) stance {
	o := m.member(x)
	late := m.now-m.proposed > m.set.Lost
	if o == nil || o.status == nil {
		if late {
			return refused
		}
		return undecided
	}
	switch r := o.status.Record; {
	case r.ID != x.ID || o.status.Joins != 0: // it was replaced, or goes elsewhere
		return refused
	case r.renounced(p):
		return refused
	case r.Phase == Promised && r.Proposal.same(p):
		return promised
	case r.Proposal != nil && r.Proposal.Proposer < m.rec.ID && r.Phase != Founded: // let that one win
		return refused
	case late && (r.Phase != Free || !m.near(o)): // it is lost, or bound to one who is
		return refused
	case m.names == nil && !slices.Equal(o.status.PeerAddrs, x.PeerAddrs): // it has moved
		return refused
	}
	return undecided
}
