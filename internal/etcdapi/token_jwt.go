package etcdapi

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"math"
	"os"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/concord-kv/concord/kv"
)

// jwtTTL is how long a JSON Web Token lives where the options do not say.
const jwtTTL = 5 * time.Minute

// jwtTokens makes and reads JSON Web Tokens (RFC 7519) with etcd's claims:
// username, revision (of authentication, when the token was made) and exp. They
// are nowhere kept: who has the key can make and read them, on every member and
// after a restart.
type jwtTokens struct {
	// Set by newJWTTokens, then read only.
	method jwt.SigningMethod
	sign   any // the private key; nil where tokens are only read
	verify any
	ttl    time.Duration
	now    func() time.Time
	parser *jwt.Parser

	// Safe for concurrent use.
	read readTokens
}

// newJWTTokens reads the options of etcd's --auth-token=jwt,…: sign-method,
// pub-key and priv-key (files in PEM; of HS… the secret itself is in priv-key),
// ttl.
func newJWTTokens(options map[string]string, now func() time.Time) (*jwtTokens, error) {
	t := &jwtTokens{ttl: jwtTTL, now: now}
	for name := range options {
		switch name {
		case "sign-method", "pub-key", "priv-key", "ttl":
		default:
			return nil, fmt.Errorf("option %q is unknown; use sign-method, pub-key, priv-key and ttl", name)
		}
	}
	if text := options["ttl"]; text != "" {
		var err error
		if t.ttl, err = time.ParseDuration(text); err != nil {
			return nil, fmt.Errorf("ttl %q is no duration; write it as 10m", text)
		}
	}
	// "none" has a signing method too, and no key.
	t.method = jwt.GetSigningMethod(options["sign-method"])
	if t.method == nil {
		return nil, fmt.Errorf("sign-method %q is unknown; use RS256, PS256, ES256, HS256, their kin, or EdDSA", options["sign-method"])
	}
	private, err := readKeyFile(options["priv-key"])
	if err != nil {
		return nil, err
	}
	public, err := readKeyFile(options["pub-key"])
	if err != nil {
		return nil, err
	}
	if t.sign, t.verify, err = keysFor(t.method, private, public); err != nil {
		return nil, err
	}
	t.parser = jwt.NewParser(jwt.WithValidMethods([]string{t.method.Alg()}), jwt.WithTimeFunc(now))
	return t, nil
}

func readKeyFile(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return data, nil
}

// keysFor parses the keys that a method needs, as far as they are given, and
// finds out that they belong together.
func keysFor(method jwt.SigningMethod, private, public []byte) (sign, verify any, err error) {
	switch method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(private) == 0 {
			return nil, nil, errors.New("priv-key is missing: it holds the secret")
		}
		return private, private, nil
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return keyKind[*rsa.PrivateKey, *rsa.PublicKey]{
			jwt.ParseRSAPrivateKeyFromPEM, jwt.ParseRSAPublicKeyFromPEM,
			func(k *rsa.PrivateKey) *rsa.PublicKey { return &k.PublicKey },
		}.parse(private, public)
	case *jwt.SigningMethodECDSA:
		return keyKind[*ecdsa.PrivateKey, *ecdsa.PublicKey]{
			jwt.ParseECPrivateKeyFromPEM, jwt.ParseECPublicKeyFromPEM,
			func(k *ecdsa.PrivateKey) *ecdsa.PublicKey { return &k.PublicKey },
		}.parse(private, public)
	case *jwt.SigningMethodEd25519:
		return keyKind[ed25519.PrivateKey, ed25519.PublicKey]{
			parseEdPrivate, parseEdPublic,
			func(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) },
		}.parse(private, public)
	}
	return nil, nil, fmt.Errorf("sign-method %s signs nothing", method.Alg())
}

// keyKind is a kind of keys: how they are read, and which belong together.
type keyKind[S any, V interface{ Equal(crypto.PublicKey) bool }] struct {
	private func(pem []byte) (S, error)
	public  func(pem []byte) (V, error)
	other   func(S) V
}

// parse takes a pair of keys, or one of them.
func (k keyKind[S, V]) parse(private, public []byte) (sign, verify any, err error) {
	var own V
	if len(private) > 0 {
		key, err := k.private(private)
		if err != nil {
			return nil, nil, fmt.Errorf("priv-key: %w", err)
		}
		own = k.other(key)
		sign, verify = key, own
	}
	if len(public) > 0 {
		key, err := k.public(public)
		switch {
		case err != nil:
			return nil, nil, fmt.Errorf("pub-key: %w", err)
		case sign != nil && !own.Equal(key):
			return nil, nil, errors.New("pub-key and priv-key do not belong together")
		}
		verify = key
	}
	if verify == nil {
		return nil, nil, errors.New("neither pub-key nor priv-key is given")
	}
	return sign, verify, nil
}

func parseEdPrivate(pem []byte) (ed25519.PrivateKey, error) {
	key, err := jwt.ParseEdPrivateKeyFromPEM(pem)
	if err != nil {
		return nil, err
	}
	return key.(ed25519.PrivateKey), nil // the parser has checked it
}

func parseEdPublic(pem []byte) (ed25519.PublicKey, error) {
	key, err := jwt.ParseEdPublicKeyFromPEM(pem)
	if err != nil {
		return nil, err
	}
	return key.(ed25519.PublicKey), nil // the parser has checked it
}

// issue makes a token of user at a revision of authentication.
func (t *jwtTokens) issue(user string, revision uint64) (string, error) {
	if t.sign == nil {
		return "", errVerifyOnly
	}
	return jwt.NewWithClaims(t.method, jwt.MapClaims{
		"username": user, "revision": revision, "exp": t.now().Add(t.ttl).Unix(),
	}).SignedString(t.sign)
}

// lookup tells whose token it is, and from which revision of authentication.
func (t *jwtTokens) lookup(token string) (user string, revision uint64, ok bool) {
	now := t.now()
	if r, ok := t.read.get(token); ok && now.Before(r.expires) {
		return r.user, r.revision, true
	}
	parsed, err := t.parser.Parse(token, func(*jwt.Token) (any, error) { return t.verify, nil })
	if err != nil {
		return "", 0, false
	}
	claims, _ := parsed.Claims.(jwt.MapClaims)
	user, named := claims["username"].(string)
	number, numbered := claims["revision"].(float64)
	if !named || !numbered || !(number >= 0 && number < math.MaxInt64) {
		return "", 0, false
	}
	r := readToken{user: user, revision: uint64(number), expires: now.Add(jwtTTL)}
	if exp, err := claims.GetExpirationTime(); err == nil && exp != nil && exp.Before(r.expires) {
		r.expires = exp.Time
	}
	t.read.put(token, r, now)
	return r.user, r.revision, true
}

// maxRead bounds how many tokens are remembered as verified.
const maxRead = 4096

// readTokens remembers tokens whose signature was verified: that takes up to a
// hundred microseconds, and a client sends the same token with every call.
type readTokens struct {
	mu     sync.RWMutex
	tokens map[string]readToken
}

// readToken is what a token says, until it expires.
type readToken struct {
	user     string
	revision uint64
	expires  time.Time
}

func (r *readTokens) get(token string) (readToken, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	known, ok := r.tokens[token]
	return known, ok
}

// put remembers a token. Where there are too many it forgets those that have
// expired, or else all.
func (r *readTokens) put(token string, known readToken, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tokens == nil {
		r.tokens = map[string]readToken{}
	}
	if len(r.tokens) >= maxRead {
		for t, known := range r.tokens {
			if !now.Before(known.expires) {
				delete(r.tokens, t)
			}
		}
		if len(r.tokens) >= maxRead {
			clear(r.tokens)
		}
	}
	r.tokens[token] = known
}

// errVerifyOnly is etcd's answer where tokens can be read but not made.
var errVerifyOnly = kv.Errorf(kv.Internal, "auth: token signing attempted with verify-only key")
