package etcdapi_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/internal/etcdfile"
	"github.com/concord-kv/concord/kv"
)

// alone is a member of its own, and its data directory.
func alone(t testing.TB) (*concord.Node, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "member")
	n, err := concord.Open(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return n, dir
}

func serveNode(t testing.TB, n *concord.Node, o etcdapi.Options) *grpc.ClientConn {
	t.Helper()
	_, conn := serveCluster(t, n, n, o)
	return conn
}

// TestHashKV: stores with the same keys have the same hash at a revision, any
// difference shows, and errors are etcd's.
func TestHashKV(t *testing.T) {
	fill := func(last string) pb.MaintenanceClient {
		n, _ := alone(t)
		for i := range 100 {
			put(t, n, fmt.Sprint("k", i), "v")
		}
		put(t, n, "k7", last)
		if _, err := n.Compact(t.Context(), 50); err != nil {
			t.Fatal(err)
		}
		return pb.NewMaintenanceClient(serveNode(t, n, etcdapi.Options{}))
	}
	hash := func(c pb.MaintenanceClient, rev, want int64) uint32 {
		t.Helper()
		r, err := c.HashKV(t.Context(), &pb.HashKVRequest{Revision: rev})
		if err != nil || r.HashRevision != want || r.Header.Revision != 102 || r.CompactRevision != 50 {
			t.Fatalf("%v, %v", r, err)
		}
		return r.Hash
	}
	a, b, c := fill("1"), fill("1"), fill("2")
	if hash(a, 0, 102) != hash(b, 102, 102) {
		t.Error("equal stores have different hashes")
	}
	if hash(a, 102, 102) == hash(c, 102, 102) || hash(a, 101, 101) != hash(c, 101, 101) || hash(a, 101, 101) == hash(a, 102, 102) {
		t.Error("different states have one hash")
	}
	_, err := a.HashKV(t.Context(), &pb.HashKVRequest{Revision: 103})
	same(t, "future", err, rpctypes.ErrGRPCFutureRev)
	_, err = a.HashKV(t.Context(), &pb.HashKVRequest{Revision: 49})
	same(t, "compacted", err, rpctypes.ErrGRPCCompacted)
}

// TestSnapshot: what is streamed is a file of etcd with the keys and leases, and
// nothing of it stays in the data directory.
func TestSnapshot(t *testing.T) {
	n, dir := alone(t)
	if _, err := n.Grant(t.Context(), kv.Grant{ID: 77, TTL: time.Hour}); err != nil {
		t.Fatal(err)
	}
	put(t, n, "gone", "1")
	if _, err := kv.Put(t.Context(), n, "kept", strings.Repeat("v", 100_000), kv.WithLease(77)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	stream, err := pb.NewMaintenanceClient(serveNode(t, n, etcdapi.Options{})).Snapshot(t.Context(), &pb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "db")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if part.RemainingBytes == 0 && len(part.Blob) != sha256.Size && len(part.Blob) != 32<<10 && len(part.Blob)%4096 != 0 {
			t.Errorf("a last part of %d bytes", len(part.Blob))
		}
		if _, err := out.Write(part.Blob); err != nil {
			t.Fatal(err)
		}
	}
	f, err := etcdfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k, err := f.Key(0)
	if err != nil || f.Len() != 1 || f.Revision != 4 || f.Version != "3.7.0" || string(k.Key) != "kept" || len(k.Value) != 100_000 || k.Lease != 77 || k.CreateRevision != 3 {
		t.Errorf("%+v, %+v, %v", f, k, err)
	}
	if len(f.Leases) != 1 || f.Leases[0].ID != 77 || f.Leases[0].TTL != time.Hour {
		t.Errorf("leases %+v", f.Leases)
	}
	left, err := filepath.Glob(filepath.Join(dir, "*.tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}

// TestQuota fills a store, frees it and goes on, as an operator of etcd does.
func TestQuota(t *testing.T) {
	const quota = 50_000
	n, _ := alone(t)
	conn := serveNode(t, n, etcdapi.Options{Quota: quota})
	ctx, c, m := t.Context(), pb.NewKVClient(conn), pb.NewMaintenanceClient(conn)
	var err error
	written := 0
	for ; err == nil && written < 4*quota; written += 4096 {
		_, err = c.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 4096)})
	}
	same(t, "put beyond the quota", err, rpctypes.ErrGRPCNoSpace)
	if written < quota/2 || written > 2*quota {
		t.Errorf("%d bytes were written below a quota of %d", written, quota)
	}
	alarms, err := m.Alarm(ctx, &pb.AlarmRequest{})
	if err != nil || len(alarms.Alarms) != 1 || alarms.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
		t.Fatalf("%v, %v", alarms, err)
	}
	_, err = c.Put(ctx, &pb.PutRequest{Key: []byte("b")})
	same(t, "small put", err, rpctypes.ErrGRPCNoSpace)
	_, err = pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 10})
	same(t, "grant", err, rpctypes.ErrGRPCNoSpace)
	if st, err := m.Status(ctx, &pb.StatusRequest{}); err != nil || len(st.Errors) != 1 || !strings.Contains(st.Errors[0], "NOSPACE") || st.DbSizeQuota != quota {
		t.Errorf("status: %v, %v", st, err)
	}
	if _, err := c.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a")}); err != nil {
		t.Errorf("delete: %v", err)
	}
	if _, err := c.Compact(ctx, &pb.CompactionRequest{Revision: int64(n.Status().Revision), Physical: true}); err != nil {
		t.Errorf("compact: %v", err)
	}
	for deadline := time.Now().Add(time.Minute); n.Status().HistoryBytes > quota/2; {
		if time.Now().After(deadline) {
			t.Fatal("history was not freed")
		}
		<-time.After(time.Millisecond)
	}
	off := &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarms.Alarms[0].MemberID, Alarm: pb.AlarmType_NOSPACE}
	if r, err := m.Alarm(ctx, off); err != nil || len(r.Alarms) != 1 {
		t.Errorf("disarm: %v, %v", r, err)
	}
	if r, err := m.Alarm(ctx, off); err != nil || len(r.Alarms) != 0 {
		t.Errorf("disarm again: %v, %v", r, err)
	}
	if _, err := c.Put(ctx, &pb.PutRequest{Key: []byte("b")}); err != nil {
		t.Errorf("put afterwards: %v", err)
	}
}

// TestQuotaOfUser: the alarm is raised in the server's name, also for a user who
// may do no more than put a key, but not for who is none.
func TestQuotaOfUser(t *testing.T) {
	n, _ := alone(t)
	ctx := t.Context()
	conn := serveNode(t, n, etcdapi.Options{Quota: 20_000})
	for _, name := range []string{"root", "alice"} {
		_, userErr := n.AddUser(ctx, kv.NewUser{Name: name, Password: "secret"})
		_, roleErr := n.AddRole(ctx, name)
		_, grantErr := n.GrantRole(ctx, name, name)
		if err := errors.Join(userErr, roleErr, grantErr); err != nil {
			t.Fatal(err)
		}
	}
	_, err := n.GrantPermission(ctx, "alice", kv.Permission{Access: kv.ReadWriteAccess, Key: []byte("a")})
	if err == nil {
		_, err = n.EnableAuth(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 30_000)})
	same(t, "put by nobody beyond the quota", err, rpctypes.ErrGRPCUserEmpty)
	if alarms := n.Alarms(); len(alarms) > 0 {
		t.Errorf("nobody raised %v", alarms)
	}
	login, err := pb.NewAuthClient(conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: "alice", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, login.Token)
	for range 100 {
		if _, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 1000)}); err != nil {
			break
		}
	}
	same(t, "put beyond the quota", err, rpctypes.ErrGRPCNoSpace)
	if got := n.Alarms(); len(got) != 1 {
		t.Errorf("alarms %v", got)
	}
	_, err = pb.NewMaintenanceClient(conn).Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: uint64(n.Status().Member), Alarm: pb.AlarmType_NOSPACE})
	same(t, "disarming by a user", err, rpctypes.ErrGRPCPermissionDenied)
}

func TestDowngrade(t *testing.T) {
	n, _ := alone(t)
	m := pb.NewMaintenanceClient(serveNode(t, n, etcdapi.Options{}))
	ask := func(action pb.DowngradeRequest_DowngradeAction, version string, want error) {
		t.Helper()
		r, err := m.Downgrade(t.Context(), &pb.DowngradeRequest{Action: action, Version: version})
		if want != nil {
			same(t, version, err, want)
		} else if err != nil || r.Version != "3.7" {
			t.Errorf("%v %s: %v, %v", action, version, r, err)
		}
	}
	for _, version := range []string{"", "3", "3.x", "a.b.c", "3.6.", "3.6.0.1"} {
		ask(pb.DowngradeRequest_VALIDATE, version, rpctypes.ErrGRPCWrongDowngradeVersionFormat)
	}
	for _, version := range []string{"3.5", "3.7.0", "3.8.0", "2.6"} {
		ask(pb.DowngradeRequest_ENABLE, version, rpctypes.ErrGRPCInvalidDowngradeTargetVersion)
	}
	for _, version := range []string{"3.6", "3.6.0", "3.6.9", "3.6.0-rc.1", "3.6.1+x"} {
		ask(pb.DowngradeRequest_VALIDATE, version, nil)
	}
	ask(pb.DowngradeRequest_ENABLE, "3.6.0", nil)
	ask(pb.DowngradeRequest_VALIDATE, "3.6.0", rpctypes.ErrGRPCDowngradeInProcess)
	if st, err := m.Status(t.Context(), &pb.StatusRequest{}); err != nil || !st.DowngradeInfo.Enabled || st.DowngradeInfo.TargetVersion != "3.6.0" {
		t.Errorf("status: %v, %v", st, err)
	}
	ask(pb.DowngradeRequest_CANCEL, "", nil)
	ask(pb.DowngradeRequest_CANCEL, "", nil)
	ask(9, "3.6", status.Error(codes.Unknown, "etcdserver: unknown method"))
	if st, err := m.Status(t.Context(), &pb.StatusRequest{}); err != nil || st.DowngradeInfo.Enabled {
		t.Errorf("status: %v, %v", st, err)
	}
}

// Etcd's clients see a member that differs as one with etcd's alarm, and clear it
// as that.
func TestDivergentAlarm(t *testing.T) {
	n, _ := alone(t)
	m, ctx := pb.NewMaintenanceClient(serveNode(t, n, etcdapi.Options{})), t.Context()
	if _, err := n.SetAlarm(ctx, kv.Alarm{Member: 99, Type: kv.AlarmDivergent}, true); err != nil {
		t.Fatal(err)
	}
	for _, asked := range []pb.AlarmType{pb.AlarmType_NONE, pb.AlarmType_CORRUPT} {
		r, err := m.Alarm(ctx, &pb.AlarmRequest{Alarm: asked})
		if err != nil || len(r.Alarms) != 1 || r.Alarms[0].MemberID != 99 || r.Alarms[0].Alarm != pb.AlarmType_CORRUPT {
			t.Errorf("alarms of type %v: %v, %v", asked, r, err)
		}
	}
	if r, err := m.Alarm(ctx, &pb.AlarmRequest{Alarm: pb.AlarmType_NOSPACE}); err != nil || len(r.Alarms) > 0 {
		t.Errorf("alarms of another type: %v, %v", r, err)
	}
	r, err := m.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 99, Alarm: pb.AlarmType_CORRUPT})
	if err != nil || len(r.Alarms) != 1 || len(n.Alarms()) > 0 {
		t.Errorf("cleared: %v, %v; left %v", r, err, n.Alarms())
	}
}
