package foreign

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concord-kv/concord/compat/authority"
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

// TestKubeAPI runs kube-apiserver, which is built by a module of its own, also
// on servers that ask for client certificates.
func TestKubeAPI(t *testing.T) {
	dir, program := filepath.Join("..", "kubeapi"), filepath.Join(t.TempDir(), "kube-apiserver")
	run(t, dir, "go", "build", "-ldflags=-X k8s.io/component-base/version.gitVersion=v1.37.2", "-o", program, "k8s.io/kubernetes/cmd/kube-apiserver")
	check := func(t *testing.T, c *cluster) {
		var addresses []string
		for range 3 {
			addresses = append(addresses, reserve(t))
		}
		c.env = append(c.env, "KUBE_APISERVER="+program, "ADDRESSES="+strings.Join(addresses, ","))
		if k := c.keys; k != nil {
			c.env = append(c.env, "CA="+k.Path(authority.CA), "CERT="+k.Path("client"), "KEY="+k.Key("client"))
		}
		c.check(dir, "go", "test", "-count=1", "-v", "-timeout=9m", ".")
	}
	onAll(t, check)
	onAllTLS(t, check)
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
	cmd.Env = append(append(os.Environ(), c.env...), "ENDPOINTS="+strings.Join(c.clients, ","), "SERVER="+c.server, "CONTROL="+c.control())
	out, err := cmd.CombinedOutput()
	c.t.Logf("%s\n%s", strings.Join(command, " "), out)
	if err != nil {
		c.t.Fatal(err)
	}
}

// onAll runs a check on etcd, on one member of Concord and on three.
func onAll(t *testing.T, check func(*testing.T, *cluster)) {
	on(t, check, func(*testing.T) *authority.Authority { return nil })
}

// onAllTLS does so with TLS, where clients need certificates.
func onAllTLS(t *testing.T, check func(*testing.T, *cluster)) {
	t.Run("tls", func(t *testing.T) {
		on(t, check, func(t *testing.T) *authority.Authority { return authority.New(t, "server", "peer", "client") })
	})
}

func on(t *testing.T, check func(*testing.T, *cluster), keys func(*testing.T) *authority.Authority) {
	bin := t.TempDir()
	concord, etcd := filepath.Join(bin, "concord"), filepath.Join(bin, "etcd-itself")
	run(t, filepath.Join("..", ".."), "go", "build", "-o", concord, "./cmd/concord")
	run(t, ".", "go", "build", "-o", etcd, "go.etcd.io/etcd/server/v3")
	t.Run("etcd", func(t *testing.T) { check(t, (&cluster{server: "etcd", program: etcd, keys: keys(t)}).start(t, 1)) })
	t.Run("one", func(t *testing.T) {
		check(t, (&cluster{server: "concord", program: concord, keys: keys(t)}).start(t, 1))
	})
	t.Run("three", func(t *testing.T) {
		check(t, (&cluster{server: "concord", program: concord, keys: keys(t)}).start(t, 3))
	})
}
