package etcdapi

import (
	"context"
)

// Callers bounds what callers may have. It finds out by itself who calls, and is
// called concurrently.
type Callers interface {
	// Attempt is called before a password is looked at. It may wait. done has
	// to be told whether the password was right.
	Attempt(ctx context.Context, user string) (done func(right bool), err error)
	// AddWatch is called before a watch begins, and remove when it has ended.
	AddWatch(ctx context.Context) (remove func(), err error)
}

// freely bounds nothing.
type freely struct{}

// Attempt implements [Callers].
func (freely) Attempt(context.Context, string) (func(bool), error) { return func(bool) {}, nil }

// AddWatch implements [Callers].
func (freely) AddWatch(context.Context) (func(), error) { return func() {}, nil }

// Shown are the credentials that a call shows, unchecked: a token, and the name
// in a certificate, which the transport has verified.
func Shown(ctx context.Context) (token, certificate string) {
	token, _ = tokenOf(ctx)
	return token, certificateName(ctx)
}

// Whose is the name of who makes a call, as its token or certificate proves it;
// empty for nobody, and while authentication is off.
func (a *API) Whose(ctx context.Context) string {
	if a.authority == nil {
		return ""
	}
	c, err := a.caller(ctx)
	if err != nil {
		return ""
	}
	return c.User
}

// StatusOf is the status that goes out for an error of kv.
func StatusOf(err error) error { return toStatus(err) }
