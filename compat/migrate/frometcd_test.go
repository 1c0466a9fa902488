package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/concord-kv/concord/compat/servers"
)

// importing runs concord import etcd from one side to the other.
type importing struct {
	testing.TB
	program  string
	from, to *clientv3.Client
}

// report is what the command says with -o json.
type report struct {
	Keys, Written, Unchanged, Deleted, Extra int64
	Leases                                   int64
	Granted                                  int64    `json:"leases_granted"`
	Followed                                 int64    `json:"changes_followed"`
	Orphans                                  int64    `json:"without_lease"`
	NewUsers                                 []string `json:"new_users"`
}

// in is i in a part of the test.
func (i *importing) in(t *testing.T) *importing { return &importing{t, i.program, i.from, i.to} }

func (i *importing) args(args []string) []string {
	all := append([]string{"import", "etcd", "--endpoints", i.to.Endpoints()[0], "-o", "json"}, args...)
	for _, arg := range args {
		if arg == "--file" || arg == "--endpoint" {
			return all
		}
	}
	return append(all, "--endpoint", i.from.Endpoints()[0])
}

func (i *importing) run(args ...string) (r report) {
	i.Helper()
	out, err := exec.CommandContext(patient(i), i.program, i.args(args)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		i.Fatalf("%v: %v\n%s", args, err, exit.Stderr)
	}
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		i.Fatalf("%v: %v\n%s", args, err, out)
	}
	return r
}

// same fails unless both sides have the same values and leases of keys.
func (i *importing) same(prefix string) {
	i.Helper()
	from, to := i.contents(i.from, prefix), i.contents(i.to, prefix)
	if maps.Equal(from, to) {
		return
	}
	wrong := 0
	for k, v := range from {
		if to[k] != v {
			if wrong++; wrong < 5 {
				i.Errorf("%s is %.80q instead of %.80q", k, to[k], v)
			}
		}
	}
	i.Fatalf("%d of %d keys differ; there are %d", wrong, len(from), len(to))
}

func (i *importing) contents(c *clientv3.Client, prefix string) map[string]string {
	out := map[string]string{}
	for _, k := range all(i, c, 0).Kvs {
		if strings.HasPrefix(string(k.Key), prefix) {
			out[string(k.Key)] = fmt.Sprintf("%x %s", k.Lease, k.Value)
		}
	}
	return out
}

func (i *importing) put(c *clientv3.Client, key, value string, opts ...clientv3.OpOption) {
	i.Helper()
	if _, err := c.Put(patient(i), key, value, opts...); err != nil {
		i.Fatal(err)
	}
}

// TestFromEtcd moves an etcd to Concord, while it runs and from a snapshot, as
// often as it takes.
func TestFromEtcd(t *testing.T) {
	etcd, concord := servers.Etcd(t, 1), servers.Concord(t, 3)
	i := &importing{t, build(t, "concord", filepath.Join("..", ".."), "./cmd/concord"), connect(t, etcd.Endpoints[0]), connect(t, concord.Endpoints[0])}
	fill(t, i.from, nil)
	i.put(i.to, "zz/extra", "1")

	first := i.run()
	if first.Written != first.Keys || first.Keys < manyKeys/2 || first.Leases != leases || first.Granted != leases || first.Deleted != 0 {
		t.Fatalf("%+v", first)
	}
	if res, err := i.to.Get(patient(t), "zz/extra"); err != nil || len(res.Kvs) != 1 {
		t.Errorf("without --delete: %v, %v", res, err)
	}
	again := i.run("--delete")
	if again.Written != 0 || again.Unchanged != first.Keys || again.Granted != 0 || again.Deleted != 1 {
		t.Errorf("the second import: %+v", again)
	}
	i.same("")
	i.leases()
	t.Logf("%d keys, %d leases", first.Keys, first.Leases)

	t.Run("changes", func(t *testing.T) {
		i := i.in(t)
		i.put(i.from, "/registry/new", "1")
		i.put(i.from, "a", "1")
		if _, err := i.from.Delete(patient(t), "/registry/001", clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
		r := i.run("--prefix", "/registry/", "--delete")
		if r.Written != 1 || r.Deleted < 100 {
			t.Errorf("%+v", r)
		}
		i.same("/registry/")
		if res, err := i.to.Get(patient(t), "a"); err != nil || len(res.Kvs) != 0 {
			t.Errorf("outside the prefix: %v, %v", res, err)
		}
	})
	t.Run("file", func(t *testing.T) {
		i := i.in(t)
		file := filepath.Join(t.TempDir(), "etcd.db")
		save(t, i.from, file)
		i.put(i.to, "a", "overwritten")
		if r := i.run("--file", file, "--delete"); r.Written != 1 || r.Orphans != 0 || r.Leases != leases {
			t.Errorf("%+v", r)
		}
		i.same("")
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		i.fails(1, "checksum", "--file", file)
	})
	t.Run("watch", func(t *testing.T) { i.in(t).watch(t) })
	t.Run("errors", func(t *testing.T) {
		i := i.in(t)
		i.fails(2, "one of --endpoint and --file")
		i.fails(2, "same cluster", "--endpoint", i.to.Endpoints()[0])
		i.fails(5, "", "--endpoint", freeAddr(t))
	})
	t.Run("auth", func(t *testing.T) { i.in(t).auth(t) })
}

// leases compares the leases.
func (i *importing) leases() {
	i.Helper()
	list, err := i.from.Leases(patient(i))
	if err != nil {
		i.Fatal(err)
	}
	for _, l := range list.Leases {
		a, err := i.from.TimeToLive(patient(i), l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			i.Fatal(err)
		}
		b, err := i.to.TimeToLive(patient(i), l.ID, clientv3.WithAttachedKeys())
		if err != nil || a.GrantedTTL != b.GrantedTTL || len(a.Keys) != len(b.Keys) || b.TTL <= 0 {
			i.Errorf("%+v, %v", b, err)
		}
	}
}

// watch follows an etcd that is written to, until the cut-over.
func (i *importing) watch(t *testing.T) {
	ctx := patient(t)
	lease, err := i.from.Grant(ctx, 2) // shorter than what follows
	if err != nil {
		t.Fatal(err)
	}
	alive, err := i.from.KeepAlive(ctx, lease.ID)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive {
		}
	}()
	i.put(i.from, "watch/held", "1", clientv3.WithLease(lease.ID))
	cmd := exec.CommandContext(ctx, i.program, i.args([]string{"--watch", "--delete"})...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rounds := 0
	for began := time.Now(); time.Since(began) < 5*time.Second; rounds++ {
		i.put(i.from, fmt.Sprint("watch/", rounds%50), fmt.Sprint(rounds))
		if _, err := i.from.Txn(ctx).Then(clientv3.OpPut("watch/twin", fmt.Sprint(rounds)), clientv3.OpDelete(fmt.Sprint("watch/", rounds%7+10))).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	until := func(key string) {
		i.put(i.from, key, "1")
		for !i.has(ctx, key) {
			<-time.After(20 * time.Millisecond)
		}
	}
	until("watch/written")
	if !i.has(ctx, "watch/held") {
		t.Error("a key of a lease that is kept alive at the source is gone")
	}
	if _, err := i.from.Revoke(ctx, lease.ID); err != nil {
		t.Fatal(err)
	}
	until("watch/last")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &said)
	}
	var r report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil || r.Followed == 0 {
		t.Errorf("%+v, %v, %s", r, err, &out)
	}
	i.same("")
	t.Logf("%d rounds of writes, %d changes followed", rounds, r.Followed)
}

func (i *importing) has(ctx context.Context, key string) bool {
	i.Helper()
	res, err := i.to.Get(ctx, key)
	if err != nil {
		i.Fatal(err)
	}
	return len(res.Kvs) == 1
}

// fails expects an exit code and a word of the error.
func (i *importing) fails(code int, word string, args ...string) {
	i.Helper()
	if len(args) == 0 {
		args = []string{"--endpoint", "", "--file", ""}
	}
	out, err := exec.CommandContext(patient(i), i.program, i.args(args)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code || !strings.Contains(string(out), word) {
		i.Errorf("%v: %v\n%s", args, err, out)
	}
}

// auth carries roles and users over from an etcd that asks for a password.
func (i *importing) auth(t *testing.T) {
	ctx := patient(t)
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"root", "alice"} {
		_, err := i.from.UserAdd(ctx, user, "secret")
		step(err)
	}
	for _, role := range []string{"root", "readers"} {
		_, err := i.from.RoleAdd(ctx, role)
		step(err)
	}
	_, err := i.from.RoleGrantPermission(ctx, "readers", "watch/", "watch0", clientv3.PermissionType(clientv3.PermRead))
	step(err)
	_, err = i.from.UserGrantRole(ctx, "root", "root")
	step(err)
	_, err = i.from.UserGrantRole(ctx, "alice", "readers")
	step(err)
	_, err = i.from.AuthEnable(ctx)
	step(err)
	i.fails(6, "", "--endpoint", i.from.Endpoints()[0])
	for round, want := range []int{2, 0} {
		r := i.run("--auth", "--etcd-user", "root:secret")
		if len(r.NewUsers) != want || r.Written != 0 {
			t.Errorf("round %d: %+v", round, r)
		}
	}
	role, err := i.to.RoleGet(ctx, "readers")
	step(err)
	if len(role.Perm) != 1 || string(role.Perm[0].Key) != "watch/" || string(role.Perm[0].RangeEnd) != "watch0" {
		t.Errorf("%v", role)
	}
	user, err := i.to.UserGet(ctx, "alice")
	if step(err); fmt.Sprint(user.Roles) != "[readers]" {
		t.Errorf("%v", user)
	}
}
