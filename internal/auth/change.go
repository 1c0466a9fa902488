package auth

import (
	"bytes"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Op is what is changed.
type Op uint8

// The changes.
const (
	Enable Op = iota + 1
	Disable
	AddUser          // uses Name, Hash, NoPassword
	DeleteUser       // Name
	SetPassword      // Name, Hash
	GrantRole        // Name (the user's), Role
	RevokeRole       // Name (the user's), Role
	AddRole          // Role
	DeleteRole       // Role
	GrantPermission  // Role, Permission
	RevokePermission // Role, Permission, whatever its access
)

// LastOp is the highest one.
const LastOp = RevokePermission

// Change is one change of the tables.
type Change struct {
	Op         Op
	Name, Role string
	// Hash is that of a password; none fits an empty one.
	Hash       string
	NoPassword bool
	Permission kv.Permission
}

// maxHash is the longest password hash.
const maxHash = 1 << 10

// With returns the tables with c made, which are the same when it changes
// nothing, or an error. Each kind of change counts for the revision that counts
// for etcd's: all but Enable.
func (t *Tables) With(c *Change) (*Tables, error) {
	if len(c.Name) > kv.MaxAuthName || len(c.Role) > kv.MaxAuthName {
		return nil, kv.ErrAuthNameTooLong
	}
	if len(c.Hash) > maxHash {
		return nil, kv.Errorf(kv.InvalidArgument, "a password hash of %d bytes is too long", len(c.Hash))
	}
	next := *t
	next.revision++
	switch c.Op {
	case Enable, Disable:
		return next.toggle(t, c.Op == Enable)
	case AddUser:
		return next.addUser(c)
	case DeleteUser, SetPassword, GrantRole, RevokeRole:
		return next.changeUser(t, c)
	case AddRole:
		return next.addRole(c.Role)
	case DeleteRole:
		return next.deleteRole(c.Role)
	case GrantPermission:
		if !validRange(&c.Permission) {
			return nil, kv.ErrInvalidAuthManagement
		}
		return next.changeRole(c.Role, func(list []kv.Permission) ([]kv.Permission, error) {
			return grant(list, clonePermission(c.Permission)), nil
		})
	case RevokePermission:
		return next.changeRole(c.Role, func(list []kv.Permission) ([]kv.Permission, error) {
			return revoke(list, &c.Permission)
		})
	}
	return nil, kv.Errorf(kv.InvalidArgument, "change %d of users and roles is unknown", c.Op)
}

func (t *Tables) toggle(old *Tables, on bool) (*Tables, error) {
	if old.enabled == on {
		return old, nil
	}
	if on {
		t.revision = old.revision
		switch root := t.find([]byte(kv.RootName)); {
		case t.rooted(nil):
		case root == nil:
			return nil, kv.ErrRootUserNotFound
		case !slices.Contains(root.roles, kv.RootName):
			return nil, kv.ErrRootRoleNotGranted
		}
	}
	t.enabled = on
	return t, nil
}

func (t *Tables) addUser(c *Change) (*Tables, error) {
	if c.Name == "" {
		return nil, kv.ErrUserEmpty
	}
	at, ok := search(t.users, c.Name, userName)
	if ok {
		return nil, kv.ErrUserExists
	}
	u := &user{name: c.Name, hash: c.Hash, noPassword: c.NoPassword, since: t.revision, grants: &grants{}}
	if u.noPassword {
		u.hash = ""
	}
	t.users = slices.Insert(slices.Clone(t.users), at, u)
	return t, nil
}

// changeUser changes or deletes one that exists.
func (t *Tables) changeUser(old *Tables, c *Change) (*Tables, error) {
	if t.enabled && c.Name == kv.RootName && (c.Op == DeleteUser || c.Op == RevokeRole && c.Role == kv.RootName) {
		return nil, kv.ErrInvalidAuthManagement
	}
	at, ok := search(t.users, c.Name, userName)
	if !ok {
		return nil, kv.ErrUserNotFound
	}
	t.users = slices.Clone(t.users)
	if c.Op == DeleteUser {
		t.users = slices.Delete(t.users, at, at+1)
		return t, nil
	}
	u := *t.users[at]
	t.users[at] = &u
	if c.Op == SetPassword {
		u.since = t.revision
		if !u.noPassword {
			u.hash = c.Hash
		}
		return t, nil
	}
	place, has := slices.BinarySearch(u.roles, c.Role)
	switch {
	case c.Op == RevokeRole && !has:
		return nil, kv.ErrRoleNotGranted
	case c.Op == RevokeRole:
		u.roles = slices.Delete(slices.Clone(u.roles), place, place+1)
	case c.Role != kv.RootName && t.role(c.Role) == nil:
		return nil, kv.ErrRoleNotFound
	case has:
		return old, nil
	default:
		u.roles = slices.Insert(slices.Clone(u.roles), place, c.Role)
	}
	u.grants = t.merge(u.roles, nil)
	return t, nil
}

func (t *Tables) addRole(name string) (*Tables, error) {
	if name == "" {
		return nil, kv.ErrRoleEmpty
	}
	at, ok := search(t.roles, name, roleName)
	if ok {
		return nil, kv.ErrRoleExists
	}
	t.roles = slices.Insert(slices.Clone(t.roles), at, &role{name: name})
	// Nobody has it: a role that is deleted is taken from everybody.
	return t, nil
}

func (t *Tables) deleteRole(name string) (*Tables, error) {
	if t.enabled && name == kv.RootName {
		return nil, kv.ErrInvalidAuthManagement
	}
	at, ok := search(t.roles, name, roleName)
	if !ok {
		return nil, kv.ErrRoleNotFound
	}
	t.roles = slices.Delete(slices.Clone(t.roles), at, at+1)
	t.remerge(name, true)
	return t, nil
}

func (t *Tables) changeRole(name string, change func([]kv.Permission) ([]kv.Permission, error)) (*Tables, error) {
	at, ok := search(t.roles, name, roleName)
	if !ok {
		return nil, kv.ErrRoleNotFound
	}
	list, err := change(slices.Clone(t.roles[at].permissions))
	if err != nil {
		return nil, err
	}
	t.roles = slices.Clone(t.roles)
	t.roles[at] = &role{name: name, permissions: list}
	t.remerge(name, false)
	return t, nil
}

// remerge adds up anew what users and access tokens with that role may do, after
// taking it from them when it is gone.
func (t *Tables) remerge(changed string, gone bool) {
	same := shared{}
	users := slices.Clone(t.users)
	for i, old := range users {
		if u := old.without(changed, gone); u != nil {
			u.grants = same.merge(t, u.roles)
			users[i] = u
		}
	}
	t.users = users
	all := slices.Clone(t.access.all)
	for i, old := range all {
		if u := old.without(changed, gone); u != nil {
			u.grants = t.merge(u.roles, old.own)
			a := *old
			a.user = u
			all[i] = &a
		}
	}
	t.access = newAccessList(all)
}

// without returns a copy of somebody who has a role, less that role when it is
// gone; nil for others.
func (u *user) without(role string, gone bool) *user {
	at, has := slices.BinarySearch(u.roles, role)
	if !has {
		return nil
	}
	next := *u
	if gone {
		next.roles = slices.Delete(slices.Clone(u.roles), at, at+1)
	}
	return &next
}

// validRange refuses permissions without keys, and kinds of access that are not
// known.
func validRange(p *kv.Permission) bool {
	return p.Access <= kv.ReadWriteAccess && len(p.Key) > 0 &&
		(len(p.End) == 0 || kv.FromKey(p.End) || bytes.Compare(p.Key, p.End) < 0)
}

// grant adds p to a list by key. As in etcd, only the first permission with p's
// key is looked at for one that p replaces (server/auth/store.go,
// RoleGrantPermission): where several have that key, p may come to stand beside
// one for the same range, and what both allow is allowed.
func grant(list []kv.Permission, p kv.Permission) []kv.Permission {
	at, _ := slices.BinarySearchFunc(list, p.Key, func(q kv.Permission, key []byte) int { return bytes.Compare(q.Key, key) })
	if at < len(list) && sameRange(&list[at], &p) {
		list[at].Access = p.Access
		return list
	}
	for at < len(list) && bytes.Equal(list[at].Key, p.Key) {
		at++
	}
	return slices.Insert(list, at, p)
}

func revoke(list []kv.Permission, p *kv.Permission) ([]kv.Permission, error) {
	before := len(list)
	list = slices.DeleteFunc(list, func(q kv.Permission) bool { return sameRange(&q, p) })
	if len(list) == before {
		return nil, kv.ErrPermissionNotGranted
	}
	return list, nil
}

func sameRange(a, b *kv.Permission) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.End, b.End)
}
