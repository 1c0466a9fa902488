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
	p := at.proc
	at.do(at.life, func() {
		c := &p.calls
		c.changeID++
		if c.changes == nil {
			c.changes = map[uint64]waiter{}
		}
		c.changes[c.changeID] = func(res any, err error) {
			w.tell("change of %s: %s", who, describeAnswer(res, err, false))
			if err == nil {
				w.tally.churned++
				if op == machine.RemoveMember {
					w.loop.after(w.downtime(), who.retire)
				}
			}
		}
		p.step(replica.Input{Kind: replica.InputConfChange, ID: c.changeID, Change: change})
	})
}

// retire ends a removed member for ever.
func (n *node) retire() {
	if n.up() {
		n.crash(crashKill)
	}
	n.gone = true
}
