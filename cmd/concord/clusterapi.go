package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

// ask sends a request of Concord's HTTP API to the first endpoint that can be
// reached. One that changes something is not sent a second time once it may have
// arrived.
func (g *globals) ask(ctx context.Context, method, path string, request, answer any) error {
	c, cfg, err := g.connectWith()
	if err != nil {
		return err
	}
	defer c.Close()
	began := time.Now()
	token, err := login(ctx, c, cfg) // which cfg.Timeout bounds
	if err != nil {
		return err
	}
	if g.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, began.Add(g.timeout))
		defer cancel()
	}
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	var missed []string
	for _, endpoint := range cfg.Endpoints {
		e := newHTTPEndpoint(endpoint, cfg)
		text, status, err := e.do(ctx, method, path, token, body)
		e.client.CloseIdleConnections()
		switch {
		case err == nil:
			return decodeAnswer(endpoint, text, status, answer)
		case errors.Is(err, context.Canceled):
			return err
		case method != http.MethodGet && !neverSent(err):
			return kv.Errorf(kv.Unavailable, "%s: %v; the outcome is unknown: the change may or may not have happened: %w", endpoint, cause(err), kv.ErrUnavailable)
		}
		missed = append(missed, endpoint+": "+cause(err).Error())
	}
	return kv.Errorf(kv.Unavailable, "no endpoint can be reached; nothing was done: %s", strings.Join(missed, "; "))
}

// login gets a token, if it takes one.
func login(ctx context.Context, c *client.Client, cfg client.Config) (string, error) {
	if cfg.User == "" {
		return cfg.Token, nil
	}
	token, err := c.Login(ctx, cfg.User, cfg.Password)
	if errors.Is(err, kv.ErrAuthNotEnabled) {
		return "", nil
	}
	return token, err
}

// httpEndpoint is one member's client port.
type httpEndpoint struct {
	base   string
	client *http.Client
}

// newHTTPEndpoint is for an endpoint that package client has taken.
func newHTTPEndpoint(endpoint string, cfg client.Config) *httpEndpoint {
	transport := &http.Transport{TLSClientConfig: cfg.TLS}
	scheme, rest, ok := strings.Cut(endpoint, "://")
	switch {
	case !ok && cfg.TLS != nil:
		scheme, rest = "https", endpoint
	case !ok:
		scheme, rest = "http", endpoint
	case scheme == "unix":
		path := rest
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		scheme, rest = "http", "localhost"
	}
	return &httpEndpoint{scheme + "://" + strings.TrimSuffix(rest, "/"), &http.Client{Transport: transport}}
}

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

func (e *httpEndpoint) do(ctx context.Context, method, path, token string, body []byte) ([]byte, int, error) {
	if method == http.MethodGet {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, e.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return text, resp.StatusCode, err
}

// decodeAnswer takes an answer or the error in its place.
func decodeAnswer(endpoint string, text []byte, status int, answer any) error {
	if status == http.StatusOK {
		if err := json.Unmarshal(text, answer); err == nil {
			return nil
		}
	}
	var e restapi.Error
	if err := json.Unmarshal(text, &e); err == nil && e.Code != "" {
		return e.Err()
	}
	return kv.WithNext(kv.Errorf(kv.Unsupported, "%s answers with %d %s, not as a member of Concord does", endpoint, status, http.StatusText(status)),
		"etcd's members, and older ones, have no such commands; check --endpoints")
}

// cause is why a request failed, without its method and URL.
func cause(err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op == "dial" {
		err = fmt.Errorf("connect: %w", op.Err)
		if sys := errors.Unwrap(op.Err); sys != nil {
			err = fmt.Errorf("connect: %w", sys)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("no answer in time")
	}
	return err
}

// neverSent reports whether a request found no connection.
func neverSent(err error) bool {
	op := (*net.OpError)(nil)
	return errors.As(err, &op) && op.Op == "dial"
}

// answerOf asks for one thing.
func answerOf[A any](ctx context.Context, g *globals, method, path string, request any) (answer A, err error) {
	err = g.ask(ctx, method, path, request, &answer)
	return answer, err
}
