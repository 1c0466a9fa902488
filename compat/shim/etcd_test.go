package shim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/loopback"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// programs are built once for all tests.
type programs struct{ etcd, etcdctl, real string }

// build builds the programs into a directory of the test.
func build(t *testing.T) programs {
	t.Helper()
	dir := t.TempDir()
	p := programs{etcd: filepath.Join(dir, "etcd"), etcdctl: filepath.Join(dir, "etcdctl"), real: filepath.Join(dir, "etcd-itself")}
	for _, b := range []struct{ program, dir, pkg string }{
		{p.etcd, filepath.Join("..", ".."), "./cmd/concord"},
		{p.etcdctl, ".", "go.etcd.io/etcd/etcdctl/v3"},
		{p.real, ".", "go.etcd.io/etcd/server/v3"},
	} {
		cmd := exec.CommandContext(t.Context(), "go", "build", "-o", b.program, b.pkg)
		cmd.Dir = b.dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s: %v\n%s", b.pkg, err, out)
		}
	}
	return p
}

// reserve returns the URL of a free address.
func reserve(t *testing.T, scheme string) string {
	t.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return scheme + "://" + addr
}

// member is one process that can be ended and started again.
type member struct {
	t            *testing.T
	program      string
	dir          string
	client, peer string // URLs
	name         string
	env, args    []string
	process      *exec.Cmd
	ended        chan error
	log          lines
}

// lines keeps what a process logs.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	wake chan struct{}
}

func (l *lines) read(r io.Reader) {
	for s := bufio.NewScanner(r); s.Scan(); {
		l.mu.Lock()
		l.text.WriteString(s.Text() + "\n")
		if l.wake != nil {
			close(l.wake)
			l.wake = nil
		}
		l.mu.Unlock()
	}
}

func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await waits for a text in the log.
func (l *lines) await(ctx context.Context, text string) error {
	for {
		l.mu.Lock()
		if l.wake == nil {
			l.wake = make(chan struct{})
		}
		found, wake := strings.Contains(l.text.String(), text), l.wake
		l.mu.Unlock()
		if found {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%q is not in the log: %w", text, ctx.Err())
		case <-wake:
		}
	}
}

func newMember(t *testing.T, p programs, name, clientScheme, peerScheme string) *member {
	t.Helper()
	return &member{
		t: t, program: p.etcd, name: name, dir: filepath.Join(t.TempDir(), name+".etcd"),
		client: reserve(t, clientScheme), peer: reserve(t, peerScheme),
	}
}

// flags are the usual ones, in etcd's two forms.
func (m *member) flags(more ...string) []string {
	return append(append([]string{
		"--name", m.name, "--data-dir=" + m.dir,
		"--listen-client-urls", m.client, "--advertise-client-urls=" + m.client,
		"-listen-peer-urls", m.peer, "-initial-advertise-peer-urls=" + m.peer,
	}, m.args...), more...)
}

// start starts the process with these arguments and does not wait for it.
func (m *member) start(args ...string) {
	m.t.Helper()
	m.process = exec.Command(m.program, args...)
	m.process.Env = append(os.Environ(), m.env...)
	m.process.Dir = filepath.Dir(m.dir)
	pipe, err := m.process.StderrPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	m.log = lines{}
	if err := m.process.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.ended = make(chan error, 1)
	process, ended, log := m.process, m.ended, &m.log
	go func() {
		log.read(pipe)
		ended <- process.Wait()
	}()
	m.t.Cleanup(func() {
		if m.process == process {
			m.end(syscall.SIGKILL)
		}
		if m.t.Failed() {
			m.t.Logf("log of %s:\n%s", m.name, m.log.all())
		}
	})
}

// ready waits until it says that it serves, in etcd's words.
func (m *member) ready() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	if err := m.log.await(ctx, "ready to serve client requests"); err != nil {
		m.t.Fatalf("%s: %v\n%s", m.name, err, m.log.all())
	}
}

// end ends the process by a signal and returns what it ended with.
func (m *member) end(sig os.Signal) error {
	m.t.Helper()
	if m.process == nil {
		return nil
	}
	process := m.process
	m.process = nil
	_ = process.Process.Signal(sig) // it may have ended
	select {
	case err := <-m.ended:
		return err
	case <-time.After(patience):
		_ = process.Process.Kill()
		m.t.Errorf("%s did not end by %v", m.name, sig)
		return <-m.ended
	}
}

// stop ends it as systemd does, and expects a clean end.
func (m *member) stop() {
	m.t.Helper()
	if err := m.end(syscall.SIGTERM); err != nil {
		m.t.Errorf("%s ended with %v\n%s", m.name, err, m.log.all())
	}
}

// fails starts it and expects that it ends with a text in its log.
func (m *member) fails(want string, args ...string) {
	m.t.Helper()
	m.start(args...)
	m.process = nil
	select {
	case err := <-m.ended:
		if err == nil || !strings.Contains(m.log.all(), want) {
			m.t.Errorf("%s %q ended with %v, not with %q:\n%s", m.name, args, err, want, m.log.all())
		}
	case <-time.After(patience):
		m.t.Fatalf("%s %q goes on\n%s", m.name, args, m.log.all())
	}
}

// ctl runs etcdctl and returns what it printed.
type ctl struct {
	t       *testing.T
	program string
	flags   []string
}

func (c ctl) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, c.program, append(append([]string{"--command-timeout=30s", "--dial-timeout=10s"}, c.flags...), args...)...).CombinedOutput()
	return string(out), err
}

func (c ctl) run(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatalf("etcdctl %q: %v\n%s", args, err, out)
	}
	return out
}

// want runs a command and checks that a text is in what it prints.
func (c ctl) want(text string, args ...string) {
	c.t.Helper()
	if out := c.run(args...); !strings.Contains(out, text) {
		c.t.Errorf("etcdctl %q printed %q, not %q", args, out, text)
	}
}

// until repeats a command until a text is in what it prints.
func (c ctl) until(text string, args ...string) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		out, err := c.try(args...)
		if err == nil && strings.Contains(out, text) {
			return
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("etcdctl %q printed %q, not %q (%v)", args, out, text, err)
		}
	}
}
