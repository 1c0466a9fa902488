package etcdapi

import (
	"context"
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
		if err := s.mayAdd(t.Context(), voters(c.started, c.not), false); (err == nil) != c.ok || err != nil && !errors.Is(err, errNotEnoughStarted) {
			t.Errorf("%+v: %v", c, err)
		}
		if err := s.mayAdd(t.Context(), voters(c.started, c.not), true); err != nil {
			t.Errorf("%+v, a learner: %v", c, err)
		}
		s.cluster = ruled{}
		if err := s.mayAdd(t.Context(), voters(c.started, c.not), false); err != nil {
			t.Errorf("%+v, without rules: %v", c, err)
		}
	}
	s := &clusterServer{API: &API{cluster: ruled{most: 1}}}
	if err := s.mayAdd(t.Context(), []*pb.Member{{Name: "a"}, {IsLearner: true}}, true); !errors.Is(err, rpctypes.ErrGRPCTooManyLearners) {
		t.Errorf("a second learner: %v", err)
	}
}

// watched is a cluster that knows how its members are.
type watched struct {
	ruled
	kv.Overseer
	members []kv.MemberOverview
}

func (w watched) Members(context.Context) (all []kv.Member, _ error) {
	for i := range w.members {
		all = append(all, w.members[i].Member)
	}
	return all, nil
}

func (w watched) Overview(context.Context) (kv.Overview, error) {
	return kv.Overview{Members: w.members}, nil
}

// No change may leave fewer voters that take part than a majority: the member
// that is away can be removed, and one that is there cannot while another is
// away.
func TestChangesKeepAMajority(t *testing.T) {
	cluster := func(up, away, learners int) (w watched) {
		w.strict = true
		for i := range up + away + learners {
			m := kv.MemberOverview{Member: kv.Member{ID: kv.MemberID(i + 1), Name: "x", Learner: i >= up+away}}
			if i < up {
				m.Report = &kv.Report{}
			}
			w.members = append(w.members, m)
		}
		return w
	}
	unhealthy := rpctypes.ErrGRPCUnhealthy
	for _, c := range []struct {
		up, away, learners        int
		add, removeUp, removeAway error
	}{
		{3, 0, 0, nil, nil, nil},
		{2, 1, 0, unhealthy, unhealthy, nil},
		{1, 0, 0, nil, errNotEnoughStarted, nil},
		{2, 0, 1, nil, nil, nil}, // of three that then vote two are there
		{4, 1, 0, nil, nil, nil},
		{3, 2, 0, unhealthy, unhealthy, nil},
	} {
		w := cluster(c.up, c.away, c.learners)
		s := &clusterServer{API: &API{cluster: w}}
		all, err := s.members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.mayAdd(t.Context(), all, false); !errors.Is(err, c.add) {
			t.Errorf("%+v: add: %v", c, err)
		}
		if err := s.mayAdd(t.Context(), all, true); c.learners == 0 && err != nil {
			t.Errorf("%+v: add a learner: %v", c, err)
		}
		if err := s.mayRemove(t.Context(), 1); !errors.Is(err, c.removeUp) {
			t.Errorf("%+v: remove one that is there: %v", c, err)
		}
		if last := uint64(len(all)); last > 1 {
			if err := s.mayRemove(t.Context(), last); !errors.Is(err, c.removeAway) {
				t.Errorf("%+v: remove one that is away, or learns: %v", c, err)
			}
		}
		if err := s.mayRemove(t.Context(), 99); err != nil {
			t.Errorf("%+v: remove nobody: %v", c, err)
		}
	}
}
