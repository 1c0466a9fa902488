package client

import (
	"context"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/concord-kv/concord/kv"
)

var _ kv.AccessTokens = (*Client)(nil)

// What follows is JSON of Concord's HTTP API: api/openapi.yaml. Keys go as
// base64, and come as text where they are UTF-8.

type webHeader struct {
	Revision   kv.Revision `json:"revision"`
	TimeMillis kv.Time     `json:"time_ms"`
}

func (h webHeader) header() kv.Header { return kv.Header{Revision: h.Revision, Time: h.TimeMillis} }

type webPermission struct {
	Access    string  `json:"access"`
	Key       *string `json:"key,omitempty"`
	KeyBase64 []byte  `json:"key_base64,omitempty"`
	End       *string `json:"end,omitempty"`
	EndBase64 []byte  `json:"end_base64,omitempty"`
}

func toWeb(p kv.Permission) (webPermission, error) {
	if p.Access > kv.ReadWriteAccess {
		return webPermission{}, kv.Errorf(kv.InvalidArgument, "access %d is unknown; give reading, writing or both", p.Access)
	}
	return webPermission{Access: p.Access.String(), KeyBase64: p.Key, EndBase64: p.End}, nil
}

func (w *webPermission) permission() kv.Permission {
	p := kv.Permission{Key: w.KeyBase64, End: w.EndBase64}
	if w.Key != nil {
		p.Key = []byte(*w.Key)
	}
	if w.End != nil {
		p.End = []byte(*w.End)
	}
	for a := kv.ReadAccess; a <= kv.ReadWriteAccess; a++ {
		if a.String() == w.Access {
			p.Access = a
		}
	}
	return p
}

type webToken struct {
	SHA256      string          `json:"sha256"`
	Name        string          `json:"name"`
	Roles       []string        `json:"roles"`
	Permissions []webPermission `json:"permissions"`
	AgeMillis   kv.Time         `json:"age_ms"`
	LeftMillis  *kv.Time        `json:"left_ms"`
	LastUsed    string          `json:"last_used"`
}

// token is w as it was at a time.
func (w *webToken) token(now kv.Time) (kv.AccessToken, error) {
	t := kv.AccessToken{Name: w.Name, Roles: w.Roles, Created: now - w.AgeMillis}
	if id, err := hex.DecodeString(w.SHA256); err != nil || copy(t.ID[:], id) != len(t.ID) || len(id) != len(t.ID) {
		return t, kv.Errorf(kv.Unsupported, "the member does not tell the ids of access tokens; it is of another version: %w", kv.ErrUnsupported)
	}
	for i := range w.Permissions {
		t.Permissions = append(t.Permissions, w.Permissions[i].permission())
	}
	if w.LeftMillis != nil {
		t.Expires = now + *w.LeftMillis
	}
	if at, err := time.Parse(time.RFC3339, w.LastUsed); err == nil { // else it was not used
		t.LastUsed = at
	}
	return t, nil
}

const tokensPath = "/v1/auth/tokens"

func hexID(id kv.TokenID) string { return hex.EncodeToString(id[:]) }

// CreateToken implements [kv.AccessTokens]. When the outcome of a call is
// unknown, another with the same id finds it out: it makes the token, or returns
// [kv.ErrTokenExists].
func (c *Client) CreateToken(ctx context.Context, t kv.NewAccessToken) (kv.AccessToken, kv.Header, error) {
	request := struct {
		Name        string          `json:"name,omitempty"`
		Roles       []string        `json:"roles,omitempty"`
		Permissions []webPermission `json:"permissions,omitempty"`
		TTLMillis   kv.Time         `json:"ttl_ms,omitempty"`
		SHA256      string          `json:"sha256"`
	}{t.Name, t.Roles, nil, kv.Time(0).Add(t.TTL), hexID(t.ID)}
	switch {
	case t.TTL < 0:
		return kv.AccessToken{}, kv.Header{}, kv.ErrInvalidTTL
	case t.TTL > kv.MaxTTL:
		return kv.AccessToken{}, kv.Header{}, kv.ErrTTLTooLarge
	}
	for _, p := range t.Permissions {
		if len(p.Key) == 0 {
			return kv.AccessToken{}, kv.Header{}, kv.ErrInvalidAuthManagement
		}
		w, err := toWeb(p)
		if err != nil {
			return kv.AccessToken{}, kv.Header{}, err
		}
		request.Permissions = append(request.Permissions, w)
	}
	var made struct {
		Token webToken `json:"token"`
		webHeader
	}
	if err := c.Ask(ctx, http.MethodPost, tokensPath, request, &made); err != nil {
		return kv.AccessToken{}, kv.Header{}, err
	}
	token, err := made.Token.token(made.TimeMillis)
	return token, made.header(), err
}

// AccessTokens implements [kv.AccessTokens].
func (c *Client) AccessTokens(ctx context.Context) ([]kv.AccessToken, kv.Header, error) {
	var list struct {
		Tokens []webToken `json:"tokens"`
		webHeader
	}
	if err := c.Ask(ctx, http.MethodGet, tokensPath, nil, &list); err != nil {
		return nil, kv.Header{}, err
	}
	all := make([]kv.AccessToken, len(list.Tokens))
	for i := range list.Tokens {
		var err error
		if all[i], err = list.Tokens[i].token(list.TimeMillis); err != nil {
			return nil, kv.Header{}, err
		}
	}
	return all, list.header(), nil
}

// RevokeAccessToken implements [kv.AccessTokens].
func (c *Client) RevokeAccessToken(ctx context.Context, id kv.TokenID) (kv.Header, error) {
	var gone webHeader
	err := c.Ask(ctx, http.MethodDelete, tokensPath+"/"+hexID(id), nil, &gone)
	return gone.header(), err
}

// Can implements [kv.AccessTokens].
func (c *Client) Can(ctx context.Context, q kv.Question) (kv.Verdict, error) {
	if len(q.Key) == 0 {
		return kv.Verdict{}, kv.ErrEmptyKey
	}
	keys, err := toWeb(kv.Permission{Access: q.Access, Key: q.Key, End: q.End})
	if err != nil {
		return kv.Verdict{}, err
	}
	request := struct {
		Who string `json:"who"`
		webPermission
	}{"user:" + q.User, keys}
	if q.User == "" {
		request.Who = "token:" + hexID(q.Token)
	}
	var answer struct {
		Allowed bool   `json:"allowed"`
		Because string `json:"because"`
		Rules   []struct {
			Role string `json:"role"`
			webPermission
		} `json:"rules"`
		Missing *webPermission `json:"missing"`
		webHeader
	}
	if err := c.Ask(ctx, http.MethodPost, "/v1/auth/can", request, &answer); err != nil {
		return kv.Verdict{}, err
	}
	v := kv.Verdict{Header: answer.header(), Allowed: answer.Allowed, Because: kv.BecauseUnknown}
	for b := kv.BecauseOff; b <= kv.BecauseUnknown; b++ {
		if b.String() == answer.Because {
			v.Because = b
		}
	}
	for i := range answer.Rules {
		v.Rules = append(v.Rules, kv.Rule{Role: answer.Rules[i].Role, Permission: answer.Rules[i].permission()})
	}
	if answer.Missing != nil {
		missing := answer.Missing.permission()
		v.Missing, v.MissingAccess = missing.Key, missing.Access
	}
	return v, nil
}
