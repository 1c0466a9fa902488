package restapi

import (
	"context"
	"encoding/base64"
	hexadecimal "encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/concord-kv/concord/kv"
)

// Token is an access token, without its secret.
type Token struct {
	// ID is the beginning of the secret's SHA-256, in 16 hexadecimal digits.
	ID          string       `json:"id"`
	SHA256      string       `json:"sha256"` // the whole of it
	Name        string       `json:"name"`
	Roles       []string     `json:"roles"`
	Permissions []Permission `json:"permissions"`
	// Age and what is left are in cluster time; LeftMillis is null where the
	// token never ends.
	AgeMillis  int64  `json:"age_ms"`
	LeftMillis *int64 `json:"left_ms"`
	// LastUsed is the hour in which the asked member saw it last, as in
	// RFC 3339; empty when it has not since it started.
	LastUsed string `json:"last_used"`
}

// Header tells of which state an answer is.
type Header struct {
	Revision   int64 `json:"revision"`
	TimeMillis int64 `json:"time_ms"` // cluster time
}

func fromHeader(h kv.Header) Header { return Header{int64(h.Revision), int64(h.Time)} }

// Tokens is the answer of GET /v1/auth/tokens.
type Tokens struct {
	Tokens []Token `json:"tokens"`
	Header
}

// Keys are one key, or those from it up to an end, or those with a prefix. What
// is no UTF-8 stands in the fields _base64. An end that is a zero byte means all
// keys behind the first.
type Keys struct {
	Key          *string `json:"key,omitempty"`
	KeyBase64    string  `json:"key_base64,omitempty"`
	End          *string `json:"end,omitempty"`
	EndBase64    string  `json:"end_base64,omitempty"`
	Prefix       *string `json:"prefix,omitempty"`
	PrefixBase64 string  `json:"prefix_base64,omitempty"`
}

// Permission gives access to keys: read, write or readwrite.
type Permission struct {
	Access string `json:"access"`
	Keys
}

// NewToken is the request of POST /v1/auth/tokens.
type NewToken struct {
	Name        string       `json:"name,omitempty"`
	Roles       []string     `json:"roles,omitempty"`
	Permissions []Permission `json:"permissions,omitempty"`
	// TTLMillis is how long the token is good, in cluster time; 0 is for ever.
	TTLMillis int64 `json:"ttl_ms,omitempty"`
	// SHA256 is that of a secret that the caller has made, in hexadecimal.
	// Without it the member makes one.
	SHA256 string `json:"sha256,omitempty"`
}

// MadeToken is the answer to that.
type MadeToken struct {
	Token Token `json:"token"`
	// Secret is there when the member has made it, and nowhere else: nobody
	// can find it out again.
	Secret string `json:"secret,omitempty"`
	Header
}

// RevokedToken is the answer of DELETE /v1/auth/tokens/{name}.
type RevokedToken struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Header
}

// Ask is the request of POST /v1/auth/can.
type Ask struct {
	// Who is a user's name, or an access token's id, SHA-256 or name. Where a
	// user and a token have one name, "user:" or "token:" in front tells which.
	Who    string `json:"who"`
	Access string `json:"access"`
	Keys
}

// Rule is a permission, and the role that has it.
type Rule struct {
	Role string `json:"role"` // empty for one of the token's own
	Permission
}

// Verdict is the answer to that.
type Verdict struct {
	Allowed bool `json:"allowed"`
	// Because is why, in a word; Rules are what allows it together.
	Because string `json:"because"`
	Rules   []Rule `json:"rules"`
	// Missing is the first key that nothing allows to be read or written.
	Missing *Permission `json:"missing"`
	Header
}

// tokens answers for a store.
type tokens struct{ store any }

// TokenRoutes are all requests about access tokens and rights. Where the store
// has none they answer with an error of the code [kv.Unsupported].
func TokenRoutes(store kv.Store) []Route {
	t := &tokens{store}
	return []Route{
		// A token may see itself, and anybody may ask about themselves: the
		// store decides.
		{http.MethodGet, "/v1/auth/tokens", kv.AnyUser, serve(t.list)},
		{http.MethodPost, "/v1/auth/tokens", kv.ManageAuth, serve(t.create)},
		{http.MethodDelete, "/v1/auth/tokens" + named, kv.ManageAuth, serve(t.revoke)},
		{http.MethodPost, "/v1/auth/can", kv.AnyUser, serve(t.can)},
	}
}

func (t *tokens) list(ctx context.Context, _ *nothing) (out Tokens, err error) {
	store, err := offers[kv.AccessTokens](t.store)
	if err != nil {
		return out, err
	}
	all, h, err := store.AccessTokens(ctx)
	out.Tokens, out.Header = []Token{}, fromHeader(h)
	for i := range all {
		out.Tokens = append(out.Tokens, fromToken(&all[i], h.Time))
	}
	return out, err
}

func (t *tokens) create(ctx context.Context, r *NewToken) (out MadeToken, err error) {
	store, err := offers[kv.AccessTokens](t.store)
	if err != nil {
		return out, err
	}
	if r.TTLMillis < 0 || r.TTLMillis > math.MaxInt64/int64(time.Millisecond) {
		return out, kv.Errorf(kv.InvalidArgument, "ttl_ms is %d; give the milliseconds that the token shall be good, or 0 for ever", r.TTLMillis)
	}
	made := kv.NewAccessToken{Name: r.Name, Roles: r.Roles, TTL: time.Duration(r.TTLMillis) * time.Millisecond}
	for i := range r.Permissions {
		p, err := r.Permissions[i].permission()
		if err != nil {
			return out, err
		}
		made.Permissions = append(made.Permissions, p)
	}
	if r.SHA256 != "" {
		made.ID, err = parseID(r.SHA256)
	} else {
		out.Secret = kv.NewSecretToken()
		made.ID, err = kv.ParseSecretToken(out.Secret)
	}
	if err != nil {
		return MadeToken{}, err
	}
	token, h, err := store.CreateToken(ctx, made)
	if err != nil {
		return MadeToken{}, err
	}
	out.Token, out.Header = fromToken(&token, h.Time), fromHeader(h)
	return out, nil
}

// whichToken is a token by its id, SHA-256 or name.
type whichToken struct{ name string }

func (w *whichToken) setName(name string) { w.name = name }

func (t *tokens) revoke(ctx context.Context, w *whichToken) (out RevokedToken, err error) {
	store, err := offers[kv.AccessTokens](t.store)
	if err != nil {
		return out, err
	}
	found, err := findToken(ctx, store, w.name)
	if err != nil {
		return out, err
	}
	h, err := store.RevokeAccessToken(ctx, found.ID)
	return RevokedToken{found.ID.String(), found.Name, fromHeader(h)}, err
}

// errSecretShown refuses the secret of a token as its name: what is named gets
// into logs.
var errSecretShown = &kv.Error{Code: kv.InvalidArgument, Message: "that is the secret of an access token, which names none"}

// findToken is the token with an id, a SHA-256 or a name. Nobody can choose an
// id, so it counts before a name.
func findToken(ctx context.Context, store kv.AccessTokens, text string) (found kv.AccessToken, err error) {
	if strings.HasPrefix(text, kv.TokenPrefix) {
		return found, errSecretShown
	}
	all, _, err := store.AccessTokens(ctx)
	if err != nil {
		return found, err
	}
	at := slices.IndexFunc(all, func(t kv.AccessToken) bool {
		return strings.EqualFold(t.ID.String(), text) || strings.EqualFold(hexadecimal.EncodeToString(t.ID[:]), text)
	})
	if at < 0 && text != "" {
		at = slices.IndexFunc(all, func(t kv.AccessToken) bool { return t.Name == text })
	}
	if at < 0 {
		return found, fmt.Errorf("%w: %s", kv.ErrTokenNotFound, text)
	}
	return all[at], nil
}

func parseID(text string) (id kv.TokenID, err error) {
	if strings.HasPrefix(text, kv.TokenPrefix) {
		return id, errSecretShown
	}
	if n, err := hexadecimal.Decode(id[:], []byte(text[:min(len(text), 2*len(id))])); err != nil || n != len(id) || len(text) != 2*len(id) {
		return id, kv.Errorf(kv.InvalidArgument, "sha256 is not the SHA-256 of a secret: 64 hexadecimal digits")
	}
	return id, nil
}

func (t *tokens) can(ctx context.Context, r *Ask) (out Verdict, err error) {
	store, err := offers[kv.AccessTokens](t.store)
	if err != nil {
		return out, err
	}
	q := kv.Question{}
	if q.Access, err = parseAccess(r.Access); err != nil {
		return out, err
	}
	if q.Key, q.End, err = r.keys(); err != nil {
		return out, err
	}
	if err := t.identify(ctx, store, r.Who, &q); err != nil {
		return out, err
	}
	v, err := store.Can(ctx, q)
	if err != nil {
		return out, err
	}
	return fromVerdict(&v), nil
}

// identify finds out whom a question is about.
func (t *tokens) identify(ctx context.Context, store kv.AccessTokens, who string, q *kv.Question) error {
	if name, ok := strings.CutPrefix(who, "user:"); ok {
		q.User = name
		return nil
	}
	name, isToken := strings.CutPrefix(who, "token:")
	if name == "" {
		return kv.Errorf(kv.InvalidArgument, "nobody is named; give a user, or an access token by its id or name, in who")
	}
	token, err := findToken(ctx, store, name)
	switch {
	case err == nil:
		q.Token = token.ID
		if isToken || !t.isUser(ctx, name) {
			return nil
		}
		return kv.WithNext(kv.Errorf(kv.InvalidArgument, "a user and an access token are named %s", name), "write user:"+name+" or token:"+name)
	case isToken && errors.Is(err, kv.ErrTokenNotFound):
		if id, bad := parseID(name); bad == nil {
			q.Token = id // it was one, or may become one, or is not for the caller to know
			return nil
		}
		return err
	case isToken, errors.Is(err, errSecretShown):
		return err
	case errors.Is(err, kv.ErrTokenNotFound) || kv.CodeOf(err) == kv.PermissionDenied: // who may not list tokens may be that user
		q.User = name
		return nil
	}
	return err
}

func (t *tokens) isUser(ctx context.Context, name string) bool {
	users, ok := t.store.(kv.Users)
	if !ok {
		return false
	}
	_, _, err := users.User(ctx, name)
	return err == nil
}

// keys are those that k selects, as kv has them.
func (k *Keys) keys() (key, end []byte, err error) {
	if key, err = bytesOf("key", k.Key, k.KeyBase64); err != nil {
		return nil, nil, err
	}
	if end, err = bytesOf("end", k.End, k.EndBase64); err != nil {
		return nil, nil, err
	}
	prefix, err := bytesOf("prefix", k.Prefix, k.PrefixBase64)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case prefix != nil && (key != nil || end != nil):
		return nil, nil, kv.Errorf(kv.InvalidArgument, "prefix excludes key and end")
	case prefix != nil && len(prefix) == 0:
		return []byte{0}, []byte{0}, nil // all keys
	case prefix != nil:
		return prefix, kv.Prefix(prefix), nil
	case len(key) == 0:
		return nil, nil, kv.Errorf(kv.InvalidArgument, "no key is named; give key, key and end, or prefix")
	}
	return key, end, nil
}

// bytesOf reads a field that is text or, under the name with _base64, bytes; nil
// when neither is given.
func bytesOf(name string, text *string, encoded string) ([]byte, error) {
	switch {
	case text != nil && encoded != "":
		return nil, kv.Errorf(kv.InvalidArgument, "%s and %s_base64 exclude each other", name, name)
	case text != nil:
		return []byte(*text), nil
	case encoded == "":
		return nil, nil
	}
	b, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, kv.Errorf(kv.InvalidArgument, "%s_base64 is no base64", name)
	}
	return b, nil
}

// KeysOf is the inverse of what requests have.
func KeysOf(key, end []byte) (k Keys) {
	set := func(b []byte, text **string, encoded *string) {
		if utf8.Valid(b) {
			s := string(b)
			*text = &s
		} else {
			*encoded = base64.StdEncoding.EncodeToString(b)
		}
	}
	set(key, &k.Key, &k.KeyBase64)
	if len(end) > 0 {
		set(end, &k.End, &k.EndBase64)
	}
	return k
}

// Bytes are the key and the end of an answer.
func (k *Keys) Bytes() (key, end []byte, err error) { return k.keys() }

func parseAccess(text string) (a kv.Access, err error) {
	for a = kv.ReadAccess; a <= kv.ReadWriteAccess; a++ {
		if a.String() == text {
			return a, nil
		}
	}
	return a, kv.Errorf(kv.InvalidArgument, "access is %q; give read, write or readwrite", text)
}

func (p *Permission) permission() (out kv.Permission, err error) {
	if out.Access, err = parseAccess(p.Access); err == nil {
		out.Key, out.End, err = p.keys()
	}
	return out, err
}

func fromPermission(p *kv.Permission) Permission {
	return Permission{p.Access.String(), KeysOf(p.Key, p.End)}
}

func fromToken(t *kv.AccessToken, now kv.Time) Token {
	out := Token{
		ID: t.ID.String(), SHA256: hexadecimal.EncodeToString(t.ID[:]), Name: t.Name, Roles: append([]string{}, t.Roles...), Permissions: []Permission{},
		AgeMillis: max(0, now.Sub(t.Created).Milliseconds()),
	}
	for i := range t.Permissions {
		out.Permissions = append(out.Permissions, fromPermission(&t.Permissions[i]))
	}
	if t.Expires != 0 {
		left := max(0, t.Expires.Sub(now).Milliseconds())
		out.LeftMillis = &left
	}
	if !t.LastUsed.IsZero() {
		out.LastUsed = t.LastUsed.UTC().Format(time.RFC3339)
	}
	return out
}

func fromVerdict(v *kv.Verdict) Verdict {
	out := Verdict{Allowed: v.Allowed, Because: v.Because.String(), Rules: []Rule{}, Header: fromHeader(v.Header)}
	for i := range v.Rules {
		out.Rules = append(out.Rules, Rule{v.Rules[i].Role, fromPermission(&v.Rules[i].Permission)})
	}
	if v.Because == kv.BecauseNoRule {
		out.Missing = &Permission{v.MissingAccess.String(), KeysOf(v.Missing, nil)}
	}
	return out
}
