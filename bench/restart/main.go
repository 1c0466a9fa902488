// Command restart measures how soon a member serves after kill -9, and what
// memory it takes: a fresh directory, a million keys with a fresh snapshot, and
// with a snapshot that is half the data old.
//
//	go run ./restart -binary ../concord
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

var (
	binary = flag.String("binary", "concord", "the concord program")
	keys   = flag.Int("keys", 1_000_000, "keys")
	value  = flag.Int("value", 256, "bytes a value")
	rounds = flag.Int("rounds", 5, "restarts of each kind")
	dir    = flag.String("dir", "", "where data goes; a temporary directory when empty")
)

func main() {
	flag.Parse()
	if *dir == "" {
		d, err := os.MkdirTemp("", "concord-restart-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(d)
		*dir = d
	}
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	addr, err := freeAddr()
	if err != nil {
		return err
	}
	var fresh []time.Duration
	for i := range *rounds {
		m := &member{dir: filepath.Join(*dir, fmt.Sprint("empty", i)), addr: addr}
		took, err := m.firstPut(ctx)
		if err != nil {
			return err
		}
		m.kill()
		fresh = append(fresh, took)
	}
	report("first put, empty directory", fresh)

	m := &member{dir: filepath.Join(*dir, "full"), addr: addr}
	if _, err := m.firstPut(ctx); err != nil {
		return err
	}
	defer m.kill()
	start := time.Now()
	if err := m.load(ctx, 0, *keys); err != nil {
		return err
	}
	fmt.Printf("%d keys of %d B loaded in %v; resident %d MiB, disk %d MiB\n", *keys, *value, time.Since(start).Round(time.Millisecond), m.resident(), m.disk())
	if err := m.snapshot(ctx); err != nil {
		return err
	}
	if err := m.restarts(ctx, "first put after kill -9, fresh snapshot"); err != nil {
		return err
	}
	// Half of the keys written again: the log holds them behind the snapshot.
	if err := m.load(ctx, 0, *keys/2); err != nil {
		return err
	}
	return m.restarts(ctx, "first put after kill -9, half the data behind the snapshot")
}

// restarts kills and starts the member again, several times.
func (m *member) restarts(ctx context.Context, what string) error {
	var took []time.Duration
	for range *rounds {
		m.kill()
		d, err := m.firstPut(ctx)
		if err != nil {
			return err
		}
		took = append(took, d)
	}
	report(what, took)
	fmt.Printf("resident %d MiB, disk %d MiB\n", m.resident(), m.disk())
	return nil
}

func report(what string, all []time.Duration) {
	slices.Sort(all)
	fmt.Printf("%-60s median %v, worst %v of %d\n", what, all[len(all)/2].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), len(all))
}

// member is one process.
type member struct {
	dir, addr string
	cmd       *exec.Cmd
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// firstPut starts the process and returns when a put has succeeded, and how
// long that took from the start.
func (m *member) firstPut(ctx context.Context) (time.Duration, error) {
	start := time.Now()
	m.cmd = exec.Command(*binary, "serve", "--data-dir", m.dir, "--client-addr", m.addr, "--log-level", "warn")
	m.cmd.Stderr = os.Stderr
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		return 0, err
	}
	for {
		conn, err := net.Dial("tcp", m.addr)
		if err == nil {
			conn.Close()
			break
		}
		if time.Since(start) > time.Minute {
			return 0, fmt.Errorf("nobody listens at %s: %w", m.addr, err)
		}
		time.Sleep(time.Millisecond)
	}
	c, err := client.New(client.Config{Endpoints: []string{m.addr}, Timeout: time.Minute})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := kv.Put(ctx, c, "first", "put"); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

func (m *member) kill() {
	if m.cmd != nil {
		_ = m.cmd.Process.Kill() // it may be gone
		_ = m.cmd.Wait()
		m.cmd = nil
	}
}

// load puts keys from..to with many writers.
func (m *member) load(ctx context.Context, from, to int) error {
	c, err := client.New(client.Config{Endpoints: []string{m.addr}, Timeout: time.Minute})
	if err != nil {
		return err
	}
	defer c.Close()
	next := atomic.Int64{}
	next.Store(int64(from))
	var group sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 200 {
		group.Go(func() {
			v := strings.Repeat("v", *value)
			for failed.Load() == nil {
				n := next.Add(1) - 1
				if n >= int64(to) {
					return
				}
				if _, err := kv.Put(ctx, c, fmt.Sprintf("%08d", n), v); err != nil {
					failed.Store(&err)
				}
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// snapshot has the member take one, by taking a backup.
func (m *member) snapshot(ctx context.Context) error {
	c, err := client.New(client.Config{Endpoints: []string{m.addr}})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Backup(ctx, discard{})
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// resident is the process's resident memory in MiB.
func (m *member) resident() int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	var kb int
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "VmRSS:") {
			fmt.Sscanf(line, "VmRSS: %d", &kb)
		}
	}
	return kb >> 10
}

// disk is the size of the data directory in MiB.
func (m *member) disk() int64 {
	var total int64
	_ = filepath.Walk(m.dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			total += info.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return nil
	})
	return total >> 20
}
