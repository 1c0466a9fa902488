package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
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
	Env             string        `set:"env" usage:"dev (data below ./data, loopback) or prod (data below /var/lib/concord)"`
	Name            string        `set:"name" usage:"this member's name among --peers"`
	DataDir         string        `set:"data-dir" usage:"directory of this member alone (default ./data/dev/NAME or /var/lib/concord/NAME)"`
	ClientAddr      string        `set:"client-addr" usage:"address that clients connect to"`
	PeerAddr        string        `set:"peer-addr" usage:"address that other members connect to (default: the one in --peers)"`
	Peers           []string      `set:"peers" usage:"all founding members as NAME=HOST:PORT, this one too; none means a single member"`
	Insecure        bool          `set:"insecure" usage:"listen on other addresses than loopback without authentication"`
	Rejoin          bool          `set:"rejoin" usage:"set a damaged data directory aside and join again as a new member"`
	Heartbeat       time.Duration `set:"heartbeat-interval" usage:"how often a leader is heard"`
	ElectionTimeout time.Duration `set:"election-timeout" usage:"silence after which a member campaigns"`
	MaxRequestBytes int64         `set:"max-request-bytes" usage:"keys and values of one request"`
	MaxKeyBytes     int           `set:"max-key-bytes" usage:"longest key, at most 65536"`
	MaxTxnOps       int           `set:"max-txn-ops" usage:"comparisons, and operations a branch, of one transaction"`
	LogLevel        string        `set:"log-level" usage:"debug, info, warn or error"`
	LogFormat       string        `set:"log-format" usage:"text or json"`
}

func defaultServeSettings() serveSettings {
	return serveSettings{
		Env: "dev", Name: "n1", ClientAddr: "127.0.0.1:2379",
		Heartbeat: 100 * time.Millisecond, ElectionTimeout: time.Second,
		MaxRequestBytes: 64 << 20, MaxKeyBytes: 1024, MaxTxnOps: 10_000,
		LogLevel: "info", LogFormat: "text",
	}
}

func newServeCommand(g *globals) *cobra.Command {
	settings := defaultServeSettings()
	var config string
	cmd := &cobra.Command{
		Use: "serve", Short: "Run one member",
		Long: "Run one member of a cluster, or a single one without --peers.\n\n" +
			"Every flag can be set in the file of --config (YAML, the flag's name as key)\n" +
			"and in the environment (CONCORD_ and the name in capitals); a flag wins over\n" +
			"the environment, and that over the file.",
		Example: "  concord serve --data-dir data\n" +
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
	log, err := newLogger(g, s.LogLevel, s.LogFormat)
	if err != nil {
		return err
	}
	opts, err := s.nodeOptions(log)
	if err != nil {
		return err
	}
	clients, err := net.Listen("tcp", s.ClientAddr)
	if err != nil {
		return &hintedError{fmt.Errorf("listen for clients: %w", err),
			"Is another member running? Give this one another --client-addr."}
	}
	opts = append(opts, concord.ClientAddrs(clients.Addr().String()))
	node, err := concord.Open(ctx, s.DataDir, opts...)
	if err != nil {
		return errors.Join(err, clients.Close())
	}
	fmt.Fprintf(g.std.err, "member %s serves clients at %s, data in %s\n", s.Name, clients.Addr(), s.DataDir)
	return serveNode(ctx, node, server.Config{
		Listeners: []net.Listener{clients}, Logger: log, Limits: s.limits(),
	})
}

// serveNode serves node until ctx ends or it fails, then closes it.
func serveNode(ctx context.Context, node *concord.Node, cfg server.Config) error {
	srv, err := server.New(node, node, cfg)
	if err != nil {
		return errors.Join(err, node.Close())
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return srv.Run(ctx) })
	group.Go(func() error {
		select {
		case <-node.Done():
			return node.Err()
		case <-ctx.Done():
			return nil
		}
	})
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	return errors.Join(err, node.Close())
}

// check tells what is wrong with the settings, and fills those that depend on
// others.
func (s *serveSettings) check() error {
	switch s.Env {
	case "dev":
		if s.DataDir == "" {
			s.DataDir = filepath.Join("data", "dev", s.Name)
		}
	case "prod":
		if s.DataDir == "" {
			s.DataDir = filepath.Join("/var/lib/concord", s.Name)
		}
	default:
		return usagef("--env %q is unknown; use dev or prod", s.Env)
	}
	if s.Name == "" {
		return usagef("--name is empty; give this member a name")
	}
	addrs := []struct{ flag, addr string }{{"client-addr", s.ClientAddr}}
	if s.PeerAddr != "" {
		addrs = append(addrs, struct{ flag, addr string }{"peer-addr", s.PeerAddr})
	}
	for _, a := range addrs {
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return usagef("--%s %q is no HOST:PORT", a.flag, a.addr)
		}
		if !s.Insecure && !isLoopback(host) {
			return usagef("--%s %s is open to the network and there is no authentication; use a loopback address, or say --insecure if the network is trusted", a.flag, a.addr)
		}
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (s *serveSettings) limits() kv.Limits {
	return kv.Limits{KeyBytes: s.MaxKeyBytes, RequestBytes: s.MaxRequestBytes, Ops: s.MaxTxnOps}
}

func (s *serveSettings) nodeOptions(log *slog.Logger) ([]concord.Option, error) {
	opts := []concord.Option{
		concord.Name(s.Name), concord.Logger(log), concord.Limits(s.limits()),
		concord.Timing(s.Heartbeat, s.ElectionTimeout),
	}
	if s.Rejoin {
		opts = append(opts, concord.Rejoin())
	}
	if len(s.Peers) == 0 {
		return opts, nil
	}
	peers, err := parsePeers(s.Peers)
	if err != nil {
		return nil, err
	}
	own, ok := peers[s.Name]
	if !ok {
		return nil, usagef("--name %s is not among --peers; they must name this member too", s.Name)
	}
	if s.PeerAddr == "" {
		s.PeerAddr = own
	}
	return append(opts, concord.Peers(s.PeerAddr, peers)), nil
}

func parsePeers(list []string) (map[string]string, error) {
	peers := map[string]string{}
	for _, item := range list {
		name, addr, ok := strings.Cut(item, "=")
		if _, _, err := net.SplitHostPort(addr); !ok || name == "" || err != nil {
			return nil, usagef("--peers item %q is no NAME=HOST:PORT", item)
		}
		if peers[name] != "" {
			return nil, usagef("--peers names %s twice", name)
		}
		peers[name] = addr
	}
	return peers, nil
}

func newLogger(g *globals, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usagef("--log-level %q is unknown; use debug, info, warn or error", level)
	}
	opts := &slog.HandlerOptions{Level: l}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(g.std.err, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(g.std.err, opts)), nil
	}
	return nil, usagef("--log-format %q is unknown; use text or json", format)
}
