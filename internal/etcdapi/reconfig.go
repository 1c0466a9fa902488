package etcdapi

import (
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// maxLearners is how many learners etcd lets be added, by default.
const maxLearners = 1

// voters counts the members that vote, and those of them that were started,
// without one.
func voters(all []kv.Member, without kv.MemberID) (n, started int) {
	for i := range all {
		m := &all[i]
		if m.Learner || m.ID == without {
			continue
		}
		n++
		if m.Name != "" {
			started++
		}
	}
	return n, started
}

// The checks before a change of members are etcd's, of its strict-reconfig-check
// (server/etcdserver/api/membership/cluster.go): the members that were ever
// started must be a majority afterwards. That a majority is up now is checked
// where the change is made.

func mayAdd(all []kv.Member, learner bool) error {
	n, started := voters(all, 0)
	switch {
	case learner:
		if len(all)-n >= maxLearners {
			return rpctypes.ErrGRPCTooManyLearners
		}
	case n == 1 && started == 1: // the way from one member to two
	case started < (n+1)/2+1:
		return rpctypes.ErrGRPCMemberNotEnoughStarted
	}
	return nil
}

func mayRemove(all []kv.Member, id kv.MemberID) bool {
	for i := range all {
		if all[i].ID == id && all[i].Learner {
			return true
		}
	}
	n, started := voters(all, id)
	return started >= n/2+1
}

// mayPromote leaves it to the change itself to find that id is no learner.
func mayPromote(all []kv.Member, id kv.MemberID) bool {
	for i := range all {
		if all[i].ID == id && all[i].Learner {
			n, started := voters(all, 0)
			return started+1 >= (n+1)/2+1
		}
	}
	return true
}
