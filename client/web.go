package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// maxAnswer bounds what is read of one answer over HTTP.
const maxAnswer = 16 << 20

// Ask makes a request of Concord's own HTTP API, which api/openapi.yaml
// describes, with the client's credentials, and decodes what a member answers
// into answer, which may be nil. The path begins with /v1/. A GET has no body;
// other requests have request as JSON, or none where that is nil.
//
// Each endpoint is asked once at most, beginning with the one in use, until one
// answers. A request that changes something is not sent again when it may have
// arrived: then the error wraps [kv.ErrUnavailable]. Members' errors are those of
// an embedded store; [kv.NextStep] has what they advise. What is no member of
// Concord gets one of the code [kv.Unsupported].
func (c *Client) Ask(ctx context.Context, method, path string, request, answer any) error {
	var body []byte
	if method != http.MethodGet && request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return kv.Errorf(kv.InvalidArgument, "the request has no form in JSON: %w", err)
		}
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	stop := context.AfterFunc(c.ctx, cancel) // Close ends it too
	defer stop()
	var missed []error
	for range c.endpoints {
		i := c.current.Load()
		e := c.endpoints[i]
		text, sent, err := signed(ctx, e, func() ([]byte, bool, error) { return e.ask(ctx, method, path, body) })
		switch {
		case err == nil && answer == nil:
			return nil
		case err == nil:
			if err := json.Unmarshal(text, answer); err != nil {
				return strange(e.address, http.StatusOK)
			}
			return nil
		case errors.Is(err, errNotSent), errors.Is(err, errNoAnswer): // go on, if that may be
		case !retriable(err):
			return err
		}
		c.current.CompareAndSwap(i, (i+1)%int64(len(c.endpoints)))
		switch lost := errors.Is(err, errNoAnswer); {
		case lost && sent && method != http.MethodGet:
			return kv.Errorf(kv.Unavailable, "%v; the outcome is unknown: the change may or may not have happened: %w", err, kv.ErrUnavailable)
		case c.ctx.Err() != nil:
			return &kv.Error{Code: kv.Canceled, Message: "the client is closed; nothing was done", Err: kv.ErrClosed}
		case errors.Is(ctx.Err(), context.Canceled):
			return ctx.Err()
		}
		missed = append(missed, err)
	}
	return nobody(missed)
}

// nobody is the error of a request that no endpoint has answered.
func nobody(missed []error) error {
	var why []string
	for _, err := range missed {
		why = append(why, strings.TrimPrefix(err.Error(), "nothing was done: "))
	}
	return &kv.Error{
		Code: kv.Unavailable, Message: "no endpoint can be reached; nothing was done: " + strings.Join(why, "; "),
		Err: errors.Join(append(missed, errNotSent)...),
	}
}

// errNoAnswer is wrapped by the error of a request that was sent and not
// answered.
var errNoAnswer = &kv.Error{Code: kv.Unavailable, Message: "no answer", Err: kv.ErrUnavailable}

// web is one endpoint's client port over HTTP.
type web struct {
	base   string // of URLs
	client *http.Client
}

// newWeb is for an address that parseEndpoint has taken.
func newWeb(address string, cfg *Config) web {
	dialer := &net.Dialer{Timeout: cfg.DialTimeout}
	transport := &http.Transport{TLSClientConfig: cfg.TLS, DialContext: dialer.DialContext}
	scheme, rest, ok := strings.Cut(address, "://")
	switch {
	case !ok && cfg.TLS != nil:
		scheme, rest = "https", address
	case !ok:
		scheme, rest = "http", address
	case scheme == "unix":
		path := strings.TrimSuffix(rest, "/")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
		scheme, rest = "http", "localhost"
	}
	return web{scheme + "://" + strings.TrimSuffix(rest, "/"), &http.Client{
		Transport: transport,
		// A token is for the members that were named, and for nobody else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// ask makes one request, and tells whether it may have left.
func (e *endpoint) ask(ctx context.Context, method, path string, body []byte) (text []byte, sent bool, err error) {
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(traced, method, e.web.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, false, kv.Errorf(kv.InvalidArgument, "no request can be made of %s %s", method, path)
	}
	req.Header.Set("Content-Type", "application/json")
	if shown := e.session.current(); shown != nil && (*shown)[rpctypes.TokenFieldNameGRPC] != "" {
		req.Header.Set("Authorization", "Bearer "+(*shown)[rpctypes.TokenFieldNameGRPC])
	}
	resp, err := e.web.client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		text, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	}
	switch {
	case err != nil && connected.Load():
		return nil, true, &kv.Error{Code: kv.Unavailable, Message: e.address + ": " + cause(err).Error(), Err: errNoAnswer}
	case err != nil:
		return nil, false, &kv.Error{Code: kv.Unavailable, Message: e.address + ": " + cause(err).Error(), Err: errNotSent}
	case resp.StatusCode != http.StatusOK:
		return nil, true, refusal(e.address, text, resp.StatusCode)
	}
	return text, true, nil
}

// cause is why a request failed, without its method and URL.
func cause(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		err = op.Err
		if sys := errors.Unwrap(op.Err); sys != nil {
			err = sys
		}
		return fmt.Errorf("connect: %w", err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// refusal is the error that a member has answered with.
func refusal(address string, text []byte, status int) error {
	var e struct{ Code, Message, Next string }
	if err := json.Unmarshal(text, &e); err != nil || e.Code == "" {
		return strange(address, status)
	}
	err := &kv.Error{Message: e.Message}
	for code := kv.Internal; code <= kv.Unsupported; code++ {
		if strings.ReplaceAll(code.String(), " ", "_") == e.Code {
			err.Code = code
		}
	}
	if known := sentinel(err); known != nil {
		err.Err = known
	}
	return kv.WithNext(err, e.Next)
}

// tokenErrors are errors that only Concord's own API has.
var tokenErrors = []*kv.Error{kv.ErrTokenExists, kv.ErrTokenNotFound, kv.ErrTooManyTokens, kv.ErrLastRoot}

// sentinel finds the error of package kv that says what err does, or says it in
// front of a colon; nil where there is none.
func sentinel(err *kv.Error) *kv.Error {
	says := func(known *kv.Error) bool {
		return known.Code == err.Code && (err.Message == known.Message || strings.HasPrefix(err.Message, known.Message+": "))
	}
	for _, known := range tokenErrors {
		if says(known) {
			return known
		}
	}
	for _, known := range byMessage {
		if says(known) {
			return known
		}
	}
	for _, known := range byReason {
		if says(known) {
			return known
		}
	}
	return nil
}

// strange is the error of an answer that no member of Concord gives.
func strange(address string, status int) error {
	return kv.WithNext(kv.Errorf(kv.Unsupported, "%s answers with %d %s, not as a member of Concord does", address, status, http.StatusText(status)),
		"etcd's members, and older ones, have no such commands; check --endpoints")
}
