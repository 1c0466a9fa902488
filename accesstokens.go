package concord

import (
	"context"
	"errors"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

var _ kv.AccessTokens = (*Node)(nil)

// WithToken returns a context whose calls are made by whoever shows that access
// token, such as "sk_concord_…": with its rights and no others, while
// authentication is on. Each call looks it up: calls get [kv.ErrInvalidAuthToken]
// where it is damaged, unknown, revoked or expired.
func WithToken(ctx context.Context, secret string) context.Context {
	id, err := kv.ParseSecretToken(secret)
	if err != nil {
		id = kv.TokenID{} // nobody's
	}
	return kv.WithTokenID(ctx, id)
}

// caller is in whose name calls with ctx are made, nil where they are the
// program's own.
func (n *Node) caller(ctx context.Context) *kv.Caller {
	c := kv.CallerOf(ctx)
	if c == nil || c.Token != kv.NoTokenMark || !n.machine.Access().Enabled() {
		return c
	}
	if id := kv.TokenIDOf(ctx); id != nil {
		if found, err := n.TokenCaller(ctx, *id); err == nil {
			return &found
		}
	}
	return c // of no token: where the call is decided, it is refused
}

// CreateToken implements [kv.AccessTokens].
func (n *Node) CreateToken(ctx context.Context, t kv.NewAccessToken) (kv.AccessToken, kv.Header, error) {
	switch {
	case t.TTL < 0:
		return kv.AccessToken{}, kv.Header{}, kv.ErrInvalidTTL
	case t.TTL > kv.MaxTTL:
		return kv.AccessToken{}, kv.Header{}, kv.ErrTTLTooLarge
	}
	h, err := n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeCreateAccess(dst, &t) })
	if err != nil {
		return kv.AccessToken{}, kv.Header{}, err
	}
	if made, ok := n.machine.Access().AccessToken(t.ID); ok {
		return made, h, nil
	}
	return kv.AccessToken{}, h, kv.ErrTokenNotFound // somebody was quick to revoke it
}

// AccessTokens implements [kv.AccessTokens].
func (n *Node) AccessTokens(ctx context.Context) ([]kv.AccessToken, kv.Header, error) {
	var own *kv.AccessToken
	t, h, err := n.asked(ctx, func(s auth.Subject) (err error) {
		own, err = s.AskAccess()
		return err
	})
	switch {
	case err != nil:
		return nil, kv.Header{}, err
	case own != nil:
		return []kv.AccessToken{*own}, h, nil
	}
	return t.AccessTokens(), h, nil
}

// RevokeAccessToken implements [kv.AccessTokens].
func (n *Node) RevokeAccessToken(ctx context.Context, id kv.TokenID) (kv.Header, error) {
	return n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeRevokeAccess(dst, id) })
}

// Can implements [kv.AccessTokens].
func (n *Node) Can(ctx context.Context, q kv.Question) (kv.Verdict, error) {
	switch {
	case q.Access > kv.ReadWriteAccess:
		return kv.Verdict{}, kv.Errorf(kv.InvalidArgument, "access %d is unknown; ask about reading, writing or both", q.Access)
	case len(q.Key) == 0:
		return kv.Verdict{}, kv.ErrEmptyKey
	}
	t, h, err := n.asked(ctx, func(s auth.Subject) error { return s.Ask(&q) })
	if err != nil {
		return kv.Verdict{}, err
	}
	v := t.Can(&q)
	v.Header = h
	return v, nil
}

// Bootstrap sets authentication up where nobody ever has: from then on it is on,
// and the access token with that id has the role root. Done is false where it
// had been set up before, and then nothing happens. The context's caller has no
// effect. A call that fails may have done it or not, and can be made again.
func (n *Node) Bootstrap(ctx context.Context, id kv.TokenID) (done bool, err error) {
	_, err = n.headerCommand(kv.WithoutCaller(ctx), func(dst []byte) []byte { return machine.EncodeBootstrap(dst, id) })
	if errors.Is(err, kv.ErrAuthSetUp) {
		// A call before may have done it, of which the answer was lost.
		return false, nil
	}
	return err == nil, err
}

// EnsureRootToken sees to it that the access token with that id is good, has the
// role root and does not expire, for whoever has lost all others. The context's
// caller has no effect.
func (n *Node) EnsureRootToken(ctx context.Context, id kv.TokenID) error {
	_, err := n.headerCommand(kv.WithoutCaller(ctx), func(dst []byte) []byte { return machine.EncodeEnsureRoot(dst, id) })
	return err
}
