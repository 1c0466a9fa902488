package auth

import (
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"unicode/utf8"

	"github.com/concord-kv/concord/kv"
)

// access is an access token. It stands in the tables as a user does, among
// others, and its changes do not count for the revision: nobody has to log in
// again because a program got a token.
type access struct {
	id      kv.TokenID
	created kv.Time
	expires kv.Time // 0 is never
	own     []kv.Permission
	// user has its roles, and what they and own add up to.
	*user
	label string // the name it was given
	// used is the hour in which this member saw it last, since 1970. It is no
	// part of the state, and moves on to the tables that follow.
	used *atomic.Int64
}

// accessList is the access tokens, in the order of their ids.
type accessList struct {
	all []*access
	// marks are those of all: a look-up stays in few cache lines.
	marks []uint64
	// next is when the first of them expires; math.MaxInt64 for never.
	next kv.Time
}

func newAccessList(all []*access) *accessList {
	l := &accessList{all: all, marks: make([]uint64, len(all)), next: math.MaxInt64}
	for i, a := range all {
		l.marks[i] = a.id.Mark()
		if a.expires != 0 {
			l.next = min(l.next, a.expires)
		}
	}
	return l
}

// marked returns the access token with that mark, or nil.
func (t *Tables) marked(mark uint64) *access {
	if at, ok := slices.BinarySearch(t.access.marks, mark); ok {
		return t.access.all[at]
	}
	return nil
}

// AccessID returns the id of the access token with that mark.
func (t *Tables) AccessID(mark uint64) (id kv.TokenID, ok bool) {
	a := t.marked(mark)
	if a == nil {
		return id, false
	}
	return a.id, true
}

func (t *Tables) accessOf(id kv.TokenID) *access {
	if a := t.marked(id.Mark()); a != nil && a.id == id {
		return a
	}
	return nil
}

// Access returns who an access token is. It is good for as long as the tables
// have it, and notes that it was used in that hour. Whether authentication is on
// makes no difference.
func (t *Tables) Access(id kv.TokenID, hour int64) (c kv.Caller, ok bool) {
	a := t.accessOf(id)
	if a == nil {
		return c, false
	}
	if a.used.Load() < hour {
		a.used.Store(hour)
	}
	return kv.Caller{User: a.name, Token: id.Mark()}, true
}

// byAccess looks up a caller who has shown the access token with that mark.
func (t *Tables) byAccess(name []byte, mark uint64) Subject {
	s := Subject{tables: t, named: true, gone: true}
	if a := t.marked(mark); a != nil && a.name == string(name) {
		s.user, s.access, s.revision, s.gone = a.user, a, t.revision, false
	}
	return s
}

// NextExpiry is when the next access token expires, math.MaxInt64 where none
// does.
func (t *Tables) NextExpiry() kv.Time { return t.access.next }

// builtIn are the roles that an access token can have though nobody has made
// them.
var builtIn = map[string]kv.Right{
	kv.ClusterRole:   kv.ManageCluster,
	kv.AuthAdminRole: kv.ManageAuth,
	kv.BackupRole:    kv.TakeBackup,
	kv.TelemetryRole: kv.ReadTelemetry,
}

// Create returns the tables with one more access token, of which LastUsed does
// not matter, or an error.
func (t *Tables) Create(n *kv.AccessToken) (*Tables, error) {
	if err := checkID(n.ID); err != nil {
		return nil, err
	}
	if t.marked(n.ID.Mark()) != nil || n.Name != "" && t.labelled(n.Name) {
		return nil, kv.ErrTokenExists
	}
	if len(t.access.all) >= kv.MaxAccessTokens {
		return nil, kv.ErrTooManyTokens
	}
	if err := checkLabel(n.Name); err != nil {
		return nil, err
	}
	roles := slices.Clone(n.Roles)
	slices.Sort(roles)
	roles = slices.Compact(roles)
	size := len(n.Name)
	for _, name := range roles {
		size += len(name)
		if !t.grantable(name) {
			return nil, kv.ErrRoleNotFound
		}
	}
	var own []kv.Permission
	for i := range n.Permissions {
		p := &n.Permissions[i]
		if !validRange(p) {
			return nil, kv.ErrInvalidAuthManagement
		}
		size += len(p.Key) + len(p.End)
		own = grant(own, clonePermission(*p))
	}
	if len(roles)+len(n.Permissions) > kv.MaxTokenRights || size > kv.MaxTokenBytes {
		return nil, kv.Errorf(kv.InvalidArgument, "an access token can have %d roles and permissions of %d bytes in all; make a role of them", kv.MaxTokenRights, kv.MaxTokenBytes)
	}
	a := newAccess(n, roles, own)
	a.grants = t.merge(roles, own)
	at, _ := slices.BinarySearch(t.access.marks, n.ID.Mark())
	next := *t
	next.access = newAccessList(slices.Insert(slices.Clone(t.access.all), at, a))
	return &next, nil
}

// newAccess makes one that lacks its grants.
func newAccess(n *kv.AccessToken, roles []string, own []kv.Permission) *access {
	u := &user{name: kv.TokenUser(n.ID, n.Name), roles: roles}
	return &access{id: n.ID, label: n.Name, user: u, own: own, created: n.Created, expires: n.Expires, used: new(atomic.Int64)}
}

// checkID refuses what stands for no token where a mark does.
func checkID(id kv.TokenID) error {
	if mark := id.Mark(); mark == 0 || mark == kv.NoTokenMark {
		return kv.Errorf(kv.InvalidArgument, "the id of the access token is no SHA-256 of a secret")
	}
	return nil
}

// grantable tells whether an access token can have a role.
func (t *Tables) grantable(role string) bool {
	_, built := builtIn[role]
	return built || role == kv.RootName || t.role(role) != nil
}

func (t *Tables) labelled(name string) bool {
	return slices.ContainsFunc(t.access.all, func(a *access) bool { return a.label == name })
}

// checkLabel refuses what would not stand on a line of a list or log.
func checkLabel(name string) error {
	if len(name) > kv.MaxTokenName || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return kv.Errorf(kv.InvalidArgument, "the name of an access token has at most %d bytes of UTF-8 without control characters", kv.MaxTokenName)
	}
	return nil
}

// Revoke returns the tables without an access token, or an error.
func (t *Tables) Revoke(id kv.TokenID) (*Tables, error) {
	a := t.accessOf(id)
	switch {
	case a == nil:
		return nil, kv.ErrTokenNotFound
	case t.enabled && a.grants.root && !t.rooted(a):
		return nil, kv.ErrLastRoot
	}
	return t.withoutAccess(func(other *access) bool { return other == a }), nil
}

// rooted tells whether somebody can be root for good, but for one token: the
// user root, who keeps the role while authentication is on, or a token that does
// not expire.
func (t *Tables) rooted(but *access) bool {
	if u := t.find([]byte(kv.RootName)); u != nil && u.grants.root {
		return true
	}
	return slices.ContainsFunc(t.access.all, func(a *access) bool { return a != but && a.grants.root && a.expires == 0 })
}

// Expire returns the tables without the access tokens that are over at now, and
// the ids of those; the same tables where there are none.
func (t *Tables) Expire(now kv.Time) (*Tables, []kv.TokenID) {
	if now < t.access.next {
		return t, nil
	}
	var gone []kv.TokenID
	next := t.withoutAccess(func(a *access) bool {
		over := a.expires != 0 && a.expires <= now
		if over {
			gone = append(gone, a.id)
		}
		return over
	})
	return next, gone
}

func (t *Tables) withoutAccess(without func(*access) bool) *Tables {
	next := *t
	next.access = newAccessList(slices.DeleteFunc(slices.Clone(t.access.all), without))
	return &next
}

// rootLabel is the name of the first token with the role root.
const rootLabel = "root"

// Bootstrap sets authentication up where nobody ever has: there is the role
// root, an access token that has it, and authentication is on. Else it returns
// [kv.ErrAuthSetUp].
func (t *Tables) Bootstrap(id kv.TokenID, now kv.Time) (*Tables, error) {
	if t.revision != 1 || t.enabled || len(t.users)+len(t.roles)+len(t.access.all) > 0 {
		return nil, kv.ErrAuthSetUp
	}
	next, err := t.With(&Change{Op: AddRole, Role: kv.RootName})
	if err == nil {
		next, err = next.Create(&kv.AccessToken{ID: id, Name: rootLabel, Roles: []string{kv.RootName}, Created: now})
	}
	if err != nil {
		return nil, err
	}
	next.enabled = true
	return next, nil
}

// EnsureRoot sees to it that the access token with that id has the role root for
// good. It returns the same tables where it has already.
func (t *Tables) EnsureRoot(id kv.TokenID, now kv.Time) (*Tables, error) {
	n := kv.AccessToken{ID: id, Name: rootLabel, Roles: []string{kv.RootName}, Created: now}
	if a := t.accessOf(id); a != nil {
		if a.grants.root && a.expires == 0 {
			return t, nil
		}
		n.Name = a.label
		t = t.withoutAccess(func(other *access) bool { return other == a })
	} else if t.labelled(n.Name) {
		n.Name = ""
	}
	return t.Create(&n)
}

// RootOnly tells whether only root may make a change: what would let somebody
// who may manage users and roles become root.
func (t *Tables) RootOnly(c *Change) bool {
	switch c.Op {
	case Disable:
		return true
	case AddUser, DeleteUser, SetPassword, GrantRole, RevokeRole:
		return c.Name == kv.RootName || c.Role == kv.RootName || t.HasRoot(c.Name)
	}
	return c.Role == kv.RootName
}

// HasRoot tells whether a user has the role root.
func (t *Tables) HasRoot(user string) bool {
	u := t.find([]byte(user))
	return u != nil && u.grants.root
}

// IsRoot tells whether an access token has the role root.
func (t *Tables) IsRoot(id kv.TokenID) bool {
	a := t.accessOf(id)
	return a != nil && a.grants.root
}

func (a *access) public() kv.AccessToken {
	out := kv.AccessToken{ID: a.id, Name: a.label, Roles: slices.Clone(a.roles), Created: a.created, Expires: a.expires}
	for _, p := range a.own {
		out.Permissions = append(out.Permissions, clonePermission(p))
	}
	if hour := a.used.Load(); hour != 0 {
		out.LastUsed = fromHour(hour)
	}
	return out
}

// AccessTokens lists the access tokens by name, those without one last.
func (t *Tables) AccessTokens() []kv.AccessToken {
	list := make([]kv.AccessToken, len(t.access.all))
	for i, a := range t.access.all {
		list[i] = a.public()
	}
	slices.SortStableFunc(list, func(a, b kv.AccessToken) int {
		if (a.Name == "") != (b.Name == "") {
			return strings.Compare(b.Name, a.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// KeepUsed takes over from old when tokens were used last.
func (t *Tables) KeepUsed(old *Tables) {
	for _, a := range t.access.all {
		if before := old.accessOf(a.id); before != nil {
			a.used.Store(max(a.used.Load(), before.used.Load()))
		}
	}
}

// AccessToken returns the access token with that id.
func (t *Tables) AccessToken(id kv.TokenID) (kv.AccessToken, bool) {
	a := t.accessOf(id)
	if a == nil {
		return kv.AccessToken{}, false
	}
	return a.public(), true
}
