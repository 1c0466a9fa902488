package foreign

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNpm installs the client of the lockfile into a directory of the test.
func TestNpm(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "npm")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "npm"))); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	onAll(t, func(t *testing.T, c *cluster) {
		c.check(dir, "node", "--test", "--test-force-exit", "--test-reporter=spec", "etcd3.test.mjs")
	})
}

// TestPython runs Debian's packages, which its own Python finds.
func TestPython(t *testing.T) {
	const python = "/usr/bin/python3"
	dir := filepath.Join("..", "python")
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	t.Setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python") // the messages of python3-etcd3 are older than the library
	run(t, dir, python, "-c", "import etcd3, etcd3gw")
	onAll(t, func(t *testing.T, c *cluster) {
		for _, script := range []string{"test_etcd3.py", "test_etcd3gw.py"} {
			c.check(dir, python, "-W", "ignore", script)
		}
	})
}

// TestCoreDNS runs CoreDNS's etcd plugin, which is a module of its own.
func TestCoreDNS(t *testing.T) {
	onAll(t, func(t *testing.T, c *cluster) {
		c.check(filepath.Join("..", "coredns"), "go", "test", "-count=1", "-v", "-timeout=5m", ".")
	})
}

// TestPatroni runs Debian's Patroni and PostgreSQL.
func TestPatroni(t *testing.T) {
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	onAll(t, func(t *testing.T, c *cluster) {
		c.check(filepath.Join("..", "patroni"), "/usr/bin/python3", "test_patroni.py")
	})
}

// run runs a command and shows what it prints.
func run(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	t.Logf("%s\n%s", strings.Join(command, " "), out)
	if err != nil {
		t.Fatal(err)
	}
}

// check runs a command that asks the cluster.
func (c *cluster) check(dir string, command ...string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.WaitDelay = dir, patience
	cmd.Env = append(os.Environ(), "ENDPOINTS="+strings.Join(c.clients, ","), "SERVER="+c.server, "CONTROL="+c.control())
	out, err := cmd.CombinedOutput()
	c.t.Logf("%s\n%s", strings.Join(command, " "), out)
	if err != nil {
		c.t.Fatal(err)
	}
}

// onAll runs a check on etcd, on one member of Concord and on three.
func onAll(t *testing.T, check func(*testing.T, *cluster)) {
	bin := t.TempDir()
	concord, etcd := filepath.Join(bin, "concord"), filepath.Join(bin, "etcd-itself")
	run(t, filepath.Join("..", ".."), "go", "build", "-o", concord, "./cmd/concord")
	run(t, ".", "go", "build", "-o", etcd, "go.etcd.io/etcd/server/v3")
	t.Run("etcd", func(t *testing.T) { check(t, start(t, "etcd", etcd, 1)) })
	t.Run("one", func(t *testing.T) { check(t, start(t, "concord", concord, 1)) })
	t.Run("three", func(t *testing.T) { check(t, start(t, "concord", concord, 3)) })
}
