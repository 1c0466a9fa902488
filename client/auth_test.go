package client_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// withUsers serves a member with the users root and alice, who may do everything
// with keys that begin with a.
func withUsers(t *testing.T, auth server.AuthConfig) (*concord.Node, string) {
	t.Helper()
	ctx := t.Context()
	node, err := concord.Open(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	addr, _ := serveCluster(t, node, node, server.Config{Auth: auth})
	for _, change := range []func() (kv.Header, error){
		func() (kv.Header, error) { return node.AddUser(ctx, kv.NewUser{Name: "root", Password: "secret"}) },
		func() (kv.Header, error) { return node.AddRole(ctx, "root") },
		func() (kv.Header, error) { return node.GrantRole(ctx, "root", "root") },
		func() (kv.Header, error) { return node.AddUser(ctx, kv.NewUser{Name: "alice", Password: "pass"}) },
		func() (kv.Header, error) { return node.AddRole(ctx, "app") },
		func() (kv.Header, error) { return node.GrantRole(ctx, "alice", "app") },
		func() (kv.Header, error) {
			return node.GrantPermission(ctx, "app", kv.Permission{Access: kv.ReadWriteAccess, Key: []byte("a"), End: []byte("b")})
		},
		func() (kv.Header, error) { return node.EnableAuth(ctx) },
	} {
		good(t)(change())
	}
	return node, addr
}

// good ends the test on an error.
func good(t *testing.T) func(kv.Header, error) {
	return func(_ kv.Header, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// jwtSecret is an auth token whose tokens live for one to two seconds.
func jwtSecret(t *testing.T) server.AuthConfig {
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte("a secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	return server.AuthConfig{Token: "jwt,sign-method=HS256,ttl=2s,priv-key=" + key}
}

func TestCredentials(t *testing.T) {
	ctx := t.Context()
	node, addr := withUsers(t, server.AuthConfig{})
	as := func(cfg client.Config) *client.Client {
		cfg.Endpoints = []string{addr}
		return open(t, cfg)
	}
	get := func(c *client.Client) error {
		_, err := c.Range(ctx, kv.Range{Key: []byte("a")})
		return err
	}
	wantErr(t, "nobody", get(as(client.Config{})), kv.ErrUserEmpty)
	wantErr(t, "wrong password", get(as(client.Config{User: "alice", Password: "x"})), kv.ErrAuthFailed)
	wantErr(t, "unknown user", get(as(client.Config{User: "eve", Password: "x"})), kv.ErrAuthFailed)
	wantErr(t, "made-up token", get(as(client.Config{Token: "x.1"})), kv.ErrInvalidAuthToken)
	alice := as(client.Config{User: "alice", Password: "pass"})
	wantErr(t, "alice", get(alice), nil)
	_, err := kv.Put(ctx, alice, "other", "x")
	wantErr(t, "another key", err, kv.ErrPermissionDenied)
	_, err = kv.Put(ctx, alice, "a", "x")
	wantErr(t, "her key", err, nil)
	_, err = alice.Compact(ctx, 1)
	wantErr(t, "compaction", err, kv.ErrPermissionDenied)
	if _, err := alice.Status(ctx, ""); err != nil {
		t.Error(err)
	}
	token, err := as(client.Config{}).Login(ctx, "alice", "pass")
	wantErr(t, "login", err, nil)
	wantErr(t, "token", get(as(client.Config{Token: token})), nil)
	secret := kv.NewSecretToken()
	id, err := kv.ParseSecretToken(secret)
	wantErr(t, "secret", err, nil)
	_, _, err = node.CreateToken(ctx, kv.NewAccessToken{ID: id, Roles: []string{"app"}})
	wantErr(t, "access token", err, nil)
	app := as(client.Config{Token: secret})
	wantErr(t, "access token", get(app), nil)
	wantErr(t, "access token as a password", get(as(client.Config{User: "anybody", Password: secret})), nil)
	wantErr(t, "unknown access token", get(as(client.Config{Token: kv.NewSecretToken()})), kv.ErrInvalidAuthToken)
	wantErr(t, "unknown access token as a password", get(as(client.Config{User: "anybody", Password: kv.NewSecretToken()})), kv.ErrAuthFailed)
	_, err = kv.Put(ctx, app, "other", "x")
	wantErr(t, "another key with the access token", err, kv.ErrPermissionDenied)
	_, err = node.RevokeAccessToken(ctx, id)
	wantErr(t, "revoke", err, nil)
	wantErr(t, "revoked access token", get(app), kv.ErrInvalidAuthToken)
	if _, err := client.New(client.Config{Endpoints: []string{addr}, Token: secret[:40]}); !errors.Is(err, kv.ErrInvalidAuthToken) || strings.Contains(err.Error(), secret[:40]) {
		t.Errorf("half an access token: %v", err)
	}
	if _, err := client.New(client.Config{Endpoints: []string{addr}, Token: "x", User: "alice"}); kv.CodeOf(err) != kv.InvalidArgument {
		t.Errorf("token and user: %v", err)
	}
}

// TestManageUsers makes every change of users and roles over the network.
func TestManageUsers(t *testing.T) {
	ctx := t.Context()
	node, addr := withUsers(t, server.AuthConfig{})
	c := open(t, client.Config{Endpoints: []string{addr}, User: "root", Password: "secret"})
	ok := good(t)
	ok(c.AddUser(ctx, kv.NewUser{Name: "bob", Password: "b"}))
	ok(c.AddUser(ctx, kv.NewUser{Name: "cert", NoPassword: true}))
	_, err := c.AddUser(ctx, kv.NewUser{Name: "bob", Password: "b"})
	wantErr(t, "bob again", err, kv.ErrUserExists)
	_, err = c.AddUser(ctx, kv.NewUser{Name: "eve", Hash: "$2a$x"})
	wantErr(t, "a hash", err, kv.ErrUnsupported)
	ok(c.AddRole(ctx, "r"))
	p := kv.Permission{Access: kv.WriteAccess, Key: []byte("b"), End: []byte("c")}
	ok(c.GrantPermission(ctx, "r", p))
	ok(c.GrantRole(ctx, "bob", "r"))
	role, _, err := c.AuthRole(ctx, "r")
	if err != nil || len(role.Permissions) != 1 || role.Permissions[0].Access != p.Access || string(role.Permissions[0].End) != "c" {
		t.Errorf("role: %+v, %v", role, err)
	}
	user, h, err := c.User(ctx, "bob")
	if err != nil || !slices.Equal(user.Roles, []string{"r"}) || h.Revision == 0 || h.Time == 0 {
		t.Errorf("user: %+v, %+v, %v", user, h, err)
	}
	if names, _, err := c.Users(ctx); err != nil || !slices.Equal(names, []string{"alice", "bob", "cert", "root"}) {
		t.Errorf("users: %v, %v", names, err)
	}
	if names, _, err := c.AuthRoles(ctx); err != nil || !slices.Equal(names, []string{"app", "r", "root"}) {
		t.Errorf("roles: %v, %v", names, err)
	}
	ok(c.SetPassword(ctx, "bob", "other"))
	_, err = c.Login(ctx, "bob", "b")
	wantErr(t, "the old password", err, kv.ErrAuthFailed)
	ok(c.RevokePermission(ctx, "r", p.Key, p.End))
	_, err = c.RevokePermission(ctx, "r", p.Key, p.End)
	wantErr(t, "the permission again", err, kv.ErrPermissionNotGranted)
	ok(c.RevokeRole(ctx, "bob", "r"))
	_, err = c.RevokeRole(ctx, "bob", "r")
	wantErr(t, "the role again", err, kv.ErrRoleNotGranted)
	ok(c.DeleteRole(ctx, "r"))
	ok(c.DeleteUser(ctx, "bob"))
	_, err = c.DeleteUser(ctx, "root")
	wantErr(t, "root", err, kv.ErrInvalidAuthManagement)
	st, err := c.AuthStatus(ctx)
	if err != nil || !st.Enabled || st.Revision != node.Auth().Revision {
		t.Errorf("status: %+v, %v", st, err)
	}
	ok(c.DisableAuth(ctx))
	_, err = c.Login(ctx, "root", "secret")
	wantErr(t, "login while it is off", err, kv.ErrAuthNotEnabled)
}

// TestTokensAreRenewed has tokens that expire, grow old, and are forgotten.
func TestTokensAreRenewed(t *testing.T) {
	for name, cfg := range map[string]server.AuthConfig{"simple": {TTL: time.Second}, "jwt": jwtSecret(t)} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			node, addr := withUsers(t, cfg)
			alice := open(t, client.Config{Endpoints: []string{addr}, User: "alice", Password: "pass"})
			for i := range 2 {
				good(t)(node.AddRole(ctx, "r"+string(rune('0'+i)))) // makes JSON Web Tokens old
				if _, err := kv.Put(ctx, alice, "a", "x"); err != nil {
					t.Fatal(err)
				}
				select {
				case <-time.After(2 * time.Second): // it expires
				case <-ctx.Done():
				}
			}
			good(t)(node.DisableAuth(ctx))
			if _, err := kv.Put(ctx, alice, "b", "everybody"); err != nil {
				t.Fatal(err)
			}
			good(t)(node.EnableAuth(ctx))
			if _, err := kv.Put(ctx, alice, "a", "y"); err != nil {
				t.Fatal(err)
			}
			late := open(t, client.Config{Endpoints: []string{addr}, User: "alice", Password: "pass"})
			good(t)(node.SetPassword(ctx, "alice", "other"))
			_, err := kv.Put(ctx, late, "a", "z")
			wantErr(t, "put with the old password", err, kv.ErrAuthFailed)
		})
	}
}

// TestWatchAndRights: a watch begins with a login of its own, outlives changes
// of others' rights, and ends with its own.
func TestWatchAndRights(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	node, addr := withUsers(t, server.AuthConfig{})
	alice := open(t, client.Config{Endpoints: []string{addr}, User: "alice", Password: "pass"})
	step := 0
	var last error
	for batch, err := range alice.Watch(ctx, kv.WatchRequest{Key: []byte("a"), End: []byte("b")}) {
		switch last = err; {
		case err != nil:
		case len(batch.Events) == 0 && step == 0:
			step++
			good(t)(node.AddRole(ctx, "another"))
			if _, err := kv.Put(ctx, node, "a1", "x"); err != nil {
				t.Fatal(err)
			}
		case len(batch.Events) == 1 && step == 1:
			step++
			good(t)(node.RevokeRole(ctx, "alice", "app"))
		}
	}
	if step != 2 {
		t.Errorf("the watch ended at step %d", step)
	}
	wantErr(t, "the watch", last, kv.ErrPermissionDenied)
	for _, err := range alice.Watch(ctx, kv.WatchRequest{Key: []byte("a")}) {
		last = err
	}
	wantErr(t, "another watch", last, kv.ErrPermissionDenied)
}

// TestLoginWaitsNoLonger: a call does not wait for another's login for longer
// than it has time.
func TestLoginWaitsNoLonger(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var ended atomic.Bool // the login
	asked := make(chan struct{}, 1)
	silent := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		<-s.Context().Done()
		ended.Store(true)
		return s.Context().Err()
	}))
	served := make(chan error, 1)
	go func() { served <- silent.Serve(l) }()
	defer func() {
		silent.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c := open(t, client.Config{Endpoints: []string{l.Addr().String()}, User: "alice", Password: "pass"})
	long, cancel := context.WithTimeout(t.Context(), time.Minute)
	first, second := make(chan error, 1), make(chan error, 1)
	get := func(ctx context.Context) error {
		_, err := c.Range(ctx, kv.Range{Key: []byte("a")})
		return err
	}
	go func() { first <- get(long) }()
	<-asked
	short, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done()
	go func() { second <- get(short) }()
	select {
	case err := <-second:
		wantErr(t, "the second call", err, context.DeadlineExceeded)
		if ended.Load() {
			t.Error("the second call waited for the first one's login")
		}
	case err := <-first:
		t.Errorf("the first call ended first: %v", err)
	}
	cancel()
	<-first
}
