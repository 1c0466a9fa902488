package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/internal/headers"
	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// ClientLimits bound what callers may have of a server. A caller is the user
// or access token whose credentials a call shows, or the name in its certificate,
// and without any, or while authentication is off, the address that it comes
// from. Zero fields mean their defaults, less than zero no limit.
type ClientLimits struct {
	// InFlightBytes bounds the large requests of all callers that are under
	// way; default 512 MiB.
	InFlightBytes int64
	// ArrivingBytes bounds the memory of messages that have not come whole, of
	// all callers; default InFlightBytes. Above it the connections that hold
	// most, for longest, are closed.
	ArrivingBytes int64
	// Rate is how many requests a second a caller may make on average, and
	// Burst how many at once; the default of Rate is no limit, that of Burst a
	// second's worth. More unary requests are refused with
	// [kv.ErrRateLimited], more messages on a stream wait. Checks of health
	// do not count.
	Rate  float64
	Burst int
	// Streams is how many streams a caller may have open; default 100,000.
	// More are refused with [kv.ErrTooManyStreams].
	Streams int
	// Watches is how many watches a caller may have on all its streams;
	// default 1,000,000. More are refused with [kv.ErrTooManyWatches].
	Watches int
	// Connections is how many connections one address may have; default three
	// quarters of Config.Connections. More are closed at once.
	Connections int
	// SlowReader is how long a client may leave what it was sent unread;
	// default 1 min. Then its stream ends with [kv.ErrSlowReader], or the
	// connection, where nothing at all is read.
	SlowReader time.Duration
}

func (c ClientLimits) withDefaults(connections int) ClientLimits {
	set := func(n *int, value int) {
		switch {
		case *n == 0:
			*n = value
		case *n < 0:
			*n = 0
		}
	}
	if c.ArrivingBytes == 0 {
		c.ArrivingBytes = cmp.Or(c.InFlightBytes, 512<<20)
	}
	c.ArrivingBytes = max(c.ArrivingBytes, 0)
	set(&c.Burst, max(1, int(c.Rate)))
	set(&c.Streams, 100_000)
	set(&c.Watches, 1_000_000)
	set(&c.Connections, max(1, connections*3/4))
	if c.SlowReader == 0 {
		c.SlowReader = time.Minute
	}
	return c
}

// limits hold callers to a ClientLimits.
type limits struct {
	// Set by newLimits, then read only.
	cfg      ClientLimits
	log      *slog.Logger
	api      *etcdapi.API
	hear     func(observe.Limit)
	rates    *rates // nil without
	tokens   *table // whose a token is, by its hash
	slow     *slowReaders
	logins   *logins
	arriving *arrivals

	// Safe for concurrent use.
	streams, watches, addresses tally
	left                        sync.WaitGroup // handlers of streams
	refusals                    atomic.Uint64  // of connections
}

func newLimits(cfg Config) *limits {
	l := &limits{cfg: cfg.Clients, log: cfg.Logger, slow: newSlowReaders(cfg.Clients.SlowReader), logins: newLogins(), tokens: newTable(), hear: func(observe.Limit) {}}
	l.streams.most, l.watches.most, l.addresses.most = l.cfg.Streams, l.cfg.Watches, l.cfg.Connections
	l.arriving = newArrivals(l.cfg.ArrivingBytes, l.tellCut)
	if l.cfg.Rate > 0 {
		l.rates = newRates(l.cfg.Rate, l.cfg.Burst)
	}
	return l
}

// tally counts what each has, up to most; 0 is no limit. Who has nothing is not
// in it.
type tally struct {
	most int
	mu   sync.Mutex
	has  map[uint64]int
}

// enter counts one more of key, if it may have that.
func (t *tally) enter(key uint64) bool {
	if t.most == 0 {
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.has[key] >= t.most {
		return false
	}
	if t.has == nil {
		t.has = map[uint64]int{}
	}
	t.has[key]++
	return true
}

// leave ends what enter has counted.
func (t *tally) leave(key uint64) {
	if t.most == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.has[key]--; t.has[key] == 0 {
		delete(t.has, key)
	}
}

// address is where a caller comes from: an IP address, of version 6 the network,
// which one customer has whole (RFC 6177), or the name of a unix socket.
type address struct {
	ip   netip.Addr
	name string
}

const customerBits = 64

// local tells of this machine.
func (a address) local() bool { return !a.ip.IsValid() || a.ip.IsLoopback() }

// String is for people.
func (a address) String() string {
	if a.ip.IsValid() {
		return a.ip.String()
	}
	return a.name
}

func addressFrom(from net.Addr) address {
	if tcp, ok := from.(*net.TCPAddr); ok {
		return addressOfIP(tcp.AddrPort().Addr())
	}
	return parseAddress(from.String())
}

func addressOfIP(ip netip.Addr) address {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() && !ip.IsLoopback() {
		if network, err := ip.Prefix(customerBits); err == nil {
			ip = network.Addr()
		}
	}
	return address{ip: ip}
}

func parseAddress(text string) address {
	host := text
	if h, _, err := net.SplitHostPort(text); err == nil {
		host = h
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return addressOfIP(ip)
	}
	return address{name: text}
}

// addressOf is where a call comes from. What comes by the gateway's pipe says it
// in its metadata, as the gateway saw it; nobody else is believed.
func addressOf(ctx context.Context) address {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return address{}
	}
	if p.Addr.Network() == pipeNetwork {
		v := headers.Values(ctx, "x-forwarded-for")
		if len(v) == 0 {
			return address{}
		}
		last := v[len(v)-1]
		return parseAddress(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]))
	}
	return addressFrom(p.Addr)
}

// pipeNetwork is what the addresses of the gateway's pipe call their network.
const pipeNetwork = "bufconn"

// caller is the key of who makes a call. For a token that is not known yet its
// address pays for finding out; then the token's name does.
func (l *limits) caller(ctx context.Context) uint64 {
	token, certificate := etcdapi.Shown(ctx)
	if token == "" && certificate != "" {
		return l.tokens.key('u', certificate)
	}
	if token == "" {
		return l.tokens.address(addressOf(ctx))
	}
	shown := l.tokens.key('t', token)
	if p, lock := l.tokens.at(shown); p.extra != 0 {
		key := uint64(p.extra)
		p.value = time.Now().UnixNano()
		lock.Unlock()
		return key
	} else {
		lock.Unlock()
	}
	from := l.tokens.address(addressOf(ctx))
	if l.rates != nil && l.rates.take(from) > 0 {
		return from
	}
	name := l.api.Whose(ctx)
	if name == "" {
		return from
	}
	key := l.tokens.key('u', name)
	p, lock := l.tokens.at(shown)
	p.value, p.extra = time.Now().UnixNano(), int64(key)
	lock.Unlock()
	return key
}

// hit tells that a limit was.
func (l *limits) hit(name string, most int64) {
	l.hear(observe.Limit{Kind: observe.LimitHit, Limit: name, Max: most})
}

// refuse is the error for a caller who has to wait.
func (l *limits) refuse(wait time.Duration) error {
	l.hit("rate", int64(l.cfg.Burst))
	return kv.WithNext(fmt.Errorf("%w", kv.ErrRateLimited), fmt.Sprintf("wait %v, or ask for a higher --rate-limit", wait.Round(time.Millisecond)))
}

// slowDown waits until a caller may go on.
func (l *limits) slowDown(ctx context.Context, key uint64) error {
	for l.rates != nil {
		wait := l.rates.take(key)
		if wait <= 0 {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return etcdapi.StatusOf(context.Cause(ctx))
		}
	}
	return nil
}

// limitedServices registers services whose callers have limits.
type limitedServices struct {
	grpc.ServiceRegistrar
	limits *limits
}

// unlimited are the services that a caller may always use: what watches over a
// member has to hear of it most when it is busy.
var unlimited = map[string]bool{"grpc.health.v1.Health": true}

// RegisterService implements [grpc.ServiceRegistrar].
func (s limitedServices) RegisterService(desc *grpc.ServiceDesc, impl any) {
	l, with := s.limits, *desc
	with.Methods, with.Streams = nil, nil
	for _, m := range desc.Methods {
		if handle := m.Handler; l.rates != nil && !unlimited[desc.ServiceName] {
			m.Handler = func(srv any, ctx context.Context, decode func(any) error, by grpc.UnaryServerInterceptor) (any, error) {
				if wait := l.rates.take(l.caller(ctx)); wait > 0 {
					return nil, etcdapi.StatusOf(l.refuse(wait))
				}
				return handle(srv, ctx, decode, by)
			}
		}
		with.Methods = append(with.Methods, m)
	}
	for _, m := range desc.Streams {
		handle, name := m.Handler, "/"+desc.ServiceName+"/"+m.StreamName
		m.Handler = func(srv any, stream grpc.ServerStream) error {
			return l.openStream(name, func(s grpc.ServerStream) error { return handle(srv, s) }, stream)
		}
		with.Streams = append(with.Streams, m)
	}
	s.ServiceRegistrar.RegisterService(&with, impl)
}

// openStream serves a stream of a caller who may have one more.
func (l *limits) openStream(name string, serve func(grpc.ServerStream) error, stream grpc.ServerStream) error {
	key := l.caller(stream.Context())
	if l.rates != nil {
		if wait := l.rates.take(key); wait > 0 {
			return etcdapi.StatusOf(l.refuse(wait))
		}
	}
	if !l.streams.enter(key) {
		l.hit("streams", int64(l.cfg.Streams))
		return etcdapi.StatusOf(kv.ErrTooManyStreams)
	}
	defer l.streams.leave(key)
	return l.serveStream(name, serve, stream, key)
}

// refuseConnection tells of a connection over the limits, once in a while.
func (l *limits) refuseConnection(c net.Conn) {
	l.hit("connections", int64(l.cfg.Connections))
	if n := l.refusals.Add(1); n&(n-1) == 0 { // the first, second, fourth, …
		l.log.Warn("too many connections", "remote", c.RemoteAddr(), "refused", n, "limit", l.cfg.Connections)
	}
}

// tellCut tells of a connection closed for what it holds, once in a while.
func (l *limits) tellCut(n uint64) {
	l.hit("arriving", l.cfg.ArrivingBytes)
	if n&(n-1) == 0 { // the first, second, fourth, …
		l.log.Warn("a connection was closed: messages that have not come whole hold too much", "closed", n, "limit", l.cfg.ArrivingBytes)
	}
}

// Attempt implements [etcdapi.Callers].
func (l *limits) Attempt(ctx context.Context, user string) (done func(right bool), err error) {
	done, err = l.logins.attempt(ctx, user, addressOf(ctx))
	if err != nil {
		l.hit("logins", freeByAddress)
	}
	return done, err
}

// AddWatch implements [etcdapi.Callers].
func (l *limits) AddWatch(ctx context.Context) (remove func(), err error) {
	key := l.caller(ctx)
	if !l.watches.enter(key) {
		l.hit("watches", int64(l.cfg.Watches))
		return nil, kv.ErrTooManyWatches
	}
	return func() { l.watches.leave(key) }, nil
}

// pages holds requests for pages to the rate, but for those about health.
func (l *limits) pages(next http.Handler) http.Handler {
	if l.rates == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		page, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch page {
		case "health", "livez", "readyz", "v3", "v3alpha", "v3beta": // the gateway's are counted where they are served
			next.ServeHTTP(w, r)
			return
		}
		if wait := l.rates.take(l.caller(visit(r))); wait > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(wait/time.Second)+1))
			restapi.Refuse(w, l.refuse(wait))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// visit is the context of a request as if it were a call.
func visit(r *http.Request) context.Context {
	md := metadata.MD{}
	if v := r.Header.Values("Authorization"); len(v) > 0 {
		md["authorization"] = v
	}
	ctx := metadata.NewIncomingContext(r.Context(), md)
	return peer.NewContext(ctx, &peer.Peer{Addr: remote(r.RemoteAddr)})
}

// remote is an address as net/http has it.
type remote string

// Network implements [net.Addr].
func (remote) Network() string { return "tcp" }

// String implements [net.Addr].
func (r remote) String() string { return string(r) }
