package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
)

// etcdctl is the program and the server that it is to talk to.
type etcdctl struct {
	program, endpoint string
	lease             string // the last lease granted
}

func (e *etcdctl) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, e.program, append([]string{"--endpoints", e.endpoint}, args...)...)
}

// ctlChecks run in order, on the keys under compat/ctl/.
func ctlChecks(e *etcdctl) []check {
	// line is a command and what it must print; LEASE stands for the last
	// lease granted, and a first word "!" for a command that must fail.
	line := func(command, want string) check { return e.check(command, "", want) }
	return []check{
		line("del compat/ --prefix", `^\d+\n$`),
		line("put compat/ctl/a 1", `^OK\n$`),
		line("put compat/ctl/a 2 --prev-kv", `^OK\ncompat/ctl/a\n1\n$`),
		line("get compat/ctl/a", `^compat/ctl/a\n2\n$`),
		line("get compat/ctl/a --consistency=s -w fields", `"Version" : 2\n`),
		line("put compat/ctl/b x", `^OK\n$`),
		line("get compat/ctl/ --prefix --keys-only --order DESCEND --sort-by KEY", `^compat/ctl/b\n\ncompat/ctl/a\n\n$`),
		line("get compat/ctl/ --prefix --count-only -w fields", `"Count" : 2\n`),
		line("get compat/ctl/ --prefix --limit 1 -w json", `"more":true,"count":2`),
		line("! get compat/ctl/a --rev 999999999", `etcdserver: mvcc: required revision is a future revision`),
		line("! put compat/ctl/none x --ignore-value", `.`),
		line("! put compat/ctl/none x --lease 7777", `etcdserver: requested lease not found`),
		e.check("txn", "value(\"compat/ctl/a\") = \"2\"\n\nput compat/ctl/c yes\nget compat/ctl/c\n\nput compat/ctl/c no\n\n", `^SUCCESS\n\nOK\n\ncompat/ctl/c\nyes\n$`),
		e.check("txn", "mod(\"compat/ctl/none\") > \"0\"\n\nput compat/ctl/c yes\n\ndel compat/ctl/c\n\n", `^FAILURE\n\n1\n$`),
		line("lease grant 60", `^lease [0-9a-f]{16} granted with TTL\(60s\)\n$`),
		line("put compat/ctl/leased x --lease LEASE", `^OK\n$`),
		line("lease timetolive LEASE --keys", `granted with TTL\(60s\), remaining\(\d+s\), attached keys\(\[compat/ctl/leased\]\)`),
		line("lease list", `LEASE`),
		line("lease keep-alive --once LEASE", `keepalived with TTL\(60\)`),
		line("lease revoke LEASE", `^lease LEASE revoked\n$`),
		line("! lease revoke LEASE", `etcdserver: requested lease not found`),
		line("get compat/ctl/leased", `^$`),
		line("del compat/ctl/a --prev-kv", `^1\ncompat/ctl/a\n2\n$`),
		line("del compat/ctl/a", `^0\n$`),
		{"watch", e.checkWatch},
		{"compaction", e.checkCompaction},
		line("member list", `, started, `),
		line("endpoint status -w json", `"version":"3\.\d+\.\d+"`),
		line("endpoint health", `is healthy`),
		line("alarm list", `^$`),
		line("defrag", `^Finished defragmenting`),
	}
}

// check runs a command with the given input and matches what it prints.
func (e *etcdctl) check(command, input, want string) check {
	name := "etcdctl " + command
	return check{name, func(ctx context.Context) error {
		args, fails := strings.CutPrefix(command, "! ")
		cmd := e.command(ctx, strings.Fields(strings.ReplaceAll(args, "LEASE", e.lease))...)
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		if (err != nil) != fails {
			return fmt.Errorf("%w: %s", err, out)
		}
		if id := regexp.MustCompile(`^lease (\S+) granted`).FindSubmatch(out); id != nil {
			e.lease = string(id[1])
		}
		pattern := strings.ReplaceAll(want, "LEASE", e.lease)
		if !regexp.MustCompile(pattern).Match(out) {
			return fmt.Errorf("printed %q, want %s", out, pattern)
		}
		return nil
	}}
}

// checkWatch watches a prefix from the revision of a first put, so that it does
// not matter when the watch begins.
func (e *etcdctl) checkWatch(ctx context.Context) error {
	rev, err := e.revision(ctx)
	if err != nil {
		return err
	}
	for _, args := range [][]string{{"put", "compat/ctl/w", "1"}, {"del", "compat/ctl/w"}} {
		if out, err := e.command(ctx, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", args, err, out)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := e.command(ctx, "watch", "compat/ctl/w", "--rev", fmt.Sprint(rev+1), "--prev-kv")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var got []string
	for lines := bufio.NewScanner(out); len(got) < 8 && lines.Scan(); {
		got = append(got, lines.Text())
	}
	cancel()
	_ = cmd.Wait() // it was killed
	// After PUT come the key before (none), then the key; after DELETE the key
	// before and the key without a value.
	if text := strings.Join(got, " "); !regexp.MustCompile(`^PUT .*compat/ctl/w 1 DELETE compat/ctl/w 1 compat/ctl/w`).MatchString(text) {
		return fmt.Errorf("printed %q", text)
	}
	return nil
}

func (e *etcdctl) checkCompaction(ctx context.Context) error {
	rev, err := e.revision(ctx)
	if err != nil {
		return err
	}
	for _, c := range []check{
		e.check(fmt.Sprint("compaction ", rev), "", fmt.Sprintf(`^compacted revision %d\n$`, rev)),
		e.check(fmt.Sprint("! compaction ", rev), "", `etcdserver: mvcc: required revision has been compacted`),
		e.check(fmt.Sprint("! get compat/ctl/a --rev ", rev-1), "", `etcdserver: mvcc: required revision has been compacted`),
		e.check(fmt.Sprint("get compat/ctl/b --rev ", rev), "", `^compat/ctl/b\nx\n$`),
	} {
		if err := c.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

// revision is the server's current one.
func (e *etcdctl) revision(ctx context.Context) (rev int64, err error) {
	out, err := e.command(ctx, "get", "compat/ctl/none", "-w", "fields").Output()
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(out, []byte(`"Revision" : `))
	_, err = fmt.Sscan(string(rest), &rev)
	return rev, err
}
