package concord

import (
	"context"

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
	s.Version = Version
	return s
}

var roles = map[replica.Role]kv.Role{
	replica.Follower: kv.Follower, replica.PreCandidate: kv.PreCandidate,
	replica.Candidate: kv.Candidate, replica.Leader: kv.LeaderRole, replica.Learner: kv.LearnerRole,
}

// Members implements [kv.Cluster].
func (n *Node) Members(ctx context.Context) ([]kv.Member, error) {
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
	kind := replica.AddVoter
	if m.Learner {
		kind = replica.AddLearner
	}
	return m, n.changeMember(ctx, kind, machine.MemberChange{Op: machine.AddMember, Member: m})
}

// PromoteMember implements [kv.Cluster].
func (n *Node) PromoteMember(ctx context.Context, id kv.MemberID) error {
	return n.changeMember(ctx, replica.AddVoter,
		machine.MemberChange{Op: machine.PromoteMember, Member: kv.Member{ID: id}})
}

// RemoveMember implements [kv.Cluster].
func (n *Node) RemoveMember(ctx context.Context, id kv.MemberID) error {
	return n.changeMember(ctx, replica.RemoveMember,
		machine.MemberChange{Op: machine.RemoveMember, Member: kv.Member{ID: id}})
}

// changeMember makes a change that Raft's configuration has a part in.
func (n *Node) changeMember(ctx context.Context, kind replica.ChangeKind, change machine.MemberChange) error {
	result, err := n.replica.ProposeConfChange(ctx, replica.ConfChange{
		Members: []replica.MemberChange{{Kind: kind, ID: uint64(change.Member.ID)}},
		Context: machine.EncodeMembers(nil, change),
	})
	if err != nil {
		return mapError(err)
	}
	if err, ok := result.(error); ok {
		return err
	}
	return nil
}

// UpdateMember implements [kv.Cluster].
func (n *Node) UpdateMember(ctx context.Context, m kv.Member) error {
	_, err := n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeUpdateMember(dst, m) })
	return err
}

// MoveLeader implements [kv.Cluster].
func (n *Node) MoveLeader(ctx context.Context, to kv.MemberID) error {
	return mapError(n.replica.TransferLeader(ctx, uint64(to)))
}
