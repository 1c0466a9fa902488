package etcdapi

import (
	"cmp"
	"context"
	"crypto/tls"
	"iter"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/concord-kv/concord/internal/headers"
	"github.com/concord-kv/concord/kv"
)

// identify returns a context with who calls: whom the token in the metadata
// stands for, or else the common name of the client's certificate, or nobody.
// A context that has a caller stays as it is.
//
// A caller is attached also while authentication is off here, because it may be
// on already where the call is going to be decided.
func (a *API) identify(ctx context.Context) (context.Context, error) {
	if a.authority == nil || kv.CallerOf(ctx) != nil {
		return ctx, nil
	}
	caller, err := a.caller(ctx)
	if err != nil {
		return ctx, err
	}
	return kv.WithCaller(ctx, caller), nil
}

// caller finds out who calls. While authentication is off that is nobody, and
// session tokens are not looked at.
func (a *API) caller(ctx context.Context) (kv.Caller, error) {
	// What changes after this makes the caller's revision old, not current.
	auth := a.authority.Auth()
	if !auth.Enabled {
		if a.opts.AuthRequired {
			return kv.Caller{}, errAuthIsOff
		}
		return a.callerWhileOff(ctx)
	}
	if token, ok := tokenOf(ctx); ok {
		return a.tokenCaller(ctx, token)
	}
	if name := certificateName(ctx); name != "" {
		return kv.Caller{User: name, AuthRevision: auth.Revision}, nil
	}
	return kv.Caller{}, nil
}

// callerWhileOff finds out who calls while authentication is off here, which may
// be because this member has not heard yet that it is on. Whoever shows a good
// access token is taken for its bearer, so that it is not refused as nobody; to
// look for one that is not known here brings the member up to date.
func (a *API) callerWhileOff(ctx context.Context) (kv.Caller, error) {
	token, _ := tokenOf(ctx)
	id, err := kv.ParseSecretToken(token)
	if err != nil {
		return kv.Caller{}, nil
	}
	if c, err := a.authority.TokenCaller(ctx, id); err == nil {
		return c, nil
	}
	if a.authority.Auth().Enabled {
		return a.caller(ctx)
	}
	return kv.Caller{}, nil
}

// errAuthIsOff asks clients to try again, as they do for whatever is unavailable:
// a new cluster is soon set up.
var errAuthIsOff = kv.Errorf(kv.Unavailable, "authentication is required here, and is not on yet; a new cluster switches it on when it has its first leader: see the member's log")

// errAuthStaysOn is for who would lock everybody out.
var errAuthStaysOn = kv.Errorf(kv.FailedPrecondition, "authentication is required here, and stays on; start the members with --env dev to switch it off")

// tokenOf finds the token in a call's metadata, where etcd looks for it.
func tokenOf(ctx context.Context) (string, bool) {
	values := headers.Values(ctx, rpctypes.TokenFieldNameGRPC)
	if len(values) == 0 {
		values = headers.Values(ctx, rpctypes.TokenFieldNameSwagger)
	}
	if len(values) == 0 {
		return "", false
	}
	const bearer = "Bearer " // in any case: RFC 9110, section 11.1
	if token := values[0]; len(token) > len(bearer) && strings.EqualFold(token[:len(bearer)], bearer) {
		return token[len(bearer):], true
	}
	return values[0], true
}

// gatewayHeader is in what comes through a gateway from HTTP. The certificate of
// such a connection is the gateway's, and says nothing about who calls
// (CVE-2018-16886).
const gatewayHeader = "grpcgateway-accept"

// certificateName is the common name of the certificate with which the client
// has shown who it is, as far as the server has verified it.
func certificateName(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(headers.Values(ctx, gatewayHeader)) > 0 {
		return ""
	}
	for _, chain := range info.State.VerifiedChains {
		if len(chain) > 0 {
			return chain[0].Subject.CommonName
		}
	}
	return ""
}

// Admit returns nil when the visitor of a page, who shows these values of the
// header Authorization, has a right. Certificates do not count there.
func (a *API) Admit(ctx context.Context, authorization []string, need kv.Right) error {
	_, err := a.Enter(ctx, authorization, nil, need)
	return err
}

// Enter is Admit for requests that are carried out: it returns a context with
// who makes them. state, where it is not nil, is the visitor's connection, whose
// certificate counts when there is no token.
func (a *API) Enter(ctx context.Context, authorization []string, state *tls.ConnectionState, need kv.Right) (context.Context, error) {
	if a.authority == nil {
		return ctx, nil
	}
	md := metadata.MD{}
	if len(authorization) > 0 {
		md[rpctypes.TokenFieldNameSwagger] = authorization
	}
	shown := metadata.NewIncomingContext(ctx, md)
	if state != nil {
		shown = peer.NewContext(shown, &peer.Peer{AuthInfo: credentials.TLSInfo{State: *state}})
	}
	caller, err := a.caller(shown)
	if err != nil {
		return ctx, err
	}
	ctx = kv.WithCaller(ctx, caller)
	return ctx, a.authority.Authorize(ctx, need)
}

// require returns a context with who calls, or why they may not.
func (a *API) require(ctx context.Context, need right) (context.Context, error) {
	if need < asks {
		return ctx, errUngoverned
	}
	ctx, err := a.identify(ctx)
	if err == nil && a.authority != nil {
		err = a.authority.Authorize(ctx, kv.Right(need-asks))
	}
	return ctx, toStatus(err)
}

// identified is a store that is told who calls, each time it is called: a stream
// may outlive what its caller may do. All services call the store through it.
type identified struct {
	store kv.Store
	api   *API
}

var _ kv.Store = identified{}

// Range implements [kv.KV].
func (s identified) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.RangeResult{}, err
	}
	return s.store.Range(ctx, r)
}

// Txn implements [kv.KV].
func (s identified) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil { // as etcd, first what is wrong whoever asks
		_, wrong := s.api.opts.Limits.CheckTxn(&t)
		return kv.TxnResult{}, cmp.Or(wrong, err)
	}
	return s.store.Txn(ctx, t)
}

// Compact implements [kv.KV].
func (s identified) Compact(ctx context.Context, rev kv.Revision) (kv.Header, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.Header{}, err
	}
	return s.store.Compact(ctx, rev)
}

// Watch implements [kv.Watcher].
func (s identified) Watch(ctx context.Context, w kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return func(yield func(kv.WatchBatch, error) bool) { yield(kv.WatchBatch{}, err) }
	}
	return s.store.Watch(ctx, w)
}

// Grant implements [kv.Leaser].
func (s identified) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.LeaseResult{}, err
	}
	return s.store.Grant(ctx, g)
}

// KeepAlive implements [kv.Leaser].
func (s identified) KeepAlive(ctx context.Context, id kv.LeaseID) (kv.LeaseResult, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.LeaseResult{}, err
	}
	return s.store.KeepAlive(ctx, id)
}

// Revoke implements [kv.Leaser].
func (s identified) Revoke(ctx context.Context, id kv.LeaseID) (kv.Header, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.Header{}, err
	}
	return s.store.Revoke(ctx, id)
}

// TimeToLive implements [kv.Leaser].
func (s identified) TimeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.LeaseResult{}, err
	}
	return s.store.TimeToLive(ctx, id, keys)
}

// Leases implements [kv.Leaser].
func (s identified) Leases(ctx context.Context) (kv.LeasesResult, error) {
	ctx, err := s.api.identify(ctx)
	if err != nil {
		return kv.LeasesResult{}, err
	}
	return s.store.Leases(ctx)
}
