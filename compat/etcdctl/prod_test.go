package etcdctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/loopback"
)

// prod is a cluster of three members under "concord serve --env prod" with all
// that "concord init" makes. Everybody reaches the first by TLS, the others by
// TLS with a certificate of the cluster's authority.
type prod struct {
	*testing.T
	concord, etcdctl, dir string
	members               []string // addresses for clients
}

// startProd starts it and waits until it serves.
func startProd(t *testing.T) *prod {
	p := &prod{
		T: t, dir: t.TempDir(),
		concord: build(t, "concord", filepath.Join("..", ".."), "./cmd/concord"), etcdctl: build(t, "etcdctl", ".", "go.etcd.io/etcd/etcdctl/v3"),
	}
	p.must(p.concord, "init", "prod", "--host", "127.0.0.1", "--cluster", "prod")
	var peers []string
	for i := range 3 {
		p.members = append(p.members, p.reserve())
		peers = append(peers, fmt.Sprintf("n%d=%s", i+1, p.reserve()))
	}
	for i, addr := range p.members {
		args := []string{
			"serve", "--env", "prod", "--name", fmt.Sprint("n", i+1), "--data-dir", fmt.Sprint("d", i+1), "--client-addr", addr, "--peers", strings.Join(peers, ","),
			"--secret-file", "prod/secret", "--root-token-file", "prod/root.token", "--tls-cert", "prod/server.pem", "--tls-key", "prod/server.key",
		}
		if i > 0 {
			args = append(args, "--tls-client-ca", "prod/ca.pem")
		}
		p.serve(args)
	}
	for end := time.Now().Add(2 * startTimeout); ; {
		out, err := p.root("put", "ready", "yes")
		if err == nil {
			return p
		}
		if time.Now().After(end) {
			t.Fatalf("the cluster does not serve: %s", out)
		}
	}
}

func (p *prod) reserve() string {
	p.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		p.Fatal(err)
	}
	p.Cleanup(release)
	return addr
}

// serve starts a member, which ends with the test.
func (p *prod) serve(args []string) {
	p.Helper()
	var log bytes.Buffer
	cmd := exec.Command(p.concord, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.dir, &log, &log
	if err := cmd.Start(); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		killer := time.AfterFunc(startTimeout, func() { _ = cmd.Process.Kill() })
		defer killer.Stop()
		if err := cmd.Wait(); err != nil {
			p.Errorf("a member ended: %v", err)
		}
		if p.Failed() {
			p.Logf("%s", log.Bytes()[max(0, log.Len()-4000):])
		}
	})
}

func (p *prod) run(program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(p.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = p.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p *prod) must(program string, args ...string) string {
	p.Helper()
	out, err := p.run(program, args...)
	if err != nil {
		p.Fatalf("%s %v: %v: %s", filepath.Base(program), args, err, out)
	}
	return out
}

// root runs a command of concord with the root token, at the first member.
func (p *prod) root(args ...string) (string, error) {
	args = append(args, "--endpoints", p.members[0], "--tls-ca", "prod/ca.pem", "--token-file", "prod/root.token", "--timeout", "1m")
	return p.run(p.concord, args...)
}

func (p *prod) mustRoot(args ...string) string {
	p.Helper()
	out, err := p.root(args...)
	if err != nil {
		p.Fatalf("concord %v: %v: %s", args, err, out)
	}
	return out
}

var secretToken = regexp.MustCompile(`sk_concord_\w+`)

// people makes the user alice with a password and a certificate, an access token
// of the same role, and one that was revoked.
func (p *prod) people() (token, revoked, root string) {
	p.Helper()
	p.mustRoot("role", "add", "app")
	p.mustRoot("role", "grant", "app", "readwrite", "app/", "--prefix")
	if out, err := p.etcd(0, "--user", "x:"+p.read("prod/root.token"), "user", "add", "alice:pass"); err != nil {
		p.Fatalf("user add: %v: %s", err, out)
	}
	p.mustRoot("user", "grant", "alice", "app")
	p.must(p.concord, "tls", "client", "alice", "--dir", "prod")
	token = secretToken.FindString(p.mustRoot("token", "create", "--role", "app", "--name", "ci"))
	revoked = secretToken.FindString(p.mustRoot("token", "create", "--role", "app", "--name", "old"))
	p.mustRoot("token", "revoke", "old")
	return token, revoked, p.read("prod/root.token")
}

func (p *prod) read(name string) string {
	p.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// etcd runs etcdctl at a member.
func (p *prod) etcd(member int, args ...string) (string, error) {
	return p.run(p.etcdctl, append([]string{"--endpoints", "https://" + p.members[member], "--cacert", "prod/ca.pem", "--command-timeout", "60s", "--dial-timeout", "60s"}, args...)...)
}

// TestProd has etcdctl and curl talk to members in production: with TLS and with
// certificates, as nobody, by password, by certificate, and with access tokens,
// also in the place of a password.
func TestProd(t *testing.T) {
	p := startProd(t)
	token, revoked, root := p.people()
	by := func(user string) []string { return []string{"--user", user} }
	cert := []string{"--cert", "prod/alice.pem", "--key", "prod/alice.key"}
	admin := []string{"--cert", "prod/admin.pem", "--key", "prod/admin.key"}
	const denied, wrong = `etcdserver: permission denied`, `etcdserver: authentication failed, invalid user ID or password`
	for _, c := range []struct {
		who    string
		member int
		as     []string
		line   string
		want   string
	}{
		{"nobody", 0, nil, "get app/a", `etcdserver: user name is empty`},
		{"alice", 0, by("alice:pass"), "put app/a 1", `^OK\n$`}, {"alice", 0, by("alice:pass"), "get app/a", `^app/a\n1\n$`},
		{"alice", 0, by("alice:pass"), "get other", denied}, {"alice", 0, by("alice:pass"), "user list", denied},
		{"a wrong password", 0, by("alice:x"), "get app/a", wrong},
		{"a token", 0, by("anybody:" + token), "put app/b 2", `^OK\n$`}, {"a token", 0, by("anybody:" + token), "get app/ --prefix", `^app/a\n1\napp/b\n2\n$`},
		{"a token", 0, by("anybody:" + token), "put other 1", denied}, {"a token", 0, by("anybody:" + token), "role list", denied},
		{"a revoked token", 0, by("anybody:" + revoked), "get app/a", wrong}, {"a mistyped token", 0, by("anybody:" + token[:50]), "get app/a", wrong},
		{"a token of root", 0, by("root:" + root), "user list", `^alice\n$`},
		{"a certificate", 1, cert, "put app/c 3", `^OK\n$`}, {"a certificate", 2, cert, "get app/c", `^app/c\n3\n$`},
		{"a certificate", 2, cert, "put other 3", denied}, {"a certificate", 1, cert, "user list", denied},
		{"a certificate and a password", 1, append(by("alice:pass"), cert...), "del app/c", `^1\n$`},
		{"a certificate and a token", 2, append(by("x:"+token), cert...), "get app/a", `^app/a\n1\n$`},
		{"the administrator's certificate and a token of root", 1, append(by("x:"+root), admin...), "role get app", `(?s)^Role app\n.*app/`},
		{"the administrator's certificate and a token of root", 2, append(by("x:"+root), admin...), "lease grant 60", `granted with TTL\(60s\)`},
		{"the administrator's certificate alone", 2, admin, "put app/a 1", `etcdserver: (user name not found|permission denied)`},
	} {
		out, _ := p.etcd(c.member, append(c.as, strings.Fields(c.line)...)...)
		for strings.HasPrefix(out, `{"level":"warn"`) { // etcdctl's log before what it says
			_, out, _ = strings.Cut(out, "\n")
		}
		if !regexp.MustCompile(c.want).MatchString(out) {
			t.Errorf("%s: etcdctl %s: %q, want %s", c.who, c.line, out, c.want)
		}
	}
	if out, err := p.etcd(1, "--command-timeout", "3s", "--user", "alice:pass", "get", "app/a"); err == nil {
		t.Errorf("without a certificate: %s", out)
	}
	p.curl(token, revoked, root)
}

// curl asks with a choice of HTTP/1.1 alone, and of HTTP/2 besides, of which
// members take HTTP/1.1: by HTTP/2 they speak gRPC.
func (p *prod) curl(token, revoked, root string) {
	p.Helper()
	cert := []string{"--cert", "prod/alice.pem", "--key", "prod/alice.key"}
	const get, key = "/v3/kv/range", `{"key":"YXBwL2E="}`
	for _, version := range []string{"1.1", "2"} {
		for _, c := range []struct {
			who, token string
			member     int
			more       []string
			path, body string
			want       string
		}{
			{"nobody", "", 0, nil, get, key, `"code":3.*\n400$`}, {"nobody", "", 0, nil, "/v1/cluster/status", "", `"unauthenticated".*\n401$`},
			{"nobody", "", 0, nil, "/version", "", `"etcdserver".*\n200$`},
			{"a token", token, 0, nil, get, key, `"value":"MQ==".*\n200$`}, {"a token", token, 0, nil, "/v3/kv/put", `{"key":"b3RoZXI="}`, `permission denied.*\n403$`},
			{"a token", token, 0, nil, "/v1/auth/tokens", "", `"name":"ci".*\n200$`},
			{"a revoked token", revoked, 0, nil, get, key, `invalid auth token.*\n401$`}, {"a mistyped token", token[:50], 0, nil, get, key, `\n401$`},
			{"a token of root", root, 0, nil, "/v1/auth/can", `{"who":"alice","access":"read","key":"app/x"}`, `"allowed":true.*\n200$`},
			{"a token and a certificate", token, 1, cert, "/v1/auth/tokens", "", `"name":"ci".*\n200$`},
			{"a certificate", "", 2, cert, "/v1/auth/can", `{"who":"alice","access":"write","key":"app/x"}`, `"allowed":true.*\n200$`},
			{"a certificate's name at the gateway", token, 1, cert, get, key, `CommonName of client sending a request against gateway will be ignored.*\n400$`}, // as etcd
		} {
			args := []string{"--silent", "--show-error", "--max-time", "60", "--http" + version, "--cacert", "prod/ca.pem", "--write-out", `\n%{http_version} %{http_code}`}
			if c.token != "" {
				args = append(args, "--oauth2-bearer", c.token)
			}
			if c.body != "" {
				args = append(args, "--header", "Content-Type: application/json", "--data", c.body)
			} else {
				args = append(args, "--header", "Content-Type: application/json")
			}
			out, err := p.run("curl", append(append(args, c.more...), "https://"+p.members[c.member]+c.path)...)
			want := strings.Replace(c.want, `\n`, `\s*\n`+"1\\.1 ", 1)
			if err != nil || !regexp.MustCompile("(?s)"+want).MatchString(out) {
				p.Errorf("%s: %s by HTTP/%s: %q, %v, want %s", c.who, c.path, version, out, err, want)
			}
		}
	}
	if out, err := p.run("curl", "--silent", "--show-error", "--max-time", "60", "--cacert", "prod/ca.pem", "https://"+p.members[1]+"/version"); err == nil {
		p.Errorf("without a certificate: %s", out)
	}
}
