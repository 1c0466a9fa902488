package client_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// tokened is a member with users, and a client of root.
type tokened struct {
	*testing.T
	node *concord.Node
	addr string
	root *client.Client
}

func newTokened(t *testing.T) *tokened {
	node, addr := withUsers(t, server.AuthConfig{})
	return &tokened{t, node, addr, open(t, client.Config{Endpoints: []string{addr}, User: "root", Password: "secret", Timeout: time.Minute})}
}

// create makes a token; the client shows it.
func (k *tokened) create(n kv.NewAccessToken) (*client.Client, kv.AccessToken) {
	k.Helper()
	secret := kv.NewSecretToken()
	var err error
	if n.ID, err = kv.ParseSecretToken(secret); err != nil {
		k.Fatal(err)
	}
	made, h, err := k.root.CreateToken(k.Context(), n)
	if err != nil || made.ID != n.ID || made.Created != h.Time || h.Time == 0 || h.Revision == 0 {
		k.Fatalf("%+v at %+v, %v", made, h, err)
	}
	return open(k, client.Config{Endpoints: []string{k.addr}, Token: secret, Timeout: time.Minute}), made
}

// alike compares all fields; an empty slice is as good as none.
func alike(a, b any) bool { return fmt.Sprintf("%+v", a) == fmt.Sprintf("%+v", b) }

// TestAccessTokens has the client tell of access tokens what the member itself
// tells.
func TestAccessTokens(t *testing.T) {
	k, ctx := newTokened(t), t.Context()
	every := []kv.Permission{
		{Access: kv.ReadAccess, Key: []byte{0}, End: []byte{0}}, {Access: kv.ReadWriteAccess, Key: []byte("a/"), End: []byte("a0")},
		{Access: kv.WriteAccess, Key: []byte("k")}, {Access: kv.ReadAccess, Key: []byte{0xff, 0}, End: []byte{0xff, 0xfe}},
	}
	app, made := k.create(kv.NewAccessToken{Name: "web", Roles: []string{"app"}, Permissions: every, TTL: time.Hour})
	if made.Expires != made.Created.Add(time.Hour) || made.Name != "web" || !slices.Equal(made.Roles, []string{"app"}) || !alike(made.Permissions, every) {
		t.Errorf("made %+v", made)
	}
	_, bare := k.create(kv.NewAccessToken{Permissions: every[2:3], TTL: time.Nanosecond + 2*time.Hour}) // in whole milliseconds, not less
	if bare.Expires != bare.Created.Add(2*time.Hour+time.Millisecond) {
		t.Errorf("%v is good for %v", bare.ID, bare.Expires.Sub(bare.Created))
	}
	if _, err := kv.Put(ctx, app, "a/1", "x"); err != nil {
		t.Fatal(err)
	}
	want, _, err := k.node.AccessTokens(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got, h, err := k.root.AccessTokens(ctx)
	for i := range got {
		if !got[i].LastUsed.Equal(want[i].LastUsed) || (got[i].LastUsed.IsZero()) != (got[i].Name == "") {
			t.Errorf("%s was used at %v, not at %v", got[i].Name, got[i].LastUsed, want[i].LastUsed)
		}
		got[i].LastUsed = want[i].LastUsed
	}
	if err != nil || h.Time < made.Created || len(got) != 2 || !alike(got, want) {
		t.Errorf("%+v at %+v, %v\nwant %+v", got, h, err, want)
	}
	if h, err := k.root.RevokeAccessToken(ctx, made.ID); err != nil || h.Time == 0 {
		t.Errorf("revoke: %+v, %v", h, err)
	}
	_, err = app.Range(ctx, kv.Range{Key: []byte("a")})
	wantErr(t, "with the revoked token", err, kv.ErrInvalidAuthToken)
	_, _, err = app.AccessTokens(ctx)
	wantErr(t, "list with the revoked token", err, kv.ErrInvalidAuthToken)
}

// TestAccessTokensRefused has every refusal as an embedded store has it, and
// everybody without the right is refused.
func TestAccessTokensRefused(t *testing.T) {
	k, ctx := newTokened(t), t.Context()
	plain, made := k.create(kv.NewAccessToken{Name: "plain", Roles: []string{"app"}})
	manager, _ := k.create(kv.NewAccessToken{Name: "manager", Roles: []string{kv.AuthAdminRole}})
	fresh, err := kv.ParseSecretToken(kv.NewSecretToken())
	if err != nil {
		t.Fatal(err)
	}
	nobody := open(t, client.Config{Endpoints: []string{k.addr}})
	alice := open(t, client.Config{Endpoints: []string{k.addr}, User: "alice", Password: "pass", Timeout: time.Minute})
	unknown := open(t, client.Config{Endpoints: []string{k.addr}, Token: kv.NewSecretToken()})
	wrong := open(t, client.Config{Endpoints: []string{k.addr}, User: "alice", Password: "x", Timeout: time.Minute})
	for _, who := range []struct {
		name string
		c    *client.Client
		want error
	}{
		{"nobody", nobody, kv.ErrUserEmpty}, {"alice", alice, kv.ErrPermissionDenied}, {"a token", plain, kv.ErrPermissionDenied},
		{"an unknown token", unknown, kv.ErrInvalidAuthToken}, {"a wrong password", wrong, kv.ErrAuthFailed},
	} {
		_, _, err := who.c.CreateToken(ctx, kv.NewAccessToken{ID: fresh, Name: "x"})
		wantErr(t, who.name+" makes a token", err, who.want)
		_, err = who.c.RevokeAccessToken(ctx, made.ID)
		if who.c == plain && errors.Is(err, kv.ErrPermissionDenied) || who.c != plain {
			wantErr(t, who.name+" revokes a token", err, who.want)
		}
		if list, _, err := who.c.AccessTokens(ctx); who.c == plain {
			if err != nil || len(list) != 1 || list[0].ID != made.ID {
				t.Errorf("a token sees %+v, %v", list, err)
			}
		} else {
			wantErr(t, who.name+" lists", err, who.want)
		}
	}
	for what, c := range map[string]struct {
		n    kv.NewAccessToken
		by   *client.Client
		want error
	}{
		"the name again": {kv.NewAccessToken{ID: fresh, Name: "plain"}, k.root, kv.ErrTokenExists}, "the id again": {kv.NewAccessToken{ID: made.ID}, k.root, kv.ErrTokenExists},
		"no such role": {kv.NewAccessToken{ID: fresh, Roles: []string{"none"}}, k.root, kv.ErrRoleNotFound},
		"no key":       {kv.NewAccessToken{ID: fresh, Permissions: make([]kv.Permission, 1)}, k.root, kv.ErrInvalidAuthManagement},
		"a TTL below":  {kv.NewAccessToken{ID: fresh, TTL: -1}, k.root, kv.ErrInvalidTTL}, "a TTL above": {kv.NewAccessToken{ID: fresh, TTL: kv.MaxTTL + 1}, k.root, kv.ErrTTLTooLarge},
		"root by a manager": {kv.NewAccessToken{ID: fresh, Roles: []string{kv.RootName}}, manager, kv.ErrPermissionDenied},
	} {
		_, _, err := c.by.CreateToken(ctx, c.n)
		wantErr(t, what, err, c.want)
		if c.by == k.root {
			_, _, embedded := k.node.CreateToken(ctx, c.n)
			wantErr(t, what+", embedded", embedded, c.want)
		}
	}
	_, err = k.root.RevokeAccessToken(ctx, fresh)
	wantErr(t, "revoke what is not there", err, kv.ErrTokenNotFound)
	if list, _, err := manager.AccessTokens(ctx); err != nil || len(list) != 2 {
		t.Errorf("the manager sees %+v, %v", list, err)
	}
}

// TestCan asks by the client and at the member.
func TestCan(t *testing.T) {
	k, ctx := newTokened(t), t.Context()
	app, made := k.create(kv.NewAccessToken{Name: "web", Roles: []string{"app"}, Permissions: []kv.Permission{{Access: kv.ReadAccess, Key: []byte{0xff}}}})
	stranger, err := kv.ParseSecretToken(kv.NewSecretToken())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []kv.Question{
		{User: "alice", Access: kv.ReadAccess, Key: []byte("a")}, {User: "alice", Access: kv.WriteAccess, Key: []byte("a"), End: []byte("c")},
		{User: "alice", Access: kv.ReadAccess, Key: []byte{0}, End: []byte{0}}, {User: "root", Access: kv.ReadWriteAccess, Key: []byte("z")},
		{User: "web", Access: kv.ReadAccess, Key: []byte("a")}, {Token: made.ID, Access: kv.ReadAccess, Key: []byte{0xff}},
		{Token: made.ID, Access: kv.WriteAccess, Key: []byte{0xff}}, {Token: stranger, Access: kv.ReadAccess, Key: []byte("a")},
	} {
		want, err := k.node.Can(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := k.root.Can(ctx, q)
		if got.Time < want.Time || got.Revision != want.Revision {
			t.Errorf("%+v: at %+v after %+v", q, got.Header, want.Header)
		}
		got.Header = want.Header
		if err != nil || !alike(got, want) {
			t.Errorf("%+v: %+v, %v\nwant %+v", q, got, err, want)
		}
	}
	if v, err := app.Can(ctx, kv.Question{Token: made.ID, Key: []byte("a")}); err != nil || !v.Allowed {
		t.Errorf("about itself: %+v, %v", v, err)
	}
	_, err = app.Can(ctx, kv.Question{User: "alice", Key: []byte("a")})
	wantErr(t, "about alice", err, kv.ErrPermissionDenied)
	_, err = app.Can(ctx, kv.Question{Token: stranger, Key: []byte("a")})
	wantErr(t, "about another token", err, kv.ErrPermissionDenied)
	_, err = k.root.Can(ctx, kv.Question{User: "alice"})
	wantErr(t, "about no key", err, kv.ErrEmptyKey)
	if _, err := k.root.Can(ctx, kv.Question{User: "alice", Key: []byte("a"), Access: 7}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("access 7: %v", err)
	}
}

// TestAskGoesOn asks the next endpoint where one is not there, stays with it, and
// sends no change twice.
func TestAskGoesOn(t *testing.T) {
	k, ctx := newTokened(t), t.Context()
	var asked atomic.Int32
	deaf := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked.Add(1)
		panic(http.ErrAbortHandler)
	}))
	defer deaf.Close()
	secret := kv.NewSecretToken()
	id, err := kv.ParseSecretToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.root.CreateToken(ctx, kv.NewAccessToken{ID: id, Roles: []string{kv.RootName}}); err != nil {
		t.Fatal(err)
	}
	two := open(t, client.Config{Endpoints: []string{"127.0.0.1:1", deaf.URL, k.addr}, Token: secret, Timeout: time.Minute})
	_, err = two.RevokeAccessToken(ctx, id)
	if !errors.Is(err, kv.ErrUnavailable) || !strings.Contains(err.Error(), "the outcome is unknown") || asked.Load() != 1 {
		t.Errorf("%v, asked %d times", err, asked.Load())
	}
	for range 2 {
		if list, _, err := two.AccessTokens(ctx); err != nil || len(list) != 1 || asked.Load() != 1 {
			t.Errorf("%+v, %v, asked %d times", list, err, asked.Load())
		}
	}
	read := open(t, client.Config{Endpoints: []string{deaf.URL, k.addr}, Token: secret, Timeout: time.Minute})
	if list, _, err := read.AccessTokens(ctx); err != nil || len(list) != 1 || asked.Load() < 2 {
		t.Errorf("%+v, %v, asked %d times", list, err, asked.Load())
	}
	none := open(t, client.Config{Endpoints: []string{"127.0.0.1:1", "127.0.0.1:2"}, User: "root", Password: "x", Timeout: time.Minute})
	_, _, err = none.AccessTokens(ctx)
	if kv.CodeOf(err) != kv.Unavailable || !strings.HasPrefix(err.Error(), "no endpoint can be reached; nothing was done: 127.0.0.1:1: ") {
		t.Errorf("nobody there: %v", err)
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err = read.AccessTokens(canceled)
	wantErr(t, "canceled", err, context.Canceled)
}

// TestStrangeAnswers: what is no member's answer is said to be none, and a token
// goes to nobody who was not named.
func TestStrangeAnswers(t *testing.T) {
	var told atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { told.Add(1) }))
	defer other.Close()
	for _, c := range []struct {
		text   string
		status int
		code   kv.Code
		says   string
	}{
		{`{"code":"failed_precondition","message":"m","next":"do it"}`, 409, kv.FailedPrecondition, "m"},
		{`{"code":"not_found","message":"access token not found: x","next":"n"}`, 404, kv.NotFound, "access token not found: x"},
		{`not found`, 404, kv.Unsupported, " answers with 404 Not Found, not as"},
		{`{"x":`, 200, kv.Unsupported, " answers with 200 OK, not as"},
		{`{"message":"m"}`, 500, kv.Unsupported, "not as a member of Concord does"},
		{`{"tokens":[{"id":"a"}]}`, 200, kv.Unsupported, "does not tell the ids"},
		{``, 307, kv.Unsupported, "307"},
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != "Bearer me" {
				t.Errorf("shown: %s", got)
			}
			w.Header().Set("Location", other.URL)
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.text))
		}))
		a := open(t, client.Config{Endpoints: []string{s.URL}, Token: "me", Timeout: time.Minute})
		_, _, err := a.AccessTokens(t.Context())
		if kv.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) || errors.Is(err, kv.ErrTokenNotFound) != strings.Contains(c.text, "access token") {
			t.Errorf("%s: %v", c.text, err)
		}
		s.Close()
	}
	if told.Load() != 0 {
		t.Error("a token was shown to somebody else")
	}
}
