package sim

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/concord-kv/concord/internal/founding"
)

// formed is a cluster as an onlooker sees it: who founded it, and who votes.
type formed struct {
	f        *formation
	id       uint64
	proposal *founding.Proposal
	voters   map[uint64]string // names by id
	taken    map[uint64]bool   // places that have somebody
	founders int
}

func (f *formation) formedAs(id uint64) *formed {
	i := slices.IndexFunc(f.clusters, func(c *formed) bool { return c.id == id })
	if i < 0 {
		return nil
	}
	return f.clusters[i]
}

// holder is the process with an identity, or nil when its disk is lost.
func (f *formation) holder(id uint64) *seeker {
	i := slices.IndexFunc(f.seekers, func(p *seeker) bool { return p.disk.ID == id })
	if i < 0 {
		return nil
	}
	return f.seekers[i]
}

func in(r *founding.Record, cluster uint64) bool {
	return r.Phase == founding.Founded && r.Proposal.Cluster == cluster
}

// acts reports whether a majority of the voters is up and in touch with p.
func (c *formed) acts(p *seeker) bool {
	n := 0
	for id := range c.voters { // in any order: they are counted
		q := c.f.holder(id)
		if q != nil && q != p && q.up() && in(&q.disk, c.id) && !c.f.cuts[p.slot][q.slot] && !c.f.cuts[q.slot][p.slot] {
			n++
		}
	}
	return 2*n > len(c.voters)
}

// held reports whether a majority of the voters is there, up or not.
func (c *formed) held() bool {
	n := 0
	for id := range c.voters { // in any order: they are counted
		if q := c.f.holder(id); q != nil && in(&q.disk, c.id) {
			n++
		}
	}
	return 2*n > len(c.voters)
}

// offer is the id under which a process may come: that of the place of its name
// while nobody has it, else its own.
func (c *formed) offer(p *seeker) uint64 {
	if !c.f.mix.claims {
		return p.disk.ID
	}
	for _, m := range c.proposal.Members {
		if m.Placeholder && m.Name == p.name && !c.taken[m.ID] {
			return m.ID
		}
	}
	return p.disk.ID
}

// admit lets a process in. One of its name that was there before is gone: its
// place, or what it was before its disk was lost.
func (c *formed) admit(p *seeker) {
	place := slices.ContainsFunc(c.proposal.Members, func(m founding.Member) bool { return m.Placeholder && m.ID == p.disk.ID })
	if place && c.taken[p.disk.ID] {
		violate("%v takes a place in cluster %x that was taken before", p, c.id)
	}
	if place {
		c.taken[p.disk.ID] = true
	}
	maps.DeleteFunc(c.voters, func(id uint64, name string) bool { return name == p.name && id != p.disk.ID })
	c.voters[p.disk.ID] = p.name
}

// kept checks what a process has just made durable.
func (f *formation) kept(p *seeker) {
	r := &p.disk
	if err := r.Check(); err != nil {
		violate("%v keeps a record that it will not read: %v", p, err)
	}
	f.checkLeaving(p)
	if r.Phase != founding.Founded {
		return
	}
	c := f.formedAs(r.Proposal.Cluster)
	joined := r.Proposal.Seq == 0
	switch {
	case joined && c == nil:
		violate("%v has joined cluster %x, which nobody has founded", p, r.Proposal.Cluster)
	case c == nil && r.Proposal.Proposer != r.ID:
		violate("%v has founded what %x has proposed and not founded", p, r.Proposal.Proposer)
	case c == nil:
		c = f.newlyFormed(p)
		c.founders++
	case !joined && !reflect.DeepEqual(c.proposal, r.Proposal):
		violate("%v has founded %s, the others %s", p, describeProposal(r.Proposal), describeProposal(c.proposal))
	case !joined:
		c.founders++
	}
	f.checkSplit()
}

// checkLeaving: nobody drops a promise to a cluster that others than its
// proposer belong to, nor leaves one.
func (f *formation) checkLeaving(p *seeker) {
	old := p.prev.Proposal
	if old == nil || p.disk.Proposal != nil && p.disk.Proposal.Cluster == old.Cluster {
		return
	}
	if p.prev.Phase == founding.Founded && p.prev.ID == p.disk.ID {
		violate("%v leaves cluster %x", p, old.Cluster)
	}
	for _, q := range f.seekers {
		if q != p && f.mix.expect > 0 && in(&q.disk, old.Cluster) && q.disk.ID != old.Proposer {
			violate("%v drops its promise to cluster %x, which %v belongs to", p, old.Cluster, q)
		}
	}
}

// newlyFormed checks a cluster at the moment that decides on it.
func (f *formation) newlyFormed(p *seeker) *formed {
	x := p.disk.Proposal
	c := &formed{f: f, id: x.Cluster, proposal: x, voters: map[uint64]string{}, taken: map[uint64]bool{}}
	f.tell("%v founds %s", p, describeProposal(x))
	for _, m := range x.Members {
		c.voters[m.ID] = m.Name
		q := f.holder(m.ID)
		if q == nil || q == p {
			continue
		}
		lost := f.mix.expect == 0 && f.identities > len(f.seekers) // then q may know that c will have no majority
		if r := &q.disk; (r.Proposal == nil || r.Proposal.Cluster != c.id) && !(lost && r.Phase == founding.Founded) {
			violate("%v founds cluster %x with %v, which has not promised that: it is %q to %s", p, c.id, q, r.Phase, describeProposal(r.Proposal))
		}
		if !q.sameSettings(p) {
			violate("%v founds cluster %x with %v, which was started with other settings", p, c.id, q)
		}
	}
	for _, d := range f.clusters {
		if f.holder(d.proposal.Proposer) == nil {
			continue // whoever has not heard of it may have renounced it
		}
		for _, m := range x.Members {
			if slices.ContainsFunc(d.proposal.Members, func(n founding.Member) bool { return n.ID == m.ID }) {
				violate("%x is a founder of cluster %x and of cluster %x", m.ID, c.id, d.id)
			}
		}
	}
	f.clusters = append(f.clusters, c)
	if f.mix.wipes > 0 && f.chaos.is(f.mix.decided) {
		f.loop.after(f.rnd.exp(5*f.mix.latency), func() { f.loseDisk(p) })
	}
	return c
}

func (p *seeker) sameSettings(q *seeker) bool {
	return p.set.Expect == q.set.Expect && p.set.Group == q.set.Group &&
		slices.Equal(slices.Sorted(maps.Keys(p.set.Peers)), slices.Sorted(maps.Keys(q.set.Peers)))
}

// checkSplit: never are there two clusters out of one set of founders that can
// both have a majority.
func (f *formation) checkSplit() {
	if !f.mix.one(f.identities) {
		return
	}
	if len(f.clusters) > 1 && f.identities == len(f.seekers) {
		violate("%d clusters out of %d processes: %s and %s", len(f.clusters), len(f.seekers),
			describeProposal(f.clusters[0].proposal), describeProposal(f.clusters[1].proposal))
	}
	var held *formed
	for _, c := range f.clusters {
		if held != nil && c.held() && held.held() {
			violate("clusters %x and %x have a majority at once", held.id, c.id)
		}
		if c.held() {
			held = c
		}
	}
}

// met notes that a member has reported another cluster.
func (f *formation) met(p *seeker, r *founding.RivalError) {
	if r.Cluster == r.Other || !in(&p.disk, r.Cluster) || f.formedAs(r.Other) == nil {
		violate("%v reports what is not so: %v", p, r)
	}
	f.rivals[[2]uint64{min(r.Cluster, r.Other), max(r.Cluster, r.Other)}] = true
	f.tell("%v reports cluster %x", p, r.Other)
}

// settled reports whether everyone has its place, and all clusters that there
// are know of each other.
func (f *formation) settled() bool {
	for _, p := range f.seekers {
		if !p.begun || !p.up() || !p.running.member {
			return false
		}
	}
	return f.introduced()
}

// introduced reports whether every two clusters that have processes are known
// to at least one of them.
func (f *formation) introduced() bool {
	var peopled []uint64
	for _, c := range f.clusters {
		if slices.ContainsFunc(f.seekers, func(p *seeker) bool { return in(&p.disk, c.id) }) {
			peopled = append(peopled, c.id)
		}
	}
	for i, a := range peopled {
		for _, b := range peopled[i+1:] {
			if !f.rivals[[2]uint64{min(a, b), max(a, b)}] {
				return false
			}
		}
	}
	return true
}

// outcome checks the end: everyone has its place, or says what it waits for.
func (f *formation) outcome() {
	if !f.introduced() {
		violate("%d clusters have met, and nobody says so", len(f.clusters))
	}
	if f.mix.one(f.identities) && f.identities == len(f.seekers) && !f.mix.mistaken && len(f.clusters) != 1 {
		violate("%d clusters in the end: %s", len(f.clusters), f.situation())
	}
	for _, p := range f.seekers {
		switch r := p.running; {
		case r.member:
		case f.identities == len(f.seekers) && !f.mix.mistaken:
			violate("%v has no place in the end: %s", p, f.situation())
		case f.bound(p) && len(r.machine.Problems()) == 0:
			violate("%v waits for one who is gone and does not say so", p)
		case f.mix.mistaken && r.told == nil && len(r.machine.Problems()) == 0:
			violate("%v waits and does not say why: %s", p, f.situation())
		}
	}
}

// bound reports whether a process has promised itself to one whose disk is lost.
func (f *formation) bound(p *seeker) bool {
	return p.disk.Phase == founding.Promised && f.holder(p.disk.Proposal.Proposer) == nil
}

func (f *formation) result() FormationResult {
	r := FormationResult{
		Kind: f.options.Kind, Seed: f.options.Seed, Hash: f.trace.hash, Events: f.loop.count, Summary: f.mix.String(),
		Clusters: len(f.clusters), Rivals: len(f.rivals), Took: f.mix.took,
	}
	for _, p := range f.seekers {
		switch {
		case f.bound(p):
			r.Blocked++
		case p.disk.Phase == founding.Founded && p.disk.Proposal.Seq == 0:
			r.Joined++
		case p.disk.Phase == founding.Founded:
			r.Founders++
		}
	}
	return r
}

// situation tells where everyone stands.
func (f *formation) situation() string {
	var b strings.Builder
	for _, p := range f.seekers {
		fmt.Fprintf(&b, "\n  %v %q %s", p, p.disk.Phase, describeProposal(p.disk.Proposal))
		if r := p.running; r != nil {
			fmt.Fprintf(&b, " told %v problems %v", r.told, r.machine.Problems())
		}
	}
	return b.String()
}

func describeProposal(p *founding.Proposal) string {
	if p == nil {
		return "nothing"
	}
	var names []string
	for _, m := range p.Members {
		name := fmt.Sprintf("%s(%04x)", m.Name, m.ID&0xffff)
		if m.Placeholder {
			name += "?"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprintf("cluster %x of %s by %04x", p.Cluster, strings.Join(names, " "), p.Proposer&0xffff)
}
