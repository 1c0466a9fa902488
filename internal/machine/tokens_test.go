package machine

import (
	"errors"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

// Tokens live in cluster time, and survive a restart; a new cluster has none.
func TestTokensInTheMachine(t *testing.T) {
	d := guarded(t)
	token := kv.Token{ID: kv.TokenID{1}, Caller: kv.Caller{User: "u", AuthRevision: d.Access().Revision()}, TTL: 100 * time.Millisecond}
	if err, failed := d.apply(EncodeToken(nil, &token)).(error); failed {
		t.Fatal(err)
	}
	d.restart()
	check := func(wantHalf, want bool) {
		t.Helper()
		d.index++
		d.Apply(d.at(), nil, nil)
		whose := token.Caller
		whose.Token = token.ID.Mark()
		if c, half, ok := d.Token(token.ID, 0); ok != want || ok && (half != wantHalf || c != whose) {
			t.Errorf("at %d: %+v, half %v, good %v", d.time, c, half, ok)
		}
	}
	check(false, true)
	d.time = 60
	check(true, true)
	if err, failed := d.apply(EncodeRenewToken(nil, token.ID)).(error); failed {
		t.Fatal(err)
	}
	check(false, true)
	d.time = 159
	check(true, true)
	d.time = 160
	check(true, false)
	wantError(t, d.apply(EncodeRenewToken(nil, token.ID)), kv.ErrInvalidAuthToken)
	d.apply(EncodeToken(nil, &token))
	check(false, true)
	d.restart()
	d.Bootstrap(99, []kv.Member{{ID: 5}})
	d.index = 1
	check(false, false)
	if !d.Access().Enabled() || d.Access().Revision() != token.Caller.AuthRevision {
		t.Error("users and roles are not those of the backup")
	}
}

// bearer makes a token of a user.
func (d *driver) bearer(user string) *kv.Caller {
	d.Helper()
	id := kv.TokenID{byte(d.index), byte(d.index >> 8), 1}
	token := kv.Token{ID: id, Caller: kv.Caller{User: user, AuthRevision: d.Access().Revision()}, TTL: 100 * time.Millisecond}
	if err, failed := d.apply(EncodeToken(nil, &token)).(error); failed {
		d.Fatal(err)
	}
	c, _, ok := d.Token(id, 0)
	if !ok {
		d.Fatal("the token is not good")
	}
	return &c
}

// The leader brings the time into the log while a token, a lease or a key ends by
// it, and no entry does.
func TestBeat(t *testing.T) {
	d := guarded(t)
	beat := func(when string, want bool) {
		t.Helper()
		now := d.time
		command := d.Beat(kv.Term(d.at().Term), kv.Time(now))
		if command != nil {
			t.Errorf("%s: a beat, though the last entry is new", when)
		}
		if command = d.Beat(kv.Term(d.at().Term), kv.Time(now+1)); command == nil == want {
			t.Fatalf("%s: beat %x", when, command)
		}
		if want {
			d.time++
			if err, failed := d.apply(command).(error); failed {
				t.Error(err)
			}
			if d.Status().Time != kv.Time(d.time) {
				t.Errorf("%s: the time is %d, not %d", when, d.Status().Time, d.time)
			}
		}
	}
	d.apply(encodeOps(putOf("a")))
	beat("nothing ends", false)
	c := d.bearer("u")
	beat("a token", true)
	d.restart()
	beat("a token after a restart", true)
	d.time += 100
	d.apply(encodeOps(putOf("a")))
	beat("a token that is over", false)
	if d.gate.tokens.Marked(c.Token) == nil {
		t.Error("the token was forgotten: the check shows nothing")
	}
	d.apply(EncodeGrant(nil, 7, time.Minute))
	beat("a lease", true)
	d.apply(EncodeRevoke(nil, 7))
	beat("a lease that is revoked", false)
	d.apply(encodeOps(kv.Op{Kind: kv.OpPut, Key: []byte("a"), TTL: time.Minute}))
	beat("a key", true)
}

// since is what happened to a token, or to whom it stands for, since it was
// looked up, and what then keeps the caller from a key that it had rights to.
var since = map[string]struct {
	then func(*driver, *kv.Caller)
	want error
}{
	"good":             {func(*driver, *kv.Caller) {}, nil},
	"others' rights":   {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.AddRole, Role: "x"}) }, nil},
	"own rights":       {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.RevokeRole, Name: "u", Role: "r"}) }, kv.ErrPermissionDenied},
	"revoked":          {func(d *driver, c *kv.Caller) { d.apply(EncodeRevokeToken(nil, d.gate.tokens.Marked(c.Token).ID)) }, kv.ErrInvalidAuthToken},
	"over":             {func(d *driver, _ *kv.Caller) { d.time += 100 }, kv.ErrInvalidAuthToken},
	"nearly over":      {func(d *driver, _ *kv.Caller) { d.time += 99 }, nil},
	"another password": {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.SetPassword, Name: "u", Hash: "x"}) }, kv.ErrInvalidAuthToken},
	"user deleted":     {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.DeleteUser, Name: "u"}) }, kv.ErrInvalidAuthToken},
	"another user of the name": {func(d *driver, _ *kv.Caller) {
		d.auth(auth.Change{Op: auth.DeleteUser, Name: "u"}, auth.Change{Op: auth.AddUser, Name: "u"}, auth.Change{Op: auth.GrantRole, Name: "u", Role: "r"})
	}, kv.ErrInvalidAuthToken},
	"another's":       {func(_ *driver, c *kv.Caller) { c.User = "root" }, kv.ErrInvalidAuthToken},
	"made up":         {func(_ *driver, c *kv.Caller) { c.Token++ }, kv.ErrInvalidAuthToken},
	"switched off":    {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.Disable}) }, nil},
	"off, and on":     {func(d *driver, _ *kv.Caller) { d.auth(auth.Change{Op: auth.Disable}, auth.Change{Op: auth.Enable}) }, kv.ErrInvalidAuthToken},
	"after a restart": {func(d *driver, _ *kv.Caller) { d.restart() }, nil},
}

// Who shows a token is who it stands for where the call is decided, however old
// what was known of it elsewhere: rights that changed since count as they now
// are, and a token that is over, revoked or of another password does not count.
func TestTokensAreDecidedWhereTheyCount(t *testing.T) {
	for name, c := range since {
		t.Run(name, func(t *testing.T) {
			d := guarded(t)
			caller := d.bearer("u")
			c.then(d, caller)
			checkBearer(t, d, caller, c.want)
			view := d.ViewAs(caller)
			defer view.Close()
			err := view.MayWatch(&kv.WatchRequest{Key: []byte("c")})
			switch name {
			case "revoked", "over": // what was begun goes on
				if err != nil {
					t.Errorf("watch: %v", err)
				}
			case "another's", "made up", "off, and on": // cannot be while it goes on
			default:
				if (err == nil) != (c.want == nil) {
					t.Errorf("watch: %v, want %v", err, c.want)
				}
			}
		})
	}
}

// checkBearer tries what the caller has rights to.
func checkBearer(t *testing.T, d *driver, caller *kv.Caller, refused error) {
	t.Helper()
	right := refused // what is not about keys
	if errors.Is(refused, kv.ErrPermissionDenied) {
		right = nil
	}
	for what, command := range map[string][]byte{
		"put":   encodeOps(putOf("c")),
		"txn":   encodeOps(putOf("c"), rangeOf("d", "")),
		"grant": EncodeGrant(nil, 7, time.Minute),
	} {
		want := refused
		if what == "grant" {
			want = right
		}
		if err, _ := d.apply(AppendCaller(command, 0, caller)).(error); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	view := d.ViewAs(caller)
	defer view.Close()
	if _, err := view.Range(&kv.Range{Key: []byte("c")}); !errors.Is(err, refused) {
		t.Errorf("range: %v, want %v", err, refused)
	}
	if _, err := view.Leases(); !errors.Is(err, right) {
		t.Errorf("leases: %v, want %v", err, right)
	}
	s := d.Subject(caller)
	if err := s.Right(kv.AnyUser); !errors.Is(err, right) {
		t.Errorf("a user's right: %v, want %v", err, right)
	}
	if err := s.AskUser(caller.User); !errors.Is(err, right) {
		t.Errorf("asking about oneself: %v, want %v", err, right)
	}
}
