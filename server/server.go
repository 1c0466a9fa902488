// Package server serves a [kv.Store] and its [kv.Cluster] to the network: etcd's
// gRPC API, and over HTTP/1 the version and health of the member and Concord's
// own API about the cluster, on one port that tells the two apart by the first
// bytes of a connection.
package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/internal/headers"
	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/internal/telemetry"
	"github.com/concord-kv/concord/kv"
)

// Config configures a Server. Addrs or Listeners are required; other zero
// fields mean their defaults.
type Config struct {
	// Addrs are where to listen: host:port, or unix: or unix:// and a path.
	// Port 0 takes a free one; see [Server.Addrs].
	Addrs []string
	// Listeners are used besides Addrs. The Server closes them.
	Listeners []net.Listener
	// TLS, when not nil, is spoken on every connection. ALPN is set to http/1.1
	// and h2.
	TLS *tls.Config
	// Logger defaults to none.
	Logger *slog.Logger
	// LogLevel is that of Logger, which callers may see and change; default
	// they may not.
	LogLevel *slog.LevelVar

	// Limits bound requests; etcd's own are 128 operations and 1.5 MiB.
	Limits kv.Limits
	// Connections bounds the connections; default 20,000. More are closed at
	// once.
	Connections int
	// Streams bounds the calls and streams of one connection that are under
	// way; default 16,384.
	Streams uint32
	// Handshake is how long a client may take to show its protocol (the TLS
	// handshake included) and then the headers of a request; default 5 s.
	Handshake time.Duration
	// Drain is how long calls under way may go on when the server ends;
	// default 5 s.
	Drain time.Duration

	// Etcd is about what etcd's clients see.
	Etcd EtcdConfig
	// Tracing has calls traced; default none.
	Tracing Tracing
	// Clients bounds what callers may have, alone and together.
	Clients ClientLimits
	// Auth is for stores that are a [kv.Authority].
	Auth AuthConfig
	// HTTP is about the pages and the JSON gateway, KeepAlive about gRPC
	// connections.
	HTTP      HTTPConfig
	KeepAlive KeepAliveConfig
}

// EtcdConfig has settings that etcd has, too.
type EtcdConfig struct {
	// MinLeaseTTL raises shorter leases of etcd clients; default 2 s, etcd's.
	MinLeaseTTL time.Duration
	// WatchProgress is the interval of etcd's watch progress notifications;
	// default 10 min, etcd's.
	WatchProgress time.Duration
	// Quota is what etcd's status shows as the database quota; default none.
	Quota int64
}

// Tracing wraps what serves calls, so that it sees them.
type Tracing interface {
	// Registrar returns a registrar by which s gets the services.
	Registrar(s grpc.ServiceRegistrar) grpc.ServiceRegistrar
	// Handler wraps the pages, the JSON gateway among them.
	Handler(next http.Handler) http.Handler
}

// KeepAliveConfig says how gRPC connections are kept alive, and by whom.
type KeepAliveConfig struct {
	// MinTime is the least time between a client's pings; default 5 s, etcd's.
	// One that pings more often is disconnected.
	MinTime time.Duration
	// Interval is how long a connection is silent before the server pings;
	// default 1 min (etcd: 2 h), so that a client that vanished is found out
	// within a minute and a half.
	Interval time.Duration
	// Timeout is how long the server then waits for an answer; default 20 s,
	// etcd's.
	Timeout time.Duration
	// OnlyWithCalls counts pings without a call under way as too many, as etcd
	// does.
	OnlyWithCalls bool
}

func (c Config) withDefaults() Config {
	c.Limits = c.Limits.WithDefaults()
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Connections == 0 {
		c.Connections = 20_000
	}
	c.Clients = c.Clients.withDefaults(c.Connections)
	if c.Streams == 0 {
		c.Streams = 1 << 14
	}
	if c.Handshake == 0 {
		c.Handshake = 5 * time.Second
	}
	if c.Drain == 0 {
		c.Drain = 5 * time.Second
	}
	c.KeepAlive = KeepAliveConfig{
		MinTime:       cmp.Or(c.KeepAlive.MinTime, 5*time.Second),
		Interval:      cmp.Or(c.KeepAlive.Interval, time.Minute),
		Timeout:       cmp.Or(c.KeepAlive.Timeout, 20*time.Second),
		OnlyWithCalls: c.KeepAlive.OnlyWithCalls,
	}
	c.TLS = withProtocols(c.TLS, Everything)
	return c
}

// Server serves one store. Make it with New and call Run once.
type Server struct {
	// Set by New, then read only.
	cfg       Config
	listeners []net.Listener
	split     *splitter
	limits    *limits
	api       *etcdapi.API
	grpc      *grpc.Server
	http      *http.Server
	health    *healthService
	gateway   *gateway // nil without
	metrics   *telemetry.Metrics
	pages     *routes
	cluster   kv.Cluster
	ready     *readiness
}

// New listens on all addresses or fails. A Server that is not wanted any more
// before Run is ended by calling Run with a context that has ended.
func New(store kv.Store, cluster kv.Cluster, cfg Config) (_ *Server, err error) {
	cfg = cfg.withDefaults()
	s := &Server{cfg: cfg, cluster: cluster, ready: newReadiness(store, cluster), listeners: append([]net.Listener(nil), cfg.Listeners...)}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(s.listeners))
		}
	}()
	for _, addr := range cfg.Addrs {
		l, err := listen(addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s for clients: %w", addr, err)
		}
		s.listeners = append(s.listeners, l)
	}
	if len(s.listeners) == 0 {
		return nil, kv.Errorf(kv.InvalidArgument, "server: no address to listen on; give Config.Addrs or Config.Listeners")
	}
	tokens, err := cfg.Auth.tokens()
	if err != nil {
		return nil, err
	}
	authority, ok := store.(kv.Authority)
	if cfg.Auth.Required && !ok {
		return nil, kv.Errorf(kv.InvalidArgument, "server: authentication is required of a store that has none")
	}
	if cfg.Auth.Required {
		s.ready.awaitAuth(authority)
	}
	s.limits = newLimits(cfg)
	s.split = newSplitter(cfg, s.listeners[0].Addr(), s.limits)
	s.api = etcdapi.New(store, cluster, etcdapi.Options{
		Limits: cfg.Limits, InFlightBytes: cfg.Clients.InFlightBytes, Quota: cfg.Etcd.Quota,
		MinLeaseTTL: cfg.Etcd.MinLeaseTTL, Progress: cfg.Etcd.WatchProgress, ClientScheme: s.scheme(), PeerScheme: peerScheme(cluster),
		Tokens: tokens, AuthRequired: cfg.Auth.Required, Callers: s.limits, Logger: cfg.Logger,
	})
	s.limits.api = s.api
	s.metrics = s.newMetrics(cluster)
	s.limits.hear = s.metrics.Events().Observer().Limit
	if member, ok := cluster.(audible); ok {
		s.limits.hear = member.TellLimit // by which the metrics hear of it, see Run
	}
	s.grpc = s.newGRPC()
	if open := etcdapi.Ungoverned(s.grpc.GetServiceInfo()); len(open) > 0 {
		return nil, kv.Errorf(kv.Internal, "server: nobody has said who may call %v", open)
	}
	if !cfg.HTTP.NoGateway {
		if s.gateway, err = newGateway(s.receiveBytes(), s.cfg.Limits.Ops, s.limits.arriving); err != nil {
			return nil, err
		}
	}
	s.http = s.newHTTPServer(store, cluster)
	if c, ok := cluster.(kv.Fronted); ok {
		c.TellServed(s.served)
	}
	return s, nil
}

// newHTTPServer makes the server of what is not gRPC.
func (s *Server) newHTTPServer(store kv.Store, cluster kv.Cluster) *http.Server {
	pages := newHTTP(s.api, store, cluster, s.ready)
	s.pages = pages
	if !s.cfg.HTTP.NoMetrics {
		pages.open("/metrics", get(s.metrics.ServeHTTP))
		pages.guarded("/debug/vars", kv.ReadTelemetry, get(serveVars))
	}
	addREST(pages, store, cluster, restapi.LogRoutes(s.cfg.LogLevel, s.cfg.Logger)...)
	if s.cfg.HTTP.Profiles {
		addProfiles(pages)
	}
	if s.gateway != nil {
		pages.byMethod(gatewayPath, s.gateway)
	}
	guarded := func() bool {
		authority, ok := store.(kv.Authority)
		return ok && (s.cfg.Auth.Required || authority.Auth().Enabled)
	}
	return &http.Server{
		Handler:           s.tracedPages(limited{newAccess(s.cfg.HTTP, guarded, s.limits.pages(pages.mux))}),
		ReadHeaderTimeout: s.cfg.Handshake,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    headerBytes,
		ErrorLog:          slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelDebug),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return withListener(withTLS(ctx, c), c) },
	}
}

func (s *Server) scheme() string {
	if s.cfg.TLS != nil {
		return "https"
	}
	return "http"
}

const (
	// headerBytes bounds the headers of a request; tokens are the largest.
	headerBytes = 64 << 10
	// messageSlack is what etcd lets a message be larger than its request
	// limit, so that it can answer "request is too large" itself.
	messageSlack = 512 << 10
	// workers keep the stacks that calls grow; see peers' figures in
	// docs/BENCHMARKS.md. More calls at once take new goroutines.
	workers = 256
	// streamWindow and connWindow are what a client may send ahead of what is
	// read; a message that is being read gets the room that it needs. They are
	// fixed because gRPC's estimator of windows answers nearly every request
	// with a ping of its own, which is acknowledged: two packets more a call.
	streamWindow = 256 << 10
	connWindow   = 16 << 20
)

// receiveBytes bounds a message from a client.
func (s *Server) receiveBytes() int64 {
	return min(s.cfg.Limits.RequestBytes+messageSlack, math.MaxInt32)
}

func (s *Server) newGRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.Creds(splitCredentials{}),
		grpc.InTapHandle(headers.Tap),
		grpc.ForceServerCodecV2(newBounded(s.cfg.Limits.Ops)),
		grpc.NumStreamWorkers(workers),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connWindow),
		grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(int(s.receiveBytes())),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(s.cfg.Streams),
		grpc.MaxHeaderListSize(headerBytes),
		grpc.ConnectionTimeout(s.cfg.Handshake),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: s.cfg.KeepAlive.MinTime, PermitWithoutStream: !s.cfg.KeepAlive.OnlyWithCalls,
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: s.cfg.KeepAlive.Interval, Timeout: s.cfg.KeepAlive.Timeout}),
	)
	all := limitedServices{counted{s.traced(g), s.metrics}, s.limits}
	s.api.Register(all)
	s.health = newHealthService(s.ready)
	healthpb.RegisterHealthServer(s.api.Guard(all), s.health)
	// Lock and Election are in no global registry.
	options := reflection.ServerOptions{Services: g, DescriptorResolver: lockpb.New()}
	reflectionv1.RegisterServerReflectionServer(all, reflection.NewServerV1(options))
	reflectionv1alpha.RegisterServerReflectionServer(all, reflection.NewServer(options)) //nolint:staticcheck // for old clients
	s.health.cover(g.GetServiceInfo())
	return g
}

// Addrs are the addresses listened on, those of Listeners first.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Run serves until ctx ends, then ends watches and other streams, lets calls
// finish for Config.Drain, closes everything and returns nil. It returns an
// error when a listener fails.
func (s *Server) Run(ctx context.Context) error {
	if member, ok := s.cluster.(audible); ok && !s.cfg.HTTP.NoMetrics {
		defer member.Listen(s.metrics.Events().Observer())()
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, l := range s.listeners {
		group.Go(func() error { return s.split.accept(ctx, l) })
	}
	serve := func(l net.Listener) func() error {
		return func() error {
			// A context that ends at once may stop it before it has begun.
			if err := s.grpc.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
				return err
			}
			return nil
		}
	}
	group.Go(func() error { return s.limits.slow.run(ctx) })
	group.Go(serve(s.split.grpc))
	if s.gateway != nil {
		group.Go(serve(s.gateway.pipe))
	}
	group.Go(func() error {
		if err := s.http.Serve(s.split.http); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		s.health.run(ctx, s.cluster)
		s.shutdown()
		return nil
	})
	return group.Wait()
}

// shutdown runs once the context of Run has ended.
func (s *Server) shutdown() {
	if err := closeAll(s.listeners); err != nil {
		s.cfg.Logger.Warn("could not close a listener", "err", err)
	}
	s.api.Close()
	if s.gateway != nil {
		s.gateway.hangUp()
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // what is left was given its time
	}
	if s.gateway != nil {
		s.gateway.close(ctx)
	}
	select {
	case <-drained:
	case <-ctx.Done():
		s.grpc.Stop()
		<-drained
	}
	s.split.wait()
	s.limits.left.Wait()
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
