package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concord-kv/concord/compat/authority"
	"github.com/concord-kv/concord/internal/loopback"
)

// patience is how long a member may take to serve, on a busy machine.
const patience = 2 * time.Minute

// cluster is processes that started from etcd's command lines.
type cluster struct {
	server  string // etcd or concord
	program string
	keys    *authority.Authority // of server, peer and client; nil without TLS
	env     []string             // more for checks

	// Set by start.
	t       *testing.T
	dir     string
	http    *http.Client
	initial []string
	clients []string // URLs
	mu      sync.Mutex
	running []*exec.Cmd
}

// start starts a cluster that ends with the test, and returns it.
func (c *cluster) start(t *testing.T, members int) *cluster {
	t.Helper()
	c.t, c.dir, c.running = t, t.TempDir(), make([]*exec.Cmd, members)
	scheme, transport := "http://", &http.Transport{}
	if c.keys != nil {
		scheme, transport.TLSClientConfig = "https://", c.keys.Client("client")
	}
	c.http = &http.Client{Transport: transport}
	t.Cleanup(c.http.CloseIdleConnections)
	for i := range members {
		c.initial = append(c.initial, fmt.Sprintf("m%d=%s%s", i, scheme, reserve(t)))
		c.clients = append(c.clients, scheme+reserve(t))
	}
	t.Cleanup(c.stop)
	for i := range members {
		if err := c.launch(i); err != nil {
			t.Fatal(err)
		}
	}
	for i := range members {
		if err := c.ready(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// reserve returns a free address.
func reserve(t *testing.T) string {
	t.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return addr
}

// launch starts a member and does not wait for it.
func (c *cluster) launch(i int) error {
	name, peer, _ := strings.Cut(c.initial[i], "=")
	log, err := os.OpenFile(filepath.Join(c.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	cmd := exec.Command(c.program, "etcd", "--name", name, "--data-dir", filepath.Join(c.dir, name),
		"--listen-client-urls", c.clients[i], "--advertise-client-urls", c.clients[i],
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", strings.Join(c.initial, ","), "--unsafe-no-fsync", "--bcrypt-cost=4")
	if c.keys != nil {
		cmd.Args = append(cmd.Args, c.keys.Flags()...)
	}
	if c.server == "etcd" {
		cmd.Args = append(cmd.Args[:1], cmd.Args[2:]...)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	c.running[i] = cmd
	return nil
}

// ready waits until a member says that it is well, which takes a leader.
func (c *cluster) ready(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return fmt.Errorf("member %d does not serve: %w", i, ctx.Err())
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.clients[i]+"/health", nil)
		if err != nil {
			return err
		}
		answer, err := c.http.Do(req)
		if err != nil {
			continue
		}
		body, err := io.ReadAll(answer.Body)
		if err = errors.Join(err, answer.Body.Close()); err == nil && strings.Contains(string(body), `"health":"true"`) {
			return nil
		}
	}
}

// kill ends a member as kill -9 does.
func (c *cluster) kill(i int) {
	if cmd := c.running[i]; cmd != nil {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		c.running[i] = nil
	}
}

// stop ends all members and shows the ends of their logs if the test failed.
func (c *cluster) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.running {
		c.kill(i)
		if text, err := os.ReadFile(filepath.Join(c.dir, fmt.Sprintf("m%d.log", i))); c.t.Failed() {
			c.t.Logf("log of m%d (%v):\n%s", i, err, text[max(0, len(text)-4000):])
		}
	}
}

// control serves the pages that end and start members.
func (c *cluster) control() string {
	page := func(steps ...func(context.Context, int) error) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			defer c.mu.Unlock()
			i, err := strconv.Atoi(r.URL.Query().Get("member"))
			if err != nil || i < 0 || i >= len(c.running) {
				http.Error(w, "?member=N", http.StatusBadRequest)
				return
			}
			for _, step := range steps {
				if err := step(r.Context(), i); err != nil {
					http.Error(w, err.Error(), http.StatusInternalServerError)
					return
				}
			}
		}
	}
	kill := func(_ context.Context, i int) error { c.kill(i); return nil }
	launch := func(_ context.Context, i int) error { return c.launch(i) }
	pages := http.NewServeMux()
	pages.Handle("POST /restart", page(kill, launch, c.ready))
	pages.Handle("POST /kill", page(kill))
	pages.Handle("POST /launch", page(launch))
	pages.Handle("POST /ready", page(c.ready))
	s := httptest.NewServer(pages)
	c.t.Cleanup(s.Close)
	return s.URL
}
