package founding

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// maxKnown bounds how many others are remembered.
const maxKnown = 3 * MaxMembers

// key is what another process is remembered by.
func (m *Machine) key(id uint64, name string) string {
	if m.names != nil {
		return name
	}
	return strconv.FormatUint(id, 16)
}

// hear takes another's status.
func (m *Machine) hear(in Input, out *Output) {
	s := in.Heard
	if r := &s.Record; m.rec.Phase == Founded {
		if r.Phase == Founded && s.Group == m.set.Group && r.Proposal.Cluster != m.rec.Proposal.Cluster {
			out.Rival = &RivalError{
				Cluster: m.rec.Proposal.Cluster, Addrs: m.set.own(),
				Other: r.Proposal.Cluster, Name: s.Name, OtherAddrs: s.PeerAddrs,
			}
		}
		return
	}
	if s.Record.ID == m.rec.ID && m.names == nil && s.Name == m.set.Name && slices.Equal(s.PeerAddrs, m.set.Addrs) {
		return // this process, at one of its own addresses
	}
	name := cmp.Or(in.Asked, s.Name)
	key := m.key(s.Record.ID, name)
	if m.names != nil && m.set.Peers[key] == nil && key != m.set.Name {
		return // nobody of the list
	}
	o := m.remember(key, name)
	if o == nil {
		return
	}
	o.heard = m.now
	if p := m.rec.Proposal; p != nil && p.Proposer == s.Record.ID {
		m.bound = m.now
	}
	if o.problem = m.identify(s, in); o.problem != nil {
		return
	}
	if old := o.status; old != nil && old.Record.ID == s.Record.ID && (old.Record.Phase == Founded || !s.Record.newer(old.Record.Seq) && s.Record.Seq != old.Record.Seq) {
		return // it was overtaken
	} else if old != nil && old.Record.ID != s.Record.ID {
		o.answered = false
	}
	o.status, o.name = s, s.Name
	if in.Answer {
		o.answered, o.last = true, m.now
	}
	m.compare(key, o)
}

// remember finds or makes the entry of a key. When there are too many, those
// go first that have not been heard for a while; nil means that it is full.
func (m *Machine) remember(key, name string) *other {
	o := m.known[key]
	if o != nil {
		return o
	}
	if len(m.known) >= maxKnown {
		maps.DeleteFunc(m.known, func(_ string, o *other) bool { return m.now-o.heard > m.set.Lost })
	}
	if len(m.known) >= maxKnown {
		return nil
	}
	o = &other{name: name, heard: m.now}
	m.known[key] = o
	return o
}

// identify tells why a status cannot be that of a process to found a cluster
// with, if so.
func (m *Machine) identify(s *Status, in Input) error {
	switch {
	case s.Group != m.set.Group:
		return fmt.Errorf("is of cluster %q, this member of %q", s.Group, m.set.Group)
	case in.Asked != "" && s.Name != in.Asked:
		return fmt.Errorf("is %q; check the list of members", s.Name)
	case s.Record.ID == m.rec.ID:
		return fmt.Errorf("has this member's id: its address is our own, or one data directory is a copy of the other")
	case s.Name == m.set.Name:
		if in.Answer || !meet(s.PeerAddrs, m.set.own()) { // else it was here before
			m.clash, m.clashed = m.now, true
		}
		return fmt.Errorf("has this member's name, at %q, and this member is at %q; names must be different: give each member its own", s.PeerAddrs, m.set.own())
	case s.Record.Phase == Founded:
		return nil // whatever it was started with
	case m.names == nil && len(s.Names) > 0:
		return fmt.Errorf("was started with the list of members %q, this member without one, to expect %d; start all in one way", s.Names, m.set.Expect)
	case m.names != nil && s.Expect > 0:
		return fmt.Errorf("was started without a list, to expect %d members, this member with the list %q; start all in one way", s.Expect, m.names)
	case m.names == nil && s.Expect != m.set.Expect:
		return fmt.Errorf("expects %d members to found the cluster, this member %d; start all with the same number", s.Expect, m.set.Expect)
	case m.names != nil && !slices.Equal(s.Names, m.names):
		return fmt.Errorf("lists the members %q, this member %q; start all with the same list", s.Names, m.names)
	}
	return nil
}

// compare finds others that cannot be there beside the one that was heard. One
// that had its name and an address before it is gone.
func (m *Machine) compare(key string, o *other) {
	for _, k := range slices.Sorted(maps.Keys(m.known)) {
		x := m.known[k]
		if k == key || x.status == nil || !m.near(x) {
			continue
		}
		switch {
		case x.status.Record.ID == o.status.Record.ID:
			o.problem = fmt.Errorf("has the same id as %q: one data directory is a copy of the other", x.name)
		case x.name != o.name:
		case meet(x.status.PeerAddrs, o.status.PeerAddrs):
			if o.answered {
				delete(m.known, k)
			}
		default:
			o.problem = fmt.Errorf("is at %q and at %q; names must be different: give each member its own", o.status.PeerAddrs, x.status.PeerAddrs)
			x.problem = o.problem
		}
	}
}

func meet(a, b []string) bool {
	return slices.ContainsFunc(a, func(addr string) bool { return slices.Contains(b, addr) })
}

// near reports whether another has answered lately.
func (m *Machine) near(o *other) bool { return o.answered && m.now-o.last <= m.set.Lost }

// clashes reports whether another with this process's name was heard lately.
func (m *Machine) clashes() bool { return m.clashed && m.now-m.clash <= m.set.Lost }

// candidates are the others that a proposal may count on, by id.
func (m *Machine) candidates() []*Status {
	var list []*Status
	for _, o := range m.known { // in any order: they are sorted below
		if m.near(o) && o.problem == nil && o.status.Record.Phase == Free && o.status.Joins == 0 {
			list = append(list, o.status)
		}
	}
	slices.SortFunc(list, func(a, b *Status) int { return cmp.Compare(a.Record.ID, b.Record.ID) })
	return list
}

// need is how many processes have to promise, at least.
func (m *Machine) need() int {
	if m.names != nil {
		return len(m.names)/2 + 1
	}
	return m.set.Expect
}

// gather notes since when there are as many as must be.
func (m *Machine) gather() {
	is := m.rec.Phase == Free && len(m.candidates())+1 >= m.need()
	if is && !m.isGathered {
		m.gathered = m.now
	}
	m.isGathered = is
}

// member finds what is known of a member of a proposal. The status may be of
// another process of that name, which has replaced it.
func (m *Machine) member(x *Member) *other {
	if o := m.known[m.key(x.ID, x.Name)]; o != nil && o.status != nil || m.names != nil {
		return o
	}
	for _, k := range slices.Sorted(maps.Keys(m.known)) {
		if o := m.known[k]; o.status != nil && o.name == x.Name && meet(o.status.PeerAddrs, x.PeerAddrs) {
			return o
		}
	}
	return nil
}
