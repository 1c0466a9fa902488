package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/loopback"
)

// life is a member with secrets, as a process, and what it is asked for.
type life struct {
	*testing.T
	scanner
	dir    string
	member *process
	env    []string // of clients
	web    *http.Client
	base   string // of URLs
	said   []string
}

func newLife(t *testing.T) *life {
	return &life{T: t, dir: t.TempDir(), web: &http.Client{Timeout: time.Minute}, env: append(os.Environ(), "CONCORD_TOKEN=", "CONCORD_USER=")}
}

func (l *life) file(name string) string { return filepath.Join(l.dir, name) }

func (l *life) read(name string) string {
	l.Helper()
	data, err := os.ReadFile(l.file(name))
	if err != nil {
		l.Fatal(err)
	}
	return string(data)
}

// secret has a secret watched, and returns it.
func (l *life) secret(name, value string) string {
	l.add(name, strings.TrimSpace(value))
	return value
}

func (l *life) command(args ...string) *exec.Cmd {
	cmd := exec.Command("concord", args...)
	cmd.Dir, cmd.Env = l.dir, l.env
	return cmd
}

// concord runs a command and returns what it prints to standard output.
func (l *life) concord(input string, args ...string) string {
	l.Helper()
	cmd := l.command(args...)
	cmd.Stdin = strings.NewReader(input)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		l.Fatalf("concord %v: %v: %s%s", args, err, out.Bytes(), said.Bytes())
	}
	l.said = append(l.said, said.String())
	return out.String()
}

// start starts the member and looks at what others see of the process.
func (l *life) start(args ...string) {
	l.Helper()
	l.serving(l.launch(nil, args...))
}

// launch starts a member, with more in its environment, and does not wait for it.
func (l *life) launch(env []string, args ...string) *process {
	l.Helper()
	p := &process{cmd: exec.Command("concord", args...), want: regexp.MustCompile(`(?:serves clients at |serve client requests","urls":")([^\s,"]+)`), found: make(chan string, 1), ended: make(chan struct{})}
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = l.dir, p, p
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + l.dir, "GOTRACEBACK=all"}, env...)
	if err := p.cmd.Start(); err != nil {
		l.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }() // how it ended is in ProcessState
	l.Cleanup(func() { _ = p.cmd.Process.Kill(); <-p.ended })
	l.member = p
	return p
}

// serving waits until a member serves, and looks at what others see of it: what
// the operator has put into its environment is there.
func (l *life) serving(p *process) {
	l.Helper()
	select {
	case <-p.found:
	case <-p.ended:
		l.Fatalf("the member ended: %s", p.said())
	case <-time.After(time.Minute):
		l.Fatalf("the member does not serve: %s", p.said())
	}
	for _, name := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, name))
		if err != nil {
			l.Fatal(err)
		}
		if name == "environ" {
			for _, own := range p.cmd.Env {
				data = bytes.ReplaceAll(data, []byte(own+"\x00"), nil)
			}
		}
		l.clean("the process's "+name, data)
	}
}

// end ends the member, and looks through all that it has said.
func (l *life) end(how os.Signal) {
	l.Helper()
	if err := l.member.cmd.Process.Signal(how); err != nil {
		l.Fatal(err)
	}
	select {
	case <-l.member.ended:
	case <-time.After(time.Minute):
		l.Fatalf("the member does not end: %s", l.member.said())
	}
	l.clean("the log", []byte(l.member.said()))
}

// clean fails where data has a secret.
func (l *life) clean(where string, data []byte) {
	l.Helper()
	for _, leak := range l.find(where, data) {
		l.Error(leak)
	}
}

// visit makes a request; what is answered must be clean, unless it gives a secret
// out.
func (l *life) visit(method, path, token, body string) (int, []byte) {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, l.base+path, strings.NewReader(body))
	if err != nil {
		l.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := l.web.Do(r)
	if err != nil {
		l.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		l.Fatal(err)
	}
	if path != "/v3/auth/authenticate" {
		l.clean(method+" "+path, answer)
	}
	return resp.StatusCode, answer
}

// login returns the token for a name and password.
func (l *life) login(name, password string) string {
	l.Helper()
	body, _ := json.Marshal(map[string]string{"name": name, "password": password}) // of strings: no error
	code, answer := l.visit(http.MethodPost, "/v3/auth/authenticate", "", string(body))
	var got struct{ Token string }
	if err := json.Unmarshal(answer, &got); code != http.StatusOK || err != nil || got.Token == "" {
		l.Fatalf("login of %s: %d %s", name, code, answer)
	}
	return got.Token
}

// look visits all pages that tell something, and does what goes wrong.
func (l *life) look(root string) {
	l.Helper()
	for _, path := range []string{
		"/metrics", "/debug/vars", "/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs", "/debug/pprof/goroutine?debug=2",
		"/debug/pprof/trace?seconds=0.1", "/debug/pprof/profile?seconds=1", "/debug/pprof/cmdline", "/version", "/health", "/livez?verbose", "/readyz?verbose",
		"/v1/cluster/status", "/v1/cluster/members", "/v1/cluster/autopilot", "/v1/auth/tokens", "/v1/log-level", "/v1/nothing",
	} {
		for _, token := range []string{root, "", root + "x"} {
			l.visit(http.MethodGet, path, token, "")
		}
	}
	for _, path := range []string{"/v3/auth/user/list", "/v3/auth/user/get", "/v3/auth/role/list", "/v3/cluster/member/list", "/v3/maintenance/status", "/v3/auth/status"} {
		l.visit(http.MethodPost, path, root, `{"name":"root"}`)
		l.visit(http.MethodPost, path, "no-"+root, `{}`)
	}
	// Secrets where they do not belong are not repeated.
	l.visit(http.MethodPost, "/v3/kv/range", root, `{"token":"`+root+`"}`)
	l.visit(http.MethodPost, "/v1/auth/tokens", root, `{"nonsense":"`+root+`"}`)
	l.visit(http.MethodPut, "/v1/cluster/autopilot", root, `{"dead_server_wait":"`+root+`"}`)
}

// rest looks at what is left on disk.
func (l *life) rest(names ...string) {
	l.Helper()
	for _, name := range names {
		leaks, err := l.findIn(l.file(name))
		if err != nil {
			l.Error(err)
		}
		for _, leak := range leaks {
			l.Error(leak)
		}
	}
	for _, said := range l.said {
		l.clean("what a command says", []byte(said))
	}
}

// port is a free address on loopback.
func (l *life) port() string {
	l.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(release)
	return addr
}

// TestSecretsStayWhereTheyBelong runs a member of a prod cluster from its first
// start over logins, tokens, backups and a crash, and looks for every secret in
// all that it writes and says.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	l := newLife(t)
	at, peer, gossip := l.port(), l.port(), l.port()
	l.concord("", "init", "prod", "--expect", "1", "--cluster", "canary", "--host", "127.0.0.1")
	l.secret("the secret of the cluster", l.read("prod/secret"))
	root := strings.TrimSpace(l.secret("the root token", l.read("prod/root.token")))
	for _, name := range []string{"server", "admin", "ca"} {
		l.addPEM("the key of "+name, l.read("prod/"+name+".key"))
	}
	serve := []string{
		"serve", "--env", "prod", "--name", "n1", "--cluster", "canary", "--expect", "1", "--no-multicast", "--gossip-addr", gossip, "--peer-addr", peer,
		"--secret-file", "prod/secret", "--root-token-file", "prod/root.token", "--tls-cert", "prod/server.pem", "--tls-key", "prod/server.key",
		"--client-addr", at, "--data-dir", "data", "--log-level", "debug",
	}
	l.start(serve...)
	l.env = append(l.env, "CONCORD_ENDPOINTS="+at, "CONCORD_CLIENT_TLS_CA=prod/ca.pem", "CONCORD_TOKEN_FILE=prod/root.token")
	l.web.Transport, l.base = trusting(t, l.file("prod/ca.pem")), "https://"+at
	l.ready()
	l.concord("", "put", "k", "v")
	password := l.secret("a password", "correct-horse-battery-staple")
	changed := l.secret("a new password", "another-horse-entirely-here")
	l.concord(password, "user", "add", "alice")
	l.concord("", "role", "add", "app")
	l.concord("", "role", "grant", "app", "readwrite", "app/", "--prefix")
	l.concord("", "user", "grant", "alice", "app")
	l.concord(changed, "user", "passwd", "alice")
	access := strings.TrimSpace(l.secret("an access token", l.concord("", "token", "create", "--name", "ci", "--role", "app")))
	revoked := strings.TrimSpace(l.secret("a revoked token", l.concord("", "token", "create", "--name", "old", "--role", "app")))
	l.concord("", "token", "revoke", "old")
	l.concord("", "token", "ls")
	l.use(root, []string{access, revoked}, password, changed)
	l.concord("", "backup", "create", "monday.backup")
	l.end(syscall.SIGQUIT) // Go's crash: the stacks of all goroutines
	if !strings.Contains(l.member.said(), "goroutine ") {
		t.Error("the crash says nothing")
	}
	l.start(serve...)
	l.concord("", "get", "k")
	l.end(syscall.SIGTERM)
	l.rest("data", "monday.backup")
	if l.seen < 1<<20 {
		t.Errorf("only %d bytes were looked through", l.seen)
	}

	// A secret that somebody has written is found.
	if t.Failed() {
		return
	}
	l.start(serve...)
	l.concord("", "put", "mistake", "the token is "+access)
	l.end(syscall.SIGTERM)
	if leaks, err := l.findIn(l.file("data")); err != nil || !slices.ContainsFunc(leaks, func(s string) bool { return strings.HasPrefix(s, "an access token is in ") }) {
		t.Errorf("a planted token was not found: %q, %v", leaks, err)
	}
}

// use calls with every kind of credentials: root's, other access tokens, and a
// password with the one that took its place.
func (l *life) use(root string, access []string, password, changed string) {
	l.Helper()
	session := l.secret("a session", l.login("alice", changed))
	for _, token := range append([]string{root, session, session + "x", access[0] + "x"}, access...) {
		for _, path := range []string{"/v3/kv/range", "/v3/kv/put", "/v3/auth/user/list", "/v3/lease/grant"} {
			l.visit(http.MethodPost, path, token, `{"key":"YXBwL2E=","value":"dg==","TTL":"60"}`)
		}
	}
	for _, wrong := range []string{password, changed + "x", root + "x"} {
		body := fmt.Sprintf(`{"name":"alice","password":%q}`, wrong)
		if code, answer := l.visit(http.MethodPost, "/v3/auth/authenticate", "", body); code == http.StatusOK {
			l.Errorf("a wrong password gives %s", answer)
		} else {
			l.clean("a refused login", answer)
		}
	}
	l.look(root)
}

// ready waits until the member serves, with authentication on.
func (l *life) ready() {
	l.Helper()
	for end := time.Now().Add(time.Minute); ; {
		code, answer := l.visit(http.MethodGet, "/readyz", "", "")
		if code == http.StatusOK {
			return
		}
		if time.Now().After(end) {
			l.Fatalf("the member does not become ready: %s", answer)
		}
	}
}

// trusting is a transport for servers of one authority.
func trusting(t *testing.T, path string) *http.Transport {
	t.Helper()
	ca, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no authority")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// TestSecretsOfJWT is the same with JSON Web Tokens, profiles and etcd's names of
// settings.
func TestSecretsOfJWT(t *testing.T) {
	t.Parallel()
	l := newLife(t)
	at, peer := l.port(), l.port()
	key := l.secret("the key of tokens", "the-key-that-signs-all-tokens")
	if err := os.WriteFile(l.file("jwt.key"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	l.env, l.base = append(l.env, "CONCORD_ENDPOINTS="+at), "http://"+at
	l.start("etcd", "--name", "n1", "--data-dir", "data", "--listen-client-urls", "http://"+at, "--advertise-client-urls", "http://"+at,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "n1=http://"+peer,
		"--auth-token", "jwt,sign-method=HS256,priv-key=jwt.key", "--enable-pprof", "--log-level", "debug")
	password := l.secret("the password of root", "correct-horse-battery-staple")
	l.concord(password, "user", "add", "root")
	l.concord("", "user", "grant", "root", "root")
	l.concord("", "auth", "enable")
	root := l.login("root", password)
	if strings.Count(root, ".") != 2 {
		t.Errorf("no JSON Web Token: %s", root)
	}
	signature := root[strings.LastIndexByte(root, '.')+1:]
	l.secret("a JSON Web Token", root)
	l.secret("the signature of a token", signature)
	l.look(root)
	code, answer := l.visit(http.MethodPost, "/v3/maintenance/snapshot", root, "{}")
	if code != http.StatusOK || len(answer) < 1<<10 {
		t.Errorf("snapshot: %d, %d bytes", code, len(answer))
	}
	l.end(syscall.SIGQUIT)
	l.rest("data")
}
