package migrate

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/compat/servers"
	"github.com/concord-kv/concord/kv"
)

// The history that is moved.
const (
	manyKeys = 100_000
	batch    = 100
	leases   = 20
	ttlKeys  = 50
)

// fill writes a history with updates, deletes, leases and, where ttl is not nil,
// keys with a TTL, compacts a part of it, and returns the compacted revision.
func fill(t testing.TB, c *clientv3.Client, ttl kv.Store) int64 {
	t.Helper()
	ctx, rng := patient(t), rand.New(rand.NewPCG(1, 2))
	key := func(n int) string { return fmt.Sprintf("/registry/%03d/%06d", n%97, n) }
	for i := range leases {
		if _, err := c.Grant(ctx, int64(3600+i)); err != nil {
			t.Fatal(err)
		}
	}
	granted, err := c.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	put := func(n int) clientv3.Op {
		value := bytes.Repeat([]byte{byte('a' + n%26)}, rng.IntN(200))
		var opts []clientv3.OpOption
		if rng.IntN(10) == 0 {
			opts = append(opts, clientv3.WithLease(granted.Leases[rng.IntN(leases)].ID))
		}
		return clientv3.OpPut(key(n), string(value), opts...)
	}
	commit := func(ops []clientv3.Op) int64 {
		res, err := c.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			t.Fatal(err)
		}
		return res.Header.Revision
	}
	var compacted int64
	for n := 0; n < manyKeys; n += batch {
		var ops []clientv3.Op
		for i := range batch {
			ops = append(ops, put(n+i))
		}
		rev := commit(ops)
		if n == manyKeys/2 {
			compacted = rev
		}
		again := rng.IntN(n + batch)
		commit([]clientv3.Op{put(again)})
		if rng.IntN(3) == 0 {
			commit([]clientv3.Op{clientv3.OpDelete(key(again)), put(rng.IntN(n+batch) + manyKeys)})
		}
		if rng.IntN(50) == 0 {
			commit([]clientv3.Op{clientv3.OpDelete(key(again), clientv3.WithRange(key(again)+"\xff"))})
		}
	}
	for i := 0; ttl != nil && i < ttlKeys; i++ {
		if _, err := kv.Put(ctx, ttl, fmt.Sprintf("ttl/%d", i), "v", kv.WithTTL(time.Hour+time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	commit([]clientv3.Op{clientv3.OpPut("large", string(make([]byte, 1<<20)))})
	if _, err := c.Compact(ctx, compacted); err != nil {
		t.Fatal(err)
	}
	return compacted
}

// save fetches a snapshot and checks the stream's promises.
func save(t testing.TB, c *clientv3.Client, file string) {
	t.Helper()
	stream, err := pb.NewMaintenanceClient(c.ActiveConnection()).Snapshot(patient(t), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, left, written := sha256.New(), uint64(0), uint64(0)
	for {
		part, err := stream.Recv()
		if err != nil {
			t.Fatalf("after %d bytes: %v", written, err)
		}
		if part.Version != "3.7.0" || len(part.Blob) > 32<<10 {
			t.Fatalf("version %q, %d bytes", part.Version, len(part.Blob))
		}
		if _, err := f.Write(part.Blob); err != nil {
			t.Fatal(err)
		}
		if written > 0 && left == 0 {
			if !bytes.Equal(part.Blob, sum.Sum(nil)) {
				t.Fatalf("the checksum of %d bytes is %x", written, part.Blob)
			}
			break
		}
		if written > 0 && left != part.RemainingBytes+uint64(len(part.Blob)) {
			t.Fatalf("%d bytes remain after %d and %d", part.RemainingBytes, left, len(part.Blob))
		}
		left, written = part.RemainingBytes, written+uint64(len(part.Blob))
		sum.Write(part.Blob)
	}
	if part, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the checksum: %v, %v", part, err)
	}
}

// TestToEtcd moves a member's state into etcd by the tools of etcd.
func TestToEtcd(t *testing.T) {
	concord := servers.Concord(t, 1)
	from := connect(t, concord.Endpoints[0])
	store, err := client.New(client.Config{Endpoints: concord.Endpoints})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	compacted := fill(t, from, store)
	users(t, from)

	dir := t.TempDir()
	file := filepath.Join(dir, "snapshot.db")
	save(t, from, file)
	etcdutl := build(t, "etcdutl", "..", "go.etcd.io/etcd/etcdutl/v3")
	now := all(t, from, 0)
	var status struct {
		Revision int64
		TotalKey int
		Version  string
	}
	if err := json.Unmarshal([]byte(run(t, etcdutl, "snapshot", "status", file, "-w", "json")), &status); err != nil {
		t.Fatal(err)
	}
	current, err := from.Get(patient(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	if status.Revision != current.Header.Revision || status.TotalKey != len(now.Kvs) || status.Version != "3.7.0" {
		t.Fatalf("etcdutl says %+v; there are %d keys at revision %d", status, len(now.Kvs), current.Header.Revision)
	}

	data, peer := filepath.Join(dir, "etcd"), url.URL{Scheme: "http", Host: freeAddr(t)}
	run(t, etcdutl, "snapshot", "restore", file, "--data-dir", data, "--name", "m0",
		"--initial-cluster", "m0="+peer.String(), "--initial-advertise-peer-urls", peer.String())
	to := etcdOn(t, data, peer)
	compare(t, from, to, compacted, current.Header.Revision)
	compareLeases(t, from, to)
	compareAuth(t, from, to)
	t.Logf("%d keys at revision %d, compacted at %d, history and leases are etcd's", len(now.Kvs), current.Header.Revision, compacted)
}

// compare compares keys at several revisions, hashes and the history.
func compare(t *testing.T, from, to *clientv3.Client, compacted, current int64) {
	t.Helper()
	for _, rev := range []int64{compacted, compacted + 1, (compacted + current) / 2, current - ttlKeys - 1, current} {
		mapTTL(t, from, rev, func(want *pb.RangeResponse) {
			got := all(t, to, rev)
			for _, k := range got.Kvs {
				unmarked(k)
			}
			sameKeys(t, fmt.Sprint("revision ", rev), got, want)
		})
		x, err := from.HashKV(patient(t), from.Endpoints()[0], rev)
		if err != nil {
			t.Fatal(err)
		}
		y, err := to.HashKV(patient(t), to.Endpoints()[0], rev)
		if err != nil || x.Hash != y.Hash || x.CompactRevision != y.CompactRevision || x.HashRevision != y.HashRevision {
			t.Errorf("hash at %d: %v, %v; %v", rev, x, y, err)
		}
	}
	for _, c := range []*clientv3.Client{from, to} {
		if _, err := c.Get(patient(t), "x", clientv3.WithRev(compacted-1)); !errors.Is(err, rpctypes.ErrCompacted) {
			t.Errorf("read below the compacted revision: %v", err)
		}
	}
	sameEvents(t, events(t, from, compacted, current), events(t, to, compacted, current))
}

// mapTTL reads the keys of Concord as they have to be in etcd: those with a TTL
// have a lease.
func mapTTL(t *testing.T, c *clientv3.Client, rev int64, use func(*pb.RangeResponse)) {
	t.Helper()
	res := all(t, c, rev)
	for _, k := range res.Kvs {
		unmarked(k)
	}
	use(res)
}

// unmarked gives a key the lease that its TTL becomes; only the test's own keys
// have one, and no lease besides.
func unmarked(k *mvccpb.KeyValue) {
	k.ProtoReflect().SetUnknown(nil)
	if bytes.HasPrefix(k.Key, []byte("ttl/")) {
		k.Lease = -1
	}
}

func events(t *testing.T, c *clientv3.Client, start, until int64) (all []*clientv3.Event) {
	t.Helper()
	ctx := patient(t)
	for res := range c.Watch(ctx, "\x00", clientv3.WithFromKey(), clientv3.WithRev(start)) {
		if err := res.Err(); err != nil {
			t.Fatal(err)
		}
		all = append(all, res.Events...)
		if n := len(all); n > 0 && all[n-1].Kv.ModRevision == until {
			return all
		}
	}
	t.Fatal("the watch ended")
	return nil
}

func sameEvents(t *testing.T, a, b []*clientv3.Event) {
	t.Helper()
	if len(a) != len(b) {
		t.Fatalf("%d events instead of %d", len(b), len(a))
	}
	for i := range a {
		unmarked(a[i].Kv)
		unmarked(b[i].Kv)
		if a[i].Type != b[i].Type || !proto.Equal(a[i].Kv, b[i].Kv) {
			t.Fatalf("event %d: %v instead of %v", i, b[i], a[i])
		}
	}
}

// compareLeases compares ids, TTLs and attached keys, and looks for a lease of
// each key that had a TTL.
func compareLeases(t *testing.T, from, to *clientv3.Client) {
	t.Helper()
	ctx := patient(t)
	mine, err := from.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range mine.Leases {
		x, err := from.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		y, err := to.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys())
		if err != nil {
			t.Fatal(err)
		}
		for _, keys := range [][][]byte{x.Keys, y.Keys} {
			slices.SortFunc(keys, bytes.Compare)
		}
		if x.GrantedTTL != y.GrantedTTL || y.TTL <= 0 || y.TTL > y.GrantedTTL || !slices.EqualFunc(x.Keys, y.Keys, bytes.Equal) {
			t.Errorf("lease %x: granted for %d s, %d left, %d keys; it was %d s with %d keys", l.ID, y.GrantedTTL, y.TTL, len(y.Keys), x.GrantedTTL, len(x.Keys))
		}
	}
	for i := range ttlKeys {
		res, err := to.Get(ctx, fmt.Sprintf("ttl/%d", i))
		if err != nil || len(res.Kvs) != 1 {
			t.Fatal(res, err)
		}
		l, err := to.TimeToLive(ctx, clientv3.LeaseID(res.Kvs[0].Lease))
		if want := int64(3600 + i); err != nil || l.TTL > want || l.TTL < want-int64(patience/time.Second) {
			t.Errorf("ttl/%d has a lease with %d s left of %d; %v", i, l.TTL, want, err)
		}
	}
}

// users adds some users and roles.
func users(t *testing.T, c *clientv3.Client) {
	t.Helper()
	ctx := patient(t)
	step := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, role := range []string{"root", "readers"} {
		_, err := c.RoleAdd(ctx, role)
		step(err)
	}
	_, err := c.RoleGrantPermission(ctx, "readers", "a", "b", clientv3.PermissionType(clientv3.PermRead))
	step(err)
	_, err = c.RoleGrantPermission(ctx, "readers", "own", "", clientv3.PermissionType(clientv3.PermReadWrite))
	step(err)
	for user, role := range map[string]string{"root": "root", "alice": "readers"} {
		_, err = c.UserAdd(ctx, user, "secret")
		step(err)
		_, err = c.UserGrantRole(ctx, user, role)
		step(err)
	}
}

// compareAuth compares users and roles, and switches authentication on after
// root got a new password, which etcd needs.
func compareAuth(t *testing.T, from, to *clientv3.Client) {
	t.Helper()
	ctx := patient(t)
	for _, role := range []string{"root", "readers"} {
		x, err := from.RoleGet(ctx, role)
		if err != nil {
			t.Fatal(err)
		}
		y, err := to.RoleGet(ctx, role)
		if err != nil || fmt.Sprint(x.Perm) != fmt.Sprint(y.Perm) {
			t.Errorf("role %s: %v, %v; %v", role, x, y, err)
		}
	}
	for _, user := range []string{"root", "alice"} {
		x, err := from.UserGet(ctx, user)
		if err != nil {
			t.Fatal(err)
		}
		y, err := to.UserGet(ctx, user)
		if err != nil || !slices.Equal(x.Roles, y.Roles) {
			t.Errorf("user %s: %v, %v; %v", user, x, y, err)
		}
	}
	if _, err := to.UserChangePassword(ctx, "root", "new"); err != nil {
		t.Fatal(err)
	}
	if _, err := to.AuthEnable(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Authenticate(ctx, "alice", "secret"); err == nil {
		t.Error("a password that etcd cannot check was right")
	}
	if _, err := to.Authenticate(ctx, "root", "new"); err != nil {
		t.Error(err)
	}
}
