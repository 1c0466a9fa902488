package commonapi

import (
	"context"
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/concord-kv/concord/compat/processes"
)

func ofMembers() []behaviour {
	return []behaviour{
		{name: "list of members", etcd: []string{"member_test.go/TestMemberList"}, run: doMembers},
		{name: "new member", etcd: []string{"member_test.go/TestMemberAdd"}, run: doAddMember},
		{name: "member that goes", etcd: []string{"member_test.go/TestMemberRemove"}, run: doRemoveMember},
		{name: "change without health", etcd: []string{"member_test.go/TestMemberAdd", "member_test.go/TestMemberRemove"}, run: doRefuseMember, least: 3},
	}
}

func members(t *testing.T, ctx context.Context, c *clientv3.Client) []*pb.Member {
	t.Helper()
	return get[*clientv3.MemberListResponse](t)(c.MemberList(ctx)).Members
}

func doMembers(t *testing.T, ctx context.Context, w *world) {
	w.Until("all members are started", func() error {
		list := members(t, ctx, w.c)
		if len(list) != w.Members {
			return fmt.Errorf("%d members", len(list))
		}
		for _, m := range list {
			if len(m.ClientURLs) == 0 || m.Name == "" || m.ID == 0 || m.IsLearner {
				return fmt.Errorf("%v", m)
			}
		}
		return nil
	})
}

// unhealthy is what a change of members says that is not safe now.
const unhealthy = "etcdserver: unhealthy cluster"

// absent is the address of a member that never starts. (Concord's members speak
// TLS all or none: one that is added for http beside such with https is listed
// as https, as it would have to be started.)
func (w *world) absent() string {
	if w.Security == processes.Plain {
		return "http://127.0.0.1:1"
	}
	return "https://127.0.0.1:1"
}

// doAddMember adds a voter or a learner, with etcd's check and without. etcd
// refuses that until its members have been connected for five seconds.
func doAddMember(t *testing.T, ctx context.Context, w *world) {
	for _, learner := range []bool{false, true} {
		for _, strict := range []bool{true, false} {
			f := w.fresh(t, fmt.Sprintf("--strict-reconfig-check=%v", strict))
			add := f.c.MemberAdd
			if learner {
				add = f.c.MemberAddAsLearner
			}
			var added *clientv3.MemberAddResponse
			f.Until("the member is added", func() (err error) {
				added, err = add(ctx, []string{w.absent()})
				if err != nil && w.Members > 1 && strict {
					refused(t, "adding a member too soon", err, unhealthy)
					return err
				}
				must(t, err)
				return nil
			})
			m := added.Member
			if m.ID == 0 || !slices.Equal(m.PeerURLs, []string{w.absent()}) || m.IsLearner != learner || len(added.Members) != w.Members+1 {
				t.Errorf("added %v of %v", m, added.Members)
			}
		}
	}
}

// doRemoveMember removes a member, but not the only one.
func doRemoveMember(t *testing.T, ctx context.Context, w *world) {
	for _, strict := range []bool{true, false} {
		if !strict && w.Members == 1 {
			continue // etcd ends then
		}
		f := w.fresh(t, fmt.Sprintf("--strict-reconfig-check=%v", strict))
		c := f.one(t, 0)
		status := get[*clientv3.StatusResponse](t)(c.Status(ctx, f.Endpoints()[0]))
		var other uint64
		for _, m := range members(t, ctx, c) {
			if other = m.ID; other != status.Header.MemberId {
				break
			}
		}
		if w.Members == 1 {
			_, err := c.MemberRemove(ctx, other)
			refused(t, "removal of the only member", err, "etcdserver: re-configuration failed due to not enough started members")
			continue
		}
		var removed *clientv3.MemberRemoveResponse
		f.Until("the member is removed", func() (err error) {
			removed, err = c.MemberRemove(ctx, other)
			if err != nil && strict {
				refused(t, "removing a member too soon", err, unhealthy)
				return err
			}
			must(t, err)
			return nil
		})
		if removed.Header.ClusterId != status.Header.ClusterId || len(removed.Members) != w.Members-1 ||
			slices.ContainsFunc(removed.Members, func(m *pb.Member) bool { return m.ID == other }) {
			t.Errorf("removed %x: %v", other, removed)
		}
	}
}

// doRefuseMember: where one of three members is away, another one cannot be
// taken away or added, which would leave no majority.
func doRefuseMember(t *testing.T, ctx context.Context, w *world) {
	f := w.fresh(t, "--strict-reconfig-check=true")
	gone := (f.Leader(ctx) + 1) % f.Members
	there := (gone + 1) % f.Members
	away := get[*clientv3.StatusResponse](t)(f.c.Status(ctx, f.Endpoints()[gone])).Header.MemberId
	c := f.one(t, there)
	f.Stop(gone)
	f.Leader(ctx)
	for _, m := range members(t, ctx, c) {
		if m.ID == away {
			continue
		}
		_, err := c.MemberRemove(ctx, m.ID)
		refused(t, "removal of one of two that are there", err, unhealthy)
	}
	_, err := c.MemberAdd(ctx, []string{w.absent()})
	refused(t, "a fourth voter beside two that are there", err, unhealthy)
	f.Until("the member that is away is removed", func() error {
		_, err := c.MemberRemove(ctx, away)
		return err
	})
	if n := len(members(t, ctx, c)); n != 2 {
		t.Errorf("%d members", n)
	}
}
