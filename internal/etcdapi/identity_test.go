package etcdapi

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
)

// door is an authority that knows tokens.
type door struct {
	kv.Authority
	status kv.AuthStatus
	tokens map[kv.TokenID]kv.Caller
	// late are the tokens of a member that hears that authentication is on when
	// it looks for one.
	late map[kv.TokenID]kv.Caller
}

func (d *door) Auth() kv.AuthStatus { return d.status }

func (d *door) TokenCaller(_ context.Context, id kv.TokenID) (kv.Caller, error) {
	if d.late != nil {
		d.status.Enabled, d.tokens = true, d.late
	}
	if c, ok := d.tokens[id]; ok {
		return c, nil
	}
	return kv.Caller{}, kv.ErrInvalidAuthToken
}

// secret is that of an access token that a door knows, wrongSecret one of another,
// and mistyped is none.
var (
	secret      = kv.NewSecretToken()
	wrongSecret = kv.NewSecretToken()
	mistyped    = secret[:len(secret)-1] + "~"
)

func newDoor() *door {
	id, _ := kv.ParseSecretToken(secret)
	return &door{
		status: kv.AuthStatus{Enabled: true, Revision: 9},
		tokens: map[kv.TokenID]kv.Caller{
			sha256.Sum256([]byte("good.12")): {User: "alice", AuthRevision: 4, Token: 3}, id: {User: kv.TokenUser(id, "ci"), Token: id.Mark()},
		},
	}
}

// call is the context of a call with pairs of metadata.
func callContext(ctx context.Context, pairs ...string) context.Context {
	return metadata.NewIncomingContext(ctx, metadata.Pairs(append([]string{
		":authority", "127.0.0.1:2379", "content-type", "application/grpc", "user-agent", "grpc-go/1.82.1",
		"client-api-version", "3.7.3",
	}, pairs...)...))
}

// certified is a context of a connection whose certificate was verified.
func certified(ctx context.Context, name string) context.Context {
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	return peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{
		State: tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{}, {cert}}},
	}})
}

func TestIdentify(t *testing.T) {
	ctx := t.Context()
	id, _ := kv.ParseSecretToken(secret)
	ci := kv.Caller{User: "token:ci", Token: id.Mark()}
	alice, bob, nobody := kv.Caller{User: "alice", AuthRevision: 4, Token: 3}, kv.Caller{User: "bob", AuthRevision: 9}, kv.Caller{}
	for _, c := range []struct {
		name string
		ctx  context.Context
		off  bool
		want kv.Caller
		err  error
	}{
		{"nothing", ctx, false, nobody, nil},
		{"no token", callContext(ctx), false, nobody, nil},
		{"token", callContext(ctx, "token", "good.12"), false, alice, nil},
		{"token as bearer", callContext(ctx, "token", "Bearer good.12"), false, alice, nil},
		{"authorization", callContext(ctx, "authorization", "good.12"), false, alice, nil},
		{"authorization as bearer", callContext(ctx, "authorization", "Bearer good.12"), false, alice, nil},
		{"authorization in small letters", callContext(ctx, "authorization", "bearer good.12"), false, alice, nil},
		{"authorization without a token", callContext(ctx, "authorization", "Bearer "), false, nobody, kv.ErrInvalidAuthToken},
		{"access token", callContext(ctx, "token", secret), false, ci, nil},
		{"access token as bearer", callContext(ctx, "authorization", "Bearer "+secret), false, ci, nil},
		{"access token while off", callContext(ctx, "token", secret), true, ci, nil},
		{"unknown access token while off", callContext(ctx, "token", wrongSecret), true, nobody, nil},
		{"mistyped access token while off", callContext(ctx, "token", mistyped), true, nobody, nil},
		{"access token and certificate", certified(callContext(ctx, "token", secret), "bob"), false, ci, nil},
		{"unknown access token", callContext(ctx, "token", wrongSecret), false, nobody, kv.ErrInvalidAuthToken},
		{"unknown access token and certificate", certified(callContext(ctx, "token", wrongSecret), "bob"), false, nobody, kv.ErrInvalidAuthToken},
		{"mistyped access token", callContext(ctx, "token", mistyped), false, nobody, kv.ErrInvalidAuthToken},
		{"half an access token", callContext(ctx, "token", secret[:20]), false, nobody, kv.ErrInvalidAuthToken},
		{"token before authorization", callContext(ctx, "authorization", "bad.1", "token", "good.12"), false, alice, nil},
		{"first token", callContext(ctx, "token", "bad.1", "token", "good.12"), false, nobody, kv.ErrInvalidAuthToken},
		{"wrong token", callContext(ctx, "token", "good.13"), false, nobody, kv.ErrInvalidAuthToken},
		{"empty token", callContext(ctx, "token", ""), false, nobody, kv.ErrInvalidAuthToken},
		{"basic authorization", callContext(ctx, "authorization", "Basic good.12"), false, nobody, kv.ErrInvalidAuthToken},
		{"wrong token while off", callContext(ctx, "token", "good.13"), true, nobody, nil},
		{"token while off", callContext(ctx, "token", "good.12"), true, nobody, nil},
		{"certificate", certified(callContext(ctx), "bob"), false, bob, nil},
		{"certificate while off", certified(callContext(ctx), "bob"), true, nobody, nil},
		{"certificate and token", certified(callContext(ctx, "token", "good.12"), "bob"), false, alice, nil},
		{"certificate and wrong token", certified(callContext(ctx, "token", "x"), "bob"), false, nobody, kv.ErrInvalidAuthToken},
		{"certificate of a gateway", certified(callContext(ctx, "grpcgateway-accept", "*/*"), "bob"), false, nobody, nil},
		{"certificate without name", certified(callContext(ctx), ""), false, nobody, nil},
		{"connection without certificate", peer.NewContext(ctx, &peer.Peer{AuthInfo: credentials.TLSInfo{}}), false, nobody, nil},
		{"another kind of connection", peer.NewContext(ctx, &peer.Peer{}), false, nobody, nil},
	} {
		d := newDoor()
		d.status.Enabled = !c.off
		a := &API{authority: d}
		got, err := a.identify(c.ctx)
		if c.err != nil {
			if !errors.Is(err, c.err) {
				t.Errorf("%s: %v, want %v", c.name, err, c.err)
			}
			continue
		}
		if caller := kv.CallerOf(got); err != nil || caller == nil || *caller != c.want {
			t.Errorf("%s: %v, %v; want %v", c.name, caller, err, c.want)
		}
	}
}

// TestIdentifyLate knows the bearer of an access token, and tells others, also
// where the member did not know that authentication is on.
func TestIdentifyLate(t *testing.T) {
	for token, want := range map[string]error{secret: nil, wrongSecret: kv.ErrInvalidAuthToken} {
		d := newDoor()
		d.status.Enabled, d.late, d.tokens = false, d.tokens, nil
		ctx, err := (&API{authority: d}).identify(callContext(t.Context(), "token", token))
		if !errors.Is(err, want) || err == nil && kv.CallerOf(ctx).User != "token:ci" {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

// TestIdentifyOnce keeps the caller that a context has, and adds none where
// there are no users.
func TestIdentifyOnce(t *testing.T) {
	a := &API{authority: newDoor()}
	eve := kv.Caller{User: "eve", AuthRevision: 2}
	ctx, err := a.identify(kv.WithCaller(callContext(t.Context(), "token", "good.12"), eve))
	if c := kv.CallerOf(ctx); err != nil || c == nil || *c != eve {
		t.Error(c, err)
	}
	ctx, err = new(API).identify(callContext(t.Context(), "token", "good.12"))
	if c := kv.CallerOf(ctx); err != nil || c != nil {
		t.Error(c, err)
	}
}

// TestIdentifyJWT reads both kinds of tokens where JSON Web Tokens are made.
func TestIdentifyJWT(t *testing.T) {
	files := jwtKeys(t)["ES256"]
	tokens, err := ParseTokens("jwt,sign-method=ES256,priv-key="+files[0]+",pub-key="+files[1]+",ttl=1m", 0)
	if err != nil {
		t.Fatal(err)
	}
	a := &API{authority: newDoor(), opts: Options{Tokens: tokens}}
	token, err := tokens.jwt.issue("carol", 5)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := a.identify(callContext(t.Context(), "token", token))
	if c := kv.CallerOf(ctx); err != nil || c == nil || *c != (kv.Caller{User: "carol", AuthRevision: 5}) {
		t.Error(c, err)
	}
	if _, err := a.identify(callContext(t.Context(), "token", token+"x")); err == nil {
		t.Error("a wrong signature is taken")
	}
	if ctx, err := a.identify(callContext(t.Context(), "token", "good.12")); err != nil || kv.CallerOf(ctx).User != "alice" {
		t.Error(err)
	}
}

func TestParseTokens(t *testing.T) {
	for spec, want := range map[string]bool{
		"": true, "simple": true, "simple,": true, "jwt": false, "jwt,": false, "nosuch": false,
		"jwt,sign-method": false, "jwt,sign-method=HS256": false, "jwt,=x": false, "jwt,a=1,a=2": false,
		"jwt,sign-method=HS256,priv-key=/nonexistent": false, ",": true,
	} {
		if _, err := ParseTokens(spec, 0); (err == nil) != want {
			t.Errorf("%q: %v", spec, err)
		} else if err != nil && kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%q: %v is %v", spec, err, kv.CodeOf(err))
		}
	}
	if _, err := ParseTokens("simple", -1); err == nil {
		t.Error("a negative TTL is taken")
	}
}

// TestRandomLetters draws letters that are all there and about as frequent.
func TestRandomLetters(t *testing.T) {
	counts := map[rune]int{}
	const each, letters = 1000, 52
	for range each {
		for _, r := range randomLetters(letters) {
			counts[r]++
		}
	}
	if len(counts) != letters {
		t.Errorf("%d letters are used", len(counts))
	}
	for r, n := range counts {
		if n < each*3/4 || n > each*5/4 { // eight standard deviations
			t.Errorf("%c is drawn %d times of %d", r, n, each)
		}
	}
}

func TestUnknownRightIsRefused(t *testing.T) {
	a := &API{authority: newDoor()}
	for _, r := range []right{0, anybody, byStore} {
		if _, err := a.require(callContext(t.Context(), "token", "good.12"), r); !errors.Is(err, errUngoverned) {
			t.Errorf("right %d: %v", r, err)
		}
	}
}

// memberToken is a member with authentication on, and a token of alice's.
func memberToken(b *testing.B) (*concord.Node, string) {
	b.Helper()
	node, err := concord.Open(b.Context(), b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = node.Close() })
	for _, user := range []string{kv.RootName, "alice"} {
		if _, err := node.AddUser(b.Context(), kv.NewUser{Name: user, Password: "x"}); err != nil {
			b.Fatal(err)
		}
	}
	_, role := node.AddRole(b.Context(), kv.RootName)
	_, grant := node.GrantRole(b.Context(), kv.RootName, kv.RootName)
	_, enable := node.EnableAuth(b.Context())
	api := New(node, node, Options{})
	token, _, issue := api.issueToken(b.Context(), kv.Caller{User: "alice", AuthRevision: node.Auth().Revision})
	if err := errors.Join(role, grant, enable, issue); err != nil {
		b.Fatal(err)
	}
	return node, token
}

func BenchmarkIdentify(b *testing.B) {
	member, known := memberToken(b)
	off := newDoor()
	off.status.Enabled = false
	files := jwtKeys(b)["RS256"]
	tokens, err := ParseTokens("jwt,sign-method=RS256,priv-key="+files[0], 0)
	if err != nil {
		b.Fatal(err)
	}
	token, err := tokens.jwt.issue("carol", 5)
	if err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct {
		name string
		api  *API
		ctx  context.Context
	}{
		{"NoUsers", new(API), callContext(b.Context())},
		{"Off", &API{authority: off}, callContext(b.Context())},
		{"Member", &API{authority: member}, callContext(b.Context(), "token", known)},
		{"Simple", &API{authority: newDoor()}, callContext(b.Context(), "token", "good.12")},
		{"Access", &API{authority: newDoor()}, callContext(b.Context(), "token", secret)},
		{"JWT", &API{authority: newDoor(), opts: Options{Tokens: tokens}}, callContext(b.Context(), "token", token)},
		{"Certificate", &API{authority: newDoor()}, certified(callContext(b.Context()), "bob")},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.api.identify(c.ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestSecretAsPassword logs in with an access token, under any name.
func TestSecretAsPassword(t *testing.T) {
	for _, c := range []struct {
		password string
		off      bool
		want     error
	}{
		{secret, false, nil},
		{secret, true, rpctypes.ErrGRPCAuthNotEnabled},
		{wrongSecret, false, rpctypes.ErrGRPCAuthFailed},
		{mistyped, false, rpctypes.ErrGRPCAuthFailed}, // is taken for a password
	} {
		d := newDoor()
		d.status.Enabled = !c.off
		api := New(nil, noMembers{}, Options{})
		api.authority = d
		r, err := (&authServer{API: api}).Authenticate(t.Context(), &pb.AuthenticateRequest{Name: "anybody", Password: c.password})
		if status.Code(err) != status.Code(c.want) || rpctypes.ErrorDesc(err) != rpctypes.ErrorDesc(c.want) || err == nil && r.Token != c.password {
			t.Errorf("%v %v, want %v", r, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), c.password) {
			t.Errorf("%v says the secret", err)
		}
	}
}

// noMembers is a cluster of nobody.
type noMembers struct{ kv.Cluster }

func (noMembers) Status() kv.Status { return kv.Status{} }

func (d *door) AuthStatus(context.Context) (kv.AuthStatus, error) { return d.status, nil }

func (d *door) CheckPassword(context.Context, string, string) (uint64, error) {
	return 0, kv.ErrAuthFailed
}

func (d *door) Authorize(context.Context, kv.Right) error { return nil }
