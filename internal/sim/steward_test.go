package sim

import (
	"time"

	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/kv"
)

// tended has a steward in every run, with a short grace.
func tended(m *mix) { m.tend = tendMix{on: true, grace: 3 * m.election} }

// growing begins with one member.
func growing(m *mix) {
	tended(m)
	m.nodes = 1
}

// removeFirst makes two changes of a swap.
func removeFirst(a *steward.Action) []*steward.Action {
	if len(a.Promote) == 0 || len(a.Remove) == 0 {
		return []*steward.Action{a}
	}
	return []*steward.Action{{Remove: a.Remove, Reason: a.Reason}, {Promote: a.Promote, Reason: a.Reason}}
}

// oneByOne makes a change of each promotion, where nobody is replaced.
func oneByOne(a *steward.Action) (parts []*steward.Action) {
	if len(a.Remove) > 0 {
		return []*steward.Action{a}
	}
	for _, id := range a.Promote {
		parts = append(parts, &steward.Action{Promote: []kv.MemberID{id}, Reason: a.Reason})
	}
	return parts
}

// judgeAtOnce takes for dead whom a leader has not heard of since its election.
func judgeAtOnce(p *process, v *steward.View) {
	for i := range v.Members {
		m := &v.Members[i]
		if p.n.seen.heard[uint64(m.ID)] <= p.n.seen.led && m.ID != v.Self {
			m.Silent = time.Hour
		}
	}
}

// ignoreOld takes every voter for lost whose name and address a learner has.
func ignoreOld(_ *process, v *steward.View) {
	for i := range v.Members {
		old := &v.Members[i]
		for _, m := range v.Members {
			if !old.Learner && m.Learner && m.Name == old.Name {
				old.Silent = max(old.Silent, 2*v.Contact)
			}
		}
	}
}
