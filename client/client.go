// Package client is a [kv.Store] over the network: it speaks etcd's gRPC API,
// with Concord's extensions where the server has them, and Concord's HTTP API for
// what etcd's has no words for: access tokens, and [Client.Ask].
//
// A Client knows several endpoints and uses one at a time. When that fails it
// goes on with the next: reads are asked again, and so are writes, because each
// carries a request id by which a Concord cluster runs it once only. Against
// etcd, which knows no such ids, a write that may have been sent is not repeated.
package client

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Config configures a Client. Endpoints is required; other zero fields mean
// their defaults.
type Config struct {
	// Endpoints are where members serve clients: host:port, a URL with http,
	// https or unix, in the order in which they are tried.
	Endpoints []string
	// TLS is used for all endpoints when it is not nil, and for those of
	// https, with defaults when it is nil.
	TLS *tls.Config
	// Timeout bounds a call, all its tries together, when its context has no
	// deadline; default 10 s. Watches are not bounded.
	Timeout time.Duration
	// DialTimeout bounds one attempt to connect; default 2 s.
	DialTimeout time.Duration
	// Stall is how long calls of one endpoint may all stay unanswered before
	// it is probed; when it does not answer the probe for twice as long, its
	// connection is given up; default 1 s.
	Stall time.Duration
	// Backoff is the first pause after every endpoint has failed; it doubles
	// up to MaxBackoff, and half of each is random. The defaults are 20 ms and
	// 500 ms.
	Backoff, MaxBackoff time.Duration
	// User and Password are who the client is, where authentication is on: it
	// logs in when it is first used and again when its token has expired.
	User, Password string
	// Token is shown with every call, in place of a user and a password: an
	// access token, or one that Login gave. [New] refuses an access token in
	// which a character is wrong or missing.
	Token string
	// NoRequestIDs leaves the ids of requests out. A write that may have been
	// sent is then never repeated.
	NoRequestIDs bool
	// Limits are checked before a request is sent; the server has its own.
	// By default only what no server accepts is refused here.
	Limits kv.Limits
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&c.Timeout, 10*time.Second)
	set(&c.DialTimeout, 2*time.Second)
	set(&c.Stall, time.Second)
	set(&c.Backoff, 20*time.Millisecond)
	set(&c.MaxBackoff, 500*time.Millisecond)
	if c.Limits == (kv.Limits{}) {
		c.Limits = kv.Limits{KeyBytes: 64 << 10, RequestBytes: 1<<31 - 1, Ops: 1 << 20, Depth: 100}
	}
	c.Limits = c.Limits.WithDefaults()
	return c
}

// serverKind is whether Concord's extensions are understood on the other side.
type serverKind int32

const (
	unknownServer serverKind = iota
	concordServer
	etcdServer
)

// Client is a [kv.Store]. Make it with New; Close ends it.
type Client struct {
	// Set by New, then read only.
	cfg       Config
	endpoints []*endpoint
	session   *session        // nil without credentials
	ctx       context.Context // ends with Close
	stop      context.CancelFunc

	// Safe for concurrent use.
	current atomic.Int64 // index of the endpoint in use
	server  atomic.Int32 // serverKind
	ids     ids
	running sync.WaitGroup
}

var _ kv.Store = (*Client)(nil)

// New makes a client. It does not wait for a connection: a call that finds no
// endpoint says so.
func New(cfg Config) (_ *Client, err error) {
	cfg = cfg.withDefaults()
	if len(cfg.Endpoints) == 0 {
		return nil, kv.Errorf(kv.InvalidArgument, "client: no endpoints; give at least one host:port")
	}
	c := &Client{cfg: cfg}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.ids.random = func() (id [16]byte) {
		_, _ = rand.Read(id[:]) // never fails: crypto/rand
		return id
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.session, err = newSession(&c.cfg); err != nil {
		return nil, err
	}
	for _, address := range cfg.Endpoints {
		e, err := newEndpoint(address, &c.cfg, c.session)
		if err != nil {
			return nil, err
		}
		c.endpoints = append(c.endpoints, e)
	}
	c.running.Go(func() { c.watchStalls(c.ctx) })
	return c, nil
}

// Close ends all calls and watches and closes the connections.
func (c *Client) Close() error {
	c.stop()
	c.running.Wait()
	var errs []error
	for _, e := range c.endpoints {
		errs = append(errs, e.close())
	}
	return errors.Join(errs...)
}

// Endpoints are the configured endpoints.
func (c *Client) Endpoints() []string { return append([]string(nil), c.cfg.Endpoints...) }
