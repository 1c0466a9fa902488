package kvtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Guarded is a store that knows users, roles and access tokens.
type Guarded interface {
	kv.Store
	kv.Authority
	kv.AccessTokens
}

// RunAccessTokens holds a store to what package kv promises of access tokens,
// which callers show with [kv.WithTokenID]. The store must be fresh, with
// authentication off; afterwards it is on. A context without a caller must be
// able to do everything. Of the options only Advance and Patience matter.
func RunAccessTokens(t *testing.T, store Guarded, o Options) {
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	ctx, cancel := context.WithTimeout(t.Context(), o.Patience)
	t.Cleanup(cancel)
	a := &accessEnv{T: t, store: store, ctx: ctx, opts: o}
	a.must(store.AddRole(ctx, "reader"))
	a.must(store.GrantPermission(ctx, "reader", kv.Permission{Key: []byte("r/"), End: kv.Prefix([]byte("r/"))}))
	revision := store.Auth().Revision
	a.boss, _ = a.create(kv.NewAccessToken{Name: "boss", Roles: []string{kv.RootName}})
	a.must(store.EnableAuth(ctx)) // a root token is as good as a user root
	if got := store.Auth().Revision; got != revision {
		t.Errorf("access tokens moved the auth revision from %d to %d", revision, got)
	}
	for _, c := range []struct {
		name string
		run  func(a *accessEnv)
	}{
		{"Rights", accessRights}, {"Refused", accessRefused}, {"List", accessList}, {"Revoke", accessRevoke},
		{"Expire", accessExpire}, {"Manager", accessManager}, {"LastRoot", accessLastRoot},
	} {
		t.Run(c.name, func(t *testing.T) {
			own := *a
			own.T = t
			c.run(&own)
		})
	}
}

// accessEnv is what a case of access tokens works with.
type accessEnv struct {
	*testing.T
	store Guarded
	ctx   context.Context
	opts  Options
	boss  context.Context // of a token with the role root
}

func (a *accessEnv) must(_ kv.Header, err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

// create makes a token; calls with the context show it.
func (a *accessEnv) create(n kv.NewAccessToken) (context.Context, kv.TokenID) {
	a.Helper()
	id, err := kv.ParseSecretToken(kv.NewSecretToken())
	if err != nil {
		a.Fatal(err)
	}
	n.ID = id
	got, h, err := a.store.CreateToken(a.ctx, n)
	if err != nil {
		a.Fatal(err)
	}
	want := kv.AccessToken{ID: id, Name: n.Name, Created: h.Time}
	if n.TTL != 0 {
		want.Expires = h.Time.Add(n.TTL)
	}
	if got.ID != want.ID || got.Name != want.Name || got.Created != want.Created || got.Expires != want.Expires || !slices.Equal(got.Roles, slices.Sorted(slices.Values(n.Roles))) {
		a.Errorf("made %+v of %+v", got, n)
	}
	return kv.WithTokenID(a.ctx, id), id
}

// is fails unless err is want.
func (a *accessEnv) is(what string, err, want error) {
	a.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		a.Errorf("%s: %v, want %v", what, err, want)
	}
}

// uses makes a call of each kind with keys of a range, and tells what came of
// each.
func (a *accessEnv) uses(ctx context.Context, key, end string) (reads, writes map[string]error) {
	k, e := []byte(key), []byte(end)
	_, get := a.store.Range(ctx, kv.Range{Key: k, End: e})
	_, compare := a.store.Txn(ctx, kv.Txn{Compare: []kv.Compare{{Key: k, End: e}}})
	watch := error(nil)
	for _, err := range a.store.Watch(ctx, kv.WatchRequest{Key: k, End: e}) {
		watch = err
		break
	}
	_, put := kv.Put(ctx, a.store, k, "v")
	_, remove := a.store.Txn(ctx, kv.Txn{Success: []kv.Op{{Kind: kv.OpDelete, Key: k, End: e}}})
	reads = map[string]error{"range": get, "compare": compare, "watch": watch}
	writes = map[string]error{"delete": remove}
	if end == "" {
		writes["put"] = put
	}
	return reads, writes
}

// accessRights: what a token may do is what its own permissions and its roles
// add up to, and what [kv.AccessTokens.Can] says.
func accessRights(a *accessEnv) {
	permission := func(access kv.Access, key, end string) []kv.Permission {
		return []kv.Permission{{Access: access, Key: []byte(key), End: []byte(end)}}
	}
	for name, c := range map[string]struct {
		token       kv.NewAccessToken
		key, end    string
		read, write bool
	}{
		"nothing":         {kv.NewAccessToken{}, "r/1", "", false, false},
		"a role":          {kv.NewAccessToken{Roles: []string{"reader"}}, "r/1", "", true, false},
		"beside the role": {kv.NewAccessToken{Roles: []string{"reader"}}, "s/1", "", false, false},
		"more than it":    {kv.NewAccessToken{Roles: []string{"reader"}}, "r/1", "s", false, false},
		"read":            {kv.NewAccessToken{Permissions: permission(kv.ReadAccess, "w/", "w0")}, "w/1", "w/2", true, false},
		"write":           {kv.NewAccessToken{Permissions: permission(kv.WriteAccess, "w/", "w0")}, "w/1", "", false, true},
		"all":             {kv.NewAccessToken{Permissions: permission(kv.ReadWriteAccess, "w/", "w0")}, "w/1", "", true, true},
		"from on":         {kv.NewAccessToken{Permissions: permission(kv.ReadWriteAccess, "w", "\x00")}, "w/1", "\x00", true, true},
		"adds up":         {kv.NewAccessToken{Roles: []string{"reader"}, Permissions: permission(kv.ReadWriteAccess, "r0", "s")}, "r/", "s", true, false},
		"root":            {kv.NewAccessToken{Roles: []string{kv.RootName}}, "w/1", "\x00", true, true},
	} {
		ctx, id := a.create(c.token)
		reads, writes := a.uses(ctx, c.key, c.end)
		for access, answers := range map[kv.Access]map[string]error{kv.ReadAccess: reads, kv.WriteAccess: writes} {
			want := error(nil)
			if allowed := access == kv.ReadAccess && c.read || access == kv.WriteAccess && c.write; !allowed {
				want = kv.ErrPermissionDenied
			}
			for what, err := range answers {
				a.is(name+": "+what, err, want)
			}
			v, err := a.store.Can(ctx, kv.Question{Token: id, Access: access, Key: []byte(c.key), End: []byte(c.end)})
			if err != nil || v.Allowed != (want == nil) || v.Allowed != (v.Because == kv.BecauseOfRules || v.Because == kv.BecauseRoot) {
				a.Errorf("%s: can it %v? %+v, %v", name, access, v, err)
			}
		}
	}
}

// accessRefused: tokens that cannot be made.
func accessRefused(a *accessEnv) {
	_, id := a.create(kv.NewAccessToken{Name: "taken"})
	other, err := kv.ParseSecretToken(kv.NewSecretToken())
	if err != nil {
		a.Fatal(err)
	}
	for name, c := range map[string]struct {
		token kv.NewAccessToken
		want  *kv.Error
	}{
		"a secret twice":  {kv.NewAccessToken{ID: id}, kv.ErrTokenExists},
		"a name twice":    {kv.NewAccessToken{ID: other, Name: "taken"}, kv.ErrTokenExists},
		"no such role":    {kv.NewAccessToken{ID: other, Roles: []string{"nobody's"}}, kv.ErrRoleNotFound},
		"no keys":         {kv.NewAccessToken{ID: other, Permissions: []kv.Permission{{}}}, kv.ErrInvalidAuthManagement},
		"a negative TTL":  {kv.NewAccessToken{ID: other, TTL: -time.Second}, kv.ErrInvalidTTL},
		"too long a TTL":  {kv.NewAccessToken{ID: other, TTL: kv.MaxTTL + time.Millisecond}, kv.ErrTTLTooLarge},
		"a name of lines": {kv.NewAccessToken{ID: other, Name: "a\nb"}, &kv.Error{Code: kv.InvalidArgument}},
	} {
		_, _, err := a.store.CreateToken(a.ctx, c.token)
		if kv.CodeOf(err) != c.want.Code || c.want.Message != "" && !errors.Is(err, c.want) {
			a.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	_, err = a.store.RevokeAccessToken(a.ctx, other)
	a.is("revoke what is not there", err, kv.ErrTokenNotFound)
	v, err := a.store.Can(a.ctx, kv.Question{Token: other, Key: []byte("k")})
	if err != nil || v.Allowed || v.Because != kv.BecauseUnknown {
		a.Errorf("can nobody? %+v, %v", v, err)
	}
	reads, writes := a.uses(kv.WithTokenID(a.ctx, other), "k", "")
	for _, answers := range []map[string]error{reads, writes} {
		for what, err := range answers {
			a.is(what+" with a token that is not there", err, kv.ErrInvalidAuthToken)
		}
	}
}

// accessList: tokens are listed by name to whoever manages them, and each sees
// itself.
func accessList(a *accessEnv) {
	a.create(kv.NewAccessToken{Name: "zebra"})
	ctx, id := a.create(kv.NewAccessToken{Name: "ant"})
	list, h, err := a.store.AccessTokens(a.boss)
	if err != nil || h.Revision == 0 {
		a.Fatalf("%+v, %v", h, err)
	}
	names := make([]string, len(list))
	for i := range list {
		names[i] = list[i].Name
	}
	named := slices.Index(append(names, ""), "")
	if !slices.IsSorted(names[:named]) || slices.ContainsFunc(names[named:], func(s string) bool { return s != "" }) || names[0] != "ant" {
		a.Errorf("tokens are listed as %q", names)
	}
	if list, _, err = a.store.AccessTokens(ctx); err != nil || len(list) != 1 || list[0].ID != id {
		a.Errorf("a token sees %+v, %v", list, err)
	}
	_, _, err = a.store.AccessTokens(kv.WithCaller(a.ctx, kv.Caller{}))
	a.is("nobody's look", err, kv.ErrUserEmpty)
}

// watch follows a watch until it ends, and tells when it has begun.
func (a *accessEnv) watch(ctx context.Context, key string) (began <-chan struct{}, done <-chan error) {
	begins, ends := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for _, err := range a.store.Watch(ctx, kv.WatchRequest{Key: []byte(key)}) {
			if err != nil {
				ends <- err
				return
			}
			select {
			case begins <- struct{}{}:
			default:
			}
		}
		ends <- nil
	}()
	return begins, ends
}

// accessRevoke: a token is dead at the first call after it was revoked, and its
// watches end though nothing is written.
func accessRevoke(a *accessEnv) {
	ctx, id := a.create(kv.NewAccessToken{Roles: []string{"reader"}})
	began, done := a.watch(ctx, "r/1")
	select {
	case <-began:
	case err := <-done:
		a.Fatalf("the watch ended before anything could end it: %v", err)
	}
	a.must(a.store.RevokeAccessToken(a.boss, id))
	_, err := a.store.Range(ctx, kv.Range{Key: []byte("r/1")})
	a.is("range", err, kv.ErrInvalidAuthToken)
	_, err = kv.Put(ctx, a.store, []byte("r/1"), "v")
	a.is("put", err, kv.ErrInvalidAuthToken)
	a.is("the watch", <-done, kv.ErrInvalidAuthToken)
}

// accessExpire: a token ends in cluster time, though nothing is written, and
// its watches with it; another does not.
func accessExpire(a *accessEnv) {
	long, _ := a.create(kv.NewAccessToken{Roles: []string{"reader"}, TTL: time.Hour})
	short, _ := a.create(kv.NewAccessToken{Roles: []string{"reader"}, TTL: 2 * time.Second})
	_, done := a.watch(short, "r/1")
	if a.opts.Advance != nil {
		a.opts.Advance(a.store, 3*time.Second)
	}
	a.is("the watch", <-done, kv.ErrInvalidAuthToken)
	_, err := a.store.Range(short, kv.Range{Key: []byte("r/1")})
	a.is("range", err, kv.ErrInvalidAuthToken)
	_, err = a.store.Range(long, kv.Range{Key: []byte("r/1")})
	a.is("range of one of an hour", err, nil)
}

// accessManager: the role for users and tokens does not lead to the role root.
func accessManager(a *accessEnv) {
	ctx, _ := a.create(kv.NewAccessToken{Name: "manager", Roles: []string{kv.AuthAdminRole}})
	id, err := kv.ParseSecretToken(kv.NewSecretToken())
	if err != nil {
		a.Fatal(err)
	}
	_, _, err = a.store.CreateToken(ctx, kv.NewAccessToken{ID: id, Roles: []string{kv.RootName}})
	a.is("make a root", err, kv.ErrPermissionDenied)
	_, err = a.store.RevokeAccessToken(ctx, *kv.TokenIDOf(a.boss))
	a.is("revoke root", err, kv.ErrPermissionDenied)
	_, err = a.store.DisableAuth(ctx)
	a.is("disable", err, kv.ErrPermissionDenied)
	_, err = a.store.AddUser(ctx, kv.NewUser{Name: kv.RootName, NoPassword: true})
	a.is("make a user root", err, kv.ErrPermissionDenied)
	_, err = a.store.Compact(ctx, 1)
	a.is("compact", err, kv.ErrPermissionDenied)
	_, _, err = a.store.CreateToken(ctx, kv.NewAccessToken{ID: id, Roles: []string{"reader"}})
	a.is("make a token", err, nil)
	_, err = a.store.RevokeAccessToken(ctx, id)
	a.is("revoke a token", err, nil)
}

// accessLastRoot: the last way to be root stays.
func accessLastRoot(a *accessEnv) {
	list, _, err := a.store.AccessTokens(a.boss)
	if err != nil {
		a.Fatal(err)
	}
	boss := *kv.TokenIDOf(a.boss)
	for i := range list {
		if slices.Contains(list[i].Roles, kv.RootName) && list[i].ID != boss {
			a.must(a.store.RevokeAccessToken(a.boss, list[i].ID))
		}
	}
	a.create(kv.NewAccessToken{Name: "for an hour", Roles: []string{kv.RootName}, TTL: time.Hour})
	_, err = a.store.RevokeAccessToken(a.ctx, boss)
	a.is("revoke the last root for good", err, kv.ErrLastRoot)
	a.create(kv.NewAccessToken{Name: "heir", Roles: []string{kv.RootName}})
	a.must(a.store.RevokeAccessToken(a.ctx, boss))
}
