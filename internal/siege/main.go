// Command siege does to a real process of concord serve, all at once, what
// clients do that mean no good, while eight writers put: thousands of connections
// that say nothing more, watchers that never read, requests whose headers come a
// byte a second, and messages that never come whole. The writers' puts have to go
// on, the process's memory has to stay within its limit, those who are slow have
// to be cut with the errors that are documented, and when they have gone the
// process has to be as it was.
//
//	go run ./internal/siege
//	go run ./internal/siege -idle 1000 -watchers 100
//
// Both processes need a descriptor for each connection: see ulimit -n.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// plan is what one run does.
type plan struct {
	idle, watchers, slow, hoarders int
	memory                         string
	binary                         string
}

func main() {
	var p plan
	flag.IntVar(&p.idle, "idle", 10_000, "connections that say nothing after their first words")
	flag.IntVar(&p.watchers, "watchers", 1000, "watchers that never read")
	flag.IntVar(&p.slow, "slow", 500, "requests whose headers come a byte a second, and as many connections that are silent")
	flag.IntVar(&p.hoarders, "hoarders", 300, "connections that each send most of 16 messages of 1 MiB")
	flag.StringVar(&p.memory, "memory-limit", "2GiB", "the process's --memory-limit, which its resident memory has to keep to")
	flag.StringVar(&p.binary, "binary", "", "the concord program; built when empty")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "siege:", err)
		os.Exit(1)
	}
}

// member is the process under siege.
type member struct {
	cmd  *exec.Cmd
	addr string
	mu   sync.Mutex
	log  strings.Builder
}

func start(ctx context.Context, p plan, dir string) (*member, error) {
	if p.binary == "" {
		p.binary = filepath.Join(dir, "concord")
		build := exec.CommandContext(ctx, "go", "build", "-o", p.binary, "./cmd/concord")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return nil, fmt.Errorf("build concord: %w", err)
		}
	}
	m := &member{cmd: exec.Command(p.binary, "serve", "--data-dir", filepath.Join(dir, "data"), "--client-addr", "127.0.0.1:0", "--log-level", "info",
		"--memory-limit", p.memory, "--max-connections-per-address", "20000", "--slow-reader", slowReader.String())}
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := m.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := m.cmd.Start(); err != nil {
		return nil, err
	}
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if _, rest, ok := strings.Cut(lines.Text(), " serves clients at "); ok {
				addr, _, _ := strings.Cut(rest, ",")
				found <- addr
			}
			m.mu.Lock()
			m.log.WriteString(lines.Text() + "\n")
			m.mu.Unlock()
		}
	}()
	select {
	case m.addr = <-found:
		return m, nil
	case <-time.After(time.Minute):
		m.end()
		return nil, fmt.Errorf("no address in a minute: %s", m.said())
	}
}

func (m *member) said() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.log.String()
}

// end kills it: its data is not looked at any more.
func (m *member) end() {
	_ = m.cmd.Process.Kill() // it may have ended by itself
	_ = m.cmd.Wait()         // its end is what was asked for
}

// state is what the process has.
type state struct {
	resident            int64 // bytes
	sockets, goroutines int
}

func (s state) String() string {
	return fmt.Sprintf("%d MiB resident, %d sockets, %d goroutines", s.resident>>20, s.sockets, s.goroutines)
}

func (m *member) state() (s state, err error) {
	proc := fmt.Sprintf("/proc/%d", m.cmd.Process.Pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		return s, err
	}
	kib, err := numberAfter(string(status), "VmRSS:")
	s.resident = int64(kib) << 10
	fds, err2 := os.ReadDir(proc + "/fd")
	for _, fd := range fds {
		// One that was closed meanwhile is none.
		if to, err := os.Readlink(proc + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(to, "socket:") {
			s.sockets++
		}
	}
	page, err3 := m.page("/metrics")
	n, err4 := numberAfter(page, "\ngo_goroutines ")
	s.goroutines = n
	return s, errors.Join(err, err2, err3, err4)
}

func numberAfter(text, mark string) (int, error) {
	_, rest, _ := strings.Cut(text, mark)
	words := strings.Fields(rest)
	if len(words) == 0 {
		return 0, fmt.Errorf("nothing after %q", mark)
	}
	n, err := strconv.ParseFloat(words[0], 64)
	return int(n), err
}

func (m *member) page(path string) (string, error) {
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.addr + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

// eventually repeats try until it succeeds.
func eventually(ctx context.Context, try func() error) error {
	for until := time.Now().Add(2 * time.Minute); ; {
		err := try()
		if err == nil || time.Now().After(until) || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
