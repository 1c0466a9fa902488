package concord

import (
	"context"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/kv"
)

// tended is the cluster as the steward of its leader sees it.
type tended struct{ *Node }

// View implements [steward.Cluster].
func (t tended) View(ctx context.Context) (v steward.View, leads bool) {
	peers, err := t.replica.Peers(ctx)
	if err != nil || peers.Term == 0 {
		return v, false
	}
	known := map[kv.MemberID]replica.Peer{}
	for _, p := range peers.List {
		known[kv.MemberID(p.ID)] = p
	}
	s := t.machine.Settings()
	v = steward.View{
		Term: kv.Term(peers.Term), Self: t.id, On: s.Autopilot, Voters: t.machine.VoterTarget(),
		Contact: t.cfg.election, DeadAfter: s.DeadAfter, Changing: peers.Changing,
	}
	for _, m := range t.machine.Members() {
		p, ok := known[m.ID]
		if !ok && m.ID != t.id {
			v.Changing = true // the table is ahead of the configuration
		}
		delete(known, m.ID)
		v.Members = append(v.Members, steward.Member{Member: m, Silent: p.Silent, CaughtUp: p.CaughtUp, Behind: p.Behind})
	}
	v.Changing = v.Changing || len(known) > 0
	return v, true
}

// Change implements [steward.Cluster].
func (t tended) Change(ctx context.Context, term kv.Term, a steward.Action) error {
	var changes []machine.MemberChange
	for _, id := range a.Promote {
		changes = append(changes, machine.MemberChange{Op: machine.PromoteMember, Member: kv.Member{ID: id}})
	}
	for _, id := range a.Remove {
		changes = append(changes, machine.MemberChange{Op: machine.RemoveMember, Member: kv.Member{ID: id}})
	}
	return t.changeIn(ctx, term, changes)
}

// tend looks after the membership while this member leads; not where people do.
func (n *Node) tend(ctx context.Context) error {
	if n.cfg.hands.byHand || n.transport == nil {
		return nil
	}
	return n.figures.steward.Run(ctx)
}

// judgement is how this member's steward sees the cluster; its term is 0 where
// another one leads, and where people look after the membership.
func (n *Node) judgement() steward.Report { return n.figures.steward.Report() }

// raiseEvery is how often a leader looks whether all members understand more
// than the cluster uses.
const raiseEvery = time.Second

// raise lets the cluster use what all members understand, while this one leads.
func (n *Node) raise(ctx context.Context) error {
	l := leader{n}
	ticker := time.NewTicker(raiseEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		lowest := n.machine.Lowest()
		term, _, leads := l.Leading()
		if !leads || lowest <= n.machine.Level() {
			continue
		}
		if _, err := l.ProposeLocal(ctx, term, machine.EncodeSettings(nil, machine.SettingsChange{Level: &lowest})); err == nil {
			n.log.Info("all members understand more: the cluster uses it from now on", "level", n.machine.Level())
		}
	}
}
