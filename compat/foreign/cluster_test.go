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

	"github.com/concord-kv/concord/internal/loopback"
)

// patience is how long a member may take to serve, on a busy machine.
const patience = 2 * time.Minute

// cluster is processes that started from etcd's command lines.
type cluster struct {
	t       *testing.T
	server  string // etcd or concord
	program string
	dir     string
	initial []string
	clients []string // URLs
	mu      sync.Mutex
	running []*exec.Cmd
}

// start starts a cluster that ends with the test.
func start(t *testing.T, server, program string, members int) *cluster {
	t.Helper()
	c := &cluster{t: t, server: server, program: program, dir: t.TempDir(), running: make([]*exec.Cmd, members)}
	for i := range members {
		c.initial = append(c.initial, fmt.Sprintf("m%d=%s", i, reserve(t)))
		c.clients = append(c.clients, reserve(t))
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

func reserve(t *testing.T) string {
	t.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return "http://" + addr
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
		answer, err := http.DefaultClient.Do(req)
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

// control serves the page that restarts members.
func (c *cluster) control() string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		i, err := strconv.Atoi(r.URL.Query().Get("member"))
		if err != nil || r.URL.Path != "/restart" || i < 0 || i >= len(c.running) {
			http.Error(w, "POST /restart?member=N", http.StatusBadRequest)
			return
		}
		c.kill(i)
		if err := errors.Join(c.launch(i), c.ready(r.Context(), i)); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	}))
	c.t.Cleanup(s.Close)
	return s.URL
}
