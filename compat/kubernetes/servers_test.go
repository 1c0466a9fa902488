package kubernetes

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"k8s.io/apiserver/pkg/storage/etcd3/testserver"

	"github.com/concord-kv/concord/internal/loopback"
)

// patience is how long anything may take on a busy machine.
const patience = time.Minute

// progress is how often watches say how far they are, where that is asked for;
// etcd's default is ten minutes.
const progress = time.Second

// A servers starts fresh servers for one test and returns their URLs.
type servers func(t *testing.T, progress bool) []string

// etcd is etcd's embed server, as the tests of Kubernetes start it.
func etcd(t *testing.T, progressNotify bool) []string {
	t.Helper()
	cfg := testserver.NewTestConfig(t)
	if progressNotify {
		cfg.WatchProgressNotifyInterval = progress
	}
	return testserver.RunEtcd(t, cfg).Endpoints()
}

// concord returns what starts so many members from etcd's command line.
func concord(program string, members int) servers {
	return func(t *testing.T, progressNotify bool) []string {
		t.Helper()
		var clients, peers, initial []string
		for i := range members {
			clients, peers = append(clients, reserve(t)), append(peers, reserve(t))
			initial = append(initial, fmt.Sprintf("m%d=%s", i, peers[i]))
		}
		dir, readies := dataDir(t), make([]<-chan error, members)
		for i := range members {
			args := []string{
				"etcd", "--name", fmt.Sprintf("m%d", i), "--data-dir", filepath.Join(dir, fmt.Sprint(i)),
				"--listen-client-urls", clients[i], "--advertise-client-urls", clients[i],
				"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
				"--initial-cluster", strings.Join(initial, ","),
			}
			if progressNotify {
				args = append(args, "--watch-progress-notify-interval", progress.String())
			}
			readies[i] = start(t, exec.Command(program, args...))
		}
		deadline := time.After(patience)
		for i, ready := range readies {
			select {
			case err := <-ready:
				if err != nil {
					t.Fatalf("member %d: %v", i, err)
				}
			case <-deadline:
				t.Fatalf("member %d did not get ready", i)
			}
		}
		return clients
	}
}

// start starts a process that is ended with the test. What it returns yields
// nil once the process serves clients, or an error once its log has ended.
func start(t *testing.T, cmd *exec.Cmd) <-chan error {
	t.Helper()
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, done := make(chan error, 2), make(chan struct{})
	var log strings.Builder
	go func() {
		defer close(done)
		for lines := bufio.NewReader(pipe); ; {
			line, err := lines.ReadString('\n')
			log.WriteString(line)
			if strings.Contains(line, "ready to serve client requests") {
				select {
				case ready <- nil:
				default: // it is said once for each address
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					fmt.Fprintln(&log, err)
				}
				select {
				case ready <- errors.New("the process ended"):
				default:
				}
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		<-done
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v", cmd, err)
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", cmd, log.String())
		}
	})
	return ready
}

// build builds the program into a directory of the test.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "concord")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/concord")
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return program
}

// reserve returns the URL of a free address.
func reserve(t *testing.T) string {
	t.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return "http://" + addr
}

// memory is the usual file system in memory of Linux.
const memory = "/dev/shm"

// dataDir is a fresh directory, in memory where there is one: nothing here tests
// disks.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(memory, "concord-kubernetes-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// settings are a client's.
func settings(ctx context.Context, endpoints []string) clientv3.Config {
	return clientv3.Config{Context: ctx, Endpoints: endpoints, DialTimeout: patience}
}
