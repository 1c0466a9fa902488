package etcdctl

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

// build builds a program and returns its path.
func build(t *testing.T, name, dir, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", program, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// endpoints finds the addresses that concord dev says it serves clients on.
var endpoints = regexp.MustCompile(`127\.0\.0\.1:\d+(?:,127\.0\.0\.1:\d+)+`)

// startTimeout bounds the start of a cluster on a busy machine.
const startTimeout = time.Minute

// concordDev runs concord dev with three members until the test ends.
func concordDev(t *testing.T) string {
	t.Helper()
	program := build(t, "concord", filepath.Join("..", ".."), "./cmd/concord")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "dev", "--nodes", "3", "--port", "0", "--data-dir", t.TempDir())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = startTimeout
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, done := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(done)
		defer close(found)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if e := endpoints.FindString(lines.Text()); e != "" && len(found) == 0 {
				found <- e
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	})
	select {
	case e, ok := <-found:
		if !ok {
			t.Fatal("concord dev ended without an endpoint")
		}
		return e
	case <-time.After(startTimeout):
		t.Fatal("concord dev printed no endpoint")
	}
	panic("unreachable")
}
