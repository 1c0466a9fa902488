package commonapi

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

func ofTokens() []behaviour {
	return []behaviour{
		{name: "token that is over", etcd: []string{"auth_test.go/TestAuthJWTExpire"}, run: doExpireToken},
		{name: "tokens of others", etcd: []string{"auth_test.go/TestAuthJWTOnly"}, run: doForeignTokens},
		{name: "auth revision and a restart", etcd: []string{"auth_test.go/TestAuthRevisionConsistency"}, run: doRevisionRestart, tokens: true},
		{name: "rights and a restart", etcd: []string{"auth_test.go/TestAuthTestCacheReload"}, run: doRightsRestart, tokens: true},
	}
}

// doExpireToken: a client whose token is over gets another one.
func doExpireToken(t *testing.T, ctx context.Context, w *world) {
	for _, flags := range [][]string{{"--auth-token", w.jwt.spec(time.Second)}, {"--auth-token-ttl=1"}} {
		f := w.fresh(t, flags...)
		root, user := f.guard(t, ctx)
		first := get[*clientv3.AuthenticateResponse](t)(f.c.Authenticate(ctx, "user", "of user")).Token
		put(t, ctx, user, "foo", "1")
		wantOver(t, ctx, f, root, grant(t, ctx, root, 4), "nothing") // time passes without the token
		_, err := f.c.Get(metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, first), "foo")
		refused(t, "a token that is over", err, rpctypes.ErrInvalidAuthToken.Error())
		put(t, ctx, user, "foo", "2")
		wantValue(t, ctx, user, "foo", "2")
	}
}

// doForeignTokens: members that can only read tokens take those that somebody
// else has made, and make none.
func doForeignTokens(t *testing.T, ctx context.Context, w *world) {
	f := w.fresh(t, "--auth-token", fmt.Sprintf("jwt,pub-key=%s,sign-method=RS256,ttl=1m", w.jwt.public))
	for _, name := range []string{"root", "user"} {
		_, err := f.c.UserAdd(ctx, name, "of "+name)
		must(t, err)
		_, err = f.c.RoleAdd(ctx, name)
		must(t, err)
		_, err = f.c.UserGrantRole(ctx, name, name)
		must(t, err)
	}
	f.permit(t, ctx, f.c, "foo", "")
	revision := get[*clientv3.AuthStatusResponse](t)(f.c.AuthStatus(ctx)).AuthRevision
	_, err := f.c.AuthEnable(ctx)
	must(t, err)
	for i := range f.Members {
		_, err := f.one(t, i).AuthStatus(ctx)
		must(t, err)
	}
	text := get[[]byte](t)(os.ReadFile(w.jwt.private))
	key, err := jwt.ParseRSAPrivateKeyFromPEM(text)
	must(t, err)
	for name, c := range map[string]struct {
		method jwt.SigningMethod
		claims jwt.MapClaims
		want   string
	}{
		"good":         {jwt.SigningMethodRS256, jwt.MapClaims{"username": "user", "revision": revision, "exp": time.Now().Add(time.Hour).Unix()}, ""},
		"over":         {jwt.SigningMethodRS256, jwt.MapClaims{"username": "user", "revision": revision, "exp": time.Now().Add(-time.Hour).Unix()}, rpctypes.ErrInvalidAuthToken.Error()},
		"other method": {jwt.SigningMethodPS256, jwt.MapClaims{"username": "user", "revision": revision, "exp": time.Now().Add(time.Hour).Unix()}, rpctypes.ErrInvalidAuthToken.Error()},
		"old":          {jwt.SigningMethodRS256, jwt.MapClaims{"username": "user", "revision": revision - 1, "exp": time.Now().Add(time.Hour).Unix()}, rpctypes.ErrAuthOldRevision.Error()},
		"unknown user": {jwt.SigningMethodRS256, jwt.MapClaims{"username": "nobody", "revision": revision, "exp": time.Now().Add(time.Hour).Unix()}, denied},
	} {
		token, err := jwt.NewWithClaims(c.method, c.claims).SignedString(key)
		must(t, err)
		_, err = f.c.Put(metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token), "foo", "x")
		if c.want == "" {
			must(t, err)
		} else {
			refused(t, "a token that is "+name, err, c.want)
		}
	}
	_, err = f.c.Authenticate(ctx, "user", "of user")
	refused(t, "a login where tokens cannot be made", err, "token signing attempted with verify-only key")
}

func doRevisionRestart(t *testing.T, ctx context.Context, w *world) {
	root, _ := w.guard(t, ctx)
	_, err := root.UserAdd(ctx, "short", "x")
	must(t, err)
	_, err = root.UserDelete(ctx, "short")
	must(t, err)
	revisions := func() (all []uint64) {
		for i := range w.Members {
			all = append(all, get[*clientv3.AuthStatusResponse](t)(w.one(t, i).AuthStatus(ctx)).AuthRevision)
		}
		return all
	}
	before := revisions()
	for i := range w.Members {
		w.Stop(i)
		w.Start(i)
	}
	if after := revisions(); !slices.Equal(before, after) {
		t.Errorf("auth revisions were %d and are %d", before, after)
	}
}

func doRightsRestart(t *testing.T, ctx context.Context, w *world) {
	_, user := w.guard(t, ctx)
	put(t, ctx, user, "foo", "1")
	for i := range w.Members {
		w.Stop(i)
		w.Start(i)
	}
	w.Until("a put after the restart", func() error {
		_, err := user.Put(ctx, "foo", "2")
		return err
	})
	wantDenied(t, ctx, user, "hoo")
}
