package concord

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// makeToken makes an access token and returns its secret.
func makeToken(t testing.TB, n *Node, want kv.NewAccessToken) (secret string, id kv.TokenID) {
	t.Helper()
	secret = kv.NewSecretToken()
	id, err := kv.ParseSecretToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	want.ID = id
	got, h, err := n.CreateToken(t.Context(), want)
	if err != nil || got.ID != id || got.Name != want.Name || got.Created != h.Time || h.Time == 0 || (got.Expires == 0) != (want.TTL == 0) {
		t.Fatalf("%+v at %+v, %v", got, h, err)
	}
	return secret, id
}

// An access token is good on all members, with its rights and no others, until
// the entry that revokes it: each member refuses it at the first try after that
// was acknowledged.
func TestAccessTokensAreGoodEverywhere(t *testing.T) {
	nodes := openCluster(t, 3)
	guarded(t, nodes[0])
	revision := nodes[0].Auth().Revision
	secret, id := makeToken(t, nodes[0], kv.NewAccessToken{Name: "app", Roles: []string{"bob"}, Permissions: []kv.Permission{{Access: kv.WriteAccess, Key: []byte("x")}}})
	if nodes[0].Auth().Revision != revision {
		t.Error("users have to log in again because of an access token")
	}
	calls := func(n *Node, ctx context.Context) map[string]error {
		_, put := n.Put(ctx, "x", "1")
		_, other := n.Put(ctx, "b", "1")
		_, get := n.Range(ctx, kv.Range{Key: []byte("b")})
		_, hidden := n.Get(ctx, "x", kv.Strong)
		_, compact := n.Compact(ctx, 1)
		return map[string]error{"put": put, "put elsewhere": other, "range": get, "get elsewhere": hidden, "compact": compact}
	}
	for i, n := range nodes {
		ctx := WithToken(t.Context(), secret)
		for what, err := range calls(n, ctx) {
			want := error(nil)
			if what != "put" && what != "range" {
				want = kv.ErrPermissionDenied
			}
			wantErr(t, what, err, want)
		}
		c, err := n.TokenCaller(t.Context(), id)
		if want := (kv.Caller{User: "token:app", Token: id.Mark()}); err != nil || c != want {
			t.Errorf("member %d: %+v, %v", i, c, err)
		}
		list, _, err := n.AccessTokens(ctx)
		if err != nil || len(list) != 1 || list[0].ID != id || list[0].LastUsed.IsZero() {
			t.Errorf("member %d: it sees %+v, %v", i, list, err)
		}
		for what, err := range calls(n, WithToken(t.Context(), secret[1:])) {
			wantErr(t, what+" with a damaged token", err, kv.ErrInvalidAuthToken)
		}
		for what, err := range calls(n, WithToken(t.Context(), kv.NewSecretToken())) {
			wantErr(t, what+" with another token", err, kv.ErrInvalidAuthToken)
		}
	}
	if _, err := nodes[2].RevokeAccessToken(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		for what, err := range calls(n, WithToken(t.Context(), secret)) {
			wantErr(t, what+" after it was revoked", err, kv.ErrInvalidAuthToken)
		}
	}
	if _, err := nodes[0].DisableAuth(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := nodes[0].Put(WithToken(t.Context(), secret), "b", "1")
	wantErr(t, "put while authentication is off", err, nil)
}

// A watch of an access token ends with it, on whatever member it is, also when
// nothing is written, and else goes on.
func TestWatchEndsWithItsToken(t *testing.T) {
	nodes := openCluster(t, 3)
	guarded(t, nodes[0])
	for name, c := range map[string]struct {
		ttl  time.Duration
		then func(id kv.TokenID) error
		want error
	}{
		"revoked": {0, func(id kv.TokenID) error { _, err := nodes[1].RevokeAccessToken(t.Context(), id); return err }, kv.ErrInvalidAuthToken},
		"expired": {500 * time.Millisecond, func(kv.TokenID) error { return nil }, kv.ErrInvalidAuthToken},
		"role":    {0, func(kv.TokenID) error { _, err := nodes[0].DeleteRole(t.Context(), "bob"); return err }, kv.ErrPermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "role" {
				t.Cleanup(func() {
					_, _ = nodes[0].AddRole(t.Context(), "bob")
				})
			}
			if _, err := nodes[0].AddRole(t.Context(), "bob"); err == nil {
				_, err = nodes[0].GrantPermission(t.Context(), "bob", kv.Permission{Key: []byte("b")})
				wantErr(t, "grant", err, nil)
			}
			secret, id := makeToken(t, nodes[0], kv.NewAccessToken{TTL: c.ttl, Roles: []string{"bob"}})
			ended, began := make(chan error, len(nodes)), make(chan bool, len(nodes))
			for _, n := range nodes {
				go func() {
					for batch, err := range n.Watch(WithToken(t.Context(), secret), kv.WatchRequest{Key: []byte("b")}) {
						if err != nil {
							ended <- err
							return
						}
						if batch.Events == nil {
							began <- true
						}
					}
				}()
			}
			for range nodes {
				select {
				case <-began:
				case err := <-ended:
					if name != "expired" { // it may have been a while
						t.Fatal(err)
					}
					ended <- err
				}
			}
			_, other := makeToken(t, nodes[0], kv.NewAccessToken{}) // of no concern
			if _, err := nodes[0].RevokeAccessToken(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			if err := c.then(id); err != nil {
				t.Fatal(err)
			}
			for range nodes {
				wantErr(t, "the watch", <-ended, c.want)
			}
		})
	}
}

// However many members set authentication up at once, one does, and the token
// that it has is the only way in until there is another.
func TestBootstrap(t *testing.T) {
	nodes := openCluster(t, 3)
	ctx := t.Context()
	secrets := make([]string, len(nodes))
	ids := make([]kv.TokenID, len(nodes))
	var group sync.WaitGroup
	var first atomic.Int64
	first.Store(-1)
	for i, n := range nodes {
		secrets[i] = kv.NewSecretToken()
		ids[i], _ = kv.ParseSecretToken(secrets[i])
		group.Go(func() {
			done, err := n.Bootstrap(kv.WithCaller(ctx, kv.Caller{}), ids[i])
			if err != nil {
				t.Error(err)
			}
			if done && !first.CompareAndSwap(-1, int64(i)) {
				t.Error("set up twice")
			}
		})
	}
	group.Wait()
	root := int(first.Load())
	if root < 0 {
		t.Fatal("nobody has set it up")
	}
	for i, n := range nodes {
		if s, err := n.AuthStatus(ctx); err != nil || !s.Enabled {
			t.Errorf("%+v, %v", s, err)
		}
		_, err := n.Put(kv.WithCaller(ctx, kv.Caller{}), "a", "1")
		wantErr(t, "put of nobody", err, kv.ErrUserEmpty)
		want := error(kv.ErrInvalidAuthToken)
		if i == root {
			want = nil
		}
		_, err = n.Put(WithToken(ctx, secrets[i]), "a", "1")
		wantErr(t, "put with the token of the member", err, want)
	}
	n := nodes[0]
	_, err := n.RevokeAccessToken(WithToken(ctx, secrets[root]), ids[root])
	wantErr(t, "revoke the only root", err, kv.ErrLastRoot)
	spare := kv.NewSecretToken()
	id, _ := kv.ParseSecretToken(spare)
	for range 2 {
		if err := n.EnsureRootToken(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	_, err = n.RevokeAccessToken(WithToken(ctx, spare), ids[root])
	wantErr(t, "revoke the first root", err, nil)
	list, _, err := n.AccessTokens(WithToken(ctx, spare))
	if err != nil || len(list) != 1 || list[0].ID != id {
		t.Errorf("%+v, %v", list, err)
	}
}

// Access tokens and what they may do come back after a restart, and questions
// about them are answered by the rule that a call then meets.
func TestAccessTokensAfterRestart(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir)
	guarded(t, n)
	secret, id := makeToken(t, n, kv.NewAccessToken{Roles: []string{"bob"}, Permissions: []kv.Permission{{Access: kv.ReadAccess, Key: []byte("c"), End: []byte("d")}}})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	for _, c := range []struct {
		key, end string
		because  kv.Because
		roles    []string
	}{
		{"b", "", kv.BecauseOfRules, []string{"bob"}},
		{"c", "", kv.BecauseOfRules, []string{""}},
		{"b", "c", kv.BecauseNoRule, nil},
	} {
		q := kv.Question{Token: id, Key: []byte(c.key), End: []byte(c.end)}
		v, err := n.Can(WithToken(t.Context(), secret), q)
		if err != nil || v.Because != c.because || v.Allowed != (c.because == kv.BecauseOfRules) || len(v.Rules) != len(c.roles) || v.Revision == 0 {
			t.Fatalf("%+v, %v", v, err)
		}
		for i, r := range v.Rules {
			if r.Role != c.roles[i] {
				t.Errorf("%q..%q is allowed by role %q, want %q", c.key, c.end, r.Role, c.roles[i])
			}
		}
		_, err = n.Range(WithToken(t.Context(), secret), kv.Range{Key: q.Key, End: q.End})
		if (err == nil) != v.Allowed {
			t.Errorf("%+v, but a range gives %v", v, err)
		}
	}
	for name, q := range map[string]kv.Question{"no key": {Token: id}, "an access that is none": {Token: id, Access: 3, Key: []byte("k")}} {
		if _, err := n.Can(t.Context(), q); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := n.Can(WithToken(t.Context(), secret), kv.Question{User: "bob", Key: []byte("b")})
	wantErr(t, "asking about another", err, kv.ErrPermissionDenied)
	for _, ttl := range []time.Duration{-1, kv.MaxTTL + 1} {
		if _, _, err := n.CreateToken(t.Context(), kv.NewAccessToken{ID: kv.TokenID{1}, TTL: ttl}); kv.CodeOf(err) == kv.Internal || err == nil {
			t.Errorf("TTL %v: %v", ttl, err)
		}
	}
}

// Access tokens are what package kv promises, on any member.
func TestMembersKeepAccessTokens(t *testing.T) {
	t.Run("one", func(t *testing.T) { kvtest.RunAccessTokens(t, open(t, t.TempDir()), kvtest.Options{}) })
	t.Run("three", func(t *testing.T) { kvtest.RunAccessTokens(t, openCluster(t, 3)[2], kvtest.Options{}) })
}

// BenchmarkTokenCheck is what a server does for each request with an access
// token: find out whose the secret is, and whether it may read a key.
func BenchmarkTokenCheck(b *testing.B) {
	n, err := Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = n.Close() })
	guarded(b, n)
	secret, _ := makeToken(b, n, kv.NewAccessToken{Name: "app", Roles: []string{"alice"}})
	for range 200 {
		makeToken(b, n, kv.NewAccessToken{TTL: time.Hour})
	}
	ctx := b.Context()
	key := []byte("b")
	b.ReportAllocs()
	for b.Loop() {
		id, err := kv.ParseSecretToken(secret)
		if err != nil {
			b.Fatal(err)
		}
		c, err := n.TokenCaller(ctx, id)
		if err != nil {
			b.Fatal(err)
		}
		s := n.machine.Subject(&c)
		if err := s.Keys(kv.ReadAccess, key, nil); err != nil {
			b.Fatal(err)
		}
	}
}
