package auth

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/concord-kv/concord/kv"
)

// model is the tables, told as plainly as possible: nothing is kept that could
// be found out.
type model struct {
	enabled  bool
	revision uint64
	users    map[string]*modelUser
	roles    map[string][]kv.Permission // in the order in which they were granted, by key
}

type modelUser struct {
	hash       string
	noPassword bool
	roles      map[string]bool
	since      uint64
}

func newModel() *model {
	return &model{revision: 1, users: map[string]*modelUser{}, roles: map[string][]kv.Permission{}}
}

// change makes c, or says why not.
func (m *model) change(c *Change) error {
	counts, err := m.make(c)
	if counts && err == nil {
		m.revision++
		if u := m.users[c.Name]; u != nil && (c.Op == AddUser || c.Op == SetPassword) {
			u.since = m.revision
		}
	}
	return err
}

func (m *model) make(c *Change) (counts bool, err error) {
	u, hasUser := m.users[c.Name]
	_, hasRole := m.roles[c.Role]
	rooted := c.Name == "root" && m.enabled
	switch c.Op {
	case Enable:
		root := m.users["root"]
		switch {
		case m.enabled:
		case root == nil:
			return false, kv.ErrRootUserNotFound
		case !root.roles["root"]:
			return false, kv.ErrRootRoleNotGranted
		}
		m.enabled = true
	case Disable:
		was := m.enabled
		m.enabled = false
		return was, nil
	case AddUser:
		switch {
		case c.Name == "":
			return false, kv.ErrUserEmpty
		case hasUser:
			return false, kv.ErrUserExists
		}
		m.users[c.Name] = &modelUser{hash: c.Hash, noPassword: c.NoPassword, roles: map[string]bool{}}
		return true, nil
	case DeleteUser, SetPassword, GrantRole, RevokeRole:
		switch {
		case rooted && c.Op == DeleteUser, rooted && c.Op == RevokeRole && c.Role == "root":
			return false, kv.ErrInvalidAuthManagement
		case !hasUser:
			return false, kv.ErrUserNotFound
		case c.Op == DeleteUser:
			delete(m.users, c.Name)
		case c.Op == SetPassword:
			u.hash = c.Hash
		case c.Op == RevokeRole && !u.roles[c.Role]:
			return false, kv.ErrRoleNotGranted
		case c.Op == RevokeRole:
			delete(u.roles, c.Role)
		case c.Role != "root" && !hasRole:
			return false, kv.ErrRoleNotFound
		default:
			had := u.roles[c.Role]
			u.roles[c.Role] = true
			return !had, nil
		}
		return true, nil
	default:
		return m.makeRole(c, hasRole)
	}
	return false, nil
}

func (m *model) makeRole(c *Change, has bool) (counts bool, err error) {
	p := c.Permission
	switch {
	case c.Op == AddRole && c.Role == "":
		return false, kv.ErrRoleEmpty
	case c.Op == AddRole && has:
		return false, kv.ErrRoleExists
	case c.Op == AddRole:
		m.roles[c.Role] = nil
	case c.Op == DeleteRole && m.enabled && c.Role == "root":
		return false, kv.ErrInvalidAuthManagement
	case c.Op == GrantPermission && (len(p.Key) == 0 || len(p.End) > 0 && string(p.End) != "\x00" && string(p.End) <= string(p.Key)):
		return false, kv.ErrInvalidAuthManagement
	case !has:
		return false, kv.ErrRoleNotFound
	case c.Op == DeleteRole:
		delete(m.roles, c.Role)
		for _, u := range m.users {
			delete(u.roles, c.Role)
		}
	case c.Op == GrantPermission:
		list := m.roles[c.Role]
		first := slices.IndexFunc(list, func(q kv.Permission) bool { return bytes.Equal(q.Key, p.Key) })
		if first >= 0 && bytes.Equal(list[first].End, p.End) {
			list[first].Access = p.Access
			break
		}
		list = append(list, p)
		slices.SortStableFunc(list, func(a, b kv.Permission) int { return bytes.Compare(a.Key, b.Key) })
		m.roles[c.Role] = list
	default:
		before := len(m.roles[c.Role])
		m.roles[c.Role] = slices.DeleteFunc(m.roles[c.Role], func(q kv.Permission) bool {
			return bytes.Equal(q.Key, p.Key) && bytes.Equal(q.End, p.End)
		})
		if len(m.roles[c.Role]) == before {
			return false, kv.ErrPermissionNotGranted
		}
	}
	return true, nil
}

// infinity is behind all keys of the test.
const infinity = "\xff\xff\xff\xff"

// points are all places at which what is allowed can change, and one behind
// all.
func points() []string {
	out := []string{infinity}
	for _, k := range keys {
		out = append(out, k, k+"\x00")
	}
	return out
}

// may tells whether each single key in a range is allowed by some permission.
func (m *model) may(user string, a kv.Access, key, end string) bool {
	u := m.users[user]
	if u == nil || u.roles["root"] {
		return u != nil
	}
	for _, point := range append(points(), key) {
		if point != key && !kv.InRange([]byte(point), []byte(key), []byte(end)) {
			continue
		}
		allowed := false
		for name := range u.roles {
			for _, p := range m.roles[name] {
				allowed = allowed || (p.Access == a || p.Access == kv.ReadWriteAccess) && kv.InRange([]byte(point), p.Key, p.End)
			}
		}
		if !allowed {
			return false
		}
	}
	return true
}

var (
	names = []string{"root", "alice", "bob", ""}
	roles = []string{"root", "r1", "r2", "r3", ""}
	keys  = []string{"\x00", "a", "a\x00", "aa", "b", "bb", "c", "d"}
	ends  = append([]string{"", "\x00"}, keys...)
)

func drawChange(t *rapid.T) *Change {
	c := &Change{
		Op:         Op(rapid.IntRange(1, int(LastOp)).Draw(t, "op")),
		Name:       rapid.SampledFrom(names).Draw(t, "user"),
		Role:       rapid.SampledFrom(roles).Draw(t, "role"),
		Hash:       rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "hash"),
		NoPassword: rapid.Bool().Draw(t, "no password"),
		Permission: kv.Permission{
			Access: kv.Access(rapid.IntRange(0, 2).Draw(t, "access")),
			Key:    []byte(rapid.SampledFrom(append([]string{""}, keys...)).Draw(t, "key")),
			End:    []byte(rapid.SampledFrom(ends).Draw(t, "end")),
		},
	}
	switch c.Op { // the fields that the kind has not
	case AddUser, DeleteUser, SetPassword, Enable, Disable:
		c.Role = ""
	case AddRole, DeleteRole, GrantPermission, RevokePermission:
		c.Name = ""
	}
	return c
}

// Whatever is done, the tables and the model say the same.
func TestTablesMatchTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, tables := newModel(), New()
		history := []*Tables{}
		for range rapid.IntRange(1, 60).Draw(t, "changes") {
			c := drawChange(t)
			before, bytesBefore := tables, tables.Append(nil)
			next, err := tables.With(c)
			if want := m.change(c); !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Fatalf("change %+v: %v, want %v", c, err, want)
			}
			if err == nil {
				tables = next
			}
			if !bytes.Equal(before.Append(nil), bytesBefore) {
				t.Fatalf("change %+v changed the tables before it", c)
			}
			history = append(history, tables)
			compare(t, tables, m)
		}
		old := rapid.SampledFrom(history).Draw(t, "one of before")
		decoded, tokens, err := Decode(NewTokens().Append(old.Append(nil)), false)
		if err != nil || tokens.Len() != 0 || !bytes.Equal(decoded.Append(nil), old.Append(nil)) {
			t.Fatalf("tables do not survive their encoding: %v", err)
		}
		compareChecks(t, decoded, old)
	})
}

// compare compares everything that can be asked.
func compare(t *rapid.T, tables *Tables, m *model) {
	if tables.Enabled() != m.enabled || tables.Revision() != m.revision {
		t.Fatalf("enabled %v at %d, want %v at %d", tables.Enabled(), tables.Revision(), m.enabled, m.revision)
	}
	if got, want := tables.Users(), slices.Sorted(maps.Keys(m.users)); !slices.Equal(got, want) {
		t.Fatalf("users %q, want %q", got, want)
	}
	if got, want := tables.Roles(), slices.Sorted(maps.Keys(m.roles)); !slices.Equal(got, want) {
		t.Fatalf("roles %q, want %q", got, want)
	}
	for name, want := range m.users {
		if got, _ := tables.User(name); !slices.Equal(got.Roles, slices.Sorted(maps.Keys(want.roles))) || got.NoPassword != want.noPassword {
			t.Fatalf("user %q is %+v, want %+v", name, got, want)
		}
		hash, err := tables.Password(name)
		switch {
		case !m.enabled:
			if !errors.Is(err, kv.ErrAuthNotEnabled) {
				t.Fatalf("password while authentication is off: %v", err)
			}
		case want.noPassword:
			if !errors.Is(err, kv.ErrNoPasswordUser) {
				t.Fatalf("password of %q who has none: %v", name, err)
			}
		case err != nil || hash != want.hash:
			t.Fatalf("hash of %q is %q (%v), want %q", name, hash, err, want.hash)
		}
	}
	for name, want := range m.roles {
		got, _ := tables.Role(name)
		if name == "root" {
			want = []kv.Permission{{Access: kv.ReadWriteAccess, End: []byte{0}}}
		}
		if fmt.Sprint(got.Permissions) != fmt.Sprint(want) {
			t.Fatalf("role %q has %v, want %v", name, got.Permissions, want)
		}
	}
	for _, name := range names {
		key, end := rapid.SampledFrom(keys).Draw(t, "key asked"), rapid.SampledFrom(ends).Draw(t, "end asked")
		for _, access := range [...]kv.Access{kv.ReadAccess, kv.WriteAccess} {
			checkKeys(t, tables, m, asked{name, key, end, access})
		}
		checkRights(t, tables, m, name)
	}
}

// asked is a question about keys.
type asked struct {
	name, key, end string
	access         kv.Access
}

func checkKeys(t *rapid.T, tables *Tables, m *model, q asked) {
	name, access, key, end := q.name, q.access, q.key, q.end
	since := uint64(1)
	if u := m.users[name]; u != nil {
		since = u.since
	}
	for _, revision := range [...]uint64{0, since - 1, since, m.revision - 1, m.revision} {
		var want, wantStill error
		switch allowed := m.may(name, access, key, end); {
		case !m.enabled:
		case revision == 0 || name == "":
			want, wantStill = kv.ErrUserEmpty, kv.ErrUserEmpty
		default:
			if !allowed {
				want, wantStill = kv.ErrPermissionDenied, kv.ErrPermissionDenied
			}
			if revision < m.revision {
				want = kv.ErrAuthOldRevision
			}
			if revision < since {
				wantStill = kv.ErrInvalidAuthToken
			}
		}
		s := tables.Subject([]byte(name), revision)
		if got := s.Keys(access, []byte(key), []byte(end)); !errors.Is(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("%q at %d of %d may %v %q..%q: %v, want %v", name, revision, m.revision, access, key, end, got, want)
		}
		if got := s.Still(access, []byte(key), []byte(end)); !errors.Is(got, wantStill) || (got == nil) != (wantStill == nil) {
			t.Fatalf("%q at %d of %d may still %v %q..%q: %v, want %v", name, revision, m.revision, access, key, end, got, wantStill)
		}
		if s.Bound() && m.enabled && m.users[name] != nil && m.users[name].roles["root"] && revision == m.revision {
			t.Fatal("root is bound")
		}
		if !s.Bound() && want != nil {
			t.Fatalf("%q is not bound, but %v", name, want)
		}
	}
}

func checkRights(t *rapid.T, tables *Tables, m *model, name string) {
	u := m.users[name]
	for _, revision := range [...]uint64{1, m.revision} {
		var admin, anyUser error
		switch {
		case !m.enabled:
		case name == "":
			admin, anyUser = kv.ErrUserEmpty, kv.ErrUserEmpty
		case u == nil:
			admin = kv.ErrUserNotFound
			if revision < m.revision {
				anyUser = kv.ErrInvalidAuthToken
			}
		case revision < u.since:
			admin, anyUser = kv.ErrInvalidAuthToken, kv.ErrInvalidAuthToken
		case !u.roles["root"]:
			admin = kv.ErrPermissionDenied
		}
		s := tables.Subject([]byte(name), revision)
		for right, want := range map[kv.Right]error{kv.AnyUser: anyUser, kv.ManageCluster: admin, kv.ManageAuth: admin, kv.TakeBackup: admin} {
			if got := s.Right(right); !errors.Is(got, want) || (got == nil) != (want == nil) {
				t.Fatalf("right %d of %q at %d of %d: %v, want %v", right, name, revision, m.revision, got, want)
			}
		}
		if s.Root() != (admin == nil) {
			t.Fatalf("%q is root: %v", name, s.Root())
		}
		for _, other := range names {
			own := admin == nil || m.enabled && u != nil && revision >= u.since && other == name
			if got := s.AskUser(other); (got == nil) != own || got != nil && !errors.Is(got, admin) {
				t.Fatalf("%q asks about user %q: %v", name, other, got)
			}
		}
		for _, role := range roles {
			own := admin == nil || m.enabled && u != nil && revision >= u.since && u.roles[role]
			if got := s.AskRole(role); (got == nil) != own || got != nil && !errors.Is(got, admin) {
				t.Fatalf("%q asks about role %q: %v", name, role, got)
			}
		}
	}
}

// compareChecks compares what two tables allow.
func compareChecks(t *rapid.T, a, b *Tables) {
	for _, name := range names {
		for _, key := range keys {
			for _, end := range ends {
				x, y := a.Subject([]byte(name), a.Revision()), b.Subject([]byte(name), b.Revision())
				if x.Keys(kv.ReadAccess, []byte(key), []byte(end)) != y.Keys(kv.ReadAccess, []byte(key), []byte(end)) {
					t.Fatalf("after decoding %q reads %q..%q differently", name, key, end)
				}
			}
		}
	}
}
