package founding

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Settings are what a process was started with.
type Settings struct {
	// Group is the cluster's name; processes of other groups are refused. It
	// may be empty.
	Group string
	// Name is this process's own in Peers.
	Name string
	// Peers has the addresses of every process by name, this one's too. All
	// must have the same names.
	Peers map[string][]string
	// ClientAddrs are where clients will reach this process.
	ClientAddrs []string
}

// check tells what is wrong with the settings, if anything.
func (s *Settings) check() error {
	status := Status{Version: version, Group: s.Group, Name: s.Name, Names: slices.Sorted(maps.Keys(s.Peers)), ClientAddrs: s.ClientAddrs, Record: Record{ID: 1}}
	if err := status.check(); err != nil {
		return fmt.Errorf("founding: the list of members must have at most %d names, %q among them, with short names and addresses", MaxMembers, s.Name)
	}
	for name, addrs := range s.Peers { // in any order: it is one error or none
		if !goodTexts(addrs, maxAddrs) || len(addrs) == 0 && name != s.Name {
			return fmt.Errorf("founding: member %q needs one to %d addresses", name, maxAddrs)
		}
	}
	return nil
}

// FoundedError tells that a process of the list already belongs to a cluster,
// which this one has no part in: it may only join it as a new member.
type FoundedError struct {
	Name    string
	Cluster uint64
}

// Error names the cluster and the next step.
func (e *FoundedError) Error() string {
	return fmt.Sprintf("already founded: member %q belongs to cluster %x, which does not know this data directory; add this member to that cluster instead of founding one", e.Name, e.Cluster)
}

// Machine is the protocol without any input or output of its own: one process's
// part, driven by Step. It is not safe for concurrent use.
type Machine struct {
	set    Settings
	names  []string      // of set.Peers, sorted
	random func() uint64 // for cluster ids

	rec   Record
	known map[string]*Status // the latest heard of each other
	// problems say what is in the way, by name.
	problems map[string]error
}

// NewMachine continues from rec, whose ID must be set; an empty Record with a
// new random ID is where a process starts. random makes cluster ids.
func NewMachine(set Settings, rec Record, random func() uint64) (*Machine, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	if err := rec.Check(); err != nil {
		return nil, fmt.Errorf("founding record: %w", err)
	}
	return &Machine{
		set: set, names: slices.Sorted(maps.Keys(set.Peers)), random: random, rec: rec,
		known: map[string]*Status{}, problems: map[string]error{},
	}, nil
}

// Input is something that happened. The zero Input is a start.
type Input struct {
	// Heard is another's status: a question, or the answer to one.
	Heard *Status
	// Asked is the name of the one that was asked, empty for a question.
	Asked string
}

// Output is what must be done about it, in the order of the fields.
type Output struct {
	// Save must be durable before anything more is said: before the answer to
	// the question that was the input, too. Nil means no change.
	Save *Record
	// Ask tells to ask every other process now, and not only in a while.
	Ask bool
	// Founded is the cluster, once it is decided.
	Founded *Proposal
	// Err ends the attempt: this process can found nothing.
	Err error
}

// Status is what to ask with and to answer.
func (m *Machine) Status() *Status {
	return &Status{
		Version: version, Group: m.set.Group, Name: m.set.Name, Names: m.names,
		ClientAddrs: m.set.ClientAddrs, Record: m.rec,
	}
}

// Problems says what is in the way, by name of the other process.
func (m *Machine) Problems() map[string]error { return maps.Clone(m.problems) }

// Step takes an input.
func (m *Machine) Step(in Input) (out Output) {
	if s := in.Heard; s != nil {
		name := cmp.Or(in.Asked, s.Name)
		if err := m.identify(s, in.Asked); err != nil {
			if _, listed := m.set.Peers[name]; listed {
				m.problems[name] = err
			}
			return out
		}
		if old := m.known[name]; old != nil && old.Record.ID == s.Record.ID && old.Record.Seq > s.Record.Seq {
			return out // it was overtaken
		}
		m.known[name] = s
		delete(m.problems, name)
	}
	seq := m.rec.Seq
	for m.advance(&out) {
		m.rec.Seq++
	}
	if m.rec.Seq != seq {
		out.Ask = true
		rec := m.rec
		out.Save = &rec
	}
	if m.rec.Phase == Founded {
		out.Founded, out.Err = m.rec.Proposal, nil
	}
	return out
}

// identify tells why a status cannot be that of the other process that it
// should be, if so.
func (m *Machine) identify(s *Status, asked string) error {
	switch {
	case s.Group != m.set.Group:
		return fmt.Errorf("is of cluster %q, this member of %q", s.Group, m.set.Group)
	case asked != "" && s.Name != asked:
		return fmt.Errorf("is %q; check the list of members", s.Name)
	case s.Record.ID == m.rec.ID:
		return fmt.Errorf("has this member's id: its address is our own, or one data directory is a copy of the other")
	case s.Name == m.set.Name:
		return fmt.Errorf("has this member's name; names must be different")
	case m.set.Peers[s.Name] == nil:
		return fmt.Errorf("is not in this member's list")
	}
	return nil
}

// advance makes at most one change to the record and tells whether it did. The
// caller numbers the change.
func (m *Machine) advance(out *Output) bool {
	if m.rec.Phase != Founded && m.foundElsewhere(out) {
		return false
	}
	switch m.rec.Phase {
	case Free:
		return m.promise() || m.propose()
	case Promised:
		return m.conclude()
	case Proposed:
		return m.decide(out)
	}
	return false
}

// foundElsewhere fails the attempt when another has founded what we have no
// part in. A proposal of ours is given up first, and a promise has to end first:
// whoever fails may join with its id, which must not be counted on elsewhere.
func (m *Machine) foundElsewhere(out *Output) bool {
	for _, name := range m.names {
		s := m.known[name]
		if s == nil || s.Record.Phase != Founded {
			continue
		}
		if s.Record.Proposal.same(m.rec.Proposal) {
			out.Err = nil
			return false // it is ours too
		}
		err := &FoundedError{Name: name, Cluster: s.Record.Proposal.Cluster}
		if m.rec.Phase == Promised {
			m.problems[name] = fmt.Errorf("%w; this member has promised itself to another cluster, and has to hear first that it will not be", err)
			continue
		}
		out.Err = err
	}
	return out.Err != nil && m.rec.Phase != Proposed
}

// promise accepts the proposal of the lowest id, if there is one for us.
func (m *Machine) promise() bool {
	var best *Proposal
	for _, name := range m.names {
		s := m.known[name]
		if s == nil || s.Record.Phase != Proposed {
			continue
		}
		p := s.Record.Proposal
		if best != nil && best.Proposer < p.Proposer {
			continue
		}
		me := p.member(m.rec.ID)
		switch {
		case me == nil: // it will notice, and give up
		case me.Name != m.set.Name || !slices.Equal(m.names, p.names()):
			m.problems[name] = fmt.Errorf("proposes a cluster of %q, this member's list is %q", p.names(), m.names)
		default:
			best = p
		}
	}
	if best == nil {
		return false
	}
	m.rec.Phase, m.rec.Proposal = Promised, best
	return true
}

func (p *Proposal) names() []string {
	names := make([]string, len(p.Members))
	for i, m := range p.Members {
		names[i] = m.Name
	}
	slices.Sort(names)
	return names
}

// propose makes a proposal if that is for us to do.
func (m *Machine) propose() bool {
	ids := map[uint64]string{m.rec.ID: m.set.Name}
	members := []Member{{ID: m.rec.ID, Name: m.set.Name, PeerAddrs: m.set.Peers[m.set.Name], ClientAddrs: m.set.ClientAddrs}}
	ready := true
	for _, name := range m.names {
		s := m.known[name]
		switch {
		case name == m.set.Name:
			continue
		case s == nil:
			ready = false
			continue
		case !slices.Equal(s.Names, m.names):
			m.problems[name] = fmt.Errorf("lists the members %q, this member %q", s.Names, m.names)
			ready = false
		case ids[s.Record.ID] != "":
			m.problems[name] = fmt.Errorf("has the same id as %q: one data directory is a copy of the other", ids[s.Record.ID])
			ready = false
		case s.Record.Phase != Free || s.Record.ID < m.rec.ID:
			ready = false
		}
		ids[s.Record.ID] = name
		members = append(members, Member{ID: s.Record.ID, Name: name, PeerAddrs: m.set.Peers[name], ClientAddrs: s.ClientAddrs})
	}
	if !ready {
		return false
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	p := &Proposal{Cluster: max(m.random(), 1), Proposer: m.rec.ID, Seq: m.rec.Seq + 1, Members: members}
	m.rec.Phase, m.rec.Proposal = Proposed, p
	if len(members) == 1 {
		m.rec.Phase = Founded
	}
	return true
}

// conclude ends a promise when its fate is known.
func (m *Machine) conclude() bool {
	p := m.rec.Proposal
	for _, s := range m.known { // in any order: one is enough
		if s.Record.Phase == Founded && s.Record.Proposal.same(p) {
			m.rec.Phase = Founded
			return true
		}
	}
	for _, s := range m.known { // in any order: one is enough
		if s.Record.ID == p.Proposer && s.Record.Seq > p.Seq && !s.Record.Proposal.same(p) {
			m.rec.Phase, m.rec.Proposal = Free, nil
			return true
		}
	}
	proposer := p.member(p.Proposer)
	if s := m.known[proposer.Name]; s != nil && s.Record.ID != p.Proposer {
		m.problems[proposer.Name] = fmt.Errorf("is member %x now; this member has promised itself to %x, which was there before. "+
			"If that one's data directory is lost for good, start this member on a new one: it holds no data yet", s.Record.ID, p.Proposer)
	}
	return false
}

// decide founds the cluster when all have promised, or gives the proposal up
// when they cannot.
func (m *Machine) decide(out *Output) bool {
	p := m.rec.Proposal
	missing := 0
	hopeless := out.Err != nil || !slices.Equal(p.names(), m.names)
	for _, member := range p.Members {
		if !slices.Equal(member.PeerAddrs, m.set.Peers[member.Name]) { // started again with other settings
			hopeless = true
		}
		if member.ID == m.rec.ID {
			continue
		}
		s := m.known[member.Name]
		if s == nil {
			missing++
			continue
		}
		switch r := s.Record; {
		case r.ID != member.ID: // it was replaced
			hopeless = true
		case r.Phase == Promised && r.Proposal.same(p):
		case r.Proposal != nil && r.Proposal.Proposer < m.rec.ID && r.Phase != Founded: // let that one win
			hopeless = true
		default:
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
