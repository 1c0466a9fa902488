package auth

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/concord-kv/concord/kv"
)

// modelAccess is an access token, told as plainly as possible.
type modelAccess struct {
	name    string
	roles   []string
	own     []kv.Permission
	expires kv.Time
}

// accessModel is a model of users and roles with access tokens beside.
type accessModel struct {
	*model
	tokens map[int]*modelAccess
	now    kv.Time
}

func drawAccess(t *rapid.T) (int, *modelAccess) {
	n := rapid.IntRange(1, 4).Draw(t, "token")
	a := &modelAccess{
		name:    rapid.SampledFrom([]string{"", "", "app", "job"}).Draw(t, "name"),
		roles:   rapid.SliceOfN(rapid.SampledFrom([]string{"root", "r1", "r2", "r3", kv.BackupRole}), 0, 2).Draw(t, "roles"),
		expires: kv.Time(rapid.IntRange(0, 30).Draw(t, "expires")),
	}
	for range rapid.IntRange(0, 2).Draw(t, "permissions") {
		a.own = append(a.own, drawChange(t).Permission)
	}
	return n, a
}

// tokenID is the id of a token of the tests.
func tokenID(n int) kv.TokenID { return kv.TokenID{1, byte(n), byte(n >> 8)} }

func (m *accessModel) create(n int, a *modelAccess) error {
	if m.tokens[n] != nil {
		return kv.ErrTokenExists
	}
	for _, other := range m.tokens {
		if a.name != "" && other.name == a.name {
			return kv.ErrTokenExists
		}
	}
	for _, name := range a.roles {
		if _, ok := m.roles[name]; !ok && name != "root" && name != kv.BackupRole {
			return kv.ErrRoleNotFound
		}
	}
	for _, p := range a.own {
		if len(p.Key) == 0 || len(p.End) > 0 && string(p.End) != "\x00" && string(p.End) <= string(p.Key) {
			return kv.ErrInvalidAuthManagement
		}
	}
	m.tokens[n] = a
	return nil
}

func (m *accessModel) revoke(n int) error {
	a := m.tokens[n]
	if a == nil {
		return kv.ErrTokenNotFound
	}
	if m.enabled && slices.Contains(a.roles, "root") {
		left := m.users["root"] != nil && m.users["root"].roles["root"]
		for other, b := range m.tokens {
			left = left || other != n && b.expires == 0 && slices.Contains(b.roles, "root")
		}
		if !left {
			return kv.ErrLastRoot
		}
	}
	delete(m.tokens, n)
	return nil
}

// change is that of the model, with what access tokens add.
func (m *accessModel) change(c *Change) error {
	if c.Op == Enable {
		for _, a := range m.tokens {
			if a.expires == 0 && slices.Contains(a.roles, "root") {
				m.enabled = true
			}
		}
	}
	err := m.model.change(c)
	if c.Op == DeleteRole && err == nil {
		for _, a := range m.tokens {
			a.roles = slices.DeleteFunc(slices.Clone(a.roles), func(r string) bool { return r == c.Role })
		}
	}
	return err
}

func (m *accessModel) expire(now kv.Time) {
	m.now = now
	for n, a := range m.tokens {
		if a.expires != 0 && a.expires <= now {
			delete(m.tokens, n)
		}
	}
}

// allows tells whether each single key in a range is allowed to a token, and
// which is the first that is not.
func (m *accessModel) allows(n int, a kv.Access, key, end string) (missing string, ok bool) {
	token := m.tokens[n]
	if slices.Contains(token.roles, "root") {
		return "", true
	}
	at := append(points(), key)
	slices.Sort(at)
	for _, point := range at {
		if point != key && !kv.InRange([]byte(point), []byte(key), []byte(end)) {
			continue
		}
		list := slices.Clone(token.own)
		for i := len(list) - 1; i >= 0; i-- { // the last for a range counts
			for j := range i {
				if sameRange(&list[j], &list[i]) {
					list[j].Access = list[i].Access
				}
			}
		}
		for _, name := range token.roles {
			list = append(list, m.roles[name]...)
		}
		if !slices.ContainsFunc(list, func(p kv.Permission) bool {
			return (p.Access == a || p.Access == kv.ReadWriteAccess) && kv.InRange([]byte(point), p.Key, p.End)
		}) {
			return point, false
		}
	}
	return "", true
}

// Whatever is done with users, roles and access tokens, in whatever order, what
// tokens may do is what the model says, every question gets the answer that a
// check gives, and no change of a token counts for the revision.
func TestAccessTokensMatchTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, tables := &accessModel{model: newModel(), tokens: map[int]*modelAccess{}}, New()
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			before, bytesBefore := tables, tables.Append(nil)
			next, err, want := tables, error(nil), error(nil)
			switch rapid.IntRange(0, 5).Draw(t, "what") {
			case 0, 1:
				n, a := drawAccess(t)
				if dup := duplicateRange(a.own); dup {
					continue // see grant: what several entries for one key come to
				}
				next, err = tables.Create(&kv.AccessToken{ID: tokenID(n), Name: a.name, Roles: a.roles, Permissions: a.own, Created: m.now, Expires: a.expires})
				want = m.create(n, a)
			case 2:
				n := rapid.IntRange(1, 4).Draw(t, "revoked")
				next, err = tables.Revoke(tokenID(n))
				want = m.revoke(n)
			case 3:
				now := m.now + kv.Time(rapid.IntRange(0, 5).Draw(t, "later"))
				next, _ = tables.Expire(now)
				m.expire(now)
			default:
				c := drawChange(t)
				next, err = tables.With(c)
				want = m.change(c)
			}
			if !errors.Is(err, want) || (err == nil) != (want == nil) {
				t.Fatalf("%v, want %v", err, want)
			}
			if err == nil {
				tables = next
			}
			if !bytes.Equal(before.Append(nil), bytesBefore) {
				t.Fatal("the tables before it changed")
			}
			compareAccess(t, tables, m)
		}
		decoded, _, err := Decode(NewTokens().Append(tables.Append(nil)), false)
		if err != nil || !bytes.Equal(decoded.Append(nil), tables.Append(nil)) {
			t.Fatalf("tables do not survive their encoding: %v", err)
		}
		compareAccess(t, decoded, m)
	})
}

func duplicateRange(list []kv.Permission) bool {
	return len(list) == 2 && bytes.Equal(list[0].Key, list[1].Key)
}

func compareAccess(t *rapid.T, tables *Tables, m *accessModel) {
	next := kv.Time(math.MaxInt64)
	for _, a := range m.tokens {
		if a.expires != 0 {
			next = min(next, a.expires)
		}
	}
	if tables.Revision() != m.revision || tables.Enabled() != m.enabled || len(tables.AccessTokens()) != len(m.tokens) || tables.NextExpiry() != next {
		t.Fatalf("revision %d, want %d; enabled %v, want %v; %d tokens, want %d; the next expires at %d, want %d", tables.Revision(), m.revision,
			tables.Enabled(), m.enabled, len(tables.AccessTokens()), len(m.tokens), tables.NextExpiry(), next)
	}
	n := rapid.IntRange(1, 4).Draw(t, "token asked")
	id := tokenID(n)
	key, end := rapid.SampledFrom(keys).Draw(t, "key asked"), rapid.SampledFrom(ends).Draw(t, "end asked")
	c, ok := tables.Access(id, 7)
	if ok != (m.tokens[n] != nil) {
		t.Fatalf("token %d is good: %v", n, ok)
	}
	if !ok {
		c = kv.Caller{User: kv.TokenUser(id, ""), Token: id.Mark()}
	}
	s := tables.Bearer(Shown{Name: []byte(c.User), Mark: c.Token}, nil, 1<<40)
	for _, access := range [...]kv.Access{kv.ReadAccess, kv.WriteAccess} {
		var want error
		v := kv.Verdict{Allowed: true}
		switch {
		case !m.enabled:
			v.Because = kv.BecauseOff
		case !ok:
			want, v = kv.ErrInvalidAuthToken, kv.Verdict{Because: kv.BecauseUnknown}
		case slices.Contains(m.tokens[n].roles, "root"):
			v.Because = kv.BecauseRoot
		default:
			v.Because = kv.BecauseOfRules
			if missing, allowed := m.allows(n, access, key, end); !allowed {
				want, v = kv.ErrPermissionDenied, kv.Verdict{Because: kv.BecauseNoRule, Missing: []byte(missing), MissingAccess: access}
			}
		}
		for _, got := range []error{s.Keys(access, []byte(key), []byte(end)), s.Still(access, []byte(key), []byte(end))} {
			if !errors.Is(got, want) || (got == nil) != (want == nil) {
				t.Fatalf("token %d (%+v) may %v %q..%q: %v, want %v", n, m.tokens[n], access, key, end, got, want)
			}
		}
		q := kv.Question{Token: id, Access: access, Key: []byte(key), End: []byte(end)}
		got := tables.Can(&q)
		checkRules(t, &got, &q)
		if got.Allowed != v.Allowed || got.Because != v.Because || !bytes.Equal(got.Missing, v.Missing) || got.MissingAccess != v.MissingAccess {
			t.Fatalf("can token %d %v %q..%q: %+v, want %+v", n, access, key, end, got, v)
		}
	}
	checkAccessRights(t, &s, m, n)
}

// checkRules checks that the rules of a verdict alone allow it.
func checkRules(t *rapid.T, v *kv.Verdict, q *kv.Question) {
	var list []interval
	for i := range v.Rules {
		if a := v.Rules[i].Access; a != q.Access && a != kv.ReadWriteAccess {
			t.Fatalf("rule %+v is of no use", v.Rules[i])
		}
		list = append(list, intervalOf(&v.Rules[i].Permission))
	}
	if v.Because == kv.BecauseOfRules != (len(list) > 0) || len(list) > 0 && !covers(mergeIntervals(list), q.Key, q.End) {
		t.Fatalf("%+v does not follow from its rules", v)
	}
	for i := range v.Rules { // nor do fewer
		fewer := slices.Delete(slices.Clone(v.Rules), i, i+1)
		list = nil
		for j := range fewer {
			list = append(list, intervalOf(&fewer[j].Permission))
		}
		if covers(mergeIntervals(list), q.Key, q.End) {
			t.Fatalf("rule %+v is not needed in %+v", v.Rules[i], v)
		}
	}
}

func checkAccessRights(t *rapid.T, s *Subject, m *accessModel, n int) {
	a := m.tokens[n]
	for right, role := range map[kv.Right]string{kv.AnyUser: "", kv.ManageCluster: kv.ClusterRole, kv.ManageAuth: kv.AuthAdminRole, kv.TakeBackup: kv.BackupRole, kv.ReadTelemetry: kv.TelemetryRole} {
		var want error
		switch {
		case !m.enabled:
		case a == nil:
			want = kv.ErrInvalidAuthToken
		case right != kv.AnyUser && !slices.Contains(a.roles, role) && !slices.Contains(a.roles, "root"):
			want = kv.ErrPermissionDenied
		}
		if got := s.Right(right); !errors.Is(got, want) || (got == nil) != (want == nil) {
			t.Fatalf("right %d of token %d (%+v): %v, want %v", right, n, a, got, want)
		}
	}
	if root := !m.enabled || a != nil && slices.Contains(a.roles, "root"); s.Root() != root {
		t.Fatalf("token %d (%+v) is root: %v", n, a, s.Root())
	}
}

// fresh is a token that must be made.
func fresh(t testing.TB, tables *Tables, n kv.AccessToken) *Tables {
	t.Helper()
	next, err := tables.Create(&n)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestBootstrapTables(t *testing.T) {
	tables, err := New().Bootstrap(tokenID(1), 5)
	if err != nil || !tables.Enabled() || tables.Revision() != 2 || !slices.Equal(tables.Roles(), []string{"root"}) || len(tables.Users()) > 0 {
		t.Fatalf("%+v, %v", tables, err)
	}
	want := kv.AccessToken{ID: tokenID(1), Name: "root", Roles: []string{"root"}, Created: 5}
	if got := tables.AccessTokens(); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(want) {
		t.Errorf("tokens %+v", got)
	}
	off := with(t, tables, Change{Op: Disable})
	for name, tables := range map[string]*Tables{
		"twice": tables, "switched off since": off, "a user": with(t, New(), Change{Op: AddUser, Name: "u"}), "a role": with(t, New(), Change{Op: AddRole, Role: "r"}),
		"a user who is gone": with(t, New(), Change{Op: AddUser, Name: "u"}, Change{Op: DeleteUser, Name: "u"}),
		"a token":            fresh(t, New(), kv.AccessToken{ID: tokenID(9)}),
	} {
		if _, err := tables.Bootstrap(tokenID(2), 5); !errors.Is(err, kv.ErrAuthSetUp) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New().Bootstrap(kv.TokenID{}, 5); err == nil {
		t.Error("no token")
	}
	// A root token is as good as a root user to switch it on again.
	if on := with(t, off, Change{Op: Enable}); !on.Enabled() {
		t.Error("it is off")
	}
	if _, err := New().With(&Change{Op: Enable}); !errors.Is(err, kv.ErrRootUserNotFound) {
		t.Errorf("without any: %v", err)
	}
}

func TestEnsureRoot(t *testing.T) {
	id := tokenID(1)
	booted, err := New().Bootstrap(id, 0)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := booted.EnsureRoot(id, 9); err != nil || same != booted {
		t.Errorf("it is there already: %v", err)
	}
	other, err := booted.EnsureRoot(tokenID(2), 9)
	if err != nil || !other.IsRoot(tokenID(2)) || !other.IsRoot(id) {
		t.Fatal(err)
	}
	if got, _ := other.AccessToken(tokenID(2)); got.Name != "" || got.Created != 9 {
		t.Errorf("%+v", got)
	}
	for _, n := range []kv.AccessToken{
		{ID: id, Name: "app"}, {ID: id, Name: "app", Roles: []string{"root"}, Expires: 50},
	} {
		next, err := fresh(t, New(), n).EnsureRoot(id, 9)
		if got, _ := next.AccessToken(id); err != nil || got.Name != "app" || got.Expires != 0 || !next.IsRoot(id) || len(next.AccessTokens()) != 1 {
			t.Errorf("%+v (%v), want %+v with root for ever", got, err, n)
		}
	}
}

// What makes a root of somebody, or hurts one, is for root alone.
func TestRootOnly(t *testing.T) {
	tables := with(t, New(), Change{Op: AddUser, Name: "boss"}, Change{Op: GrantRole, Name: "boss", Role: "root"}, Change{Op: AddUser, Name: "u"}, Change{Op: AddRole, Role: "r"})
	for want, changes := range map[bool][]Change{
		true: {
			{Op: Disable}, {Op: GrantRole, Name: "u", Role: "root"}, {Op: AddUser, Name: "root"}, {Op: SetPassword, Name: "root"}, {Op: SetPassword, Name: "boss"},
			{Op: DeleteUser, Name: "boss"}, {Op: RevokeRole, Name: "boss", Role: "root"}, {Op: GrantRole, Name: "boss", Role: "r"}, {Op: RevokeRole, Name: "boss", Role: "r"},
			{Op: AddRole, Role: "root"}, {Op: DeleteRole, Role: "root"}, {Op: GrantPermission, Role: "root"}, {Op: RevokePermission, Role: "root"},
		},
		false: {
			{Op: Enable}, {Op: GrantRole, Name: "u", Role: "r"}, {Op: AddUser, Name: "v"}, {Op: SetPassword, Name: "u"}, {Op: DeleteUser, Name: "u"},
			{Op: AddRole, Role: "s"}, {Op: DeleteRole, Role: "r"}, {Op: GrantPermission, Role: "r"}, {Op: RevokePermission, Role: "r"},
		},
	} {
		for _, c := range changes {
			if got := tables.RootOnly(&c); got != want {
				t.Errorf("%+v is for root alone: %v", c, got)
			}
		}
	}
}

// The roles of administration give users and tokens their rights, and those
// alone; a token need not wait for somebody to make them.
func TestAdminRoles(t *testing.T) {
	rights := map[string]kv.Right{kv.ClusterRole: kv.ManageCluster, kv.AuthAdminRole: kv.ManageAuth, kv.BackupRole: kv.TakeBackup, kv.TelemetryRole: kv.ReadTelemetry}
	for role, right := range rights {
		tables := fresh(t, New(), kv.AccessToken{ID: tokenID(1), Roles: []string{"root"}})
		tables = fresh(t, tables, kv.AccessToken{ID: tokenID(2), Roles: []string{role}})
		if _, err := tables.With(&Change{Op: GrantRole, Name: "u", Role: role}); err == nil {
			t.Errorf("a user got %s, which nobody has made", role)
		}
		tables = with(t, tables, Change{Op: AddRole, Role: role}, Change{Op: AddUser, Name: "u"}, Change{Op: GrantRole, Name: "u", Role: role},
			Change{Op: GrantPermission, Role: role, Permission: permission(kv.ReadAccess, "k", "")}, Change{Op: Enable})
		mark := tokenID(2)
		for who, s := range map[string]Subject{
			"user":  tables.Subject([]byte("u"), tables.Revision()),
			"token": tables.Bearer(Shown{Name: []byte(kv.TokenUser(mark, "")), Mark: mark.Mark()}, nil, 0),
		} {
			for _, other := range rights {
				if err := s.Right(other); (err == nil) != (other == right) {
					t.Errorf("%s with %s has right %d: %v", who, role, other, err)
				}
			}
			if s.Root() || !s.Bound() || s.Keys(kv.ReadAccess, []byte("k"), nil) != nil || s.Keys(kv.ReadAccess, []byte("l"), nil) == nil {
				t.Errorf("%s with %s: what it may do with keys is wrong", who, role)
			}
		}
	}
}

// Tokens see what is theirs, and a user of the same name does not.
func TestAskingAboutTokens(t *testing.T) {
	tables := fresh(t, New(), kv.AccessToken{ID: tokenID(1), Name: "boss", Roles: []string{"root"}})
	tables = fresh(t, tables, kv.AccessToken{ID: tokenID(2), Name: "app"})
	tables = with(t, tables, Change{Op: AddUser, Name: "token:app"}, Change{Op: Enable})
	show := func(n int, name string) Subject {
		return tables.Bearer(Shown{Name: []byte(kv.TokenUser(tokenID(n), name)), Mark: tokenID(n).Mark()}, nil, 0)
	}
	app, boss, user, stranger := show(2, "app"), show(1, "boss"), tables.Subject([]byte("token:app"), tables.Revision()), show(2, "boss")
	for name, c := range map[string]struct {
		s    Subject
		all  bool
		own  bool
		asks error
	}{"app": {app, false, true, nil}, "boss": {boss, true, false, nil}, "user": {user, false, false, kv.ErrPermissionDenied}, "stranger": {stranger, false, false, kv.ErrInvalidAuthToken}} {
		own, err := c.s.AskAccess()
		if (err == nil) != (c.all || c.own) || (own != nil) != c.own || own != nil && own.ID != tokenID(2) {
			t.Errorf("%s sees %v, %v", name, own, err)
		}
		if err := c.s.Ask(&kv.Question{Token: tokenID(2)}); !errors.Is(err, c.asks) || (err == nil) != (c.asks == nil) {
			t.Errorf("%s asks about app: %v", name, err)
		}
		if err := c.s.Ask(&kv.Question{Token: tokenID(1)}); (err == nil) != c.all {
			t.Errorf("%s asks about boss: %v", name, err)
		}
		if err := c.s.Ask(&kv.Question{User: "token:app"}); (err == nil) != (c.all || name == "user") {
			t.Errorf("%s asks about the user: %v", name, err)
		}
	}
}

func TestAccessTokenBounds(t *testing.T) {
	long := func(n int) (list []kv.Permission) {
		for i := range n {
			list = append(list, permission(kv.ReadAccess, fmt.Sprint(i, strings.Repeat("k", 300)), ""))
		}
		return list
	}
	for name, n := range map[string]kv.AccessToken{
		"no id":            {},
		"the mark of none": {ID: kv.TokenID{255, 255, 255, 255, 255, 255, 255, 255}},
		"a long name":      {ID: tokenID(1), Name: strings.Repeat("x", kv.MaxTokenName+1)},
		"a line":           {ID: tokenID(1), Name: "a\nb"},
		"no text":          {ID: tokenID(1), Name: "\xff"},
		"too many rights":  {ID: tokenID(1), Permissions: long(kv.MaxTokenRights + 1)},
		"too long rights":  {ID: tokenID(1), Permissions: long(kv.MaxTokenRights)},
		"no access":        {ID: tokenID(1), Permissions: []kv.Permission{permission(3, "k", "")}},
	} {
		if _, err := New().Create(&n); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New().Create(&kv.AccessToken{ID: tokenID(1), Roles: []string{""}}); !errors.Is(err, kv.ErrRoleNotFound) {
		t.Errorf("no role: %v", err)
	}
	tables := New()
	var all []*access
	for i := range kv.MaxAccessTokens {
		all = append(all, newAccess(&kv.AccessToken{ID: kv.TokenID{1, 3: byte(i >> 8), 4: byte(i)}}, nil, nil))
		all[i].grants = &grants{}
	}
	tables.access = newAccessList(all)
	if _, err := tables.Create(&kv.AccessToken{ID: kv.TokenID{2}}); !errors.Is(err, kv.ErrTooManyTokens) {
		t.Errorf("one too many: %v", err)
	}
	if _, _, err := Decode(NewTokens().Append(tables.Append(nil)), false); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
	tables.access = newAccessList(append(all, newAccess(&kv.AccessToken{ID: kv.TokenID{2}}, nil, nil)))
	if _, _, err := Decode(NewTokens().Append(tables.Append(nil)), false); !errors.Is(err, errOrder) {
		t.Errorf("decoded one too many: %v", err)
	}
}

// Access tokens that no change can have made are not decoded.
func TestDecodeRefusesUnsoundTokens(t *testing.T) {
	good := func(n int) *access { return newAccess(&kv.AccessToken{ID: tokenID(n)}, nil, nil) }
	named := func(n int, name string, roles ...string) *access {
		return newAccess(&kv.AccessToken{ID: tokenID(n), Name: name}, roles, nil)
	}
	for name, c := range map[string]struct {
		all []*access
		ok  bool
	}{
		"two":             {[]*access{good(1), good(2)}, true},
		"in a role":       {[]*access{named(1, "", "root")}, true},
		"out of order":    {[]*access{good(2), good(1)}, false},
		"twice":           {[]*access{good(1), good(1)}, false},
		"same name":       {[]*access{named(1, "a"), named(2, "a")}, false},
		"bad name":        {[]*access{named(1, "\n")}, false},
		"unknown role":    {[]*access{named(1, "", "r")}, false},
		"roles unordered": {[]*access{named(1, "", "root", kv.BackupRole)}, false},
		"no id":           {[]*access{newAccess(&kv.AccessToken{}, nil, nil)}, false},
		"permissions": {[]*access{newAccess(&kv.AccessToken{ID: tokenID(1)}, nil,
			[]kv.Permission{permission(0, "b", ""), permission(0, "a", "")})}, false},
	} {
		tables := New()
		tables.access = newAccessList(c.all)
		if _, _, err := Decode(NewTokens().Append(tables.Append(nil)), false); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// When a token was used is no part of the state, and lives as long as the token.
func TestLastUsed(t *testing.T) {
	tables := fresh(t, New(), kv.AccessToken{ID: tokenID(1), Name: "a"})
	encoded := tables.Append(nil)
	hour := Hour(time.Unix(3600*1000+17, 0))
	tables.Access(tokenID(1), hour)
	tables.Access(tokenID(1), hour-1) // a clock that was set back
	later := with(t, fresh(t, tables, kv.AccessToken{ID: tokenID(2)}), Change{Op: AddRole, Role: "r"}, Change{Op: DeleteRole, Role: "r"})
	if got := later.AccessTokens(); !got[0].LastUsed.Equal(time.Unix(3600*1000, 0)) || !got[1].LastUsed.IsZero() {
		t.Errorf("%+v", got)
	}
	if !bytes.Equal(tables.Append(nil), encoded) {
		t.Error("it is a part of the state")
	}
	decoded, _, err := Decode(NewTokens().Append(encoded), false)
	if err != nil {
		t.Fatal(err)
	}
	decoded.KeepUsed(later)
	if got, _ := decoded.AccessToken(tokenID(1)); !got.LastUsed.Equal(time.Unix(3600*1000, 0)) {
		t.Errorf("after a snapshot %+v", got)
	}
}

// A look-up costs as much as it may, with as many tokens as there can be.
func BenchmarkAccess(b *testing.B) {
	tables := New()
	var all []*access
	for i := range kv.MaxAccessTokens {
		all = append(all, newAccess(&kv.AccessToken{ID: kv.TokenID{1 + byte(i>>8), byte(i), 2}}, nil, nil))
		all[i].grants = &grants{}
	}
	tables.access, tables.enabled = newAccessList(all), true
	id := all[7777].id
	b.ReportAllocs()
	for b.Loop() {
		c, ok := tables.Access(id, 3)
		s := tables.Bearer(Shown{Name: []byte(c.User), Mark: c.Token}, nil, 0)
		if !ok || s.Right(kv.AnyUser) != nil {
			b.Fatal("not good")
		}
	}
}
