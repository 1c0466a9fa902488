package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/server"
)

// runEtcd runs the member that the flags of etcd describe.
func runEtcd(ctx context.Context, g *globals, v etcdValues, notes []note) (err error) {
	level := new(slog.LevelVar)
	log, closeLog, err := v.logger(g, level)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	log.Info("starting as an etcd server", "etcd-version", etcdVersion, "concord-version", concord.Version, "name", v.text("name"), "data-dir", v.text("data-dir"))
	for _, n := range notes {
		log.Warn(n.text, n.args...)
	}
	started, err := v.prepare(log)
	if err != nil {
		return err
	}
	opts, err := v.nodeOptions(log, started)
	if err != nil {
		return err
	}
	peers, err := v.peerTLS(log)
	if err != nil {
		return err
	}
	if peers != nil {
		opts = append(opts, peers)
	}
	cfg := v.serverConfig(log)
	cfg.LogLevel = level
	l := listening{v: v, log: log}
	if err := l.all(); err != nil {
		return errors.Join(err, l.close())
	}
	cfg.Listeners = l.clients
	node, err := concord.Open(ctx, v.text("data-dir"), append(opts, concord.PeerListener(merge(l.peers)))...)
	if err != nil {
		err = errors.Join(err, l.close())
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // ended while it waited for the others
		}
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return serveCluster(ctx, node, strictly{node, v}, cfg) })
	group.Go(func() error {
		if node.Ready(ctx) == nil {
			log.Info("ready to serve client requests", "urls", v.text("listen-client-urls"))
		}
		return nil // what is wrong with the member, serving tells
	})
	return group.Wait()
}

// strictly adds to a member what etcd's flags say about changes of members.
type strictly struct {
	*concord.Node
	v etcdValues
}

// MemberRules implements what etcd's API looks for.
func (s strictly) MemberRules() (strict bool, maxLearners int) {
	return s.v.on("strict-reconfig-check"), int(s.v.number("max-learners"))
}

// prepare looks at the data directory, and makes its member one of its own if
// that is asked for. It returns whether there is a member that belongs to a
// cluster.
func (v etcdValues) prepare(log *slog.Logger) (started bool, err error) {
	dir := v.text("data-dir")
	if _, err := os.Stat(filepath.Join(dir, "member", "snap", "db")); err == nil {
		return false, &hintedError{fmt.Errorf("%s has data of etcd itself", dir),
			"Take a snapshot of it with etcdctl, bring that over with 'concord import etcd', and give this member another --data-dir."}
	}
	if started, err = backup.Started(dir); err != nil || !started {
		return false, err
	}
	if v.on("force-new-cluster") {
		r, err := backup.Recover(dir)
		if err != nil {
			return true, err
		}
		log.Warn("the member is a cluster of its own now", "removed-members", len(r.Removed), "uncommitted-entries", r.Uncommitted, "revision", r.Status.Revision)
	}
	return true, nil
}

// listening is all that a member listens on.
type listening struct {
	v   etcdValues
	log *slog.Logger

	clients, peers []net.Listener
}

// all listens everywhere.
func (l *listening) all() error {
	cfg, err := l.v.clientTLS(l.log)
	if err != nil {
		return err
	}
	first := server.Everything
	if len(l.v.urls("listen-client-http-urls")) > 0 {
		first = server.OnlyGRPC
	}
	for _, flag := range []struct {
		name string
		what server.Serving
	}{{"listen-client-urls", first}, {"listen-client-http-urls", server.OnlyHTTP}, {"listen-metrics-urls", server.OnlyHealth}} {
		for _, u := range l.v.urls(flag.name) {
			if err := l.client(&u, cfg, flag.what); err != nil {
				return fmt.Errorf("--%s: %w", flag.name, err)
			}
		}
	}
	for _, u := range l.v.urls("listen-peer-urls") {
		peers, err := l.listen(&u)
		if err != nil {
			return fmt.Errorf("--listen-peer-urls: %w", err)
		}
		l.peers = append(l.peers, peers)
	}
	return nil
}

func (l *listening) client(u *url.URL, cfg *tls.Config, what server.Serving) error {
	switch {
	case secured(u) && cfg == nil:
		return usagef("TLS key/cert (--cert-file, --key-file) must be provided for client url %s with HTTPS scheme", u.String())
	case !secured(u) && cfg != nil:
		l.log.Warn("the scheme is http while certificates are given; ignoring them", "url", u.String())
		cfg = nil
	case !secured(u):
		cfg = nil
	}
	raw, err := l.listen(u)
	if err != nil {
		return err
	}
	l.clients = append(l.clients, server.Listen(raw, cfg, what))
	return nil
}

// listen listens on one URL.
func (l *listening) listen(u *url.URL) (net.Listener, error) {
	reusePort, reuseAddress := l.v.on("socket-reuse-port"), l.v.on("socket-reuse-address")
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		set := func(fd uintptr) {
			if reusePort {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
			if reuseAddress && err == nil {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
		}
		return errors.Join(c.Control(set), err)
	}}
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		path := u.Host + u.Path
		if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
			if err := os.Remove(path); err != nil { // left by a process that was killed
				return nil, err
			}
		}
		return net.Listen("unix", path)
	}
	if host := u.Hostname(); host != "localhost" && net.ParseIP(host) == nil {
		return nil, usagef("expected IP in URL for binding (%s)", u.String())
	}
	return config.Listen(context.Background(), "tcp", u.Host)
}

func (l *listening) close() error {
	var errs []error
	for _, x := range append(l.clients, l.peers...) {
		if err := x.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// merge makes one listener of several.
func merge(listeners []net.Listener) net.Listener {
	if len(listeners) == 1 {
		return listeners[0]
	}
	m := &merged{Listener: listeners[0], all: listeners, conns: make(chan accepted), done: make(chan struct{})}
	for _, l := range listeners {
		m.running.Go(func() { m.accept(l) })
	}
	return m
}

type accepted struct {
	conn net.Conn
	err  error
}

// merged accepts on all its listeners; the first gives its address.
type merged struct {
	net.Listener
	all     []net.Listener
	conns   chan accepted
	done    chan struct{}
	once    sync.Once
	running sync.WaitGroup
}

func (m *merged) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		select {
		case m.conns <- accepted{conn, err}:
		case <-m.done:
			if err == nil {
				_ = conn.Close()
			}
			return
		}
	}
}

// Accept implements net.Listener.
func (m *merged) Accept() (net.Conn, error) {
	select {
	case a := <-m.conns:
		return a.conn, a.err
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (m *merged) Close() error {
	var errs []error
	m.once.Do(func() {
		close(m.done)
		for _, l := range m.all {
			errs = append(errs, l.Close())
		}
		m.running.Wait()
	})
	return errors.Join(errs...)
}
