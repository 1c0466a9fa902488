package etcdapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/concord-kv/concord/kv"
)

// SimpleTokenTTL is how long a simple token lives without use: etcd's default.
const SimpleTokenTTL = 300 * time.Second

// Tokens are how callers prove who they are after they have logged in. The zero
// Tokens are simple ones with the default TTL. Make others with [ParseTokens].
type Tokens struct {
	jwt *jwtTokens    // nil for simple tokens
	ttl time.Duration // of simple tokens; 0 means [SimpleTokenTTL]
}

// ParseTokens reads etcd's --auth-token: "simple", which an empty one means too,
// or "jwt" with its options behind commas, as in
// jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m. ttl is how long
// simple tokens live without use; 0 means [SimpleTokenTTL].
func ParseTokens(spec string, ttl time.Duration) (t Tokens, err error) {
	if ttl < 0 {
		return t, kv.Errorf(kv.InvalidArgument, "the TTL of tokens, %v, is negative", ttl)
	}
	t.ttl = ttl
	kind, rest, _ := strings.Cut(spec, ",")
	options := map[string]string{}
	for _, option := range strings.Split(rest, ",") {
		name, value, ok := strings.Cut(option, "=")
		if _, twice := options[name]; rest != "" && (!ok || name == "" || twice) {
			return t, kv.Errorf(kv.InvalidArgument, "auth token option %q is no NAME=VALUE, or is there twice", option)
		}
		options[name] = value
	}
	delete(options, "")
	switch kind {
	case "", "simple":
		return t, nil
	case "jwt":
		if t.jwt, err = newJWTTokens(options, time.Now); err != nil {
			return t, kv.Errorf(kv.InvalidArgument, "auth token jwt: %w", err)
		}
		return t, nil
	}
	return t, kv.Errorf(kv.InvalidArgument, "auth token %q is unknown; use simple or jwt", kind)
}

// issueToken makes a token for a caller who has proved who it is. It returns
// [kv.ErrAuthOldRevision] when that must be proved again.
func (a *API) issueToken(ctx context.Context, c kv.Caller) (string, kv.Header, error) {
	status, t := a.cluster.Status(), &a.opts.Tokens
	if t.jwt != nil {
		token, err := t.jwt.issue(c.User, c.AuthRevision)
		return token, kv.Header{Revision: status.Revision, Time: status.Time}, err
	}
	ttl := t.ttl
	if ttl == 0 {
		ttl = SimpleTokenTTL
	}
	// etcd has the index of the entry there, to wait for. Here it is only for
	// the looks: a member that does not know a token asks the others.
	token := fmt.Sprintf("%s.%d", randomLetters(simpleLetters), status.Applied)
	h, err := a.authority.AddToken(ctx, kv.Token{ID: sha256.Sum256([]byte(token)), Caller: c, TTL: ttl})
	return token, h, err
}

// tokenCaller tells for whom a token stands.
func (a *API) tokenCaller(ctx context.Context, token string) (kv.Caller, error) {
	if strings.HasPrefix(token, kv.TokenPrefix) {
		id, err := kv.ParseSecretToken(token)
		if err != nil {
			return kv.Caller{}, err
		}
		return a.authority.TokenCaller(ctx, id)
	}
	if jwt := a.opts.Tokens.jwt; jwt != nil && strings.Count(token, ".") == 2 {
		user, revision, ok := jwt.lookup(token)
		if !ok {
			return kv.Caller{}, kv.ErrInvalidAuthToken
		}
		return kv.Caller{User: user, AuthRevision: revision}, nil
	}
	return a.authority.TokenCaller(ctx, sha256.Sum256([]byte(token)))
}

// simpleLetters is how many letters a simple token begins with: 136 bits. etcd's
// have 16, which are 91 bits.
const simpleLetters = 24

// randomLetters returns n letters, each of the 52 as likely as the others.
func randomLetters(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
	const fair = 256 / len(letters) * len(letters)
	out := make([]byte, 0, n)
	for random := make([]byte, n); len(out) < n; {
		_, _ = rand.Read(random) // never fails: crypto/rand
		for _, b := range random {
			if int(b) < fair && len(out) < n {
				out = append(out, letters[int(b)%len(letters)])
			}
		}
	}
	return string(out)
}
