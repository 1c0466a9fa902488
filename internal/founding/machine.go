package founding

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Settings are what a process was started with: a list of who founds the
// cluster, or how many do.
type Settings struct {
	// Group is the cluster's name; processes of other groups are refused. It
	// may be empty.
	Group string
	// Name is this process's own: in Peers, where there is a list.
	Name string
	// Peers has the addresses of every process by name, this one's too. All
	// must have the same names. Nil means that there is no list.
	Peers map[string][]string
	// Expect is how many processes found the cluster, whoever they are, when
	// there is no list. It must be more than half of all that are started
	// without data, and equal for all.
	Expect int
	// Addrs are where others reach this process, when there is no list.
	Addrs []string
	// ClientAddrs are where clients will reach this process.
	ClientAddrs []string
	// Patience is how long to wait for others.
	Patience
}

// Patience is how long a process waits for others before it does without. The
// zero value of each is its default; a negative one means not at all.
type Patience struct {
	// Listen is how long a process without a list asks around for a cluster
	// before it proposes one: 3s where it expects only itself, else 500ms.
	Listen time.Duration
	// Stragglers is how long a majority of the list waits for the rest; 2s.
	Stragglers time.Duration
	// Lost is how long ago the last answer of a process that is counted on may
	// be; 5s.
	Lost time.Duration
}

func (p Patience) withDefaults(expect int) Patience {
	fill := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
		*d = max(*d, 0)
	}
	listen := 500 * time.Millisecond
	if expect == 1 {
		listen = 3 * time.Second
	}
	fill(&p.Listen, listen)
	fill(&p.Stragglers, 2*time.Second)
	fill(&p.Lost, 5*time.Second)
	return p
}

// own are the addresses of this process.
func (s *Settings) own() []string {
	if s.Peers != nil {
		return s.Peers[s.Name]
	}
	return s.Addrs
}

// check tells what is wrong with the settings, if anything.
func (s *Settings) check() error {
	status := Status{Version: version, Group: s.Group, Name: s.Name, Names: slices.Sorted(maps.Keys(s.Peers)), Expect: s.Expect,
		PeerAddrs: s.own(), ClientAddrs: s.ClientAddrs, Record: Record{ID: 1}}
	if err := status.check(); s.Peers == nil && (err != nil || len(s.Addrs) == 0) {
		return fmt.Errorf("founding: 1 to %d processes can found a cluster, not %d, each with a short name and one to %d addresses", MaxMembers, s.Expect, maxAddrs)
	} else if err != nil {
		return fmt.Errorf("founding: the list of members must have at most %d names, %q among them, with short names and addresses, and says itself how many found the cluster", MaxMembers, s.Name)
	}
	for name, addrs := range s.Peers { // in any order: it is one error or none
		if !goodTexts(addrs, maxAddrs) || len(addrs) == 0 && name != s.Name {
			return fmt.Errorf("founding: member %q needs one to %d addresses", name, maxAddrs)
		}
	}
	return nil
}

// FoundedError tells that another process already belongs to a cluster, which
// this one has no part in: it may only join it as a new member.
type FoundedError struct {
	// Name is the other's, Cluster the id of its cluster.
	Name    string
	Cluster uint64
	// Addrs are where to ask, the other's first.
	Addrs []string
}

// Error names the cluster and the next step.
func (e *FoundedError) Error() string {
	return fmt.Sprintf("already founded: member %q belongs to cluster %x, which does not know this data directory; add this member to that cluster instead of founding one", e.Name, e.Cluster)
}

// PlaceError tells that the others of the list have founded the cluster, and
// have kept a place for the process of this name. It is a [FoundedError] too:
// whoever does not take the place may join as any other new member, in its
// stead.
type PlaceError struct {
	FoundedError
	// Place is the member id of the place. It stands in the cluster's first
	// configuration, as a voter. Others may have taken it since.
	Place uint64
}

// Error names the cluster and the place.
func (e *PlaceError) Error() string {
	return fmt.Sprintf("already founded: cluster %x of member %q has kept place %x for this member", e.Cluster, e.Name, e.Place)
}

// Unwrap gives the FoundedError.
func (e *PlaceError) Unwrap() error { return &e.FoundedError }

// RivalError tells that two clusters of one group have met, out of more
// processes than Settings.Expect can tell apart.
type RivalError struct {
	// Cluster is this process's, at Addrs; Other that of the process Name at
	// OtherAddrs.
	Cluster, Other uint64
	Name           string
	Addrs          []string
	OtherAddrs     []string
}

// Error names both clusters and the next step.
func (e *RivalError) Error() string {
	return fmt.Sprintf("two clusters have the same name: %x, with a member at %q, and %x, with member %q at %q; they are never merged: "+
		"decide which one is to stay, save what the other has that is needed ('concord backup create'), and start the other's members on empty data directories: they will join; "+
		"to prevent it, expect more than half of all processes that are started without data",
		e.Cluster, e.Addrs, e.Other, e.Name, e.OtherAddrs)
}

// Input is something that happened, or only that time has passed.
type Input struct {
	// Now is the time, from any beginning; it never goes back.
	Now time.Duration
	// Heard is another's status: a question, or the answer to one.
	Heard *Status
	// Answer is set for the answer to a question of this process: the two reach
	// each other.
	Answer bool
	// Asked is the name of the one that was asked, by the list.
	Asked string
}

// Output is what must be done about it, in the order of the fields.
type Output struct {
	// Save must be durable before anything more is said: before the answer to
	// the question that was the input, too. Nil means no change.
	Save *Record
	// Ask tells to ask every other process now, and not only in a while.
	Ask bool
	// Rival is another cluster of the same group. Nothing is done about it.
	Rival *RivalError
	// Founded is the cluster, once it is decided.
	Founded *Proposal
	// Err ends the attempt: this process can found nothing.
	Err error
}

// Machine is the protocol without any input or output of its own: one process's
// part, driven by Step. It is not safe for concurrent use.
type Machine struct {
	// Set by NewMachine, then read only.
	set    Settings
	names  []string      // of set.Peers, sorted; nil without a list
	random func() uint64 // for ids

	rec   Record
	known map[string]*other
	now   time.Duration
	// begun is when this life of the process began, proposed when it made the
	// proposal of its record, gathered since when as many are there as must be.
	begun, proposed, gathered time.Duration
	// bound is when the one whom we have promised was heard last, or could have
	// been.
	bound               time.Duration
	started, isGathered bool
	// clash is when another process with this one's name was heard.
	clash   time.Duration
	clashed bool
	ended   error // what Step has ended the attempt with
}

// other is another process: of a name, where there is a list, else of an id.
type other struct {
	name   string
	status *Status // the latest; nil before the first
	heard  time.Duration
	// answered tells that it has answered, the last time at last.
	answered bool
	last     time.Duration
	// problem says what is in the way.
	problem error
}

// NewMachine continues from rec, whose ID must be set; an empty Record with a
// new random ID is where a process starts. random makes ids.
func NewMachine(set Settings, rec Record, random func() uint64) (*Machine, error) {
	if err := set.check(); err != nil {
		return nil, err
	}
	if err := rec.Check(); err != nil {
		return nil, fmt.Errorf("founding record: %w", err)
	}
	set.Patience = set.withDefaults(set.Expect)
	return &Machine{set: set, names: slices.Sorted(maps.Keys(set.Peers)), random: random, rec: rec, known: map[string]*other{}}, nil
}

// Status is what to ask with and to answer.
func (m *Machine) Status() *Status {
	s := &Status{
		Version: version, Group: m.set.Group, Name: m.set.Name, Names: m.names, Expect: m.set.Expect,
		PeerAddrs: m.set.own(), ClientAddrs: m.set.ClientAddrs, Record: m.rec,
	}
	var told *FoundedError
	if errors.As(m.ended, &told) {
		s.Joins = told.Cluster
	} else if m.rec.Phase == Free && !m.clashes() {
		s.Free = 1 + len(m.candidates())
	}
	return s
}

// Problems says what is in the way, by name of the other process.
func (m *Machine) Problems() map[string]error {
	problems := map[string]error{}
	for _, o := range m.known { // in any order: where two have one name, either will do
		if o.problem != nil {
			problems[o.name] = o.problem
		}
	}
	return problems
}

// Step takes an input.
func (m *Machine) Step(in Input) (out Output) {
	m.now = max(m.now, in.Now)
	if !m.started {
		m.begun, m.proposed, m.bound, m.started = m.now, m.now, m.now, true
	}
	if in.Heard != nil {
		m.hear(in, &out)
	}
	m.gather()
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
	m.ended = out.Err
	return out
}

// advance makes at most one change to the record and tells whether it did. The
// caller numbers the change.
func (m *Machine) advance(out *Output) bool {
	if m.rec.Phase != Founded && m.foundElsewhere(out) {
		return false
	}
	if m.rec.Phase != Founded && m.renounce() {
		return true
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
