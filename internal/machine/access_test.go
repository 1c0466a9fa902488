package machine

import (
	"bytes"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

// accessID is the id of an access token of the tests.
func accessID(n byte) kv.TokenID { return kv.TokenID{8, n} }

// access makes an access token and returns who shows it.
func (d *driver) access(n kv.NewAccessToken) *kv.Caller {
	d.Helper()
	if err, failed := d.apply(EncodeCreateAccess(nil, &n)).(error); failed {
		d.Fatal(err)
	}
	c, _, ok := d.Token(n.ID, 0)
	if !ok {
		d.Fatal("the access token is not good")
	}
	return &c
}

// app is a token that may do what u may, of half a second.
func (d *driver) app() *kv.Caller {
	return d.access(kv.NewAccessToken{ID: accessID(1), Name: "app", TTL: 500 * time.Millisecond, Roles: []string{"r"}})
}

// sinceAccess is what happened to an access token since it was looked up, and
// what then keeps the caller from a key that it had rights to.
var sinceAccess = map[string]struct {
	then func(*driver, *kv.Caller)
	want error
}{
	"good":            {func(*driver, *kv.Caller) {}, nil},
	"others' rights":  {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.AddUser, Name: "x"}) }, nil},
	"own rights":      {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.DeleteRole, Role: "r"}) }, kv.ErrPermissionDenied},
	"revoked":         {func(d *driver, _ *kv.Caller) { d.apply(EncodeRevokeAccess(nil, accessID(1))) }, kv.ErrInvalidAuthToken},
	"over":            {func(d *driver, _ *kv.Caller) { d.time += 500; d.apply(encodeOps(putOf("a"))) }, kv.ErrInvalidAuthToken},
	"nearly over":     {func(d *driver, _ *kv.Caller) { d.time += 490; d.apply(encodeOps(putOf("a"))) }, nil},
	"another's name":  {func(_ *driver, c *kv.Caller) { c.User = "root" }, kv.ErrInvalidAuthToken},
	"made up":         {func(_ *driver, c *kv.Caller) { c.Token++ }, kv.ErrInvalidAuthToken},
	"not looked up":   {func(_ *driver, c *kv.Caller) { c.Token = kv.NoTokenMark }, kv.ErrInvalidAuthToken},
	"switched off":    {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.Disable}) }, nil},
	"off, and on":     {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.Disable}, auth.Change{Op: auth.Enable}) }, nil},
	"after a restart": {func(d *driver, _ *kv.Caller) { d.restart() }, nil},
	"another of the name": {func(d *driver, _ *kv.Caller) {
		d.apply(EncodeRevokeAccess(nil, accessID(1)))
		d.access(kv.NewAccessToken{ID: accessID(2), Name: "app", Roles: []string{"r"}})
	}, kv.ErrInvalidAuthToken},
}

// Whoever shows an access token may do what its rights allow where and when the
// call is decided. A watch that was begun ends with the token.
func TestAccessTokensAreDecidedWhereTheyCount(t *testing.T) {
	for name, c := range sinceAccess {
		t.Run(name, func(t *testing.T) {
			d := guarded(t)
			revision := d.Access().Revision()
			caller := d.app()
			if d.Access().Revision() != revision {
				t.Error("an access token counts for the revision")
			}
			c.then(d, caller)
			checkAccess(t, d, caller, c.want)
			view := d.ViewAs(caller)
			defer view.Close()
			if err := view.MayWatch(&kv.WatchRequest{Key: []byte("c")}); !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("watch: %v, want %v", err, c.want)
			}
		})
	}
}

// checkAccess tries what the caller has rights to, and what it has not.
func checkAccess(t *testing.T, d *driver, caller *kv.Caller, refused error) {
	t.Helper()
	on := d.Access().Enabled()
	for what, c := range map[string]struct {
		command []byte
		want    error
	}{
		"put":       {encodeOps(putOf("c")), refused},
		"other put": {encodeOps(putOf("a")), kv.ErrPermissionDenied},
		"compact":   {EncodeCompact(nil, 1), kv.ErrPermissionDenied},
		"token":     {EncodeRevokeAccess(nil, accessID(9)), kv.ErrPermissionDenied},
	} {
		want := c.want
		if want != nil && (errors.Is(refused, kv.ErrInvalidAuthToken) || !on) {
			want = refused
		}
		err, _ := d.apply(AppendCaller(c.command, 0, caller)).(error)
		if !on && what != "put" { // there is nothing to compact, and no such token
			continue
		}
		if !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	view := d.ViewAs(caller)
	defer view.Close()
	if _, err := view.Range(&kv.Range{Key: []byte("c")}); !errors.Is(err, refused) || refused == nil && err != nil {
		t.Errorf("range: %v, want %v", err, refused)
	}
}

// The entry at whose time a token is over ends it, whatever is in it, and tells
// who waits. One of before tells nobody.
func TestAccessTokensExpire(t *testing.T) {
	d := guarded(t)
	caller := d.app()
	deadline := d.time + 500
	changed := d.AccessChanged()
	look := func() bool {
		select {
		case <-changed:
			return true
		default:
			return false
		}
	}
	_, before := d.Hash()
	d.time = deadline - 1
	d.apply(EncodeExpire(nil, 1, nil, nil))
	if _, _, ok := d.Token(accessID(1), 0); !ok || look() {
		t.Error("it is over before its time")
	}
	if next := d.NextDeadline(); next != kv.Time(deadline) {
		t.Errorf("the next deadline is %d, want %d", next, deadline)
	}
	if command, more := d.Expiry(1, kv.Time(deadline-1), 10); command != nil || more {
		t.Error("it is to be ended before its time")
	}
	command, _ := d.Expiry(1, kv.Time(deadline), 10)
	if command == nil {
		t.Fatal("it is not to be ended")
	}
	d.time = deadline
	d.apply(command)
	if _, _, ok := d.Token(accessID(1), 0); ok || !look() {
		t.Error("it is not over at its time, or nobody was told")
	}
	if command, _ = d.Expiry(1, kv.Time(deadline), 10); command != nil || d.NextDeadline() != math.MaxInt64 {
		t.Error("it is to be ended twice")
	}
	if _, after := d.Hash(); after == before {
		t.Error("no hash tells of it")
	}
	checkAccess(t, d, caller, kv.ErrInvalidAuthToken)
	d.alarm(kv.Alarm{Member: 1, Type: kv.AlarmCorrupt}, true)
	d.access(kv.NewAccessToken{ID: accessID(2), TTL: time.Millisecond})
	if d.NextDeadline() != kv.Time(d.time+1) {
		t.Error("while members differ, access tokens do not expire")
	}
}

// A year's token makes an idle cluster tell the time once an hour, and more often
// only when little is left.
func TestIdleLogIsToldTheTimeForAccessTokens(t *testing.T) {
	const hour, year = 3_600_000, 365 * 24 * 3_600_000
	for _, c := range []struct {
		left, since int64 // of the token; since the last entry
		want        bool
	}{
		{year, 1, false}, {year, 1000, false}, {year, hour - 1, false}, {year, hour, true}, {year, 30 * hour, true},
		{64 * hour, hour, true}, {64 * hour, hour - 1, false}, {32 * hour, hour / 2, true}, {32 * hour, hour/2 - 1, false},
		{64_000, 999, false}, {64_000, 1000, true}, {1000, 16, true}, {1000, 15, true}, {1000, 14, false},
	} {
		d := guarded(t)
		d.access(kv.NewAccessToken{ID: accessID(1), TTL: time.Duration(c.left) * time.Millisecond})
		if got := d.Beat(1, kv.Time(d.time+c.since)) != nil; got != c.want {
			t.Errorf("%d ms left, %d ms after the last entry: a beat %v", c.left, c.since, got)
		}
	}
	d := guarded(t)
	d.access(kv.NewAccessToken{ID: accessID(1)})
	if d.Beat(1, math.MaxInt64) != nil {
		t.Error("a token that does not expire makes the log tell the time")
	}
}

// Who may manage users and tokens cannot become root by it.
func TestManagersCannotBecomeRoot(t *testing.T) {
	d := guarded(t)
	d.access(kv.NewAccessToken{ID: accessID(1), Name: "boss", Roles: []string{"root"}})
	manager := d.access(kv.NewAccessToken{ID: accessID(2), Name: "manager", Roles: []string{kv.AuthAdminRole}})
	create := func(n byte, roles ...string) []byte {
		return EncodeCreateAccess(nil, &kv.NewAccessToken{ID: accessID(n), Roles: roles})
	}
	change := func(c auth.Change) []byte { return EncodeAuth(nil, &c) }
	roots := d.bearer("root")
	yes, no := error(nil), error(kv.ErrPermissionDenied)
	for _, c := range []struct {
		what    string
		command []byte
		want    error
	}{
		{"a root token", create(3, "root"), no},
		{"a root token among others", create(3, "r", "root", "r"), no},
		{"a token", create(3, "r", kv.ClusterRole), yes},
		{"a manager's", create(4, kv.AuthAdminRole), yes},
		{"revoke root's", EncodeRevokeAccess(nil, accessID(1)), no},
		{"revoke its own", EncodeRevokeAccess(nil, accessID(4)), yes},
		{"revoke none", EncodeRevokeAccess(nil, accessID(4)), kv.ErrTokenNotFound},
		{"bootstrap", EncodeBootstrap(nil, accessID(5)), no},
		{"ensure", EncodeEnsureRoot(nil, accessID(5)), no},
		{"ensure itself", EncodeEnsureRoot(nil, accessID(2)), no},
		{"log root out", EncodeRevokeToken(nil, d.gate.tokens.Marked(roots.Token).ID), no},
		{"disable", change(auth.Change{Op: auth.Disable}), no},
		{"give root", change(auth.Change{Op: auth.GrantRole, Name: "u", Role: "root"}), no},
		{"root's password", change(auth.Change{Op: auth.SetPassword, Name: "root", Hash: "x"}), no},
		{"a user", change(auth.Change{Op: auth.AddUser, Name: "v"}), yes},
		{"a role", change(auth.Change{Op: auth.GrantRole, Name: "v", Role: "r"}), yes},
		{"keys", encodeOps(putOf("c")), no},
		{"compact", EncodeCompact(nil, 1), no},
	} {
		_, before := d.Hash()
		err, _ := d.apply(AppendCaller(c.command, 0, manager)).(error)
		if !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
		if _, after := d.Hash(); after == before {
			t.Errorf("%s: no trace in the hash", c.what)
		}
	}
	if _, _, ok := d.Token(d.gate.tokens.Marked(roots.Token).ID, 0); !ok || !d.Access().IsRoot(accessID(1)) || d.Access().IsRoot(accessID(2)) {
		t.Error("a refusal had an effect")
	}
}

func TestBootstrapCommand(t *testing.T) {
	d := start(t)
	if err, failed := d.apply(EncodeBootstrap(nil, accessID(1))).(error); failed {
		t.Fatal(err)
	}
	wantError(t, d.apply(EncodeBootstrap(nil, accessID(2))), kv.ErrAuthSetUp)
	d.restart()
	c, _, ok := d.Token(accessID(1), 0)
	s := d.Subject(&c)
	if !ok || !s.Root() || s.Bound() || !d.Access().Enabled() || c.User != "token:root" {
		t.Errorf("%+v", c)
	}
	if err, failed := d.apply(AppendCaller(encodeOps(putOf("a")), 0, &c)).(error); failed {
		t.Error(err)
	}
	wantError(t, d.apply(AppendCaller(encodeOps(putOf("a")), 0, &kv.Caller{})), kv.ErrUserEmpty)
	wantError(t, d.apply(EncodeRevokeAccess(nil, accessID(1))), kv.ErrLastRoot)
	if err, failed := d.apply(EncodeEnsureRoot(nil, accessID(2))).(error); failed {
		t.Fatal(err)
	}
	_, before := d.Hash()
	d.apply(EncodeEnsureRoot(nil, accessID(2)))
	if _, after := d.Hash(); after == before || len(d.Access().AccessTokens()) != 2 {
		t.Error("ensured twice")
	}
	if err, failed := d.apply(EncodeRevokeAccess(nil, accessID(1))).(error); failed {
		t.Errorf("one of two: %v", err)
	}
	// A backup brings access tokens along, as it does users.
	d.restart()
	d.Bootstrap(99, []kv.Member{{ID: 5}})
	d.index = 1
	if _, _, ok := d.Token(accessID(2), 0); !ok {
		t.Error("the access token is not that of the backup")
	}
}

// The running hash tells apart what only access tokens tell apart.
func TestAccessIsHashed(t *testing.T) {
	seen := map[uint64]string{}
	create := func(n kv.NewAccessToken) []byte { return EncodeCreateAccess(nil, &n) }
	for name, c := range map[string][]byte{
		"token":       create(kv.NewAccessToken{ID: accessID(1)}),
		"other token": create(kv.NewAccessToken{ID: accessID(2)}),
		"name":        create(kv.NewAccessToken{ID: accessID(1), Name: "x"}),
		"ttl":         create(kv.NewAccessToken{ID: accessID(1), TTL: time.Hour}),
		"role":        create(kv.NewAccessToken{ID: accessID(1), Roles: []string{"r"}}),
		"read":        create(kv.NewAccessToken{ID: accessID(1), Permissions: []kv.Permission{{Key: []byte("a")}}}),
		"write":       create(kv.NewAccessToken{ID: accessID(1), Permissions: []kv.Permission{{Key: []byte("a"), Access: 1}}}),
		"refused":     create(kv.NewAccessToken{ID: accessID(1), Roles: []string{"no such"}}),
		"revoked":     EncodeRevokeAccess(nil, accessID(7)),
		"root":        EncodeEnsureRoot(nil, accessID(1)),
		"bootstrap":   EncodeBootstrap(nil, accessID(1)),
	} {
		d := guarded(t)
		d.access(kv.NewAccessToken{ID: accessID(7)})
		d.apply(c)
		_, hash := d.Hash()
		if seen[hash] != "" {
			t.Errorf("%s hashes as %s", name, seen[hash])
		}
		seen[hash] = name
	}
}

// A command about access tokens that this program does not know stops it.
func TestUnknownAccessCommand(t *testing.T) {
	good := EncodeCreateAccess(nil, &kv.NewAccessToken{ID: accessID(1), Name: "n", Roles: []string{"root"}, Permissions: []kv.Permission{{Key: []byte("k"), End: []byte("l")}}})
	for name, command := range map[string][]byte{
		"op 0": appendAccess(nil, 0, accessID(1)), "op 5": appendAccess(nil, 5, accessID(1)), "more": append(EncodeRevokeAccess(nil, accessID(1)), 0),
		"a short id": EncodeRevokeAccess(nil, accessID(1))[:20],
	} {
		if _, ok := recovered(func() { start(t).apply(command) }).(*CommandError); !ok {
			t.Errorf("%s was applied", name)
		}
	}
	for n := 2; n < len(good); n++ {
		if _, ok := recovered(func() { start(t).apply(bytes.Clone(good[:n])) }).(*CommandError); !ok {
			t.Errorf("%d of %d bytes were applied", n, len(good))
		}
	}
	d := start(t)
	if err, failed := d.apply(good).(error); failed {
		t.Error(err)
	}
	d.apply(EncodeCreateAccess(nil, &kv.NewAccessToken{ID: accessID(2), TTL: kv.MaxTTL}))
	tooLong := kv.NewAccessToken{ID: accessID(3), TTL: kv.MaxTTL + time.Millisecond}
	wantError(t, d.apply(EncodeCreateAccess(nil, &tooLong)), kv.ErrTTLTooLarge)
}
