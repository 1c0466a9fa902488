package authrules

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	etcd "go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.uber.org/zap"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

var (
	seed  = flag.Uint64("seed", 1, "of the first sequence")
	count = flag.Int("sequences", 40, "how many sequences of 250 changes")
)

// same says which of our errors stands for which of etcd's.
var same = map[error]error{
	nil:                          nil,
	etcd.ErrRootUserNotExist:     kv.ErrRootUserNotFound,
	etcd.ErrRootRoleNotExist:     kv.ErrRootRoleNotGranted,
	etcd.ErrUserAlreadyExist:     kv.ErrUserExists,
	etcd.ErrUserEmpty:            kv.ErrUserEmpty,
	etcd.ErrUserNotFound:         kv.ErrUserNotFound,
	etcd.ErrRoleAlreadyExist:     kv.ErrRoleExists,
	etcd.ErrRoleNotFound:         kv.ErrRoleNotFound,
	etcd.ErrRoleEmpty:            kv.ErrRoleEmpty,
	etcd.ErrPermissionDenied:     kv.ErrPermissionDenied,
	etcd.ErrRoleNotGranted:       kv.ErrRoleNotGranted,
	etcd.ErrPermissionNotGranted: kv.ErrPermissionNotGranted,
	etcd.ErrAuthOldRevision:      kv.ErrAuthOldRevision,
	etcd.ErrInvalidAuthMgmt:      kv.ErrInvalidAuthManagement,
}

func wantSame(t *testing.T, what string, ours, theirs error) {
	t.Helper()
	want, known := same[theirs]
	if !known {
		t.Fatalf("%s: etcd says %v, which stands for nothing of ours", what, theirs)
	}
	if !errors.Is(ours, want) || (ours == nil) != (want == nil) {
		t.Fatalf("%s: %v, etcd says %v", what, ours, theirs)
	}
}

// both is one sequence.
type both struct {
	*testing.T
	*rand.Rand
	theirs etcd.AuthStore
	ours   *auth.Tables
}

var (
	users = []string{"root", "alice", "bob", "carol", ""}
	roles = []string{"root", "r1", "r2", "r3", ""}
)

func (b *both) of(list []string) string { return list[b.IntN(len(list))] }

func (b *both) key() []byte {
	return []byte(b.of([]string{"a", "a\x00", "aa", "b", "c", "c\xff", "d", "\x00"}))
}

func (b *both) end() []byte {
	switch b.IntN(3) {
	case 0:
		return nil
	case 1:
		return []byte{0}
	}
	return b.key()
}

// change draws a change and makes it on both sides.
func (b *both) change() {
	c := &auth.Change{Op: auth.Op(1 + b.IntN(int(auth.LastOp))), Name: b.of(users), Role: b.of(roles), NoPassword: b.IntN(4) == 0}
	if c.Op == auth.Disable && b.IntN(4) > 0 {
		c.Op = auth.Enable
	}
	c.Permission = kv.Permission{Access: kv.Access(b.IntN(3)), Key: b.key(), End: b.end()}
	if b.IntN(20) == 0 {
		c.Permission.Key = nil
	}
	next, err := b.ours.With(c)
	if err == nil {
		b.ours = next
	}
	wantSame(b.T, fmt.Sprintf("%+v", *c), err, b.changeTheirs(c))
}

func (b *both) changeTheirs(c *auth.Change) (err error) {
	hash := base64.StdEncoding.EncodeToString([]byte("hash"))
	switch c.Op {
	case auth.Enable:
		return b.theirs.AuthEnable()
	case auth.Disable:
		b.theirs.AuthDisable()
	case auth.AddUser:
		_, err = b.theirs.UserAdd(&pb.AuthUserAddRequest{Name: c.Name, HashedPassword: hash, Options: &authpb.UserAddOptions{NoPassword: c.NoPassword}})
	case auth.DeleteUser:
		_, err = b.theirs.UserDelete(&pb.AuthUserDeleteRequest{Name: c.Name})
	case auth.SetPassword:
		_, err = b.theirs.UserChangePassword(&pb.AuthUserChangePasswordRequest{Name: c.Name, HashedPassword: hash})
	case auth.GrantRole:
		_, err = b.theirs.UserGrantRole(&pb.AuthUserGrantRoleRequest{User: c.Name, Role: c.Role})
	case auth.RevokeRole:
		_, err = b.theirs.UserRevokeRole(&pb.AuthUserRevokeRoleRequest{Name: c.Name, Role: c.Role})
	case auth.AddRole:
		_, err = b.theirs.RoleAdd(&pb.AuthRoleAddRequest{Name: c.Role})
	case auth.DeleteRole:
		_, err = b.theirs.RoleDelete(&pb.AuthRoleDeleteRequest{Role: c.Role})
	case auth.GrantPermission:
		_, err = b.theirs.RoleGrantPermission(&pb.AuthRoleGrantPermissionRequest{Name: c.Role, Perm: &authpb.Permission{
			PermType: authpb.Permission_Type(c.Permission.Access), Key: c.Permission.Key, RangeEnd: c.Permission.End,
		}})
	case auth.RevokePermission:
		_, err = b.theirs.RoleRevokePermission(&pb.AuthRoleRevokePermissionRequest{Role: c.Role, Key: c.Permission.Key, RangeEnd: c.Permission.End})
	}
	return err
}

// compare compares everything that can be listed.
func (b *both) compare() {
	b.Helper()
	if b.theirs.IsAuthEnabled() != b.ours.Enabled() || b.theirs.Revision() != b.ours.Revision() {
		b.Fatalf("enabled %v at %d, etcd %v at %d", b.ours.Enabled(), b.ours.Revision(), b.theirs.IsAuthEnabled(), b.theirs.Revision())
	}
	list, err := b.theirs.UserList(&pb.AuthUserListRequest{})
	if err != nil || !slices.Equal(list.Users, b.ours.Users()) {
		b.Fatalf("users %q, etcd %q (%v)", b.ours.Users(), list.GetUsers(), err)
	}
	for _, name := range users {
		ours, err := b.ours.User(name)
		theirs, theirErr := b.theirs.UserGet(&pb.AuthUserGetRequest{Name: name})
		wantSame(b.T, "user "+name, err, theirErr)
		if !slices.Equal(ours.Roles, theirs.GetRoles()) {
			b.Fatalf("roles of %q are %q, etcd %q", name, ours.Roles, theirs.GetRoles())
		}
	}
	names, err := b.theirs.RoleList(&pb.AuthRoleListRequest{})
	if err != nil || !slices.Equal(names.Roles, b.ours.Roles()) {
		b.Fatalf("roles %q, etcd %q (%v)", b.ours.Roles(), names.GetRoles(), err)
	}
	for _, name := range roles {
		ours, err := b.ours.Role(name)
		theirs, theirErr := b.theirs.RoleGet(&pb.AuthRoleGetRequest{Role: name})
		wantSame(b.T, "role "+name, err, theirErr)
		if !slices.EqualFunc(ours.Permissions, theirs.GetPerm(), func(p kv.Permission, q *authpb.Permission) bool {
			return int32(p.Access) == int32(q.PermType) && string(p.Key) == string(q.Key) && string(p.End) == string(q.RangeEnd)
		}) {
			b.Fatalf("role %q has %v, etcd %v", name, ours.Permissions, theirs.GetPerm())
		}
	}
}

// ask asks both what somebody may do.
func (b *both) ask() {
	b.Helper()
	name, revision := b.of(users[:4]), b.ours.Revision()
	if b.IntN(4) == 0 {
		revision = b.Uint64N(revision + 1)
	}
	info := &etcd.AuthInfo{Username: name, Revision: revision}
	s := b.ours.Subject([]byte(name), revision)
	key, end := b.key(), b.end()
	if len(end) > 1 && string(end) <= string(key) || len(end) == 1 && end[0] != 0 && string(end) <= string(key) {
		end = nil // a range without keys: what etcd says depends on the shape of its tree
	}
	what := fmt.Sprintf("%q at %d of %d, %q..%q", name, revision, b.ours.Revision(), key, end)
	wantSame(b.T, "read of "+what, s.Keys(kv.ReadAccess, key, end), b.theirs.IsRangePermitted(info, key, end))
	wantSame(b.T, "delete of "+what, s.Keys(kv.WriteAccess, key, end), b.theirs.IsDeleteRangePermitted(info, key, end))
	wantSame(b.T, "put of "+what, s.Keys(kv.WriteAccess, key, nil), b.theirs.IsPutPermitted(info, key))
	current := b.ours.Subject([]byte(name), b.ours.Revision()) // for others see auth.Subject.Right
	wantSame(b.T, "administration by "+what, current.Right(kv.ManageCluster), b.theirs.IsAdminPermitted(info))
	nobody := b.ours.Subject(nil, 0)
	wantSame(b.T, "read of nobody", nobody.Keys(kv.ReadAccess, key, end), b.theirs.IsRangePermitted(&etcd.AuthInfo{}, key, end))
	wantSame(b.T, "administration by nobody", nobody.Right(kv.ManageAuth), b.theirs.IsAdminPermitted(nil))
}

// Whatever is changed, both refuse and allow the same.
func TestRulesAreEtcds(t *testing.T) {
	lg := zap.NewNop()
	for n := range *count {
		cfg := backend.DefaultBackendConfig(lg)
		cfg.Path = t.TempDir() + "/db"
		cfg.UnsafeNoFsync = true
		be := backend.New(cfg)
		tokens, err := etcd.NewTokenProvider(lg, "", nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		s := *seed + uint64(n)
		b := &both{T: t, Rand: rand.New(rand.NewPCG(s, 1)), theirs: etcd.NewAuthStore(lg, schema.NewAuthBackend(lg, be), tokens, 4), ours: auth.New()}
		t.Logf("sequence %d", s)
		for range 250 {
			b.change()
			b.compare()
			for range 10 {
				b.ask()
			}
		}
		if err := be.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
