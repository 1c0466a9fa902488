package sim

import (
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
)

// faultChurn changes the membership: it replaces a member that is gone, or
// adds one as a learner, promotes a learner, or removes a member.
func (w *world) faultChurn() {
	n := w.leader()
	if n == nil || n.paused {
		return
	}
	conf := n.logs.conf
	for _, other := range w.nodes {
		if other.gone && other != n && has(conf.GetVoters(), other.id) {
			w.changeMember(n, other, machine.RemoveMember)
			return
		}
	}
	if len(conf.GetLearners()) > 0 && len(conf.GetVoters()) > 1 && w.chaos.is(0.3) {
		learner := w.byID(conf.GetLearners()[0])
		w.swapMembers(n, learner, w.byID(conf.GetVoters()[w.chaos.IntN(len(conf.GetVoters()))]))
		return
	}
	if len(conf.GetLearners()) > 0 {
		learner := w.byID(conf.GetLearners()[w.chaos.IntN(len(conf.GetLearners()))])
		w.changeMember(n, learner, pickOp(w.chaos, machine.PromoteMember, machine.PromoteMember, machine.RemoveMember))
		return
	}
	switch voters := len(conf.GetVoters()); {
	case len(w.nodes) < maxNodes && (voters < 5 && w.chaos.is(0.6) || voters <= w.opt.nodes):
		w.changeMember(n, w.addNode(), machine.AddMember)
	case voters > 1:
		w.changeMember(n, w.byID(conf.GetVoters()[w.chaos.IntN(voters)]), machine.RemoveMember)
	}
}

func pickOp(c chance, of ...machine.MemberOp) machine.MemberOp { return pick(c, of...) }

func has(ids []uint64, id uint64) bool {
	for _, v := range ids {
		if v == id {
			return true
		}
	}
	return false
}

// changeMember asks a node to change what another one is.
func (w *world) changeMember(at, who *node, op machine.MemberOp) {
	kind := map[machine.MemberOp]replica.ChangeKind{
		machine.AddMember:     replica.AddLearner,
		machine.PromoteMember: replica.AddVoter,
		machine.RemoveMember:  replica.RemoveMember,
	}[op]
	w.tell("change: %s %v (%x)", who, [...]string{"", "add", "promote", "remove"}[op], who.id)
	change := &replica.ConfChange{
		Members: []replica.MemberChange{{Kind: kind, ID: who.id}},
		Context: machine.EncodeMembers(nil, machine.MemberChange{Op: op, Member: member(who, op == machine.AddMember)}),
	}
	if op == machine.AddMember {
		w.loop.after(w.downtime()/10, who.start)
	}
	at.change(change, func(err error) {
		if err == nil && op == machine.RemoveMember {
			w.loop.after(w.downtime(), func() { who.retire(nil) })
		}
	})
}

// swapMembers promotes a learner and removes a voter at once, which takes a
// joint configuration.
func (w *world) swapMembers(at, learner, voter *node) {
	w.tell("change: promote %s and remove %s", learner, voter)
	at.change(&replica.ConfChange{
		Members: []replica.MemberChange{{Kind: replica.AddVoter, ID: learner.id}, {Kind: replica.RemoveMember, ID: voter.id}},
		Context: machine.EncodeMembers(nil,
			machine.MemberChange{Op: machine.PromoteMember, Member: member(learner, false)},
			machine.MemberChange{Op: machine.RemoveMember, Member: member(voter, false)}),
	}, func(err error) {
		if err == nil {
			w.loop.after(w.downtime(), func() { voter.retire(nil) })
		}
	})
}

// change has a node propose a change of the membership.
func (n *node) change(change *replica.ConfChange, done func(error)) {
	w, p := n.w, n.proc
	n.do(n.life, func() {
		c := &p.calls
		c.changeID++
		if c.changes == nil {
			c.changes = map[uint64]waiter{}
		}
		c.changes[c.changeID] = func(res any, err error) {
			w.tell("change at %s: %s", n, describeAnswer(res, err, false))
			if err == nil {
				w.tally.churned++
			}
			done(err)
		}
		p.step(replica.Input{Kind: replica.InputConfChange, ID: c.changeID, Change: change})
	})
}

// retire ends a removed member for ever, once the others do not need it any
// more: until most of those who stay have the commit of its removal on disk, an
// election after a power cut would need its vote; and a joint configuration,
// which is left by an entry of its own, needs majorities of both its halves. Then
// comes what is to come.
func (n *node) retire(then func()) {
	if !n.w.known() || has(n.w.conf.GetVoters(), n.id) || len(n.w.conf.GetVotersOutgoing()) > 0 {
		n.w.loop.after(n.w.opt.election, func() { n.retire(then) })
		return
	}
	if n.gone {
		return
	}
	if n.up() {
		n.crash(crashKill)
	}
	n.gone = true
	if then != nil {
		then()
	}
}
