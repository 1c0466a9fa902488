package commonapi

import (
	"context"
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/concord-kv/concord/compat/processes"
)

// What etcd says.
const (
	denied   = "etcdserver: permission denied"
	failed   = "etcdserver: authentication failed, invalid user ID or password"
	nameless = "etcdserver: user name is empty"
)

func ofRights() (all []behaviour) {
	for _, b := range []behaviour{
		{name: "authentication", etcd: []string{"auth_test.go/TestAuthEnable", "auth_test.go/TestAuthStatus"}, run: doAuthStatus},
		{name: "authentication switched off", etcd: []string{"auth_test.go/TestAuthDisable"}, run: doDisable},
		{name: "authentication switched off while one watches", etcd: []string{"auth_test.go/TestAuthGracefulDisable"}, run: doDisableWatched},
		{name: "role that changes", etcd: []string{"auth_test.go/TestAuthRoleUpdate"}, run: doChangeRole},
		{name: "user who is deleted", etcd: []string{"auth_test.go/TestAuthUserDeleteDuringOps"}, run: doDeleteUser},
		{name: "role that is revoked", etcd: []string{"auth_test.go/TestAuthRoleRevokeDuringOps"}, run: doRevokeRole},
		{name: "rights to a key", etcd: []string{"auth_test.go/TestAuthWriteKey"}, run: doWriteKey},
		{name: "rights to a transaction", etcd: []string{"auth_test.go/TestAuthTxn"}, run: doTxnRights},
		{name: "rights to a prefix", etcd: []string{"auth_test.go/TestAuthPrefixPerm"}, run: doPrefix},
		{name: "role that is deleted", etcd: []string{"auth_test.go/TestAuthRevokeWithDelete"}, run: doDeleteRole},
		{name: "lease of root", etcd: []string{"auth_test.go/TestAuthLeaseKeepAlive", "auth_test.go/TestAuthLeaseTimeToLiveExpired", "auth_test.go/TestAuthLeaseRevoke"}, run: doRootLease},
		{name: "right to grant", etcd: []string{"auth_test.go/TestAuthLeaseGrantLeases"}, run: doGrantRight},
		{name: "rights to leases", etcd: []string{"auth_test.go/TestAuthLeaseLeases"}, run: doLeasesRight},
		{name: "rights to the time of a lease", etcd: []string{"auth_test.go/TestAuthLeaseTimeToLive"}, run: doTimeToLiveRight},
		{name: "right to the members", etcd: []string{"auth_test.go/TestAuthMemberList"}, run: doMembersRight},
		{name: "right to change members", etcd: []string{"auth_test.go/TestAuthMemberAdd", "auth_test.go/TestAuthMemberRemove"}, run: doMemberRights},
		{name: "right to compact", etcd: []string{"auth_test.go/TestAuthCompact"}, run: doCompactRight},
		{name: "root stays root", etcd: []string{"auth_test.go/TestAuthTestInvalidMgmt"}, run: doInvalid},
		{name: "right to see users and roles", etcd: []string{"auth_test.go/TestAuthRoleGet", "auth_test.go/TestAuthUserGet", "auth_test.go/TestAuthRoleList"}, run: doSee},
		{name: "right to alarms", etcd: []string{"auth_test.go/TestAuthAlarm"}, run: doAlarmRight},
	} {
		b.tokens = true
		all = append(all, b)
	}
	return all
}

// guard makes root, and a user with a role that may read and write the key foo,
// switches authentication on, and returns a client of each. It ends with the
// test.
func (w *world) guard(t *testing.T, ctx context.Context) (root, user *clientv3.Client) {
	t.Helper()
	for _, name := range []string{"root", "user"} {
		_, err := w.c.UserAdd(ctx, name, "of "+name)
		must(t, err)
		_, err = w.c.RoleAdd(ctx, name)
		must(t, err)
		_, err = w.c.UserGrantRole(ctx, name, name)
		must(t, err)
	}
	w.permit(t, ctx, w.c, "foo", "")
	_, err := w.c.AuthEnable(ctx)
	must(t, err)
	w.untilAuth(t, ctx, true)
	root, user = w.as(t, "root"), w.as(t, "user")
	t.Cleanup(func() {
		if _, err := w.as(t, "root", 0).AuthDisable(context.Background()); err != nil {
			t.Error("switch authentication off:", err)
		}
	})
	return root, user
}

// as is a client of somebody.
func (w *world) as(t *testing.T, name string, members ...int) *clientv3.Client {
	t.Helper()
	return w.Client(t, func(c *clientv3.Config) { c.Username, c.Password = name, "of "+name }, members...)
}

// permit lets the user read and write keys.
func (w *world) permit(t *testing.T, ctx context.Context, c *clientv3.Client, key, end string) {
	t.Helper()
	_, err := c.RoleGrantPermission(ctx, "user", key, end, clientv3.PermissionType(clientv3.PermReadWrite))
	must(t, err)
}

// wantDenied fails unless a put is refused.
func wantDenied(t *testing.T, ctx context.Context, c *clientv3.Client, key string) {
	t.Helper()
	_, err := c.Put(ctx, key, "x")
	refused(t, "put of "+key, err, denied)
}

// nobody fails unless a call of nobody was refused. Whoever shows a certificate
// without a name is a user without a name for etcd, who may do what any user may.
func (w *world) nobody(t *testing.T, what string, err error) {
	t.Helper()
	if w.Server == processes.Concord || w.Security != processes.TLS {
		refused(t, what+" by nobody", err, nameless)
	}
}

func doAuthStatus(t *testing.T, ctx context.Context, w *world) {
	if r := get[*clientv3.AuthStatusResponse](t)(w.c.AuthStatus(ctx)); r.Enabled {
		t.Error("authentication is on")
	}
	root, _ := w.guard(t, ctx)
	for _, c := range []*clientv3.Client{root, w.c} {
		if r := get[*clientv3.AuthStatusResponse](t)(c.AuthStatus(ctx)); !r.Enabled || r.AuthRevision < 5 {
			t.Errorf("authentication is not on: %v", r)
		}
	}
}

func doDisable(t *testing.T, ctx context.Context, w *world) {
	put(t, ctx, w.c, "other", "1")
	root, user := w.guard(t, ctx)
	wantDenied(t, ctx, user, "other")
	_, err := root.AuthDisable(ctx)
	must(t, err)
	w.untilAuth(t, ctx, false)
	put(t, ctx, user, "other", "2")
	put(t, ctx, user, "other", "3")
	wantValue(t, ctx, w.c, "other", "3")
	_, err = w.c.AuthEnable(ctx) // for the end of the test
	must(t, err)
}

// doDisableWatched: a watch that began with a token finds its way back to a
// member that was started again while authentication is off.
func doDisableWatched(t *testing.T, ctx context.Context, w *world) {
	if w.Server == processes.Etcd && w.Members > 1 {
		return // etcd tries one, and of three may end the watch because the leader has changed
	}
	root, _ := w.guard(t, ctx)
	from := put(t, ctx, root, "foo", "before").Header.Revision
	watch := root.Watch(ctx, "foo", clientv3.WithRev(from))
	seen := func(want string) {
		t.Helper()
		for {
			r, ok := <-watch
			if !ok || r.Err() != nil {
				t.Fatalf("waiting for %s: %v", want, r.Err())
			}
			for _, e := range r.Events {
				if string(e.Kv.Value) == want {
					return
				}
			}
		}
	}
	seen("before")
	_, err := root.AuthDisable(ctx)
	must(t, err)
	for i := range w.Members {
		w.Stop(i)
		w.Start(i)
	}
	w.Until("a put after the restart", func() error {
		_, err := root.Put(ctx, "foo", "after")
		return err
	})
	seen("after")
	_, err = w.c.AuthEnable(ctx) // for the end of the test
	must(t, err)
}

func doChangeRole(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	put(t, ctx, user, "foo", "1")
	wantDenied(t, ctx, user, "hoo")
	w.permit(t, ctx, root, "hoo", "")
	put(t, ctx, user, "hoo", "2")
	wantValue(t, ctx, user, "hoo", "2")
	_, err := root.RoleRevokePermission(ctx, "user", "hoo", "")
	must(t, err)
	wantDenied(t, ctx, user, "hoo")
	wantValue(t, ctx, user, "foo", "1")
}

func doDeleteUser(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	put(t, ctx, user, "foo", "1")
	_, err := root.UserDelete(ctx, "user")
	must(t, err)
	_, err = user.Put(ctx, "foo", "2")
	refused(t, "put of a user who is gone", err, failed)
}

func doRevokeRole(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	put(t, ctx, user, "foo", "1")
	_, err := root.RoleAdd(ctx, "second")
	must(t, err)
	_, err = root.RoleGrantPermission(ctx, "second", "hoo", "", clientv3.PermissionType(clientv3.PermReadWrite))
	must(t, err)
	_, err = root.UserGrantRole(ctx, "user", "second")
	must(t, err)
	put(t, ctx, user, "hoo", "2")
	wantValue(t, ctx, user, "hoo", "2")
	_, err = root.UserRevokeRole(ctx, "user", "user")
	must(t, err)
	wantDenied(t, ctx, user, "foo")
	put(t, ctx, user, "hoo", "3")
	wantValue(t, ctx, user, "hoo", "3")
}

func doWriteKey(t *testing.T, ctx context.Context, w *world) {
	put(t, ctx, w.c, "foo", "1")
	root, user := w.guard(t, ctx)
	put(t, ctx, root, "foo", "2")
	wantValue(t, ctx, root, "foo", "2")
	put(t, ctx, user, "foo", "3")
	wantValue(t, ctx, user, "foo", "3")
	for name, password := range map[string]string{"nobody": "x", "user": "x", "root": ""} {
		c, err := w.TryClient(t, func(c *clientv3.Config) { c.Username, c.Password = name, password })
		if err == nil { // without a password it does not try
			_, err = c.Get(ctx, "foo")
			w.nobody(t, "get of "+name, err)
			continue
		}
		refused(t, "login of "+name, err, failed)
	}
}

func doTxnRights(t *testing.T, ctx context.Context, w *world) {
	for _, key := range []string{"c1", "s1", "f1", "c2", "s2", "f2"} {
		put(t, ctx, w.c, key, "v")
	}
	root, user := w.guard(t, ctx)
	for _, key := range []string{"c2", "s2", "f2"} {
		w.permit(t, ctx, root, key, "")
	}
	for _, keys := range [][3]string{{"c2", "s2", "f2"}, {"c1", "s2", "f2"}, {"c2", "s1", "f2"}, {"c2", "s2", "f1"}} {
		r, err := user.Txn(ctx).If(clientv3.Compare(clientv3.Version(keys[0]), "=", 1)).Then(clientv3.OpGet(keys[1])).Else(clientv3.OpGet(keys[2])).Commit()
		if keys != [3]string{"c2", "s2", "f2"} {
			refused(t, fmt.Sprint("transaction over ", keys), err, denied)
		} else if must(t, err); said(r) != "true s2=v" {
			t.Errorf("%s", said(r))
		}
	}
}

func doPrefix(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	for _, prefix := range []string{"/a/", "/ab/"} {
		end := clientv3.GetPrefixRangeEnd(prefix)
		w.permit(t, ctx, root, prefix, end)
		for i := range 5 {
			put(t, ctx, user, fmt.Sprint(prefix, i), "x")
		}
		wantDenied(t, ctx, user, end)
	}
}

func doDeleteRole(t *testing.T, ctx context.Context, w *world) {
	root, _ := w.guard(t, ctx)
	roles := func(want ...string) {
		t.Helper()
		if got := get[*clientv3.AuthUserGetResponse](t)(root.UserGet(ctx, "user")).Roles; !slices.Equal(got, want) {
			t.Errorf("roles %q, want %q", got, want)
		}
	}
	_, err := root.RoleAdd(ctx, "second")
	must(t, err)
	_, err = root.UserGrantRole(ctx, "user", "second")
	must(t, err)
	roles("second", "user")
	_, err = root.RoleDelete(ctx, "second")
	must(t, err)
	roles("user")
}

// doRootLease: leases live and end while authentication is on.
func doRootLease(t *testing.T, ctx context.Context, w *world) {
	root, _ := w.guard(t, ctx)
	kept := grant(t, ctx, root, 600)
	put(t, ctx, root, "kept", "x", clientv3.WithLease(kept))
	_, err := root.KeepAliveOnce(ctx, kept)
	must(t, err)
	wantValue(t, ctx, root, "kept", "x")
	short := grant(t, ctx, root, 2)
	put(t, ctx, root, "short", "x", clientv3.WithLease(short))
	wantOver(t, ctx, w, root, short, "short")
	_, err = w.c.Revoke(ctx, kept)
	w.nobody(t, "revocation", err)
	_, err = root.Revoke(ctx, kept)
	must(t, err)
	wantOver(t, ctx, w, root, kept, "kept")
}

// wantLeases waits until somebody sees so many leases.
func wantLeases(t *testing.T, ctx context.Context, w *world, c *clientv3.Client, n int) {
	t.Helper()
	w.Until(fmt.Sprint(n, " leases are listed"), func() error {
		if r, err := c.Leases(ctx); err != nil || len(r.Leases) != n {
			return fmt.Errorf("%v, %w", r, err)
		}
		return nil
	})
}

func doGrantRight(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	grant(t, ctx, root, 600)
	wantLeases(t, ctx, w, root, 1)
	_, err := w.c.Grant(ctx, 600)
	w.nobody(t, "grant", err)
	grant(t, ctx, user, 600)
}

func doLeasesRight(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	for _, key := range []string{"foo", "hoo"} {
		put(t, ctx, root, key, "x", clientv3.WithLease(grant(t, ctx, root, 600)))
	}
	wantLeases(t, ctx, w, root, 2)
	for i := range w.Members { // has applied the puts
		_, err := w.as(t, "root", i).Get(ctx, "x")
		must(t, err)
	}
	_, err := user.Leases(ctx)
	refused(t, "leases with a key that the user may not read", err, denied)
	_, err = w.c.Leases(ctx)
	w.nobody(t, "leases", err)
	r := get[*clientv3.GetResponse](t)(root.Get(ctx, "hoo"))
	_, err = root.Revoke(ctx, clientv3.LeaseID(r.Kvs[0].Lease))
	must(t, err)
	wantLeases(t, ctx, w, user, 1)
}

func doTimeToLiveRight(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	id := grant(t, ctx, user, 600)
	put(t, ctx, user, "foo", "x", clientv3.WithLease(id))
	r := get[*clientv3.LeaseTimeToLiveResponse](t)(user.TimeToLive(ctx, id, clientv3.WithAttachedKeys()))
	if len(r.Keys) != 1 || string(r.Keys[0]) != "foo" {
		t.Errorf("keys %q", r.Keys)
	}
	for _, opts := range [][]clientv3.LeaseOption{nil, {clientv3.WithAttachedKeys()}} {
		_, err := w.c.TimeToLive(ctx, id, opts...)
		w.nobody(t, "time of a lease", err)
	}
	put(t, ctx, root, "hoo", "x", clientv3.WithLease(id))
	_, err := user.TimeToLive(ctx, id, clientv3.WithAttachedKeys())
	refused(t, "a lease with a key that the user may not read", err, denied)
	if s := left(t, ctx, user, id); s <= 0 {
		t.Errorf("%d s are left", s)
	}
}

func doMembersRight(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	for _, c := range []*clientv3.Client{root, user} {
		if n := len(members(t, ctx, c)); n != w.Members {
			t.Errorf("%d members", n)
		}
	}
	_, err := w.c.MemberList(ctx)
	w.nobody(t, "members", err)
}

func doMemberRights(t *testing.T, ctx context.Context, w *world) {
	f := w.fresh(t, "--strict-reconfig-check=false")
	root, user := f.guard(t, ctx)
	if f.Members > 1 {
		here := get[*clientv3.StatusResponse](t)(root.Status(ctx, f.Endpoints()[0])).Header.MemberId
		list := members(t, ctx, root)
		at := slices.IndexFunc(list, func(m *pb.Member) bool { return m.ID != here })
		_, err := user.MemberRemove(ctx, list[at].ID)
		refused(t, "removal by a user", err, denied)
		r := get[*clientv3.MemberRemoveResponse](t)(f.as(t, "root", 0).MemberRemove(ctx, list[at].ID))
		if len(r.Members) != f.Members-1 {
			t.Errorf("members %v", r.Members)
		}
		return
	}
	_, err := user.MemberAdd(ctx, []string{w.absent()})
	refused(t, "a member added by a user", err, denied)
	_, err = root.MemberAddAsLearner(ctx, []string{w.absent()}) // a voter would stop everything
	must(t, err)
}

func doCompactRight(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	rev := put(t, ctx, root, "foo", "1").Header.Revision
	_, err := user.Compact(ctx, rev, clientv3.WithCompactPhysical())
	refused(t, "compaction by a user", err, denied)
	_, err = root.Compact(ctx, rev, clientv3.WithCompactPhysical())
	must(t, err)
}

func doInvalid(t *testing.T, ctx context.Context, w *world) {
	root, _ := w.guard(t, ctx)
	_, err := root.UserDelete(ctx, "root")
	refused(t, "deletion of root", err, rpctypes.ErrInvalidAuthMgmt.Error())
	_, err = root.UserRevokeRole(ctx, "root", "root")
	refused(t, "root without its role", err, rpctypes.ErrInvalidAuthMgmt.Error())
}

func doSee(t *testing.T, ctx context.Context, w *world) {
	root, user := w.guard(t, ctx)
	for _, c := range []*clientv3.Client{root, user} {
		role := get[*clientv3.AuthRoleGetResponse](t)(c.RoleGet(ctx, "user"))
		if len(role.Perm) != 1 || string(role.Perm[0].Key) != "foo" || role.Perm[0].PermType != clientv3.PermReadWrite {
			t.Errorf("%v", role.Perm)
		}
		if roles := get[*clientv3.AuthUserGetResponse](t)(c.UserGet(ctx, "user")).Roles; !slices.Equal(roles, []string{"user"}) {
			t.Errorf("roles %q", roles)
		}
	}
	_, err := user.RoleGet(ctx, "root")
	refused(t, "another role", err, denied)
	_, err = user.UserGet(ctx, "root")
	refused(t, "another user", err, denied)
	if roles := get[*clientv3.AuthRoleListResponse](t)(root.RoleList(ctx)).Roles; !slices.Equal(roles, []string{"root", "user"}) {
		t.Errorf("roles %q", roles)
	}
}

func doAlarmRight(t *testing.T, ctx context.Context, w *world) {
	f := w.fresh(t, "--quota-backend-bytes=65536")
	root, user := f.guard(t, ctx)
	refused(t, "filling the store", filled(ctx, root), noSpace)
	var alarm *pb.AlarmMember
	f.Until("there is an alarm", func() error {
		r, err := root.AlarmList(ctx)
		if err != nil || len(r.Alarms) == 0 {
			return fmt.Errorf("%v, %w", r, err)
		}
		alarm = r.Alarms[0]
		return nil
	})
	_, err := f.c.AlarmList(ctx)
	w.nobody(t, "alarms", err)
	_, err = user.AlarmList(ctx)
	must(t, err)
	disarm := (*clientv3.AlarmMember)(alarm)
	_, err = user.AlarmDisarm(ctx, disarm)
	refused(t, "an alarm disarmed by a user", err, denied)
	if r := get[*clientv3.AlarmResponse](t)(root.AlarmDisarm(ctx, disarm)); len(r.Alarms) != 1 || r.Alarms[0].MemberID != alarm.MemberID {
		t.Errorf("disarmed %v, not %v", r.Alarms, alarm)
	}
}
