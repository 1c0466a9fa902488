package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
)

// MemberRules is what a [kv.Cluster] may offer besides, to have this API refuse
// changes of members as etcd does.
type MemberRules interface {
	// MemberRules returns etcd's --strict-reconfig-check, and --max-learners,
	// where less than 1 means no bound. Etcd's defaults, and those of a cluster
	// without rules, are true and 1.
	MemberRules() (strict bool, maxLearners int)
}

func (s *clusterServer) rules() (strict bool, maxLearners int) {
	if r, ok := s.cluster.(MemberRules); ok {
		return r.MemberRules()
	}
	return true, 1
}

// errNotEnoughStarted has the code that etcd sends, which is not the one in
// rpctypes.
var errNotEnoughStarted = status.Error(codes.Unknown, rpctypes.ErrorDesc(rpctypes.ErrGRPCMemberNotEnoughStarted))

// started counts the voters of a member list, and those that were started: they
// have told their name.
func started(all []*pb.Member) (voters, started, learners int) {
	for _, m := range all {
		switch {
		case m.IsLearner:
			learners++
			continue
		case m.Name != "":
			started++
		}
		voters++
	}
	return voters, started, learners
}

// mayAdd refuses a voter that would leave no majority of voters that were started
// (etcd's IsReadyToAddVotingMember) and take part, but for the second one of a
// cluster of one.
func (s *clusterServer) mayAdd(ctx context.Context, all []*pb.Member, learner bool) error {
	strict, most := s.rules()
	voters, started, learners := started(all)
	switch {
	case learner && most > 0 && learners >= most:
		return rpctypes.ErrGRPCTooManyLearners
	case learner || !strict || started == 1 && voters == 1:
		return nil
	case started < (voters+1)/2+1:
		return errNotEnoughStarted
	}
	return s.wellWithout(ctx, 0, 1)
}

// wellWithout refuses a change that would leave fewer voters that take part than
// a majority of all: without the member gone, or with one more that has not been
// started. etcd refuses where any member has not been connected for five seconds
// (server/etcdserver/server.go, mayAddMember and mayRemoveMember). A cluster that
// does not know how its members are is not asked.
func (s *clusterServer) wellWithout(ctx context.Context, gone kv.MemberID, more int) error {
	overseer, ok := s.cluster.(kv.Overseer)
	if !ok {
		return nil
	}
	all, err := overseer.Overview(ctx)
	if err != nil {
		return toStatus(err)
	}
	voters, up := more, 0
	for i := range all.Members {
		m := &all.Members[i]
		if m.ID == gone || m.Learner {
			continue
		}
		voters++
		if m.Up() {
			up++
		}
	}
	if up < voters/2+1 {
		return rpctypes.ErrGRPCUnhealthy
	}
	return nil
}

// mayRemove refuses to leave voters of which no majority was started (etcd's
// IsReadyToRemoveVotingMember) or takes part.
func (s *clusterServer) mayRemove(ctx context.Context, id uint64) error {
	if strict, _ := s.rules(); !strict {
		return nil
	}
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	rest := make([]*pb.Member, 0, len(all))
	for _, m := range all {
		if m.ID != id {
			rest = append(rest, m)
		} else if m.IsLearner {
			return nil
		}
	}
	if voters, started, _ := started(rest); started < voters/2+1 {
		return errNotEnoughStarted
	}
	if len(rest) == len(all) {
		return nil // no member: the change itself finds that out
	}
	return s.wellWithout(ctx, kv.MemberID(id), 0)
}

// mayPromote refuses a voter that would leave no majority of started voters, as
// which the learner counts (etcd's IsReadyToPromoteMember). That id is no
// learner the change itself finds out.
func (s *clusterServer) mayPromote(ctx context.Context, id uint64) error {
	if strict, _ := s.rules(); !strict {
		return nil
	}
	all, err := s.members(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		voters, started, _ := started(all)
		if m.ID == id && m.IsLearner && started+1 < (voters+1)/2+1 {
			return errNotEnoughStarted
		}
	}
	return nil
}
