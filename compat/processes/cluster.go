package processes

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/concord-kv/concord/compat/authority"
	"github.com/concord-kv/concord/internal/loopback"
)

// patience is how long a member may take to serve or to end, on a busy machine.
const patience = 2 * time.Minute

// The servers.
const (
	Etcd    = "etcd"
	Concord = "concord"
)

// Programs are the programs of the servers.
type Programs map[string]string

// Build builds them into a directory.
func Build(dir string) (Programs, error) {
	p := Programs{Etcd: filepath.Join(dir, "etcd-itself"), Concord: filepath.Join(dir, "concord")}
	for name, source := range map[string][2]string{
		Etcd: {".", "go.etcd.io/etcd/server/v3"}, Concord: {filepath.Join("..", ".."), "./cmd/concord"},
	} {
		cmd := exec.Command("go", "build", "-o", p[name], source[1])
		cmd.Dir = source[0]
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	return p, nil
}

// Security is how clients and members speak.
type Security string

// The ways.
const (
	Plain Security = "plain"
	// TLS has certificates that everybody must show. That of the clients has no
	// name, so that it is nobody's.
	TLS Security = "tls"
	// AutoTLS has certificates that the servers make, and no client shows one.
	AutoTLS Security = "auto"
)

// Config says what to start.
type Config struct {
	Server   string
	Members  int
	Security Security
	// Sockets, when not empty, is how the paths of sockets begin on which the
	// members listen for clients, in place of TCP.
	Sockets string
	// Flags are more of etcd's.
	Flags []string
}

// String names it for a test.
func (c Config) String() string { return fmt.Sprintf("%s-%d-%s", c.Server, c.Members, c.Security) }

// Cluster is a running cluster.
type Cluster struct {
	Config
	tb       testing.TB
	programs Programs
	dir      string
	keys     *authority.Authority // with TLS
	peers    []string
	clients  []string
	running  []*exec.Cmd
}

// Start starts a cluster and waits until it serves.
func (p Programs) Start(tb testing.TB, cfg Config) *Cluster {
	tb.Helper()
	c := &Cluster{Config: cfg, tb: tb, programs: p, dir: tb.TempDir(), running: make([]*exec.Cmd, cfg.Members)}
	scheme := "https://"
	switch cfg.Security {
	case Plain:
		scheme = "http://"
	case TLS:
		c.keys = authority.New(tb, "server", "peer", "")
	}
	for i := range cfg.Members {
		c.peers = append(c.peers, scheme+reserve(tb))
		if cfg.Sockets == "" {
			c.clients = append(c.clients, scheme+reserve(tb))
		} else {
			c.clients = append(c.clients, fmt.Sprintf("%s%s%d", strings.Replace(scheme, "http", "unix", 1), cfg.Sockets, i))
		}
	}
	tb.Cleanup(c.end)
	for i := range cfg.Members {
		c.launch(i)
	}
	for i := range cfg.Members {
		c.ready(i)
	}
	return c
}

func reserve(tb testing.TB) string {
	tb.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(release)
	return addr
}

// Endpoints are the URLs for clients, in the order of the members.
func (c *Cluster) Endpoints() []string { return slices.Clone(c.clients) }

// Authority signs certificates that the members trust; nil without TLS.
func (c *Cluster) Authority() *authority.Authority { return c.keys }

// ClientTLS is what a client needs; nil where it needs nothing.
func (c *Cluster) ClientTLS() *tls.Config {
	switch c.Security {
	case TLS:
		return c.keys.Client("")
	case AutoTLS:
		return &tls.Config{InsecureSkipVerify: true} // whom it would have to trust the server has made up
	}
	return nil
}

func (c *Cluster) args(i int) []string {
	var initial []string
	for i, peer := range c.peers {
		initial = append(initial, fmt.Sprintf("m%d=%s", i, peer))
	}
	name := fmt.Sprint("m", i)
	args := []string{
		"--name", name, "--data-dir", filepath.Join(c.dir, name),
		"--listen-client-urls", c.clients[i], "--advertise-client-urls", c.clients[i],
		"--listen-peer-urls", c.peers[i], "--initial-advertise-peer-urls", c.peers[i],
		"--initial-cluster", strings.Join(initial, ","), "--unsafe-no-fsync", "--bcrypt-cost=4",
	}
	switch c.Security {
	case TLS:
		args = append(args, c.keys.Flags()...)
	case AutoTLS:
		args = append(args, "--auto-tls", "--peer-auto-tls")
	}
	return append(args, c.Flags...)
}

func (c *Cluster) log(i int) string { return filepath.Join(c.dir, fmt.Sprintf("m%d.log", i)) }

// launch starts a member and does not wait for it.
func (c *Cluster) launch(i int) {
	c.tb.Helper()
	log, err := os.OpenFile(c.log(i), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.tb.Fatal(err)
	}
	defer log.Close() // the process has its own
	args := c.args(i)
	if c.Server == Concord {
		args = append([]string{"etcd"}, args...)
	}
	cmd := exec.Command(c.programs[c.Server], args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	if err := cmd.Start(); err != nil {
		c.tb.Fatal(err)
	}
	c.running[i] = cmd
}

// HTTP returns a client for the pages of a member, and the beginning of their
// addresses.
func (c *Cluster) HTTP(i int) (client *http.Client, base string) {
	transport := &http.Transport{TLSClientConfig: c.ClientTLS()}
	c.tb.Cleanup(transport.CloseIdleConnections)
	base = c.clients[i]
	if c.Sockets != "" {
		_, path, _ := strings.Cut(base, "://")
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		base = strings.Replace(strings.TrimSuffix(base, path), "unix", "http", 1) + "localhost"
	}
	return &http.Client{Transport: transport}, base
}

// ready waits until a member says that it is well, which takes a leader.
func (c *Cluster) ready(i int) {
	c.tb.Helper()
	ctx, cancel := context.WithTimeout(c.tb.Context(), patience)
	defer cancel()
	client, base := c.HTTP(i)
	c.Until("member "+fmt.Sprint(i)+" serves", func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/health", nil)
		if err != nil {
			return err
		}
		answer, err := client.Do(req)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(body), `"health":"true"`) {
			return fmt.Errorf("%s, %w", body, err)
		}
		return nil
	})
}

// Until repeats check until it returns nil.
func (c *Cluster) Until(what string, check func() error) {
	c.tb.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline.C:
			c.tb.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// Start starts a member again and waits until it serves.
func (c *Cluster) Start(i int) {
	c.tb.Helper()
	c.launch(i)
	c.ready(i)
}

// Stop ends a member as systemd does.
func (c *Cluster) Stop(i int) {
	c.tb.Helper()
	cmd := c.running[i]
	c.running[i] = nil
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.tb.Fatal(err)
	}
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	// etcd ends with the signal that it got, Concord with nothing.
	if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), syscall.SIGTERM.String()) {
		c.tb.Fatalf("member %d ended with %v", i, err)
	}
}

// Kill ends a member as kill -9 does.
func (c *Cluster) Kill(i int) {
	if cmd := c.running[i]; cmd != nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		c.running[i] = nil
	}
}

// end ends all members and shows the ends of their logs if the test failed.
func (c *Cluster) end() {
	for i := range c.running {
		c.Kill(i)
		if text, err := os.ReadFile(c.log(i)); c.tb.Failed() {
			c.tb.Logf("log of m%d of %s (%v):\n%s", i, c.Config, err, text[max(0, len(text)-2000):])
		}
	}
}

// Client makes a client of some members, or of all where none are named, which
// change may change before.
func (c *Cluster) Client(tb testing.TB, change func(*clientv3.Config), members ...int) *clientv3.Client {
	tb.Helper()
	client, err := c.TryClient(tb, change, members...)
	if err != nil {
		tb.Fatal(err)
	}
	return client
}

// TryClient is Client where that may fail.
func (c *Cluster) TryClient(tb testing.TB, change func(*clientv3.Config), members ...int) (*clientv3.Client, error) {
	tb.Helper()
	cfg := clientv3.Config{Endpoints: c.Endpoints(), TLS: c.ClientTLS(), DialTimeout: patience, Logger: zap.NewNop()}
	if len(members) > 0 {
		cfg.Endpoints = nil
		for _, i := range members {
			cfg.Endpoints = append(cfg.Endpoints, c.clients[i])
		}
	}
	if change != nil {
		change(&cfg)
	}
	client, err := clientv3.New(cfg)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { _ = client.Close() }) // that its context is over is no news
	return client, nil
}

// Leader waits until a member that runs leads, and returns which.
func (c *Cluster) Leader(ctx context.Context) (leader int) {
	c.tb.Helper()
	c.Until("a leader", func() (err error) {
		leader, err = c.findLeader(ctx)
		return err
	})
	return leader
}

func (c *Cluster) findLeader(ctx context.Context) (int, error) {
	for i, cmd := range c.running {
		if cmd == nil {
			continue
		}
		s, err := c.status(ctx, i)
		if err != nil {
			return 0, err
		}
		if s.Leader == s.Header.MemberId {
			return i, nil
		}
	}
	return 0, fmt.Errorf("nobody leads")
}

// status asks a member with a client of its own, so that nothing else decides
// whom it asks.
func (c *Cluster) status(ctx context.Context, i int) (*pb.StatusResponse, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: c.clients[i : i+1], TLS: c.ClientTLS(), Logger: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := client.Status(ctx, c.clients[i])
	return (*pb.StatusResponse)(s), err
}
