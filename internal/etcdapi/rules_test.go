package etcdapi

import (
	"errors"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// ruled is a cluster with rules.
type ruled struct {
	kv.Cluster
	strict bool
	most   int
}

func (r ruled) MemberRules() (bool, int) { return r.strict, r.most }

// TestMayAdd follows the table of etcd's IsReadyToAddVotingMember.
func TestMayAdd(t *testing.T) {
	voters := func(started, not int) (all []*pb.Member) {
		for range started {
			all = append(all, &pb.Member{Name: "x"})
		}
		for range not {
			all = append(all, &pb.Member{})
		}
		return all
	}
	for _, c := range []struct {
		started, not int
		ok           bool
	}{
		{0, 3, false}, {1, 2, false}, {2, 1, false}, {3, 0, true}, // of 4 it takes 3
		{0, 2, false}, {1, 1, false}, {2, 0, true},
		{1, 0, true}, {0, 1, false}, {0, 0, false},
	} {
		s := &clusterServer{API: &API{cluster: ruled{strict: true}}}
		if err := s.mayAdd(voters(c.started, c.not), false); (err == nil) != c.ok || err != nil && !errors.Is(err, errNotEnoughStarted) {
			t.Errorf("%+v: %v", c, err)
		}
		if err := s.mayAdd(voters(c.started, c.not), true); err != nil {
			t.Errorf("%+v, a learner: %v", c, err)
		}
		s.cluster = ruled{}
		if err := s.mayAdd(voters(c.started, c.not), false); err != nil {
			t.Errorf("%+v, without rules: %v", c, err)
		}
	}
	s := &clusterServer{API: &API{cluster: ruled{most: 1}}}
	if err := s.mayAdd([]*pb.Member{{Name: "a"}, {IsLearner: true}}, true); !errors.Is(err, rpctypes.ErrGRPCTooManyLearners) {
		t.Errorf("a second learner: %v", err)
	}
}
