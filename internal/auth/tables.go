package auth

import (
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Tables are users, roles, access tokens and whether authentication is on. They never change:
// a change makes new ones, which share what stays. Any goroutine may use them.
type Tables struct {
	enabled  bool
	revision uint64
	users    []*user // by name
	roles    []*role // by name
	access   *accessList
}

type user struct {
	name, hash string
	noPassword bool
	roles      []string // in order
	// since is the auth revision at which the user was made or the password
	// changed last: proofs from before count no more.
	since uint64
	// grants is what the roles add up to.
	grants *grants
}

type role struct {
	name        string
	permissions []kv.Permission // by key
}

// New returns the tables of a fresh store, at revision 1 as in etcd.
func New() *Tables { return &Tables{revision: 1, access: newAccessList(nil)} }

// Enabled tells whether authentication is on.
func (t *Tables) Enabled() bool { return t.enabled }

// Revision counts the changes, from 1.
func (t *Tables) Revision() uint64 { return t.revision }

// search finds the user or role of that name in a list by name, or where it
// belongs.
func search[E *user | *role](list []E, name string, nameOf func(E) string) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(e E, name string) int {
		switch n := nameOf(e); {
		case n < name:
			return -1
		case n > name:
			return 1
		}
		return 0
	})
}

func userName(u *user) string { return u.name }
func roleName(r *role) string { return r.name }

// find returns a user, or nil. It does not use search, so that a name that is
// still a part of a command need not be copied.
func (t *Tables) find(name []byte) *user {
	low, high := 0, len(t.users)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if t.users[mid].name < string(name) {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(t.users) && t.users[low].name == string(name) {
		return t.users[low]
	}
	return nil
}

func (t *Tables) role(name string) *role {
	if at, ok := search(t.roles, name, roleName); ok {
		return t.roles[at]
	}
	return nil
}

// User returns a user, or [kv.ErrUserNotFound].
func (t *Tables) User(name string) (kv.User, error) {
	u := t.find([]byte(name))
	if u == nil {
		return kv.User{}, kv.ErrUserNotFound
	}
	return kv.User{Name: u.name, NoPassword: u.noPassword, Roles: slices.Clone(u.roles)}, nil
}

// Password returns the hash of a user's password, which is empty where none is
// right.
func (t *Tables) Password(name string) (hash string, err error) {
	switch u := t.find([]byte(name)); {
	case !t.enabled:
		return "", kv.ErrAuthNotEnabled
	case u == nil:
		return "", kv.ErrAuthFailed
	case u.noPassword:
		return "", kv.ErrNoPasswordUser
	default:
		return u.hash, nil
	}
}

// Users lists the names in order.
func (t *Tables) Users() []string {
	names := make([]string, len(t.users))
	for i, u := range t.users {
		names[i] = u.name
	}
	return names
}

// Role returns a role, or [kv.ErrRoleNotFound]. What was granted to the role
// root is not shown, as it has everything.
func (t *Tables) Role(name string) (kv.AuthRole, error) {
	r := t.role(name)
	if r == nil {
		return kv.AuthRole{}, kv.ErrRoleNotFound
	}
	out := kv.AuthRole{Name: r.name}
	if r.name == kv.RootName {
		out.Permissions = []kv.Permission{{Access: kv.ReadWriteAccess, Key: []byte{}, End: []byte{0}}}
		return out, nil
	}
	for _, p := range r.permissions {
		out.Permissions = append(out.Permissions, clonePermission(p))
	}
	return out, nil
}

// Roles lists the names in order.
func (t *Tables) Roles() []string {
	names := make([]string, len(t.roles))
	for i, r := range t.roles {
		names[i] = r.name
	}
	return names
}

func clonePermission(p kv.Permission) kv.Permission {
	p.Key, p.End = slices.Clone(p.Key), slices.Clone(p.End)
	return p
}
