package commonapi

import (
	"context"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

func ofUsers() []behaviour {
	return []behaviour{
		{name: "new user", etcd: []string{"user_test.go/TestUserAdd_Simple", "user_test.go/TestUserAdd_DuplicateUserNotAllowed"}, run: doAddUser},
		{name: "list of users", etcd: []string{"user_test.go/TestUserList", "user_test.go/TestUserDelete"}, run: doListUsers},
		{name: "new password", etcd: []string{"user_test.go/TestUserChangePassword"}, run: doChangePassword},
		{name: "new role", etcd: []string{"role_test.go/TestRoleAdd_Simple", "role_test.go/TestRoleAdd_Error", "role_test.go/TestRoleDelete"}, run: doAddRole},
		{name: "role root", etcd: []string{"role_test.go/TestRootRole"}, run: doRootRole},
		{name: "permissions", etcd: []string{"role_test.go/TestRoleGrantRevokePermission"}, run: doPermissions},
	}
}

func doAddUser(t *testing.T, ctx context.Context, w *world) {
	for name, password := range map[string]string{"with": "a password", "without": ""} {
		_, err := w.c.UserAdd(ctx, name, password)
		must(t, err)
		_, err = w.c.UserAdd(ctx, name, password)
		refused(t, "the same user again", err, rpctypes.ErrUserAlreadyExist.Error())
	}
	_, err := w.c.UserAddWithOptions(ctx, "certified", "", &clientv3.UserAddOptions{NoPassword: true})
	must(t, err)
	_, err = w.c.UserAdd(ctx, "", "a password")
	refused(t, "a user without a name", err, "user name is empty")
}

func doListUsers(t *testing.T, ctx context.Context, w *world) {
	want := func(names ...string) {
		t.Helper()
		if got := get[*clientv3.AuthUserListResponse](t)(w.c.UserList(ctx)).Users; !slices.Equal(got, names) {
			t.Errorf("users %q, want %q", got, names)
		}
	}
	want()
	_, err := w.c.UserAdd(ctx, "somebody", "x")
	must(t, err)
	want("somebody")
	_, err = w.c.UserDelete(ctx, "somebody")
	must(t, err)
	want()
	_, err = w.c.UserDelete(ctx, "somebody")
	refused(t, "deletion of nobody", err, rpctypes.ErrUserNotFound.Error())
}

func doChangePassword(t *testing.T, ctx context.Context, w *world) {
	_, err := w.c.UserAdd(ctx, "somebody", "x")
	must(t, err)
	_, err = w.c.UserChangePassword(ctx, "somebody", "y")
	must(t, err)
	_, err = w.c.UserChangePassword(ctx, "nobody", "y")
	refused(t, "password of nobody", err, rpctypes.ErrUserNotFound.Error())
}

func doAddRole(t *testing.T, ctx context.Context, w *world) {
	for _, name := range []string{"some", "root"} {
		_, err := w.c.RoleAdd(ctx, name)
		must(t, err)
		_, err = w.c.RoleAdd(ctx, name)
		refused(t, "the same role again", err, rpctypes.ErrRoleAlreadyExist.Error())
	}
	_, err := w.c.RoleAdd(ctx, "")
	refused(t, "a role without a name", err, rpctypes.ErrRoleEmpty.Error())
	_, err = w.c.RoleDelete(ctx, "some")
	must(t, err)
	_, err = w.c.RoleGet(ctx, "some")
	refused(t, "a role that is gone", err, rpctypes.ErrRoleNotFound.Error())
}

func doRootRole(t *testing.T, ctx context.Context, w *world) {
	_, err := w.c.RoleAdd(ctx, "root")
	must(t, err)
	before := get[*clientv3.AuthRoleGetResponse](t)(w.c.RoleGet(ctx, "root"))
	_, err = w.c.RoleGrantPermission(ctx, "root", "foo", "", clientv3.PermissionType(clientv3.PermReadWrite))
	must(t, err)
	after := get[*clientv3.AuthRoleGetResponse](t)(w.c.RoleGet(ctx, "root"))
	if len(before.Perm) != 1 || len(after.Perm) != 1 || string(after.Perm[0].RangeEnd) != "\x00" || after.Perm[0].PermType != authpb.READWRITE {
		t.Errorf("before %v, after %v", before.Perm, after.Perm)
	}
}

func doPermissions(t *testing.T, ctx context.Context, w *world) {
	_, err := w.c.RoleAdd(ctx, "some")
	must(t, err)
	for _, p := range []struct {
		end  string
		kind authpb.Permission_Type
	}{{"", authpb.READ}, {"", authpb.WRITE}, {"bay", authpb.READWRITE}} {
		_, err = w.c.RoleGrantPermission(ctx, "some", "bar", p.end, clientv3.PermissionType(p.kind))
		must(t, err)
	}
	_, err = w.c.RoleRevokePermission(ctx, "some", "other", "")
	refused(t, "what was not granted", err, rpctypes.ErrPermissionNotGranted.Error())
	_, err = w.c.RoleRevokePermission(ctx, "some", "bar", "bay")
	must(t, err)
	r := get[*clientv3.AuthRoleGetResponse](t)(w.c.RoleGet(ctx, "some"))
	if len(r.Perm) != 1 || r.Perm[0].PermType != authpb.WRITE || len(r.Perm[0].RangeEnd) > 0 {
		t.Errorf("what is left: %v", r.Perm)
	}
}
