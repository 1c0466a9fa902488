package clientv3

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/concord-kv/concord/compat/servers"
)

// TestAuth logs in with both kinds of tokens, on etcd, which shows that the
// program is right, and on Concord with one member and with three.
func TestAuth(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, server := range []struct {
		name    string
		members int
	}{{"etcd", 1}, {"concord", 1}, {"concord", 3}} {
		for kind, spec := range map[string]string{"simple": "simple", "jwt": "jwt,sign-method=HS256,ttl=2s,priv-key=" + key} {
			t.Run(fmt.Sprintf("%s%d %s", server.name, server.members, kind), func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
				defer cancel()
				useAuth(t, ctx, servers.Start(t, server.name, server.members, servers.AuthToken(spec)))
			})
		}
	}
}

// dialAs logs in.
func dialAs(t *testing.T, s *servers.Cluster, user, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{
		Endpoints: s.Endpoints, DialTimeout: patience, Logger: zap.NewNop(), Username: user, Password: password,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func useAuth(t *testing.T, ctx context.Context, s *servers.Cluster) {
	enableAuth(t, ctx, dial(t, s))
	root, alice := dialAs(t, s, "root", "secret"), dialAs(t, s, "alice", "pass")
	useRights(t, ctx, root, alice)
	useWatchRights(t, ctx, alice)
	// A token that is old, or has expired, is replaced by the client.
	for i := range 10 {
		must(t, errOf(root.RoleGrantPermission(ctx, "app", fmt.Sprint("more/", i), "", clientv3.PermissionType(clientv3.PermRead))))
		put(t, ctx, alice, "app/a", fmt.Sprint(i))
		select {
		case <-time.After(300 * time.Millisecond): // together more than the TTL
		case <-ctx.Done():
		}
	}
	// Whoever is not allowed any more, or does not know the password, is not let in.
	must(t, errOf(root.RoleRevokePermission(ctx, "app", "app/", "app0")))
	_, err := alice.Get(ctx, "app/a")
	wantError(t, "get after the permission was taken", err, rpctypes.ErrPermissionDenied)
	must(t, errOf(root.UserChangePassword(ctx, "alice", "other")))
	_, err = alice.Get(ctx, "app/a")
	wantError(t, "get after the password was changed", err, rpctypes.ErrAuthFailed)
	_, err = clientv3.New(clientv3.Config{Endpoints: s.Endpoints, DialTimeout: patience, Logger: zap.NewNop(), Username: "alice", Password: "pass"})
	wantError(t, "login with the old password", err, rpctypes.ErrAuthFailed)
	must(t, errOf(root.UserDelete(ctx, "alice")))
	must(t, errOf(root.AuthDisable(ctx)))
	put(t, ctx, dial(t, s), "app/a", "everybody")
}

// errOf leaves the error of an answer.
func errOf[T any](_ T, err error) error { return err }

func wantError(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) && (got == nil || got.Error() != want.Error()) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func enableAuth(t *testing.T, ctx context.Context, c *clientv3.Client) {
	t.Helper()
	for _, err := range []error{
		errOf(c.UserAdd(ctx, "root", "secret")), errOf(c.RoleAdd(ctx, "root")), errOf(c.UserGrantRole(ctx, "root", "root")),
		errOf(c.UserAdd(ctx, "alice", "pass")), errOf(c.RoleAdd(ctx, "app")), errOf(c.UserGrantRole(ctx, "alice", "app")),
		errOf(c.RoleGrantPermission(ctx, "app", "app/", "app0", clientv3.PermissionType(clientv3.PermReadWrite))),
		errOf(c.AuthEnable(ctx)),
	} {
		must(t, err)
	}
	_, err := c.Get(ctx, "app/a")
	wantError(t, "get of nobody", err, rpctypes.ErrUserEmpty)
	_, err = c.MemberList(ctx)
	wantError(t, "list of members for nobody", err, rpctypes.ErrUserEmpty)
}

func useRights(t *testing.T, ctx context.Context, root, alice *clientv3.Client) {
	put(t, ctx, root, "other", "x")
	put(t, ctx, alice, "app/a", "1")
	if v := value(t, ctx, alice, "app/a"); v != "1" {
		t.Errorf("value %q", v)
	}
	lease := get[*clientv3.LeaseGrantResponse](t)(alice.Grant(ctx, 100))
	put(t, ctx, alice, "app/leased", "1", clientv3.WithLease(lease.ID))
	get[*clientv3.LeaseKeepAliveResponse](t)(alice.KeepAliveOnce(ctx, lease.ID))
	must(t, errOf(alice.MemberList(ctx)))
	must(t, errOf(alice.Revoke(ctx, lease.ID)))
	roles := get[*clientv3.AuthUserGetResponse](t)(alice.UserGet(ctx, "alice")).Roles
	if len(roles) != 1 || roles[0] != "app" {
		t.Errorf("roles %v", roles)
	}
	_, put := alice.Put(ctx, "other", "y")
	_, all := alice.Get(ctx, "", clientv3.WithFromKey())
	_, txn := alice.Txn(ctx).Then(clientv3.OpPut("app/b", "1"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpDelete("other")}, nil)).Commit()
	_, compact := alice.Compact(ctx, 2)
	_, users := alice.UserList(ctx)
	_, member := alice.MemberRemove(ctx, 5)
	_, disable := alice.AuthDisable(ctx)
	for what, err := range map[string]error{
		"put": put, "get": all, "txn": txn, "compact": compact, "users": users, "member": member, "disable": disable,
	} {
		wantError(t, what, err, rpctypes.ErrPermissionDenied)
	}
}

// useWatchRights watches what may be read and what may not.
func useWatchRights(t *testing.T, ctx context.Context, alice *clientv3.Client) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := alice.Watch(ctx, "app/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := next(t, ctx, events); !r.Created || r.Err() != nil {
		t.Fatalf("instead of the created response: %+v", r)
	}
	put(t, ctx, alice, "app/w", "seen")
	if r := next(t, ctx, events); len(r.Events) != 1 || string(r.Events[0].Kv.Value) != "seen" {
		t.Fatalf("%+v", r)
	}
	r := next(t, ctx, alice.Watch(ctx, "other"))
	if !r.Canceled || r.Err() == nil {
		t.Fatalf("a watch of what may not be read: %+v", r)
	}
	wantError(t, "watch of what may not be read", r.Err(), rpctypes.ErrGRPCPermissionDenied)
}
