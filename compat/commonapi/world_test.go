package commonapi

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/concord-kv/concord/compat/processes"
)

// patience is how long one behaviour may take on a busy machine.
const patience = 3 * time.Minute

// behaviour is something that etcd's tests ask for.
type behaviour struct {
	name string
	// etcd has the names of its tests, as in kv_test.go/TestKVPut.
	etcd []string
	run  func(t *testing.T, ctx context.Context, w *world)
	// least is how many members it takes; 0 means one.
	least int
	// tokens says that it is about tokens, and is tried with both kinds.
	tokens bool
}

// world is a cluster on which behaviours are tried, one after another.
type world struct {
	*processes.Cluster
	programs processes.Programs
	// c asks all members.
	c *clientv3.Client
	// jwt are the key files of JSON Web Tokens.
	jwt jwtKeys
	// tokens is simple or jwt.
	tokens string
}

// jwtKeys are files in PEM.
type jwtKeys struct{ private, public string }

func newJWTKeys(t *testing.T) (k jwtKeys) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	must(t, err)
	dir := t.TempDir()
	k = jwtKeys{filepath.Join(dir, "private"), filepath.Join(dir, "public")}
	must(t, os.WriteFile(k.private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	must(t, os.WriteFile(k.public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o600))
	return k
}

// spec is etcd's --auth-token.
func (k jwtKeys) spec(ttl time.Duration) string {
	return fmt.Sprintf("jwt,pub-key=%s,priv-key=%s,sign-method=RS256,ttl=%s", k.public, k.private, ttl)
}

func newWorld(t *testing.T, p processes.Programs, cfg processes.Config, tokens string, keys jwtKeys) *world {
	t.Helper()
	w := &world{programs: p, jwt: keys, tokens: tokens}
	if tokens == "jwt" {
		cfg.Flags = append(cfg.Flags, "--auth-token", keys.spec(time.Hour))
	}
	w.Cluster = p.Start(t, cfg)
	w.c = w.Client(t, nil)
	return w
}

// fresh is another cluster of the same kind for one behaviour, with more flags.
func (w *world) fresh(t *testing.T, flags ...string) *world {
	t.Helper()
	cfg := w.Config
	cfg.Flags = append(append([]string(nil), cfg.Flags...), flags...)
	f := &world{programs: w.programs, jwt: w.jwt, tokens: w.tokens, Cluster: w.programs.Start(t, cfg)}
	f.c = f.Client(t, nil)
	return f
}

// clear leaves nothing of a behaviour behind.
func (w *world) clear(t *testing.T, ctx context.Context) {
	t.Helper()
	w.untilAuth(t, ctx, false)
	for _, lease := range get[*clientv3.LeaseLeasesResponse](t)(w.c.Leases(ctx)).Leases {
		_, err := w.c.Revoke(ctx, lease.ID)
		must(t, err)
	}
	_, err := w.c.Delete(ctx, "", clientv3.WithFromKey())
	must(t, err)
	for _, user := range get[*clientv3.AuthUserListResponse](t)(w.c.UserList(ctx)).Users {
		_, err := w.c.UserDelete(ctx, user)
		must(t, err)
	}
	for _, role := range get[*clientv3.AuthRoleListResponse](t)(w.c.RoleList(ctx)).Roles {
		_, err := w.c.RoleDelete(ctx, role)
		must(t, err)
	}
	w.settle(t, ctx)
}

// untilAuth waits until each member knows that authentication is on, or off.
func (w *world) untilAuth(t *testing.T, ctx context.Context, on bool) {
	t.Helper()
	for i := range w.Members {
		one := w.one(t, i)
		w.Until(fmt.Sprintf("member %d knows that authentication is on: %v", i, on), func() error {
			if s, err := one.AuthStatus(ctx); err != nil || s.Enabled != on {
				return fmt.Errorf("%v, %w", s, err)
			}
			return nil
		})
	}
}

// settle has all members apply what was acknowledged.
func (w *world) settle(t *testing.T, ctx context.Context) {
	t.Helper()
	for i := range w.Members {
		_, err := w.one(t, i).Get(ctx, "settled")
		must(t, err)
	}
}

// one is a client of one member alone.
func (w *world) one(t *testing.T, member int) *clientv3.Client {
	t.Helper()
	return w.Client(t, nil, member)
}

var quick = flag.Bool("quick", false, "only plain members, and only simple tokens")

// worlds are where the behaviours are tried.
func worlds() (all []processes.Config) {
	for _, server := range []string{processes.Etcd, processes.Concord} {
		for _, members := range []int{1, 3} {
			for _, security := range []processes.Security{processes.Plain, processes.TLS, processes.AutoTLS} {
				// Of etcd those that its own tests have.
				if server == processes.Etcd && (members == 1) != (security == processes.Plain) || *quick && security != processes.Plain {
					continue
				}
				all = append(all, processes.Config{Server: server, Members: members, Security: security})
			}
		}
	}
	return all
}

// TestCommon tries all behaviours in all worlds.
func TestCommon(t *testing.T) {
	programs, err := processes.Build(t.TempDir())
	must(t, err)
	keys := newJWTKeys(t)
	for _, cfg := range worlds() {
		for _, tokens := range []string{"simple", "jwt"} {
			if tokens == "jwt" && *quick {
				continue
			}
			t.Run(fmt.Sprintf("%v-%s", cfg, tokens), func(t *testing.T) {
				w := newWorld(t, programs, cfg, tokens, keys)
				for _, b := range behaviours() {
					if w.Members < b.least || tokens == "jwt" && !b.tokens {
						continue
					}
					t.Run(b.name, func(t *testing.T) {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						b.run(t, ctx, w)
					})
					w.clear(t, t.Context())
				}
			})
		}
	}
}

// behaviours are all that there are.
func behaviours() (all []behaviour) {
	for _, of := range [][]behaviour{ofKeys(), ofLeases(), ofServers(), ofMembers(), ofHashes(), ofUsers(), ofRights(), ofTokens(), ofMaintenance()} {
		all = append(all, of...)
	}
	return all
}

// must ends the test on an error.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// get returns what a call answered that must not fail.
func get[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// refused fails unless err has a text of etcd's.
func refused(t *testing.T, what string, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %q", what, err, text)
	}
}

// value returns the value of a key, read by a client; ok says that there is one.
func value(t *testing.T, ctx context.Context, c *clientv3.Client, key string) (v string, ok bool) {
	t.Helper()
	r := get[*clientv3.GetResponse](t)(c.Get(ctx, key))
	if len(r.Kvs) == 0 {
		return "", false
	}
	return string(r.Kvs[0].Value), true
}

// wantValue fails unless a key has that value.
func wantValue(t *testing.T, ctx context.Context, c *clientv3.Client, key, want string) {
	t.Helper()
	if got, ok := value(t, ctx, c, key); !ok || got != want {
		t.Errorf("%s is %q (%v), want %q", key, got, ok, want)
	}
}

// put writes a key, which must succeed.
func put(t *testing.T, ctx context.Context, c *clientv3.Client, key, value string, opts ...clientv3.OpOption) *clientv3.PutResponse {
	t.Helper()
	return get[*clientv3.PutResponse](t)(c.Put(ctx, key, value, opts...))
}

// filled fills a store up to its quota and returns the last error.
func filled(ctx context.Context, c *clientv3.Client) error {
	for i := range 10_000 {
		if _, err := c.Put(ctx, fmt.Sprint("filler", i), strings.Repeat("x", 4096)); err != nil {
			return err
		}
	}
	return errors.New("there is no end of room")
}

// noSpace is what a full store says.
const noSpace = "etcdserver: mvcc: database space exceeded"

// eachStatus asks every member of a client for its status.
func eachStatus(ctx context.Context, c *clientv3.Client) (all []*pb.StatusResponse, err error) {
	for _, endpoint := range c.Endpoints() {
		s, err := c.Status(ctx, endpoint)
		if err != nil {
			return nil, err
		}
		all = append(all, (*pb.StatusResponse)(s))
	}
	return all, nil
}
