package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// serveSettings are the settings of one member; see addSettingFlags.
type serveSettings struct {
	Env        string `set:"env" usage:"dev (data below ./data, open to who reaches it) or prod (data below /var/lib/concord, authentication always on)"`
	Name       string `set:"name" usage:"this member's name (default n1, in a --cluster the host's)"`
	DataDir    string `set:"data-dir" usage:"directory of this member alone (default ./data/dev/NAME or /var/lib/concord/NAME)"`
	ClientAddr string `set:"client-addr" usage:"address that clients connect to (default 127.0.0.1:2379)"`
	Insecure   bool   `set:"insecure" usage:"listen on other addresses than loopback without TLS: what clients send and get, tokens too, can be read on the way"`
	Peers      peerSettings
	Timing     timingSettings
	Requests   requestSettings
	Limits     limitSettings
	Web        webSettings
	Auth       authSettings
	Cluster    clusterSettings
	Log        logSettings
	Metrics    metricSettings
	Traces     traceSettings
	TLS        tlsSettings
}

// peerSettings say who the other members of a list are.
type peerSettings struct {
	Addr   string   `set:"peer-addr" usage:"address to listen on for other members (default: the one of this member in --peers, which is where they connect; in a --cluster :2380)"`
	All    []string `set:"peers" usage:"all founding members as NAME=HOST:PORT, this one too; none means a single member"`
	Rejoin bool     `set:"rejoin" usage:"set a damaged data directory aside and join again as a new member"`
}

// requestSettings bound what a request may ask.
type requestSettings struct {
	MaxBytes    byteSize `set:"max-request-bytes" usage:"keys and values of one request, as 67108864 or 64MiB"`
	MaxKeyBytes byteSize `set:"max-key-bytes" usage:"longest key, at most 64KiB"`
	MaxTxnOps   int      `set:"max-txn-ops" usage:"comparisons, and operations a branch, of one transaction"`
}

func (s *requestSettings) check() error {
	switch {
	case s.MaxKeyBytes < 1 || s.MaxKeyBytes > 64<<10:
		return usagef("--max-key-bytes %s is out of range; use 1 to 64KiB", s.MaxKeyBytes)
	case s.MaxBytes < 1 || s.MaxBytes > 1<<30:
		return usagef("--max-request-bytes %s is out of range; use 1 to 1GiB", s.MaxBytes)
	case s.MaxTxnOps < 1:
		return usagef("--max-txn-ops %d is out of range; use 1 or more", s.MaxTxnOps)
	}
	return nil
}

// timingSettings are the same on all members.
type timingSettings struct {
	Heartbeat       time.Duration `set:"heartbeat-interval" usage:"how often a leader is heard"`
	ElectionTimeout time.Duration `set:"election-timeout" usage:"silence after which a member campaigns"`
}

// logSettings are the settings of a member about its log.
type logSettings struct {
	Level  string `set:"log-level" usage:"debug, info, warn or error (default debug in dev, info in prod); none of them writes per request"`
	Format string `set:"log-format" usage:"text or json"`
	// Slow is from when on a request is logged; 0 is never.
	Slow time.Duration `set:"slow-request" usage:"log requests that take this long or longer, with the times of their parts; 0 logs none"`
}

func defaultServeSettings() serveSettings {
	return serveSettings{
		Env:      "dev",
		Timing:   timingSettings{Heartbeat: 100 * time.Millisecond, ElectionTimeout: time.Second},
		Requests: requestSettings{MaxBytes: 64 << 20, MaxKeyBytes: 1024, MaxTxnOps: 10_000},
		Limits:   limitSettings{Memory: "75%"},
		Auth:     authSettings{Token: "simple"},
		Log:      logSettings{Format: "text", Slow: time.Second}, TLS: tlsSettings{MinVersion: "1.3"},
	}
}

func newServeCommand(g *globals) *cobra.Command {
	settings := defaultServeSettings()
	var config string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run one member",
		Long: "Run one member: of the cluster of that name with --cluster, where the others are\n" +
			"found on the local network and by --join; of a listed one with --peers; else a\n" +
			"single one. Say the same at every start.\n\n" +
			"Every flag can be set in the file of --config (YAML, the flag's name as key)\n" +
			"and in the environment (CONCORD_ and the name in capitals); a flag wins over\n" +
			"the environment, and that over the file.",
		Example: "  concord serve --data-dir data\n" +
			"  concord serve --cluster demo --secret-file secret --data-dir data\n" +
			"  concord serve --name n1 --data-dir d1 --client-addr 127.0.0.1:2379 \\\n" +
			"    --peers n1=127.0.0.1:2380,n2=127.0.0.1:2480,n3=127.0.0.1:2580",
		Args: cobra.NoArgs,
	}
	addSettingFlags(cmd.Flags(), &settings)
	cmd.Flags().StringVar(&config, "config", os.Getenv("CONCORD_CONFIG"), "settings file")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loadSettings(cmd.Flags(), &settings, config); err != nil {
			return err
		}
		return runServe(cmd.Context(), g, settings)
	}
	return cmd
}

func runServe(ctx context.Context, g *globals, s serveSettings) error {
	if err := s.check(); err != nil {
		return err
	}
	log, level, err := newLogger(g, s.Log.Level, s.Log.Format)
	if err != nil {
		return err
	}
	secure, err := s.TLS.server(log)
	if err != nil {
		return err
	}
	s.tellRisks(log)
	endTraces, err := s.Traces.start(ctx, s.Name, log)
	if err != nil {
		return err
	}
	defer endTraces()
	for {
		opts, err := s.nodeOptions(log)
		if err != nil {
			return err
		}
		clients, err := net.Listen("tcp", s.ClientAddr)
		if err != nil {
			return fmt.Errorf("--client-addr: %w", err)
		}
		node, err := concord.Open(ctx, s.DataDir, append(opts, concord.ClientAddrs(clients.Addr().String()))...)
		if err != nil {
			err = errors.Join(err, clients.Close())
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return nil // interrupted while it waited for the others
			}
			return err
		}
		fmt.Fprintf(g.std.err, "member %s serves clients at %s, data in %s\n", node.Name(), clients.Addr(), s.DataDir)
		cfg := server.Config{
			Listeners: []net.Listener{clients}, TLS: secure, Logger: log, LogLevel: level, Limits: s.limits(),
			Auth: server.AuthConfig{Token: s.Auth.Token, Required: s.prod()},
		}
		s.Limits.apply(&cfg)
		s.Traces.apply(&cfg)
		s.Web.apply(&cfg, s.calledBy()...)
		if err := s.Metrics.listen(&cfg); err != nil {
			return errors.Join(err, node.Close(), clients.Close())
		}
		stop, relax := s.setUpAuth(ctx, node, log), s.Limits.tend(node)
		served, err := serveNode(ctx, node, cfg, s.Metrics.beside(s.Name, log)...)
		stop()
		relax()
		if s.Cluster.Name == "" || served || !errors.Is(err, concord.ErrRemoved) {
			return err
		}
		log.Warn("the cluster has removed this member while it was away; it joins as a new one", "error", err)
	}
}

// serveNode serves node until ctx ends or it fails, then closes it. It reports
// whether the node has ever been ready.
func serveNode(ctx context.Context, node *concord.Node, cfg server.Config, beside ...besideServer) (served bool, err error) {
	waiting := make(chan bool, 1)
	waitCtx, stop := context.WithCancel(ctx)
	go func() { waiting <- node.Ready(waitCtx) == nil }()
	err = serveCluster(ctx, node, node, cfg, beside...)
	stop()
	return <-waiting, err
}

// besideServer runs while a server does, until ctx ends.
type besideServer func(ctx context.Context, srv *server.Server) error

// serveCluster is serveNode with another view of its cluster.
func serveCluster(ctx context.Context, node *concord.Node, cluster kv.Cluster, cfg server.Config, beside ...besideServer) error {
	srv, err := server.New(node, cluster, cfg)
	if err != nil {
		return errors.Join(err, node.Close())
	}
	defer spareCollections()()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		catchUp(ctx, node)
		return srv.Run(ctx)
	})
	group.Go(func() error {
		select {
		case <-node.Done():
			if err := node.Err(); err != nil {
				return err
			}
			return context.Canceled // it has left its cluster, and serves nobody any more
		case <-ctx.Done():
			return nil
		}
	})
	for _, run := range beside {
		group.Go(func() error { return run(ctx, srv) })
	}
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, node.Close())
}

// catchUp waits until node is up to date, because what it has read from its disk
// may say that everybody may do everything. Without a majority it gives up after
// five seconds, as etcd does: then what needs none is served.
func catchUp(ctx context.Context, node *concord.Node) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_ = node.Ready(ctx) // who ended is told elsewhere
}

// check tells what is wrong with the settings, and fills those that depend on
// others.
func (s *serveSettings) check() error {
	if s.Name == "" && s.Cluster.Name == "" {
		s.Name = "n1"
	}
	if s.Name != "" {
		if err := checkName(s.Name); err != nil {
			return err
		}
	}
	base := filepath.Join("data", "dev")
	switch s.Env {
	case "dev":
		s.Log.Level = cmp.Or(s.Log.Level, "debug")
	case "prod":
		base = "/var/lib/concord"
		s.Log.Level = cmp.Or(s.Log.Level, "info")
	default:
		return usagef("--env %q is unknown; use dev or prod", s.Env)
	}
	if err := s.Cluster.check(s); err != nil {
		return err
	}
	s.DataDir = cmp.Or(s.DataDir, filepath.Join(base, s.Cluster.Name, s.Name))
	s.ClientAddr = cmp.Or(s.ClientAddr, "127.0.0.1:2379")
	if err := errors.Join(s.Requests.check(), s.Limits.check(), s.Web.check(), s.Metrics.check()); err != nil {
		return err
	}
	if err := s.Auth.check(s.Env); err != nil {
		return err
	}
	return s.checkAddrs()
}

// checkAddrs tells which address is wrong, or open to others than this machine.
func (s *serveSettings) checkAddrs() error {
	if err := s.checkAddr("--client-addr", s.ClientAddr); err != nil {
		return err
	}
	if err := s.TLS.check(len(s.Peers.All) > 0 || s.Cluster.Name != ""); err != nil {
		return err
	}
	if s.Cluster.Name != "" {
		return nil
	}
	if len(s.Peers.All) == 0 {
		if s.Peers.Addr != "" {
			return usagef("--peer-addr is of no use without --cluster or --peers; name the cluster, or all members")
		}
		return nil
	}
	peers, err := parsePeers(s.Peers.All)
	if err != nil {
		return err
	}
	own, ok := peers[s.Name]
	if !ok {
		return usagef("--name %s is not among --peers, which name %s; they must name this member too",
			s.Name, strings.Join(slices.Sorted(maps.Keys(peers)), ", "))
	}
	if s.Peers.Addr == "" {
		s.Peers.Addr = own
	}
	if s.prod() && s.Cluster.Secret == "" && s.TLS.PeerCert == "" {
		return usagef("--env prod needs a secret between members; run 'concord secret secret' once, copy the file to all members, and give it with --secret-file")
	}
	return s.checkAddr("--peer-addr", s.Peers.Addr)
}

func (s *serveSettings) checkAddr(flag, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
		return usagef("%s %q is no HOST:PORT; write it as 127.0.0.1:2379", flag, addr)
	}
	encrypted := s.TLS.Cert != ""
	if flag == "--peer-addr" {
		encrypted = s.TLS.PeerCert != "" || s.Cluster.Secret != ""
	}
	if !s.Insecure && !encrypted && !isLoopback(host) {
		return usagef("%s %s is open to the network without TLS; use a loopback address, give certificates, or say --insecure if the network is trusted", flag, addr)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *serveSettings) limits() kv.Limits {
	return kv.Limits{KeyBytes: int(s.Requests.MaxKeyBytes), RequestBytes: int64(s.Requests.MaxBytes), Ops: s.Requests.MaxTxnOps}
}

func (s *serveSettings) nodeOptions(log *slog.Logger) ([]concord.Option, error) {
	opts := []concord.Option{
		concord.Name(s.Name), concord.Logger(log), concord.Limits(s.limits()), concord.MemoryLimit(s.Limits.memory),
		concord.Timing(s.Timing.Heartbeat, s.Timing.ElectionTimeout), concord.SlowRequests(s.Log.Slow),
	}
	if s.Peers.Rejoin {
		opts = append(opts, concord.Rejoin())
	}
	peers, err := s.TLS.peers(log)
	if err != nil {
		return nil, err
	}
	opts = append(append(append(opts, peers...), s.Cluster.options(s)...), s.Traces.options()...)
	if len(s.Peers.All) == 0 {
		return opts, nil
	}
	members, err := parsePeers(s.Peers.All)
	if err != nil {
		return nil, err
	}
	return append(opts, concord.Peers(s.Peers.Addr, members)), nil
}

func parsePeers(list []string) (map[string]string, error) {
	peers := map[string]string{}
	for _, item := range list {
		name, addr, ok := strings.Cut(strings.TrimSpace(item), "=")
		host, port, err := net.SplitHostPort(addr)
		if number, perr := strconv.ParseUint(port, 10, 16); !ok || name == "" || err != nil || perr != nil || host == "" || number == 0 {
			return nil, usagef("--peers item %q is no NAME=HOST:PORT; write it as n1=127.0.0.1:2380", item)
		}
		if peers[name] != "" {
			return nil, usagef("--peers names %s twice", name)
		}
		peers[name] = addr
	}
	return peers, nil
}

// newLogger makes the program's logger, and what changes its level while it runs.
func newLogger(g *globals, level, format string) (*slog.Logger, *slog.LevelVar, error) {
	l := new(slog.LevelVar)
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, nil, usagef("--log-level %q is unknown; use debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(g.std.err, opts)), l, nil
	case "json":
		return slog.New(slog.NewJSONHandler(g.std.err, opts)), l, nil
	}
	return nil, nil, usagef("--log-format %q is unknown; use text or json", format)
}
