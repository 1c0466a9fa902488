package etcdctl

import (
	"testing"

	"github.com/concord-kv/concord/compat/servers"
)

const asRoot, asAlice = "--user root:secret ", "--user alice:pass "

// authCommands switch authentication on and use it.
var authCommands = []command{
	{line: "auth status", want: `^Authentication Status: false\nAuthRevision: 1\n$`},
	{line: "auth enable", want: `etcdserver: root user does not exist`},
	{line: "user add root:secret", want: `^User root created\n$`},
	{line: "user add root:secret", want: `etcdserver: user name already exists`},
	{line: "user add alice:pass", want: `^User alice created\n$`},
	{line: "user add cert --no-password", want: `^User cert created\n$`},
	{line: "user add bob --interactive=false", input: "hidden\n", want: `^User bob created\n$`},
	{line: "user list", want: `^alice\nbob\ncert\nroot\n$`},
	{line: "role add readers", want: `^Role readers created\n$`},
	{line: "role add readers", want: `etcdserver: role name already exists`},
	{line: "role grant-permission readers read r/ --prefix", want: `^Role readers updated\n$`},
	{line: "role grant-permission readers readwrite w w9", want: `^Role readers updated\n$`},
	{line: "role grant-permission readers write one", want: `^Role readers updated\n$`},
	{line: "role grant-permission readers read z --from-key", want: `^Role readers updated\n$`},
	{line: "role grant-permission none read z", want: `etcdserver: role name not found`},
	{line: "role get readers", want: `(?s)^Role readers\n.*\[r/, r0\) \(prefix r/\)`},
	{line: "role list", want: `^readers\n$`},
	{line: "user grant-role alice readers", want: `^Role readers is granted to user alice\n$`},
	{line: "user grant-role alice none", want: `etcdserver: role name not found`},
	{line: "user get alice", want: `^User: alice\nRoles: readers\n$`},
	{line: "user get alice --detail", want: `(?s)^User: alice\n.*Role readers`},
	{line: "user get nobody", want: `etcdserver: user name not found`},
	{line: "auth enable", want: `Authentication Enabled\n$`}, // it makes the role root

	{line: "auth status", want: `^Authentication Status: true\n`},
	{line: "put r/a 1", want: `etcdserver: user name is empty`},
	{line: "get r/a", want: `etcdserver: user name is empty`},
	{line: "member list", want: `etcdserver: user name is empty`},
	{line: asRoot + "put r/a 1", want: `^OK\n$`},
	{line: asRoot + "role list", want: `^readers\nroot\n$`},
	{line: asRoot + "role get root", want: `(?s)^Role root\n`},
	{line: "--user root:wrong get r/a", want: `etcdserver: authentication failed, invalid user ID or password`},
	{line: "--user nobody:wrong get r/a", want: `etcdserver: authentication failed, invalid user ID or password`},
	{line: "--user root --password secret get r/a", want: `^r/a\n1\n$`},
	{line: asAlice + "get --prefix r/", want: `^r/a\n1\n$`},
	{line: asAlice + "put r/a 2", want: `etcdserver: permission denied`},
	{line: asAlice + "put w1 1", want: `^OK\n$`},
	{line: asAlice + "put w9 1", want: `etcdserver: permission denied`},
	{line: asAlice + "put one 1", want: `^OK\n$`},
	{line: asAlice + "put one 1 --prev-kv", want: `etcdserver: permission denied`},
	{line: asAlice + "get one", want: `etcdserver: permission denied`},
	{line: asAlice + "get w w9", want: `^w1\n1\n$`},
	{line: asAlice + "get w wx", want: `etcdserver: permission denied`},
	{line: asAlice + "get z --from-key", want: `^$`},
	{line: asAlice + "del w1", want: `^1\n$`},
	{line: asAlice + "txn", input: "value(\"r/a\") = \"1\"\n\nput w2 x\n\n\n", want: `^SUCCESS\n`},
	{line: asAlice + "txn", input: "value(\"r/a\") = \"1\"\n\n\nput other x\n\n", want: `etcdserver: permission denied`},
	{line: asAlice + "lease grant 100", want: `granted with TTL`},
	{line: asRoot + "put other x --lease LEASE", want: `^OK\n$`},
	{line: asAlice + "lease timetolive LEASE", want: `remaining`},
	{line: asAlice + "lease timetolive LEASE --keys", want: `etcdserver: permission denied`},
	{line: asAlice + "lease revoke LEASE", want: `etcdserver: permission denied`},
	{line: asAlice + "lease list", want: `etcdserver: permission denied`},
	{line: asRoot + "lease revoke LEASE", want: `^lease LEASE revoked\n$`},
	{line: asAlice + "member list", want: `started`, own: true},
	{line: asAlice + "member remove 5", want: `etcdserver: permission denied`},
	{line: asAlice + "alarm list", want: `^$`},
	{line: asAlice + "alarm disarm", want: `^$`}, // it looks first whether there is one
	{line: asAlice + "compaction 2", want: `etcdserver: permission denied`},
	{line: asAlice + "user list", want: `etcdserver: permission denied`},
	{line: asAlice + "user get alice", want: `^User: alice\nRoles: readers\n$`},
	{line: asAlice + "user get root", want: `etcdserver: permission denied`},
	{line: asAlice + "role get readers", want: `^Role readers\n`},
	{line: asAlice + "role get root", want: `etcdserver: permission denied`},
	{line: asAlice + "auth disable", want: `etcdserver: permission denied`},

	{line: asRoot + "user passwd alice --interactive=false", input: "other\n", want: `^Password updated\n$`},
	{line: asAlice + "get r/a", want: `etcdserver: authentication failed, invalid user ID or password`},
	{line: "--user alice:other get r/a", want: `^r/a\n1\n$`},
	{line: asRoot + "role revoke-permission readers r/ --prefix", want: `^Permission of range \[r/, r0\) is revoked from role readers\n$`},
	{line: "--user alice:other get r/a", want: `etcdserver: permission denied`},
	{line: asRoot + "user revoke-role alice readers", want: `^Role readers is revoked from user alice\n$`},
	{line: asRoot + "user revoke-role alice readers", want: `etcdserver: role is not granted to the user`},
	{line: "--user alice:other get w2", want: `etcdserver: permission denied`},
	{line: asRoot + "user delete alice", want: `^User alice deleted\n$`},
	{line: "--user alice:other get w2", want: `etcdserver: authentication failed, invalid user ID or password`},
	{line: asRoot + "user delete root", want: `etcdserver: invalid auth management`},
	{line: asRoot + "role delete root", want: `etcdserver: invalid auth management`},
	{line: asRoot + "user revoke-role root root", want: `etcdserver: invalid auth management`},
	{line: asRoot + "role delete readers", want: `^Role readers deleted\n$`},
	{line: asRoot + "auth disable", want: `^Authentication Disabled\n$`},
	{line: "get one", want: `^one\n1\n$`},
	{line: "--user root:secret get one", want: `one\n1\n$`}, // behind a warning
}

// TestAuth runs etcdctl's commands about users, roles and authentication.
func TestAuth(t *testing.T) {
	program := build(t, "etcdctl", ".", "go.etcd.io/etcd/etcdctl/v3")
	etcd := &target{program: program, endpoints: servers.Etcd(t, 1).Endpoints[0]}
	compare(t, etcd, &target{program: program, endpoints: concordDev(t)}, authCommands)
}
