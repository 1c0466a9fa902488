package etcdctl

import (
	"bufio"
	"context"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/compat/servers"
)

// patience is how long one command may take on a busy machine.
const patience = 30 * time.Second

// target is a server that etcdctl talks to.
type target struct {
	program, endpoints string
	lease              string // the last lease granted
}

func (g *target) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, g.program, append([]string{"--endpoints", g.endpoints}, args...)...)
}

// run runs a command line in which LEASE stands for the last lease granted.
func (g *target) run(t *testing.T, line, input string) (out string, failed bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := g.command(ctx, strings.Fields(strings.ReplaceAll(line, "LEASE", g.lease))...)
	cmd.Stdin = strings.NewReader(input)
	text, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		t.Fatalf("etcdctl %s: %v\n%s", line, ctx.Err(), text)
	}
	if id := regexp.MustCompile(`^lease (\S+) granted`).FindSubmatch(text); id != nil {
		g.lease = string(id[1])
	}
	return string(text), err != nil
}

// masks hide what may differ: ids, terms, addresses, times and sizes.
var masks = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`"(cluster_id|member_id|raft_term|ID|clientURLs|name)":("[^"]*"|\d+|\[[^\]]*\])`), `"$1":_`},
	{regexp.MustCompile(`"(ClusterID|MemberID|RaftTerm)" : \d+`), `"$1" : _`},
	{regexp.MustCompile(`\{"level":"warn".*\n`), ``},
	{regexp.MustCompile(`remaining\(\d+s\)`), `remaining(_)`},
	{regexp.MustCompile(`took = [0-9.µmns]+`), `took = _`},
	{regexp.MustCompile(`took [0-9.µmns]+`), `took _`},
}

func (g *target) mask(out string) string {
	out = strings.ReplaceAll(out, g.endpoints, "ENDPOINTS")
	if g.lease != "" {
		out = strings.ReplaceAll(out, g.lease, "LEASE")
	}
	for _, m := range masks {
		out = m.pattern.ReplaceAllString(out, m.with)
	}
	return out
}

// command is a command line. What etcd prints must match want, and Concord must
// print the same but for masks; where etcd's own is no model, only want counts.
type command struct {
	line, input, want string
	own               bool
}

// commands run in order.
var commands = []command{
	{line: "put a 1", want: `^OK\n$`},
	{line: "put a 2 --prev-kv", want: `^OK\na\n1\n$`},
	{line: "get a", want: `^a\n2\n$`},
	{line: "get a --consistency=s -w fields", want: `"Version" : 2\n`},
	{line: "put b x", want: `^OK\n$`},
	{line: "get a z --keys-only --order DESCEND --sort-by KEY", want: `^b\n\na\n\n$`},
	{line: "get a z --count-only -w fields", want: `"Count" : 2\n`},
	{line: "get --prefix --limit 1 -w json a", want: `"count":1`},
	{line: "get --from-key --limit 1 -w json a", want: `"more":true,"count":2`},
	{line: "get a -w json --rev 2", want: `"version":1`},
	{line: "get a --rev 999999", want: `etcdserver: mvcc: required revision is a future revision`},
	{line: "put none --ignore-value", want: `etcdserver: key not found`},
	{line: "put none x --lease 7777", want: `etcdserver: requested lease not found`},
	{line: "txn", input: "value(\"a\") = \"2\"\n\nput c yes\nget c\n\nput c no\n\n", want: `^SUCCESS\n\nOK\n\nc\nyes\n$`},
	{line: "txn", input: "mod(\"none\") > \"0\"\n\nput c yes\n\ndel c\n\n", want: `^FAILURE\n\n1\n$`},
	{line: "txn -w json", input: "ver(\"a\") > \"1\"\n\ndel none\nput a 3\nget a\n\n\n", want: `"succeeded":true`},
	{line: "lease grant 60", want: `^lease [0-9a-f]{16} granted with TTL\(60s\)\n$`},
	{line: "put leased x --lease LEASE", want: `^OK\n$`},
	{line: "lease timetolive LEASE --keys", want: `granted with TTL\(60s\), remaining\(\d+s\), attached keys\(\[leased\]\)`},
	{line: "lease list", want: `LEASE`},
	{line: "lease keep-alive --once LEASE", want: `keepalived with TTL\(60\)`},
	{line: "lease revoke LEASE", want: `^lease LEASE revoked\n$`},
	{line: "lease revoke LEASE", want: `etcdserver: requested lease not found`},
	{line: "get leased", want: `^$`},
	{line: "del a --prev-kv", want: `^1\na\n3\n$`},
	{line: "del a", want: `^0\n$`},
	{line: "compaction 5", want: `^compacted revision 5\n$`},
	{line: "compaction 5", want: `etcdserver: mvcc: required revision has been compacted`},
	{line: "compaction 6 --physical", want: `^compacted revision 6\n$`},
	{line: "get b --rev 3", want: `etcdserver: mvcc: required revision has been compacted`},
	{line: "get b --rev 6", want: `^b\nx\n$`},
	{line: "lock l echo locked", want: `^locked\n$`},
	{line: "make-mirror --help", want: `make-mirror`},
	{line: "alarm list", want: `^$`},
	{line: "alarm disarm", want: `^$`},
	{line: "auth status", want: `(?i)authentication status: false`},
	{line: "member list", want: `^([0-9a-f]+, started, \w+, http://127.0.0.1:\d+, http://127.0.0.1:\d+, false\n)+$`, own: true},
	{line: "endpoint status -w json", want: `"version":"3\.7\.3"`, own: true},
	{line: "endpoint status --cluster", want: `3\.7\.3`, own: true},
	{line: "endpoint health --cluster", want: `is healthy`, own: true},
	{line: "endpoint hashkv --cluster", want: `127.0.0.1:\d+, \d+`, own: true},
	{line: "defrag --cluster", want: `^(Finished defragmenting.*\n)+$`, own: true},
	{line: "member remove 5", want: `member not found`},
	{line: "move-leader 5", want: `bad leader transferee|not leader`, own: true},
	{line: "get -w json --prefix k --order ASCEND", want: `"revision":`},
}

func TestEtcdctl(t *testing.T) {
	program := build(t, "etcdctl", ".", "go.etcd.io/etcd/etcdctl/v3")
	etcd := &target{program: program, endpoints: servers.Etcd(t, 1).Endpoints[0]}
	concord := &target{program: program, endpoints: concordDev(t)}
	compare(t, etcd, concord, commands)
	t.Run("watch", func(t *testing.T) { compareWatch(t, etcd, concord) })
	t.Run("hashkv agrees", func(t *testing.T) { checkHashes(t, concord) })
	t.Run("move-leader", func(t *testing.T) { moveLeader(t, concord) })
}

// compare runs commands on both.
func compare(t *testing.T, etcd, concord *target, commands []command) {
	t.Helper()
	for _, c := range commands {
		t.Run(c.line, func(t *testing.T) {
			var printed []string
			var failed []bool
			for _, g := range []*target{etcd, concord} {
				out, bad := g.run(t, c.line, c.input)
				if want := strings.ReplaceAll(c.want, "LEASE", g.lease); !regexp.MustCompile(want).MatchString(out) {
					t.Errorf("%s printed %q, want %s", g.endpoints, out, want)
				}
				printed, failed = append(printed, g.mask(out)), append(failed, bad)
			}
			if !c.own && (printed[0] != printed[1] || failed[0] != failed[1]) {
				t.Errorf("\n   etcd: %q\nconcord: %q", printed[0], printed[1])
			}
		})
	}
}

// watchLines is how many lines etcdctl prints for the events of compareWatch.
const watchLines = 15

// compareWatch watches from a revision, so that it makes no difference when the
// watch begins.
func compareWatch(t *testing.T, etcd, concord *target) {
	var printed []string
	for _, g := range []*target{etcd, concord} {
		out, _ := g.run(t, "put w/start x -w json", "")
		rev := regexp.MustCompile(`"revision":(\d+)`).FindStringSubmatch(out)
		if rev == nil {
			t.Fatal(out)
		}
		g.run(t, "put w/a 1", "")
		g.run(t, "put w/a 2", "")
		g.run(t, "del w/a", "")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := g.command(ctx, "watch", "--prefix", "w/", "--rev", rev[1], "--prev-kv")
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var lines []string
		for scan := bufio.NewScanner(pipe); len(lines) < watchLines && scan.Scan(); {
			lines = append(lines, scan.Text())
		}
		cancel()
		_ = cmd.Wait() // it was killed
		printed = append(printed, strings.Join(lines, "\n"))
	}
	if printed[0] != printed[1] || !strings.Contains(printed[0], "DELETE\nw/a\n2") {
		t.Errorf("\n   etcd: %q\nconcord: %q", printed[0], printed[1])
	}
}

// checkHashes finds all members with one hash at one revision.
func checkHashes(t *testing.T, g *target) {
	out, failed := g.run(t, "endpoint hashkv --cluster --rev 9", "")
	hashes := regexp.MustCompile(`:\d+, (\d+)`).FindAllStringSubmatch(out, -1)
	if failed || len(hashes) != 3 || hashes[0][1] != hashes[1][1] || hashes[0][1] != hashes[2][1] {
		t.Fatalf("%q", out)
	}
}

// moveLeader hands leadership to the next member and back.
func moveLeader(t *testing.T, g *target) {
	leader := regexp.MustCompile(`, ([0-9a-f]+), 3\.7\.3,.*, true, false,`)
	status, _ := g.run(t, "endpoint status --cluster", "")
	all := regexp.MustCompile(`, ([0-9a-f]+), 3\.7\.3,`).FindAllStringSubmatch(status, -1)
	was := leader.FindStringSubmatch(status)
	if len(all) != 3 || was == nil {
		t.Fatalf("%q", status)
	}
	to := all[0][1]
	if to == was[1] {
		to = all[1][1]
	}
	if out, failed := g.run(t, "move-leader "+to, ""); failed || !strings.Contains(out, "Leadership transferred from "+was[1]+" to "+to) {
		t.Fatalf("%q", out)
	}
	if status, _ = g.run(t, "endpoint status --cluster", ""); leader.FindStringSubmatch(status) == nil || leader.FindStringSubmatch(status)[1] != to {
		t.Fatalf("%q", status)
	}
}
