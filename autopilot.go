package concord

import (
	"context"

	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/kv"
)

var _ kv.Pilot = (*Node)(nil)

// Autopilot implements [kv.Pilot].
func (n *Node) Autopilot(ctx context.Context) (kv.AutopilotStatus, error) {
	if err := n.Authorize(ctx, kv.AnyUser); err != nil {
		return kv.AutopilotStatus{}, err
	}
	s := n.machine.Settings()
	out := kv.AutopilotStatus{Autopilot: kv.Autopilot{
		Enabled: s.Autopilot && !n.cfg.hands.byHand, Voters: n.machine.VoterTarget(), DeadAfter: s.DeadAfter,
	}}
	if leader, r := n.askJudgement(ctx); r.Term != 0 {
		out.Leader, out.Judgement = leader, r.Judgement
	}
	return out, ctx.Err()
}

// askJudgement is how the leader's steward sees the cluster, without a term where
// it does not tell in time.
func (n *Node) askJudgement(ctx context.Context) (kv.MemberID, steward.Report) {
	if r := n.judgement(); r.Term != 0 {
		return n.id, r
	}
	ctx, cancel := context.WithTimeout(ctx, overviewTime)
	defer cancel()
	leader := kv.MemberID(n.replica.Status().Leader)
	addr := n.leaderAddr()
	if addr == "" || leader == n.id {
		return 0, steward.Report{}
	}
	reply, err := n.ask(ctx, addr, peerRequest{Judgement: true})
	if err != nil || reply.Judgement == nil {
		return 0, steward.Report{}
	}
	return leader, *reply.Judgement
}

// SetAutopilot implements [kv.Pilot].
func (n *Node) SetAutopilot(ctx context.Context, a kv.Autopilot) error {
	if n.cfg.hands.byHand {
		return kv.Errorf(kv.FailedPrecondition, "people look after the members of this cluster, as of one of etcd; there is no autopilot")
	}
	s := n.Settings()
	if a.Voters != n.machine.VoterTarget() { // else 0 stays, which goes by who founded it
		s.Voters = a.Voters
	}
	s.Autopilot, s.DeadAfter = a.Enabled, a.DeadAfter
	return n.SetSettings(ctx, s)
}
