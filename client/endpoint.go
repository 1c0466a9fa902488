package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/concord-kv/concord/kv"
)

// endpoint is one address with its connection.
type endpoint struct {
	// Set by newEndpoint, then read only.
	address string
	session *session
	dial    func() (*grpc.ClientConn, error)
	web     web // for what etcd's API does not have

	// calls counts those under way, answers those that are over: together
	// they show whether the endpoint still does anything.
	calls   atomic.Int64
	answers atomic.Uint64

	// refused is why the last attempt to connect failed, and missed what the
	// last call said that found no connection. Both are nil when it worked.
	refused atomic.Pointer[error]
	missed  atomic.Pointer[string]

	// conn is replaced when it stalls, under mu.
	mu     sync.Mutex
	closed bool
	conn   atomic.Pointer[grpc.ClientConn]
}

func newEndpoint(address string, cfg *Config, session *session) (*endpoint, error) {
	target, security, err := parseEndpoint(address, cfg.TLS)
	if err != nil {
		return nil, err
	}
	e := &endpoint{address: address, session: session, web: newWeb(address, cfg)}
	e.dial = func() (*grpc.ClientConn, error) {
		opts := []grpc.DialOption{
			grpc.WithTransportCredentials(security),
			grpc.WithContextDialer(e.connect),
			grpc.WithNoProxy(),
			grpc.WithDisableServiceConfig(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: cfg.Backoff, Multiplier: 2, Jitter: 0.5, MaxDelay: cfg.MaxBackoff},
				MinConnectTimeout: cfg.DialTimeout,
			}),
			// For watches; calls are looked after by watchStalls.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 3 * time.Second}),
		}
		if session != nil {
			opts = append(opts, grpc.WithPerRPCCredentials(session))
		}
		return grpc.NewClient("passthrough:///"+strings.ReplaceAll(target, "%", "%25"), opts...) // a zone has it, and this is a URL
	}
	conn, err := e.dial()
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", address, err)
	}
	e.conn.Store(conn)
	return e, nil
}

// parseEndpoint gives what to dial and how it is secured.
func parseEndpoint(address string, config *tls.Config) (target string, _ credentials.TransportCredentials, err error) {
	if strings.ContainsFunc(address, func(r rune) bool { return unicode.IsControl(r) || r == utf8.RuneError }) {
		return "", nil, kv.Errorf(kv.InvalidArgument, "endpoint %q has a character that no address has; write it as 127.0.0.1:2379", address)
	}
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		scheme, rest = "http", address
		if config != nil {
			scheme = "https"
		}
	}
	rest = strings.TrimSuffix(rest, "/")
	switch scheme {
	case "unix":
		if rest == "" {
			return "", nil, kv.Errorf(kv.InvalidArgument, "endpoint %q names no socket; write it as unix:///path", address)
		}
		return "unix://" + rest, insecure.NewCredentials(), nil
	case "http", "https":
	default:
		return "", nil, kv.Errorf(kv.InvalidArgument, "endpoint %q has an unknown scheme; use host:port, http, https or unix", address)
	}
	host, port, err := net.SplitHostPort(rest)
	if number, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || number == 0 || strings.ContainsAny(host, "/?#@\"\\ ") {
		return "", nil, kv.Errorf(kv.InvalidArgument, "endpoint %q is not host:port; write it as 127.0.0.1:2379", address)
	}
	if scheme == "http" {
		return rest, insecure.NewCredentials(), nil
	}
	if config = config.Clone(); config == nil {
		config = new(tls.Config)
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	return rest, credentials.NewTLS(config), nil
}

// miss is the error of a call for which there was no connection, because of err.
func (e *endpoint) miss(err error) error {
	why := strings.TrimPrefix(err.Error(), "connection lost: ")
	refused := e.refused.Load()
	switch {
	case refused != nil:
		why = (*refused).Error()
		if op := (*net.OpError)(nil); errors.As(*refused, &op) {
			why = op.Err.Error() // without the address, which comes anyway
		}
	case errors.Is(err, kv.ErrTimeout):
		why = "no connection in time"
	}
	why = e.address + ": " + why
	e.missed.Store(&why)
	return &kv.Error{Code: kv.Unavailable, Message: "nothing was done: " + why, Err: errNotSent}
}

// connect dials, and keeps why it failed.
func (e *endpoint) connect(ctx context.Context, target string) (net.Conn, error) {
	conn, err := dial(ctx, target)
	switch {
	case err == nil:
		e.refused.Store(nil)
	case !errors.Is(err, context.Canceled):
		e.refused.Store(&err)
	}
	return conn, err
}

func dial(ctx context.Context, target string) (net.Conn, error) {
	var d net.Dialer
	if path, ok := strings.CutPrefix(target, "unix://"); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", target)
}

func (e *endpoint) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	e.web.client.CloseIdleConnections()
	return e.conn.Load().Close()
}

// renew gives conn up, unless that has been done, and with it every call that
// waits on it.
func (e *endpoint) renew(conn *grpc.ClientConn) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.conn.Load() != conn {
		return nil
	}
	fresh, err := e.dial()
	if err != nil {
		return err
	}
	e.conn.Store(fresh)
	return conn.Close()
}

// watchStalls looks after endpoints that have calls under way and answer none:
// a member that hangs, or is cut off, keeps its connection for long.
func (c *Client) watchStalls(ctx context.Context) {
	tick := time.NewTicker(c.cfg.Stall)
	defer tick.Stop()
	seen := make([]uint64, len(c.endpoints))
	waiting := make([]bool, len(c.endpoints))
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for i, e := range c.endpoints {
			answers, calls := e.answers.Load(), e.calls.Load()
			if waiting[i] && calls > 0 && answers == seen[i] {
				c.probe(ctx, e)
				answers = e.answers.Load()
			}
			seen[i], waiting[i] = answers, calls > 0
		}
	}
}

// probe asks e whether it is well, and gives the connection up when it does not
// say anything.
func (c *Client) probe(ctx context.Context, e *endpoint) {
	conn := e.conn.Load()
	probing, cancel := context.WithTimeout(ctx, 2*c.cfg.Stall)
	defer cancel()
	_, err := healthpb.NewHealthClient(conn).Check(probing, new(healthpb.HealthCheckRequest))
	if err != nil && probing.Err() != nil && ctx.Err() == nil {
		_ = e.renew(conn) // what could fail is closing; the calls end anyway
	}
}
