//go:build long

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestSecretsOfThreeMembers is the life of a prod cluster whose members get the
// secret by their environment, by a flag and by the name of a file in their
// environment, and whose clients have tokens and passwords in theirs.
func TestSecretsOfThreeMembers(t *testing.T) {
	l := newLife(t)
	l.concord("", "init", "prod", "--cluster", "canary", "--host", "127.0.0.1")
	secret := strings.TrimSpace(l.secret("the secret of the cluster", l.read("prod/secret")))
	root := strings.TrimSpace(l.secret("the root token", l.read("prod/root.token")))
	for _, name := range []string{"server", "admin", "ca"} {
		l.addPEM("the key of "+name, l.read("prod/"+name+".key"))
	}
	var members []*process
	var addrs, joins []string
	for range 3 {
		addrs, joins = append(addrs, l.port()), append(joins, l.port())
	}
	for i, env := range [][]string{
		{"CONCORD_SECRET=" + secret, "CONCORD_ROOT_TOKEN_FILE=prod/root.token"},
		nil,
		{"CONCORD_SECRET_FILE=prod/secret", "CONCORD_LOG_LEVEL=debug", "CONCORD_TLS_KEY=prod/server.key", "CONCORD_TLS_CERT=prod/server.pem"},
	} {
		args := []string{
			"serve", "--env", "prod", "--name", fmt.Sprint("n", i+1), "--cluster", "canary", "--no-multicast", "--gossip-addr", l.port(), "--peer-addr", joins[i],
			"--join", strings.Join(joins, ","), "--client-addr", addrs[i], "--data-dir", fmt.Sprint("d", i+1),
		}
		if i != 2 {
			args = append(args, "--log-level", "debug", "--tls-cert", "prod/server.pem", "--tls-key", "prod/server.key")
		}
		if i == 1 {
			args = append(args, "--secret-file", "prod/secret")
		}
		if i != 0 {
			args = append(args, "--root-token-file", "prod/root.token")
		}
		members = append(members, l.launch(env, args...))
	}
	for _, p := range members {
		l.serving(p)
	}
	l.env = append(l.env, "CONCORD_ENDPOINTS="+strings.Join(addrs, ","), "CONCORD_CLIENT_TLS_CA=prod/ca.pem", "CONCORD_TOKEN="+root)
	l.web.Transport, l.base = trusting(t, l.file("prod/ca.pem")), "https://"+addrs[0]
	l.ready()
	access, revoked, password := l.clients()
	for i, p := range members {
		l.base = "https://" + addrs[i]
		l.ready()
		l.member = p
		l.use(root, []string{access, revoked}, password, "another-horse-entirely-here")
	}
	for i, p := range members { // one crashes, the others end
		l.member = p
		l.end([]os.Signal{syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGTERM}[i])
	}
	l.rest("d1", "d2", "d3", "monday.backup")
	t.Logf("%d secrets in %d forms; looked through %d MiB of three members", l.secrets(), len(l.forms), l.seen>>20)
	if l.seen < 3<<20 {
		t.Errorf("only %d bytes were looked through", l.seen)
	}
}

// secrets is how many are looked for.
func (s *scanner) secrets() int {
	names := map[string]bool{}
	for _, f := range s.forms {
		names[f.secret] = true
	}
	return len(names)
}

// clients uses commands that get secrets by their environment and by standard
// input, good ones and wrong ones, and looks at what they print.
func (l *life) clients() (access, revoked, password string) {
	l.Helper()
	tell := func(args ...string) { l.clean(fmt.Sprintf("concord %v", args), []byte(l.concord("", args...))) }
	tell("put", "k", "v")
	password = l.secret("a password", "correct-horse-battery-staple")
	changed := l.secret("a new password", "another-horse-entirely-here")
	l.concord(password, "user", "add", "alice")
	l.concord("", "role", "add", "app")
	l.concord("", "role", "grant", "app", "readwrite", "app/", "--prefix")
	l.concord("", "user", "grant", "alice", "app")
	l.concord(changed, "user", "passwd", "alice")
	access = strings.TrimSpace(l.secret("an access token", l.concord("", "token", "create", "--name", "ci", "--role", "app")))
	revoked = strings.TrimSpace(l.secret("a revoked token", l.concord("", "token", "create", "--name", "old", "--role", "app", "-o", "value")))
	l.clean("token revoke", []byte(l.concord(revoked, "token", "revoke", "-")))
	l.clean("can", []byte(l.concord(access, "can", "-", "read", "app/x")))
	for _, line := range []string{
		"token ls", "token ls -o json", "cluster status", "cluster status -o json", "cluster members -o json", "cluster autopilot", "top --once", "log-level --all",
		"user ls", "user get alice", "role get app", "auth status", "lease ls", "get k -o json", "backup create monday.backup", "backup verify monday.backup",
	} {
		tell(strings.Fields(line)...)
	}
	good := l.env
	for who, env := range map[string][]string{
		"a revoked token": {"CONCORD_TOKEN=" + revoked}, "a mistyped token": {"CONCORD_TOKEN=" + access[:40] + "x" + access[41:]},
		"an old password": {"CONCORD_TOKEN=", "CONCORD_USER=alice", "CONCORD_PASSWORD=" + password},
		"a token too":     {"CONCORD_USER=alice:" + changed}, "rights that do not reach": {"CONCORD_TOKEN=" + access},
	} {
		l.env = append(good[:len(good):len(good)], env...)
		for _, line := range []string{"get k", "token ls", "cluster move-leader", "top --once", "user ls"} {
			l.clean(who+" with concord "+line, []byte(l.fails(strings.Fields(line)...)))
		}
	}
	l.env = append(good[:len(good):len(good)], "CONCORD_TOKEN=", "CONCORD_USER=alice", "CONCORD_PASSWORD="+changed)
	tell("put", "app/x", "v")
	l.env = good
	return access, revoked, password
}

// fails runs a command that may fail, and returns all that it prints.
func (l *life) fails(args ...string) string {
	l.Helper()
	cmd := l.command(args...)
	killer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer killer.Stop()
	out, _ := cmd.CombinedOutput() // its exit code is not what this is about
	if len(out) == 0 {
		l.Errorf("concord %v says nothing", args)
	}
	return string(out)
}
