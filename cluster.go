package concord

import (
	"context"
	"slices"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
)

// Status implements [kv.Cluster].
func (n *Node) Status() kv.Status {
	s := n.machine.Status()
	r := n.replica.Status()
	s.Member = n.id
	s.Leader = kv.MemberID(r.Leader)
	s.Term = kv.Term(r.Term)
	s.Committed = max(kv.Index(r.Commit), s.Applied)
	s.Role = roles[r.Role]
	if slices.Contains(r.Learners, uint64(n.id)) {
		s.Role = kv.LearnerRole
	}
	s.Version = Version
	return s
}

var roles = map[replica.Role]kv.Role{
	replica.Follower: kv.Follower, replica.PreCandidate: kv.PreCandidate,
	replica.Candidate: kv.Candidate, replica.Leader: kv.LeaderRole, replica.Learner: kv.LearnerRole,
}

// Name is the member's own; see [Name].
func (n *Node) Name() string { return n.cfg.name }

// Members implements [kv.Cluster].
func (n *Node) Members(ctx context.Context) ([]kv.Member, error) {
	if err := n.Authorize(ctx, kv.AnyUser); err != nil {
		return nil, err
	}
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return nil, err
	}
	return n.machine.Members(), nil
}

// AddMember implements [kv.Cluster].
func (n *Node) AddMember(ctx context.Context, m kv.Member) (kv.Member, error) {
	if m.ID == 0 {
		m.ID = randomMember()
	}
	return m, n.change(ctx, machine.MemberChange{Op: machine.AddMember, Member: m})
}

// PromoteMember implements [kv.Cluster]. The new identity of a member that lost
// its data takes the vote of the old one.
func (n *Node) PromoteMember(ctx context.Context, id kv.MemberID) error {
	var changes []machine.MemberChange
	members := n.machine.Members()
	at := slices.IndexFunc(members, func(m kv.Member) bool { return m.ID == id && m.Learner && m.Name != "" })
	for _, old := range members {
		if at >= 0 && !old.Learner && old.Name == members[at].Name && n.sharesAddr(old, members[at]) {
			changes = append(changes, machine.MemberChange{Op: machine.RemoveMember, Member: kv.Member{ID: old.ID}})
		}
	}
	return n.change(ctx, append(changes, machine.MemberChange{Op: machine.PromoteMember, Member: kv.Member{ID: id}})...)
}

// RemoveMember implements [kv.Cluster].
func (n *Node) RemoveMember(ctx context.Context, id kv.MemberID) error {
	gone := machine.MemberChange{Op: machine.RemoveMember, Member: kv.Member{ID: id}}
	if id == n.id {
		return n.removeSelf(ctx, gone)
	}
	return n.change(ctx, gone)
}

// removeSelf has the leader remove this member, and goes by what it answers:
// whoever is none any more may not hear of it by the log.
func (n *Node) removeSelf(ctx context.Context, gone machine.MemberChange) error {
	if err := n.Authorize(ctx, kv.ManageCluster); err != nil {
		return err
	}
	changes := []machine.MemberChange{gone}
	return n.onLeader(ctx, peerRequest{Change: changes, Caller: n.caller(ctx)}, func(ctx context.Context) error {
		if n.replica.Status().Role != replica.Leader {
			return kv.ErrNotLeader
		}
		return n.changeHere(ctx, changes)
	})
}

// UpdateMember implements [kv.Cluster].
func (n *Node) UpdateMember(ctx context.Context, m kv.Member) error {
	_, err := n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeUpdateMember(dst, m) })
	return err
}

// MoveLeader implements [kv.Cluster].
func (n *Node) MoveLeader(ctx context.Context, to kv.MemberID) error {
	if err := n.Authorize(ctx, kv.ManageCluster); err != nil {
		return err
	}
	return mapError(n.replica.TransferLeader(ctx, uint64(to)))
}

// Identity returns what stands in the header of every answer on the wire.
func (n *Node) Identity() (kv.ClusterID, kv.MemberID, kv.Term) {
	return n.machine.Cluster(), n.id, kv.Term(n.replica.Status().Term)
}
