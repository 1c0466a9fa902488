package etcdapi

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keyFiles writes a pair of keys in PEM.
func keyFiles(t testing.TB, private any, public any) (priv, pub string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, kind string, der []byte, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	priv = write("priv.pem", "PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(public)
	return priv, write("pub.pem", "PUBLIC KEY", der, err)
}

// jwtKeys makes keys for every family of methods.
func jwtKeys(t testing.TB) map[string][2]string {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edPub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the secret of the test"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := map[string][2]string{"HS256": {secret, ""}}
	add := func(method string, private, public any) {
		priv, pub := keyFiles(t, private, public)
		keys[method] = [2]string{priv, pub}
	}
	add("RS256", r, &r.PublicKey)
	add("PS512", r, &r.PublicKey)
	add("ES256", e, &e.PublicKey)
	add("EdDSA", ed, edPub)
	return keys
}

// clock is a time that tests move.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestJWTRoundTrip(t *testing.T) {
	for method, files := range jwtKeys(t) {
		t.Run(method, func(t *testing.T) {
			c := &clock{time.Unix(1_800_000_000, 0)}
			tokens, err := newJWTTokens(map[string]string{"sign-method": method, "priv-key": files[0], "pub-key": files[1], "ttl": "10s"}, c.now)
			if err != nil {
				t.Fatal(err)
			}
			token, err := tokens.issue("alice", 7)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // verified, then remembered
				if user, rev, ok := tokens.lookup(token); !ok || user != "alice" || rev != 7 {
					t.Fatal(user, rev, ok)
				}
			}
			c.at = c.at.Add(9 * time.Second)
			if _, _, ok := tokens.lookup(token); !ok {
				t.Fatal("expired early")
			}
			c.at = c.at.Add(time.Second)
			if _, _, ok := tokens.lookup(token); ok {
				t.Fatal("valid after it has expired")
			}
			if _, _, ok := tokens.lookup(token[:len(token)-2] + "xx"); ok {
				t.Fatal("a wrong signature is taken")
			}
		})
	}
}

// TestJWTReadOnly has a member that knows the public key only.
func TestJWTReadOnly(t *testing.T) {
	files := jwtKeys(t)["RS256"]
	both, err := newJWTTokens(map[string]string{"sign-method": "RS256", "priv-key": files[0]}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := newJWTTokens(map[string]string{"sign-method": "RS256", "pub-key": files[1]}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	token, err := both.issue("alice", 3)
	if err != nil {
		t.Fatal(err)
	}
	if user, _, ok := reader.lookup(token); !ok || user != "alice" {
		t.Fatal("the public key does not verify")
	}
	if _, err := reader.issue("alice", 3); err != errVerifyOnly {
		t.Fatal(err)
	}
}

func TestJWTRefused(t *testing.T) {
	files := jwtKeys(t)
	secret, err := os.ReadFile(files["HS256"][0])
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := newJWTTokens(map[string]string{"sign-method": "HS256", "priv-key": files["HS256"][0]}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(m jwt.SigningMethod, key any, claims jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(m, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good := jwt.MapClaims{"username": "alice", "revision": 3}
	if _, _, ok := tokens.lookup(sign(jwt.SigningMethodHS256, secret, good)); !ok {
		t.Fatal("a token without exp is refused")
	}
	for name, token := range map[string]string{
		"empty":           "",
		"simple":          "abcdefghijklmnop.12",
		"another method":  sign(jwt.SigningMethodHS512, secret, good),
		"none":            sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, good),
		"another key":     sign(jwt.SigningMethodHS256, []byte("guess"), good),
		"no user":         sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"revision": 3}),
		"no revision":     sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice"}),
		"revision text":   sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice", "revision": "3"}),
		"revision < 0":    sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice", "revision": -3}),
		"revision large":  sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice", "revision": 1e300}),
		"user is a list":  sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": []string{"root"}, "revision": 3}),
		"expired":         sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice", "revision": 3, "exp": 1}),
		"exp is no time":  sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice", "revision": 3, "exp": "never"}),
		"not valid yet":   sign(jwt.SigningMethodHS256, secret, jwt.MapClaims{"username": "alice", "revision": 3, "nbf": 1 << 40}),
		"parts are empty": "..",
	} {
		if user, _, ok := tokens.lookup(token); ok {
			t.Errorf("%s: taken, of %q", name, user)
		}
	}
}

func TestJWTOptions(t *testing.T) {
	keys := jwtKeys(t)
	rs, es := keys["RS256"], keys["ES256"]
	another, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	other, _ := keyFiles(t, another, &another.PublicKey)
	for _, c := range []struct {
		options map[string]string
		want    string
	}{
		{map[string]string{}, `sign-method "" is unknown`},
		{map[string]string{"sign-method": "RS1"}, `sign-method "RS1" is unknown`},
		{map[string]string{"sign-method": "none"}, "signs nothing"},
		{map[string]string{"sign-method": "RS256"}, "neither pub-key nor priv-key"},
		{map[string]string{"sign-method": "EdDSA"}, "neither pub-key nor priv-key"},
		{map[string]string{"sign-method": "HS256"}, "priv-key is missing"},
		{map[string]string{"sign-method": "RS256", "priv-key": "/nonexistent"}, "read key"},
		{map[string]string{"sign-method": "RS256", "priv-key": es[0]}, "priv-key"},
		{map[string]string{"sign-method": "ES256", "pub-key": rs[1]}, "pub-key"},
		{map[string]string{"sign-method": "RS256", "priv-key": other, "pub-key": rs[1]}, "do not belong together"},
		{map[string]string{"sign-method": "RS256", "priv-key": rs[0], "ttl": "soon"}, "no duration"},
		{map[string]string{"sign-method": "RS256", "priv-key": rs[0], "key": "x"}, `"key" is unknown`},
	} {
		if _, err := newJWTTokens(c.options, time.Now); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.options, err, c.want)
		}
	}
}

// TestReadTokensBounded makes more tokens than are remembered.
func TestReadTokensBounded(t *testing.T) {
	var r readTokens
	now := time.Unix(1000, 0)
	for i := range 3 * maxRead {
		life := time.Minute
		if i%2 == 0 {
			life = 0
		}
		r.put(fmt.Sprint(i), readToken{user: "u", expires: now.Add(life)}, now)
		if len(r.tokens) > maxRead {
			t.Fatalf("%d tokens are remembered", len(r.tokens))
		}
		if _, ok := r.get(fmt.Sprint(i)); !ok {
			t.Fatalf("token %d is forgotten at once", i)
		}
	}
}

// FuzzJWT feeds the parser what was signed with another key.
func FuzzJWT(f *testing.F) {
	path := filepath.Join(f.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("s"), 0o600); err != nil {
		f.Fatal(err)
	}
	tokens, err := newJWTTokens(map[string]string{"sign-method": "HS256", "priv-key": path}, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	good, err := tokens.issue("u", 1)
	if err != nil {
		f.Fatal(err)
	}
	head := good[:strings.LastIndexByte(good, '.')+1]
	f.Add(head)
	f.Add(head + "AAAA")
	f.Add("a.b.c")
	f.Add("eyJhbGciOiJub25lIn0.eyJ1c2VybmFtZSI6InJvb3QifQ.")
	f.Fuzz(func(t *testing.T, token string) {
		// Base64 has several forms of one signature.
		if user, rev, ok := tokens.lookup(token); ok && (user != "u" || rev != 1) {
			t.Fatalf("%q is taken, of %q at %d", token, user, rev)
		}
	})
}

func BenchmarkJWTLookup(b *testing.B) {
	files := jwtKeys(b)["RS256"]
	tokens, err := newJWTTokens(map[string]string{"sign-method": "RS256", "priv-key": files[0]}, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	token, err := tokens.issue("alice", 7)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := tokens.lookup(token); !ok {
			b.Fatal("invalid")
		}
	}
}
