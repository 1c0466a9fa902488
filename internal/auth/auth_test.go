package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/concord-kv/concord/kv"
)

// with makes changes that must succeed.
func with(t testing.TB, tables *Tables, changes ...Change) *Tables {
	t.Helper()
	for i := range changes {
		next, err := tables.With(&changes[i])
		if err != nil {
			t.Fatalf("change %+v: %v", changes[i], err)
		}
		tables = next
	}
	return tables
}

func permission(access kv.Access, key, end string) kv.Permission {
	return kv.Permission{Access: access, Key: []byte(key), End: []byte(end)}
}

// etcd's own table of ranges that several permissions cover together
// (server/auth/range_perm_cache_test.go), and the forms of "from key on".
func TestRangesAddUp(t *testing.T) {
	for _, c := range []struct {
		granted  string // key..end, with spaces between
		key, end string
		want     bool
	}{
		{"a..c x..z", "a", "z", false},
		{"a..f c..d f..z", "a", "z", true},
		{"a..d a..b c..f", "a", "f", true},
		{"a..d a..b c..f", "a", "\x00", false},
		{"a..\x00", "a", "\x00", true},
		{"\x00..\x00", "a", "\x00", true},
		{"\x00..\x00", "\x00", "\x00", true},
		{"a..c x..z", "f", "", false},
		{"a..f c..d f..z", "b", "", true},
		{"a..d a..b c..f", "d", "", true},
		{"a..d a..b c..f", "f", "", false},
		{"a..d a..b c..\x00", "f", "", true},
		{"a.. a\x00..b", "a", "b", true},
		{"a..", "a", "a\x00", true},
		{"a..", "a", "a\x00\x00", false},
		{"b..d", "c", "a", true}, // no keys: only c is asked for
		{"b..d", "e", "a", false},
		{"b..d", "a", "c", false},
	} {
		tables := with(t, New(), Change{Op: AddUser, Name: "root"}, Change{Op: GrantRole, Name: "root", Role: "root"},
			Change{Op: AddUser, Name: "u"}, Change{Op: AddRole, Role: "r"}, Change{Op: GrantRole, Name: "u", Role: "r"}, Change{Op: Enable})
		for part := range strings.SplitSeq(c.granted, " ") {
			key, end, _ := strings.Cut(part, "..")
			tables = with(t, tables, Change{Op: GrantPermission, Role: "r", Permission: permission(kv.ReadAccess, key, end)})
		}
		s := tables.Subject([]byte("u"), tables.Revision())
		if got := s.Keys(kv.ReadAccess, []byte(c.key), []byte(c.end)) == nil; got != c.want {
			t.Errorf("%q granted, %q..%q allowed: %v", c.granted, c.key, c.end, got)
		}
		if s.Keys(kv.WriteAccess, []byte(c.key), []byte(c.end)) == nil {
			t.Errorf("%q granted to read, %q..%q may be written", c.granted, c.key, c.end)
		}
	}
}

// A permission for the same range replaces the first one with its key, and no
// other: so etcd has it, and what stands beside it still counts.
func TestGrantReplaces(t *testing.T) {
	tables := with(t, New(), Change{Op: AddRole, Role: "r"})
	for _, c := range []struct {
		p    kv.Permission
		want string
	}{
		{permission(kv.ReadWriteAccess, "a", "b"), "[readwrite a..b]"},
		{permission(kv.ReadAccess, "a", "b"), "[read a..b]"},
		{permission(kv.ReadWriteAccess, "a", "c"), "[read a..b readwrite a..c]"},
		{permission(kv.ReadAccess, "a", "c"), "[read a..b readwrite a..c read a..c]"},
		{permission(kv.WriteAccess, "a", "b"), "[write a..b readwrite a..c read a..c]"},
	} {
		tables = with(t, tables, Change{Op: GrantPermission, Role: "r", Permission: c.p})
		r, _ := tables.Role("r")
		var got []string
		for _, p := range r.Permissions {
			got = append(got, fmt.Sprintf("%v %s..%s", p.Access, p.Key, p.End))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("after %v: %v, want %s", c.p, got, c.want)
		}
	}
	tables = with(t, tables, Change{Op: RevokePermission, Role: "r", Permission: permission(kv.WriteAccess, "a", "c")})
	if r, _ := tables.Role("r"); len(r.Permissions) != 1 {
		t.Errorf("after the range was revoked: %v", r.Permissions)
	}
}

func TestBoundsOfNames(t *testing.T) {
	long := strings.Repeat("n", kv.MaxAuthName+1)
	for _, c := range []Change{
		{Op: AddUser, Name: long}, {Op: AddRole, Role: long}, {Op: GrantRole, Name: "a", Role: long},
	} {
		if _, err := New().With(&c); !errors.Is(err, kv.ErrAuthNameTooLong) {
			t.Errorf("change %d with a long name: %v", c.Op, err)
		}
	}
	if _, err := New().With(&Change{Op: AddUser, Name: "a", Hash: strings.Repeat("h", maxHash+1)}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("a long hash: %v", err)
	}
	for _, op := range []Op{0, LastOp + 1} {
		if _, err := New().With(&Change{Op: op}); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("change %d: %v", op, err)
		}
	}
	p := permission(kv.ReadWriteAccess+1, "a", "")
	if _, err := New().With(&Change{Op: GrantPermission, Role: "r", Permission: p}); !errors.Is(err, kv.ErrInvalidAuthManagement) {
		t.Errorf("a permission of an unknown kind: %v", err)
	}
}

// The tables keep no part of what they are given, and give none away.
func TestTablesShareNothing(t *testing.T) {
	p := permission(kv.ReadAccess, "key", "kez")
	tables := with(t, New(), Change{Op: AddRole, Role: "r"}, Change{Op: GrantPermission, Role: "r", Permission: p})
	p.Key[0] = 'X'
	r, _ := tables.Role("r")
	r.Permissions[0].End[0] = 'X'
	if r, _ = tables.Role("r"); string(r.Permissions[0].Key) != "key" || string(r.Permissions[0].End) != "kez" {
		t.Errorf("the permission became %q", r.Permissions)
	}
}

// The zero subject is the embedding program.
func TestZeroSubject(t *testing.T) {
	var s Subject
	if err := errors.Join(s.Keys(kv.WriteAccess, []byte("a"), nil), s.Still(kv.ReadAccess, nil, nil), s.Right(kv.ManageAuth), s.AskUser("a"), s.AskRole("r")); err != nil || s.Bound() || !s.Root() {
		t.Errorf("the zero subject is bound: %v", err)
	}
}

// A proof from before the password was changed, or from a user who was deleted
// and made again, ends also what etcd lets go on.
func TestOldProofs(t *testing.T) {
	tables := with(t, New(), Change{Op: AddUser, Name: "root"}, Change{Op: GrantRole, Name: "root", Role: "root"},
		Change{Op: AddUser, Name: "u"}, Change{Op: Enable})
	proof := tables.Revision()
	for _, then := range [][]Change{
		{{Op: SetPassword, Name: "root", Hash: "h"}},
		{{Op: Disable}, {Op: DeleteUser, Name: "root"}, {Op: AddUser, Name: "root"}, {Op: GrantRole, Name: "root", Role: "root"}, {Op: Enable}},
	} {
		s := with(t, tables, then...).Subject([]byte("root"), proof)
		for what, err := range map[string]error{
			"manage": s.Right(kv.ManageCluster), "any": s.Right(kv.AnyUser), "watch": s.Still(kv.ReadAccess, []byte("a"), nil),
		} {
			if !errors.Is(err, kv.ErrInvalidAuthToken) {
				t.Errorf("%s with an old proof: %v", what, err)
			}
		}
		if !s.Bound() {
			t.Error("root with an old proof is not bound")
		}
	}
	s := with(t, tables, Change{Op: AddRole, Role: "r"}).Subject([]byte("root"), proof)
	if err := s.Right(kv.ManageCluster); err != nil {
		t.Errorf("root manages after a change of others: %v", err)
	}
}

func TestTokens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tokens, model, now := NewTokens(), map[kv.TokenID]Bearer{}, kv.Time(0)
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			id := kv.TokenID{byte(rapid.IntRange(0, 30).Draw(t, "id"))}
			old, before := tokens.Copy(), tokens.Append(nil)
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				user := rapid.SampledFrom([]string{"u", "v"}).Draw(t, "user")
				b := Bearer{ID: id, User: user, Revision: 3, TTL: 9, Deadline: now + kv.Time(rapid.IntRange(1, 20).Draw(t, "for"))}
				tokens.Put(b, now)
				model[id] = b
			case 2:
				tokens.Delete(id)
				delete(model, id)
			case 3:
				now += kv.Time(rapid.IntRange(0, 10).Draw(t, "later"))
			}
			good := 0
			for id, want := range model {
				got, ok := tokens.Find(id, now)
				if ok != (now < want.Deadline) || ok && *got != want {
					t.Fatalf("at %d token %x is %+v (%v), want %+v", now, id[0], got, ok, want)
				}
				if ok {
					good++
				}
			}
			if tokens.Len() < good || tokens.due.Len() != tokens.Len() || tokens.byUser.Len() != tokens.Len() || tokens.counts["u"]+tokens.counts["v"] != tokens.Len() {
				t.Fatalf("%d tokens, of which %d are good; %d in order, %v of users", tokens.Len(), good, tokens.due.Len(), tokens.counts)
			}
			if !bytes.Equal(old.Append(nil), before) {
				t.Fatal("a copy changed")
			}
		}
		data := tokens.Append(New().Append(nil))
		_, decoded, err := Decode(data, false)
		if err != nil || !bytes.Equal(decoded.Append(nil), tokens.Append(nil)) {
			t.Fatalf("tokens do not survive their encoding: %v", err)
		}
	})
}

// numbered is the id of a token.
func numbered(i int) kv.TokenID { return kv.TokenID{byte(i), byte(i >> 8), byte(i >> 16)} }

// A user who has the most tokens that there may be loses the one that would be
// over first, and nobody else does. When all users together have too many, the
// one who has most does. Tokens that are over make room.
func TestTokensAreBounded(t *testing.T) {
	tokens, next := NewTokens(), 0
	put := func(user string, now, deadline kv.Time) int {
		next++
		tokens.Put(Bearer{ID: numbered(next), User: user, Deadline: deadline}, now)
		return next
	}
	gone := func(when string, want int, others ...int) {
		t.Helper()
		for _, i := range append(others, want) {
			if kept := tokens.Marked(numbered(i).Mark()) != nil; kept != (i != want) {
				t.Errorf("%s: token %d is kept: %v", when, i, kept)
			}
		}
	}
	shy := put("shy", 0, 1)
	first, second := put("greedy", 0, 2), put("greedy", 0, 3)
	for range MaxUserTokens - 2 {
		put("greedy", 0, 100)
	}
	tokens.Put(*tokens.Marked(numbered(second).Mark()), 0) // again: not one more
	if n := tokens.Len(); n != MaxUserTokens+1 {
		t.Fatalf("%d tokens", n)
	}
	put("greedy", 0, 100)
	gone("one more than a user may have", first, shy, second)
	for user := 0; tokens.Len() < MaxTokens; user++ {
		for range min(MaxUserTokens-1, MaxTokens-tokens.Len()) {
			put(fmt.Sprint("user ", user), 0, 200)
		}
	}
	third := put("new", 0, 300)
	gone("one more than there may be", second, shy, third)
	if n := tokens.Len(); n != MaxTokens || tokens.counts["greedy"] != MaxUserTokens-1 {
		t.Errorf("%d tokens, %d of the user who had most", n, tokens.counts["greedy"])
	}
	_, decoded, err := Decode(tokens.Append(New().Append(nil)), false)
	if err != nil || decoded.Len() != MaxTokens || !maps.Equal(decoded.counts, tokens.counts) {
		t.Errorf("decoded %v", err)
	}
	put("new", 150, 300)
	if n := tokens.Len(); n != MaxTokens-forgetAtOnce+1 {
		t.Errorf("%d tokens are kept when others are over", n)
	}
}

// More tokens than can be kept are refused, and so are two that a mark does not
// tell apart.
func TestDecodeBoundsTokens(t *testing.T) {
	list := New().Append(nil)
	list = binary.AppendUvarint(list, MaxTokens+1)
	for i := range MaxTokens + 1 {
		id := make([]byte, 32)
		binary.BigEndian.PutUint64(id, uint64(i+1))
		list = append(list, append(id, 1, 'u', 1, 1, 1)...)
	}
	if _, _, err := Decode(list, false); !errors.Is(err, errTokens) {
		t.Errorf("one token too many: %v", err)
	}
	twice := append(New().Append(nil), 2)
	for i := range byte(2) {
		id := kv.TokenID{9, 31: i}
		twice = append(append(twice, id[:]...), 1, 'u', 1, 1, 1)
	}
	if _, _, err := Decode(twice, false); !errors.Is(err, errOrder) {
		t.Errorf("the same mark twice: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	tables := with(f, New(), Change{Op: AddUser, Name: "root", Hash: "h"}, Change{Op: GrantRole, Name: "root", Role: "root"},
		Change{Op: AddRole, Role: "r"}, Change{Op: GrantPermission, Role: "r", Permission: permission(kv.WriteAccess, "a", "b")},
		Change{Op: GrantRole, Name: "root", Role: "r"}, Change{Op: Enable})
	tokens := NewTokens()
	tokens.Put(Bearer{ID: kv.TokenID{1}, User: "root", Revision: 6, TTL: 5, Deadline: 7}, 0)
	f.Add(tokens.Append(tables.Append(nil)))
	f.Add(NewTokens().Append(New().Append(nil)))
	f.Add(NewTokens().Append(fresh(f, tables, kv.AccessToken{ID: kv.TokenID{2}, Name: "app", Roles: []string{"r", kv.BackupRole}, Expires: 9,
		Permissions: []kv.Permission{permission(kv.ReadAccess, "k", "l")}}).Append(nil)))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _, _ = Decode(data, true)
		tables, tokens, err := Decode(data, false)
		if err != nil {
			return
		}
		encoded := tokens.Append(tables.Append(nil))
		again, tokensAgain, err := Decode(encoded, false)
		if err != nil || !bytes.Equal(tokensAgain.Append(again.Append(nil)), encoded) {
			t.Fatalf("%x: %v", encoded, err)
		}
	})
}

// manyUsers makes users with five roles each, of five ranges each.
func manyUsers(t testing.TB, users int) *Tables {
	tables := with(t, New(), Change{Op: AddUser, Name: "root"}, Change{Op: GrantRole, Name: "root", Role: "root"}, Change{Op: Enable})
	for r := range 100 {
		role := fmt.Sprintf("role-%d", r)
		tables = with(t, tables, Change{Op: AddRole, Role: role})
		for p := range 5 {
			tables = with(t, tables, Change{Op: GrantPermission, Role: role,
				Permission: permission(kv.ReadWriteAccess, fmt.Sprintf("/registry/%03d/%d/", r, p), fmt.Sprintf("/registry/%03d/%d0", r, p))})
		}
	}
	for u := range users {
		name := fmt.Sprintf("user-%d", u)
		tables = with(t, tables, Change{Op: AddUser, Name: name})
		for r := range 5 {
			tables = with(t, tables, Change{Op: GrantRole, Name: name, Role: fmt.Sprintf("role-%d", (u*7+r*13)%100)})
		}
	}
	return tables
}

// A check is on the way of every request: it must take less than a microsecond
// and no memory.
func BenchmarkCheck(b *testing.B) {
	for _, users := range []int{10, 1000} {
		b.Run(fmt.Sprintf("users=%d", users), func(b *testing.B) {
			tables := manyUsers(b, users)
			name, key := []byte("user-7"), []byte("/registry/049/3/default/some-config-map")
			b.ReportAllocs()
			for b.Loop() {
				s := tables.Subject(name, tables.Revision())
				if err := s.Keys(kv.WriteAccess, key, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestCheckTakesNoMemory(t *testing.T) {
	tables := manyUsers(t, 10)
	name, key := []byte("user-7"), []byte("/registry/049/3/default/some-config-map")
	if n := testing.AllocsPerRun(100, func() {
		s := tables.Subject(name, tables.Revision())
		if err := s.Keys(kv.WriteAccess, key, nil); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("a check allocates %v times", n)
	}
}

// BenchmarkChangeRole changes a role that a twentieth of 1,000 users have.
func BenchmarkChangeRole(b *testing.B) {
	tables := manyUsers(b, 1000)
	for b.Loop() {
		tables = with(b, tables, Change{Op: GrantPermission, Role: "role-1", Permission: permission(kv.ReadAccess, "a", "b")})
	}
}

// TestNamesWithZeros has a user with one role whose name is that of another
// user's two roles with a zero byte between. What was decoded gives it no more
// than what it was made of.
func TestNamesWithZeros(t *testing.T) {
	tables := with(t, New(), Change{Op: AddUser, Name: "root"}, Change{Op: GrantRole, Name: "root", Role: "root"},
		Change{Op: AddUser, Name: "both"}, Change{Op: AddUser, Name: "neither"})
	for _, name := range []string{"a", "b", "a\x00b"} {
		tables = with(t, tables, Change{Op: AddRole, Role: name})
	}
	tables = with(t, tables, Change{Op: GrantPermission, Role: "a", Permission: permission(kv.ReadAccess, "k", "")},
		Change{Op: GrantRole, Name: "both", Role: "a"}, Change{Op: GrantRole, Name: "both", Role: "b"},
		Change{Op: GrantRole, Name: "neither", Role: "a\x00b"}, Change{Op: Enable})
	decoded, _, err := Decode(NewTokens().Append(tables.Append(nil)), false)
	if err != nil {
		t.Fatal(err)
	}
	for _, tables := range []*Tables{tables, decoded} {
		for name, want := range map[string]error{"both": nil, "neither": kv.ErrPermissionDenied} {
			s := tables.Subject([]byte(name), tables.Revision())
			if err := s.Keys(kv.ReadAccess, []byte("k"), nil); !errors.Is(err, want) {
				t.Errorf("%s reads k: %v, want %v", name, err, want)
			}
		}
	}
}
