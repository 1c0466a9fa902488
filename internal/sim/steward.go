package sim

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/kv"
)

// tendMix is how the membership of a run is tended: by the steward of whoever
// leads, instead of by people who do as they like.
type tendMix struct {
	on    bool
	grace time.Duration
}

func (m *mix) drawTending(o *Options) {
	rnd := newChance(o.Seed, "steward")
	m.tend.on = o.Bug == nil && (rnd.is(0.5) || slices.ContainsFunc(tendFaults(rnd), func(f fault) bool { return slices.Contains(o.Faults, f.name) }))
	m.tend.grace = time.Duration(3+rnd.IntN(4)) * m.election
}

// tendFaults are what happens to members that a steward has to care for.
func tendFaults(rnd chance) []fault {
	return []fault{
		{name: "die", interval: rnd.spread(5*time.Second, time.Minute), do: (*world).faultDie},
		{name: "wipe", interval: rnd.spread(2*time.Second, time.Minute), do: (*world).faultWipe},
		{name: "late", interval: rnd.spread(5*time.Second, time.Minute), do: (*world).faultLate},
		{name: "away", interval: rnd.spread(2*time.Second, time.Minute), do: (*world).faultAway},
	}
}

// mixTending gives a tended run its faults, in place of changes by people, and
// time to come right in the end.
func (w *world) mixTending() {
	if !w.opt.tend.on {
		return
	}
	w.faults = slices.DeleteFunc(w.faults, func(f fault) bool { return f.name == "churn" })
	for _, f := range tendFaults(newChance(w.options.Seed, "steward faults")) {
		if names := w.options.Faults; len(names) == 0 || slices.Contains(names, f.name) {
			w.faults = append(w.faults, f)
		}
	}
	w.options.Calm = max(w.options.Calm, 35*w.opt.election)
	w.tending.proposed = map[slot]bool{}
}

// tending is what is known of the membership from outside.
type tending struct {
	// proposed are the places in any log that hold a change of the
	// configuration.
	proposed map[slot]bool
	// joinUntil is when nobody joins any more, so that all may come to rest.
	joinUntil int64
}

// sightings are what a node has really heard of others, and since when it leads.
type sightings struct {
	heard map[uint64]int64
	led   int64
	// leaving: it knows that it was removed.
	leaving bool
}

// tend has the steward look at the cluster now and then.
func (p *process) tend() {
	w := p.n.w
	p.after(w.opt.election, p.tend)
	view, leads := p.view()
	if !leads || p.calls.tending || w.closing {
		return
	}
	bug := w.bug()
	if bug.View != nil {
		bug.View(p, &view)
	}
	a := steward.Decide(view).Action
	if a == nil {
		return
	}
	for _, part := range bug.parts(a) {
		w.checkAction(p, part)
		p.carryOut(view.Term, part)
	}
}

// view is what a leader knows.
func (p *process) view() (v steward.View, leads bool) {
	peers := p.core.Peers()
	if peers.Term == 0 {
		return v, false
	}
	w := p.n.w
	v = steward.View{
		Term: kv.Term(peers.Term), Self: kv.MemberID(p.n.id), On: true, Voters: p.machine.VoterTarget(),
		Contact: w.opt.election, DeadAfter: w.opt.tend.grace, Changing: peers.Changing,
	}
	for _, m := range p.machine.Members() {
		member := steward.Member{Member: m}
		i := slices.IndexFunc(peers.List, func(peer replica.Peer) bool { return kv.MemberID(peer.ID) == m.ID })
		if i >= 0 {
			peer := peers.List[i]
			member.Silent, member.CaughtUp, member.Behind = peer.Silent, peer.CaughtUp, peer.Behind
		} else if m.ID != v.Self {
			v.Changing = true
		}
		v.Members = append(v.Members, member)
	}
	v.Changing = v.Changing || len(v.Members) != len(peers.List)+1
	return v, true
}

// carryOut proposes a change of the steward's.
func (p *process) carryOut(term kv.Term, a *steward.Action) {
	change := &replica.ConfChange{Term: uint64(term)}
	var members []machine.MemberChange
	for _, id := range a.Promote {
		change.Members = append(change.Members, replica.MemberChange{Kind: replica.AddVoter, ID: uint64(id)})
		members = append(members, machine.MemberChange{Op: machine.PromoteMember, Member: kv.Member{ID: id}})
	}
	for _, id := range a.Remove {
		change.Members = append(change.Members, replica.MemberChange{Kind: replica.RemoveMember, ID: uint64(id)})
		members = append(members, machine.MemberChange{Op: machine.RemoveMember, Member: kv.Member{ID: id}})
	}
	change.Context = machine.EncodeMembers(nil, members...)
	w, life := p.n.w, p.life
	w.tell("%s tends: %s", p.n, a.Reason)
	p.calls.tending = true
	free := func() {
		if p.n.life == life {
			p.calls.tending = false
		}
	}
	w.loop.after(10*w.opt.election, free)
	p.n.change(change, func(err error) {
		free()
		if err == nil {
			w.tally.tended++
		}
	})
}

// faultDie ends a member for good.
func (w *world) faultDie() {
	if n := w.victim(); w.mayLose(n) {
		w.tell("%s dies for good", n)
		n.lose()
	}
}

// faultWipe takes a member's disk; later it comes back without its data.
func (w *world) faultWipe() {
	if n := w.victim(); len(w.nodes) < maxNodes && w.mayLose(n) {
		w.tell("%s loses its disk", n)
		n.lose()
		n.comeBack()
	}
}

// faultLate brings a member that was not there before.
func (w *world) faultLate() {
	if len(w.nodes) < maxNodes && len(w.conf.GetVoters())+len(w.conf.GetLearners()) < 7 {
		w.joinLater(w.addNode())
	}
}

// faultAway stops a member, or cuts it off, for about as long as makes it dead.
func (w *world) faultAway() {
	n := w.victim()
	long := w.chaos.between(w.opt.tend.grace/2, 3*w.opt.tend.grace)
	if w.chaos.is(0.5) {
		w.cutFor(long, func(from, to *node) bool { return from == n || to == n })
	} else if n.up() {
		n.crash(crashKill)
		w.loop.after(long, n.start)
	}
}

// lose ends a node with all that it had.
func (n *node) lose() {
	if n.up() {
		n.crash(crashPower)
	}
	n.gone = true
}

// comeBack starts a node under a new identity, with the name and address of n.
func (n *node) comeBack() {
	if len(n.w.nodes) < maxNodes {
		again := n.w.addNode()
		again.alias = n.label()
		n.w.joinLater(again)
	}
}

// label is the name by which people know a node.
func (n *node) label() string {
	if n.alias != "" {
		return n.alias
	}
	return n.String()
}

// mayLose reports whether what is left without n can go on: only that is asked of
// the cluster. No change may be on its way, because who is to be trusted with a
// vote must not be lost meanwhile, and most must know of the last one.
func (w *world) mayLose(n *node) bool {
	if n.gone || len(w.conf.GetVotersOutgoing()) > 0 || w.unsettled() || !w.known() {
		return false
	}
	voters, left := w.conf.GetVoters(), 0
	for _, id := range voters {
		if v := w.byID(id); v != n && !v.gone && !v.disk.damaged {
			left++
		}
	}
	return 2*left > len(voters)
}

// unsettled reports whether a change of the configuration may yet come about.
func (w *world) unsettled() bool {
	for s := range w.tending.proposed {
		if s.index > w.confAt && (s.index > w.ledger.last() || w.ledger.committed[s.index].before == s.term) {
			return true
		}
	}
	return false
}

// known reports whether most voters know of the newest configuration.
func (w *world) known() bool {
	voters, know := w.conf.GetVoters(), 0
	for _, id := range voters {
		if w.byID(id).logs.writtenState.Commit >= w.confAt {
			know++
		}
	}
	return 2*know > len(voters)
}

// joinLater starts a new node after a while, and has it ask until it is let in.
func (w *world) joinLater(n *node) {
	w.loop.after(w.downtime(), func() {
		if w.late() {
			n.gone = true
			return
		}
		n.start()
		w.ask(n)
	})
}

func (w *world) late() bool { return w.healed && w.loop.now > w.tending.joinUntil }

// ask has the leader let a node in, as [concord.Node] does when it is asked.
func (w *world) ask(n *node) {
	if n.gone || n.member() || w.late() {
		return
	}
	w.loop.after(2*w.opt.election, func() { w.ask(n) })
	l := w.leader()
	if l == nil || l.paused || l == n {
		return
	}
	change := &replica.ConfChange{}
	var members []machine.MemberChange
	for _, m := range l.proc.machine.Members() {
		if m.Learner && m.Name == n.label() && m.ID != kv.MemberID(n.id) {
			change.Members = append(change.Members, replica.MemberChange{Kind: replica.RemoveMember, ID: uint64(m.ID)})
			members = append(members, machine.MemberChange{Op: machine.RemoveMember, Member: m})
		}
	}
	kind := replica.AddLearner
	if w.bug().shell.noLearners {
		kind = replica.AddVoter
	}
	change.Members = append(change.Members, replica.MemberChange{Kind: kind, ID: n.id})
	members = append(members, machine.MemberChange{Op: machine.AddMember, Member: member(n, kind == replica.AddLearner)})
	change.Context = machine.EncodeMembers(nil, members...)
	l.change(change, func(err error) {
		if err == nil {
			w.tell("%s (%s) joins as %x", n, n.label(), n.id)
		}
	})
}

// listen has a node that was removed hear of it, from any that knows: it comes
// back as a new member.
func (p *process) listen() {
	n, w := p.n, p.n.w
	p.after(3*w.opt.election, p.listen)
	if n.seen.leaving || w.closing {
		return
	}
	for _, peer := range w.nodes {
		if peer != n && peer.up() && !peer.paused && w.net.cuts[n.slot][peer.slot] == cutNone && w.net.cuts[peer.slot][n.slot] == cutNone &&
			peer.proc.machine.Removed(kv.MemberID(n.id)) {
			w.tell("%s hears that it was removed", n)
			n.seen.leaving = true
			n.retire(n.comeBack)
			return
		}
	}
}

// hear notes who was heard, for the checks.
func (n *node) hear(id uint64) {
	if n.seen.heard == nil {
		n.seen.heard = map[uint64]int64{}
	}
	n.seen.heard[id] = n.w.loop.now
}

// behind is how many entries a learner may lack that is promoted.
const behind = 16

// checkAction holds a change that a steward makes against what is true, whatever
// it knows.
func (w *world) checkAction(p *process, a *steward.Action) {
	conf := p.n.logs.conf
	after := slices.Clone(conf.GetVoters())
	for _, id := range a.Promote {
		n := w.byID(uint64(id))
		after = append(after, n.id)
		if n.logs.written.last()+behind < p.n.state.Commit || n.gone {
			violate("%s promotes %s, whose log ends at %d, while %d is committed", p.n, n, n.logs.written.last(), p.n.state.Commit)
		}
	}
	for _, id := range a.Remove {
		n := w.byID(uint64(id))
		after = slices.DeleteFunc(after, func(v uint64) bool { return v == n.id })
		silence := time.Duration(w.loop.now - max(p.n.seen.heard[n.id], p.n.seen.led))
		least := w.opt.tend.grace
		if slices.ContainsFunc(a.Promote, func(id kv.MemberID) bool { return w.byID(uint64(id)).label() == n.label() }) {
			least = 2 * w.opt.election
		}
		if float64(silence) < 0.9*float64(least) {
			violate("%s removes %s, which it heard %v ago (it leads since %v)", p.n, n, silence, time.Duration(p.n.seen.led))
		}
	}
	if now, then := w.survives(conf.GetVoters()), w.survives(after); then < now {
		violate("%s makes a change after which %d failures are survived instead of %d: %s", p.n, then, now, a.Reason)
	}
}

// survives is how many more voters may be lost.
func (w *world) survives(voters []uint64) int {
	there := 0
	for _, id := range voters {
		if n := w.byID(id); !n.gone {
			there++
		}
	}
	return there - len(voters)/2 - 1
}

// checkVoters holds a new configuration against what holds in every tended
// cluster.
func (w *world) checkVoters(conf *raftpb.ConfState) {
	if !w.opt.tend.on {
		return
	}
	names := map[string]bool{}
	for _, id := range conf.GetVoters() {
		name := w.byID(id).label()
		if names[name] {
			violate("two identities of %s vote", name)
		}
		names[name] = true
	}
	if len(conf.GetVoters())%2 == 0 {
		violate("an even number of members votes: %x", conf.GetVoters())
	}
}

// checkTended: in the end all that can be done for the cluster has been done.
func (w *world) checkTended() {
	if !w.opt.tend.on {
		return
	}
	l := w.leader()
	if l == nil {
		violate("there is no leader when all is quiet")
	}
	voters, gone, learners := w.conf.GetVoters(), 0, 0
	for _, id := range voters {
		if w.byID(id).gone {
			gone++
		}
	}
	for _, id := range w.conf.GetLearners() {
		if n := w.byID(id); n.gone {
			violate("%s is gone, and still a learner", n)
		}
		learners++
	}
	target := l.proc.machine.VoterTarget()
	if gone > 0 && learners > 0 || gone == 0 && len(voters) < target && learners > len(voters)%2 {
		violate("%d voters, %d of them gone, and %d learners that could vote; %d voters are wanted", len(voters), gone, learners, target)
	}
}
