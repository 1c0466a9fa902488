package migrate

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"google.golang.org/protobuf/proto"
)

// patience is how long one step may take on a busy machine.
const patience = 5 * time.Minute

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// build builds a program and returns its path.
func build(t testing.TB, name, dir, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(patient(t), "go", "build", "-o", program, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// run runs a program and returns what it says.
func run(t testing.TB, program string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(patient(t), program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", filepath.Base(program), args, err, out)
	}
	return string(out)
}

func connect(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, MaxCallRecvMsgSize: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// etcdOn starts etcd on a data directory that was restored for this peer URL.
func etcdOn(t testing.TB, dir string, peer url.URL) *clientv3.Client {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.LogLevel = "m0", dir, "fatal"
	cfg.UnsafeNoFsync = true
	client := url.URL{Scheme: "http", Host: freeAddr(t)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-patient(t).Done():
		t.Fatal("etcd did not get ready")
	}
	return connect(t, client.Host)
}

// freeAddr was free a moment ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// all reads every key at a revision.
func all(t testing.TB, c *clientv3.Client, rev int64) *pb.RangeResponse {
	t.Helper()
	whole := &pb.RangeResponse{}
	key, end := []byte{0}, []byte{0}
	for {
		res, err := pb.NewKVClient(c.ActiveConnection()).Range(patient(t), &pb.RangeRequest{Key: key, RangeEnd: end, Revision: rev, Limit: 10_000})
		if err != nil {
			t.Fatalf("range at %d: %v", rev, err)
		}
		whole.Kvs = append(whole.Kvs, res.Kvs...)
		if !res.More {
			return whole
		}
		key = append(res.Kvs[len(res.Kvs)-1].Key, 0)
	}
}

// sameKeys compares two states of the keys.
func sameKeys(t testing.TB, what string, got, want *pb.RangeResponse) {
	t.Helper()
	for i := range want.Kvs {
		if i >= len(got.Kvs) || !proto.Equal(got.Kvs[i], want.Kvs[i]) {
			t.Fatalf("%s: key %d of %d is\n%v instead of\n%v", what, i, len(want.Kvs), at(got, i), want.Kvs[i])
		}
	}
	if len(got.Kvs) != len(want.Kvs) {
		t.Fatalf("%s: %d keys instead of %d", what, len(got.Kvs), len(want.Kvs))
	}
}

func at(r *pb.RangeResponse, i int) string {
	if i < len(r.Kvs) {
		return fmt.Sprint(r.Kvs[i])
	}
	return "none"
}
