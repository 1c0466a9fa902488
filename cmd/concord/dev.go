package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/server"
)

// devOptions shape the throw-away cluster.
type devOptions struct {
	nodes    int
	dataDir  string
	port     int
	logLevel string
}

func newDevCommand(g *globals) *cobra.Command {
	var opts devOptions
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a throw-away cluster on this machine",
		Long: "Run a cluster in this process, on loopback, until interrupted. Its data is\n" +
			"thrown away at the end unless --data-dir keeps it.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().IntVar(&opts.nodes, "nodes", 3, "how many members, from 1 to 9")
	cmd.Flags().StringVar(&opts.dataDir, "data-dir", "", "keep the data here (default: a temporary directory)")
	cmd.Flags().IntVar(&opts.port, "port", 2379, "client port of the first member; the others follow in steps of 100; 0 means any free ports")
	cmd.Flags().StringVar(&opts.logLevel, "log-level", "warn", "debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return runDev(cmd.Context(), g, opts)
	}
	return cmd
}

func runDev(ctx context.Context, g *globals, opts devOptions) (err error) {
	if opts.nodes < 1 || opts.nodes > 9 {
		return usagef("--nodes %d is out of range; use 1 to 9", opts.nodes)
	}
	if opts.port < 0 || opts.port+100*(opts.nodes-1) > 65535 {
		return usagef("--port %d is out of range; use 0 for free ports, or a lower one", opts.port)
	}
	log, level, err := newLogger(g, opts.logLevel, "text")
	if err != nil {
		return err
	}
	// That members miss each other while all of them end is no news.
	defer context.AfterFunc(ctx, func() { level.Set(slog.LevelError) })()
	dir := opts.dataDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "concord-dev-"); err != nil {
			return fmt.Errorf("make a directory for the data: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	c := &devCluster{dir: dir, kept: opts.dataDir != "", log: log, level: level}
	if err := c.listen(opts); err != nil {
		return &hintedError{errors.Join(err, c.closeListeners()),
			"Is a cluster running already? Use --port 0 for free ports."}
	}
	started := time.Now()
	return c.run(ctx, func() { c.announce(g.std.out, started) })
}

// devCluster is the cluster of one dev command.
type devCluster struct {
	dir     string
	log     *slog.Logger
	level   *slog.LevelVar
	kept    bool // the data stays
	clients []net.Listener
	peers   []net.Listener
	names   map[string]string
}

// listen takes all ports before any member starts, so that none is missing.
func (c *devCluster) listen(opts devOptions) error {
	c.names = map[string]string{}
	for i := range opts.nodes {
		port := 0
		if opts.port != 0 {
			port = opts.port + 100*i
		}
		clients, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("listen for clients: %w", err)
		}
		c.clients = append(c.clients, clients)
		peers, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen for members: %w", err)
		}
		c.peers = append(c.peers, peers)
		c.names[devName(i)] = peers.Addr().String()
	}
	return nil
}

func devName(i int) string { return fmt.Sprintf("n%d", i+1) }

func (c *devCluster) closeListeners() error {
	var errs []error
	for _, l := range append(c.clients, c.peers...) {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// run starts the members, calls ready when the cluster serves, and waits for
// the end.
func (c *devCluster) run(ctx context.Context, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range c.clients {
		group.Go(func() error { return c.runMember(ctx, i, ready) })
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (c *devCluster) runMember(ctx context.Context, i int, ready func()) error {
	opts := []concord.Option{
		concord.Name(devName(i)), concord.Logger(c.log.With("member", devName(i))),
		concord.ClientAddrs(c.clients[i].Addr().String()),
	}
	if len(c.clients) > 1 {
		opts = append(opts, concord.Peers(c.peers[i].Addr().String(), c.names), concord.PeerListener(c.peers[i]))
	}
	node, err := concord.Open(ctx, filepath.Join(c.dir, devName(i)), opts...)
	if err != nil {
		return fmt.Errorf("member %s: %w", devName(i), errors.Join(err, c.clients[i].Close()))
	}
	group, ctx := errgroup.WithContext(ctx)
	if i == 0 {
		group.Go(func() error {
			if node.Ready(ctx) == nil {
				ready()
			}
			return nil // what is wrong with the member, serving tells
		})
	}
	group.Go(func() error {
		return serveCluster(ctx, node, node, server.Config{Listeners: []net.Listener{c.clients[i]}, Logger: c.log, LogLevel: c.level})
	})
	return group.Wait()
}

// announce tells a person what is there and what to try.
func (c *devCluster) announce(out io.Writer, started time.Time) {
	endpoints := make([]string, len(c.clients))
	for i, l := range c.clients {
		endpoints[i] = l.Addr().String()
	}
	all := strings.Join(endpoints, ",")
	members := "one member"
	if len(endpoints) > 1 {
		members = fmt.Sprintf("%d members", len(endpoints))
	}
	end := "end it and throw its data away"
	if c.kept {
		end = "end it; its data stays in " + c.dir
	}
	fmt.Fprintf(out, `A cluster of %s is ready, after %v.

  endpoints   %s

Try, in another terminal:

  concord put greeting hello --endpoints %s
  concord get greeting --endpoints %s
  etcdctl --endpoints %s get greeting

Press Ctrl-C to %s.
`, members, time.Since(started).Round(time.Millisecond), all, endpoints[0], endpoints[0], all, end)
}
