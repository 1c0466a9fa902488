package client

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/concord-kv/concord/kv"
)

// session is what a client shows to prove who it is: a token, which it was given
// or gets with its password. It is good for all endpoints. A nil session shows
// nothing.
type session struct {
	// Set by newSession, then read only. Without a user the token is a given
	// one.
	user, password string

	// shown is the metadata of every call: nil before the first login, empty
	// where authentication is off.
	shown atomic.Pointer[map[string]string]
	// turn holds one value while somebody logs in.
	turn chan struct{}
}

var _ credentials.PerRPCCredentials = (*session)(nil)

func newSession(cfg *Config) (*session, error) {
	switch {
	case cfg.Token != "" && cfg.User != "":
		return nil, kv.Errorf(kv.InvalidArgument, "client: a token and a user are given; give one of them")
	case cfg.User != "":
		return &session{user: cfg.User, password: cfg.Password, turn: make(chan struct{}, 1)}, nil
	case cfg.Token != "":
		if strings.HasPrefix(cfg.Token, kv.TokenPrefix) {
			if _, err := kv.ParseSecretToken(cfg.Token); err != nil {
				return nil, err
			}
		}
		s := new(session)
		s.show(cfg.Token)
		return s, nil
	}
	return nil, nil
}

func (s *session) show(token string) {
	shown := map[string]string{}
	if token != "" {
		shown[rpctypes.TokenFieldNameGRPC] = token
	}
	s.shown.Store(&shown)
}

// GetRequestMetadata implements [credentials.PerRPCCredentials].
func (s *session) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if shown := s.shown.Load(); shown != nil {
		return *shown, nil
	}
	return nil, nil
}

// RequireTransportSecurity is false as in etcd's client: whether a network can
// be trusted is for who configures the endpoints.
func (s *session) RequireTransportSecurity() bool { return false }

// current is what calls show at the moment.
func (s *session) current() *map[string]string {
	if s == nil {
		return nil
	}
	return s.shown.Load()
}

// begin logs in, unless that has been done.
func (s *session) begin(ctx context.Context, e *endpoint) error {
	if s == nil || s.shown.Load() != nil {
		return nil
	}
	return s.login(ctx, e, nil)
}

// login gets a token in place of had, unless somebody did meanwhile.
func (s *session) login(ctx context.Context, e *endpoint, had *map[string]string) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done(): // another's login may take longer than this call may
		return &kv.Error{Code: kv.Unavailable, Message: "nothing was done: another call is logging in still", Err: context.Cause(ctx)}
	}
	if s.shown.Load() != had {
		return nil
	}
	resp, sent, err := attempt(ctx, e, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.AuthenticateResponse, error) {
		return pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: s.user, Password: s.password}, opts...)
	})
	switch {
	case errors.Is(err, kv.ErrAuthNotEnabled):
		s.show("")
		return nil
	case err != nil && sent && kv.CodeOf(err) == kv.Unavailable:
		// What the login was for has not been sent.
		return &kv.Error{Code: kv.Unavailable, Message: "nothing was done: could not log in at " + e.address + ": " + err.Error(), Err: errNotSent}
	case err != nil:
		return err
	}
	s.show(resp.Token)
	return nil
}

// maxLogins is how often one call is tried again with a new token: users may be
// changed faster than a client logs in.
const maxLogins = 5

// renew finds out whether a call that failed with err, when had was shown, may
// fare better now, and logs in for that. Where it may not, failed is what to tell
// the caller: err, or why there is no login.
func (s *session) renew(ctx context.Context, e *endpoint, had *map[string]string, err error) (again bool, failed error) {
	switch {
	case s == nil:
		return false, err
	case errors.Is(err, kv.ErrAuthOldRevision) && s.user == "":
		return true, nil // the token is good, but users changed while it was checked
	case s.user == "":
		return false, err
	case errors.Is(err, kv.ErrAuthOldRevision), errors.Is(err, kv.ErrInvalidAuthToken),
		errors.Is(err, kv.ErrUserEmpty) && len(*had) == 0: // authentication is on now
		failed = s.login(ctx, e, had)
		return failed == nil, failed
	}
	return false, err
}
