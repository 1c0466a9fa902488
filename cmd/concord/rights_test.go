package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/concordtest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// asked is a command that talks to a member, as it is given, and what it asks of
// its caller. It leaves nothing for which the next one would end otherwise.
type asked struct {
	args  string
	need  string
	stdin string
	// once says that it does leave something: who may make it does not.
	once bool
}

// What commands ask: keys below in/ to be read or written, or both; keys outside
// of that; to be anybody; or a part of the administration.
const (
	nothing = "nothing"
	anybody = "anybody"
	itself  = "an access token"
	reads   = "read"
	writes  = "write"
	both    = "both"
	manages = "cluster"
	governs = "auth"
	saves   = "backup"
	watches = "telemetry"
	rules   = "root"
)

// commands has every command with the flag --endpoints; etcd is where another
// store serves.
func commands(etcd string) []asked {
	const member = "nosuch"
	return []asked{
		{args: "get in/key", need: reads}, {args: "get in/ --prefix --level eventual", need: reads}, {args: "get out/key", need: "out"}, {args: "get --prefix ''", need: rules},
		{args: "put in/new x", need: writes}, {args: "put out/new x", need: "out"}, {args: "put in/key x --if-rev 1", need: both},
		{args: "del in/nothing", need: writes}, {args: "ls in/", need: reads},
		{args: "txn", need: both, stdin: "value(\"in/key\") = \"x\"\n\nput in/new x\n\nget in/key\n"},
		{args: "watch in/ --prefix --rev 2 --limit 1", need: reads},
		{args: "lease grant 1h --id 1b59", need: anybody}, {args: "lease keep-alive --once 1b59", need: writes}, {args: "lease ls", need: reads},
		{args: "lease revoke 77", need: anybody}, {args: "lease ttl 1b59", need: anybody}, {args: "lease ttl 1b59 --keys", need: reads},
		{args: "cluster status", need: anybody}, {args: "top --once --interval 100ms", need: anybody}, {args: "log-level", need: watches}, {args: "log-level debug", need: manages}, {args: "cluster members", need: anybody}, {args: "cluster autopilot", need: anybody},
		{args: "cluster autopilot --voters 2", need: manages}, {args: "cluster add nowhere", need: manages}, {args: "cluster promote " + member, need: manages},
		{args: "cluster remove " + member, need: manages}, {args: "cluster move-leader " + member, need: manages}, {args: "cluster leave " + member, need: manages},
		{args: "backup create -", need: saves}, {args: "import etcd --prefix in/ --endpoint " + etcd, need: both, once: true}, {args: "import etcd --endpoint " + etcd, need: rules, once: true},
		{args: "auth status", need: nothing}, {args: "auth enable", need: governs}, {args: "auth disable", need: rules, once: true},
		{args: "user add insider --no-password", need: governs}, {args: "user get root", need: governs}, {args: "user ls", need: governs}, {args: "user del nobody", need: governs},
		{args: "user passwd nobody", need: governs, stdin: "x\n"}, {args: "user grant nobody none", need: governs}, {args: "user grant insider root", need: rules, once: true},
		{args: "user revoke nobody none", need: governs},
		{args: "role add inside", need: governs}, {args: "role get root", need: governs}, {args: "role ls", need: governs}, {args: "role del none", need: governs},
		{args: "role grant none read k", need: governs}, {args: "role revoke none k", need: governs},
		{args: "token create --role nosuch", need: governs}, {args: "token create --role root", need: rules, once: true}, {args: "token ls", need: itself},
		{args: "token revoke nosuch", need: governs}, {args: "can user:insider read in/key", need: governs + " or insider"},
	}
}

// shown is what a caller shows, and may do.
type shown struct {
	name, token string
	bad         bool
	may         []string
}

// allowed reports whether a command is let through.
func (s *shown) allowed(need string) bool {
	switch {
	case need == nothing:
		return !s.bad
	case s.bad || s.token == "":
		return false
	case need == anybody, slices.Contains(s.may, need), slices.Contains(s.may, rules), need == itself && strings.HasPrefix(s.token, kv.TokenPrefix):
		return true
	}
	return need == both && slices.Contains(s.may, reads) && slices.Contains(s.may, writes) ||
		strings.HasPrefix(need, governs) && slices.Contains(s.may, governs)
}

// openDoor serves a member, until end is called.
func openDoor(t *testing.T, node *concord.Node) (addr string, end func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(node, node, server.Config{Listeners: []net.Listener{l}, LogLevel: new(slog.LevelVar)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return l.Addr().String(), func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// furnish makes what commands find, and switches authentication on.
func furnish(t *testing.T, n *concord.Node) {
	t.Helper()
	ctx := t.Context()
	inside := kv.Permission{Access: kv.ReadWriteAccess, Key: []byte("in/"), End: []byte("in0")}
	_, grant := n.Grant(ctx, kv.Grant{ID: 0x1b59, TTL: time.Hour})
	_, leased := n.Txn(ctx, kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("in/leased"), Lease: 0x1b59}}})
	_, put := kv.Put(ctx, n, "in/key", "x")
	_, out := kv.Put(ctx, n, "out/key", "x")
	_, root := n.AddUser(ctx, kv.NewUser{Name: "root", NoPassword: true})
	_, rootRole := n.AddRole(ctx, "root")
	_, rooted := n.GrantRole(ctx, "root", "root")
	_, role := n.AddRole(ctx, "inside")
	_, permission := n.GrantPermission(ctx, "inside", inside)
	_, user := n.AddUser(ctx, kv.NewUser{Name: "insider", Password: "sesame"})
	_, granted := n.GrantRole(ctx, "insider", "inside")
	_, on := n.EnableAuth(ctx)
	if err := errors.Join(grant, leased, put, out, root, rootRole, rooted, role, permission, user, granted, on); err != nil {
		t.Fatal(err)
	}
}

// credentialsOf makes one of each kind.
func credentialsOf(t *testing.T, c *concordtest.Cluster, addr string) []shown {
	t.Helper()
	n := c.Node(0)
	token := func(ttl time.Duration, role string, access kv.Access, prefix string) string {
		t.Helper()
		secret := kv.NewSecretToken()
		id, err := kv.ParseSecretToken(secret)
		made := kv.NewAccessToken{ID: id, TTL: ttl}
		if role != "" {
			made.Roles = []string{role}
		} else {
			made.Permissions = []kv.Permission{{Access: access, Key: []byte(prefix), End: kv.Prefix([]byte(prefix))}}
		}
		if err == nil {
			_, _, err = n.CreateToken(t.Context(), made)
		}
		if err != nil {
			t.Fatal(err)
		}
		return secret
	}
	revoked, expired := token(0, "root", 0, ""), token(time.Second, "root", 0, "")
	id, _ := kv.ParseSecretToken(revoked)
	if _, err := n.RevokeAccessToken(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.Advance(2 * time.Second)
	g := &globals{endpoints: addr, timeout: time.Minute}
	client, err := g.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	session, err := client.Login(t.Context(), "insider", "sesame")
	if err != nil {
		t.Fatal(err)
	}
	return []shown{
		{name: "nobody"},
		{name: "an unknown token", token: kv.NewSecretToken(), bad: true},
		{name: "a made-up token", token: "made-up.12", bad: true},
		{name: "a mistyped token", token: revoked[:30], bad: true},
		{name: "a revoked token", token: revoked, bad: true},
		{name: "an expired token", token: expired, bad: true},
		{name: "a reading token", token: token(0, "", kv.ReadAccess, "in/"), may: []string{reads}},
		{name: "a writing token", token: token(0, "", kv.WriteAccess, "in/"), may: []string{writes}},
		{name: "a token of other keys", token: token(0, "", kv.ReadWriteAccess, "out/"), may: []string{"out"}},
		{name: "a token of the cluster", token: token(0, kv.ClusterRole, 0, ""), may: []string{manages}},
		{name: "a token of users", token: token(0, kv.AuthAdminRole, 0, ""), may: []string{governs}},
		{name: "a token of backups", token: token(0, kv.BackupRole, 0, ""), may: []string{saves}},
		{name: "a token of telemetry", token: token(0, kv.TelemetryRole, 0, ""), may: []string{watches}},
		{name: "a token of root", token: token(0, "root", 0, ""), may: []string{rules}},
		{name: "the session of a user", token: session, may: []string{reads, writes, governs + " or insider"}},
	}
}

// talkers are all commands with the flag --endpoints.
func talkers(cmd *cobra.Command) (paths []string) {
	for _, sub := range cmd.Commands() {
		paths = append(paths, talkers(sub)...)
	}
	if cmd.Runnable() && cmd.Flags().Lookup("endpoints") != nil {
		paths = append(paths, strings.TrimPrefix(cmd.CommandPath(), "concord "))
	}
	return paths
}

// TestRights gives every command that talks to a member every kind of token, at
// first, right after another leads, and after all members were started again. It
// fails where a command has no row.
func TestRights(t *testing.T) {
	source, err := concord.Open(t.Context(), filepath.Join(t.TempDir(), "source"))
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	if _, err := kv.Put(t.Context(), source, "in/imported", "x"); err != nil {
		t.Fatal(err)
	}
	etcd, end := openDoor(t, source)
	defer end()
	all := commands(etcd)
	for _, path := range talkers(newRootCommand(stdio{in: strings.NewReader("")})) {
		if !slices.ContainsFunc(all, func(a asked) bool { return strings.HasPrefix(a.args+" ", path+" ") }) {
			t.Errorf("nobody has said what 'concord %s' asks", path)
		}
	}
	const members = 3
	cluster := concordtest.Start(t, members)
	furnish(t, cluster.Node(0))
	var callers []shown
	for _, when := range []string{"at first", "after another leads", "after a restart"} {
		var addrs []string
		var ends []func()
		for i := range members {
			addr, end := openDoor(t, cluster.Node(i))
			addrs, ends = append(addrs, addr), append(ends, end)
		}
		for i := range members {
			if _, err := cluster.Node(i).AuthStatus(t.Context()); err != nil { // it knows
				t.Fatal(err)
			}
		}
		if callers == nil {
			callers = credentialsOf(t, cluster, addrs[0])
		}
		if when == "after another leads" {
			if err := cluster.Node(cluster.Leader()).MoveLeader(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
		}
		for i, a := range all {
			for j := range callers {
				member := (i + j) % members
				a.run(t, addrs[member], &callers[j], fmt.Sprintf("%s, n%d", when, member+1))
			}
		}
		for _, end := range ends {
			end()
		}
		if when == "after another leads" {
			for i := range members {
				cluster.Restart(i)
				cluster.WaitReady()
			}
		}
	}
}

// run runs a command, and looks whether it was refused.
func (a *asked) run(t *testing.T, addr string, by *shown, when string) {
	t.Helper()
	want := by.allowed(a.need)
	if a.once && want {
		return
	}
	args := strings.Fields(a.args + " --endpoints " + addr)
	for i := range args {
		args[i] = strings.Trim(args[i], "'")
	}
	if !strings.HasPrefix(a.args, "backup") {
		args = append(args, "--timeout", "1m")
	}
	if by.token != "" {
		args = append(args, "--token", by.token)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, problems bytes.Buffer
	code := run(ctx, args, stdio{in: strings.NewReader(a.stdin), out: &out, err: &problems})
	if (code == exitDenied) == want || want && (code == exitUnavailable || code == exitError) {
		t.Errorf("%s: 'concord %s' with %s: exit code %d, allowed should be %t: %s%s", when, a.args, by.name, code, want, out.String(), problems.String())
	}
	if by.token != "" && (strings.Contains(out.String(), by.token) || strings.Contains(problems.String(), by.token)) {
		t.Errorf("%s: 'concord %s' with %s says the token", when, a.args, by.name)
	}
}
