package server_test

import (
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// fronted is a cluster that keeps what it is told.
type fronted struct {
	lone
	source func() kv.ServedFigures
}

func (f *fronted) TellServed(source func() kv.ServedFigures) { f.source = source }

// TestServed has a member told what clients ask for.
func TestServed(t *testing.T) {
	f := new(fronted)
	f.leader.Store(1)
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), f, server.Config{})
	client := pb.NewKVClient(dial(t, addrs[0].String(), insecure.NewCredentials()))
	for range 3 {
		if _, err := client.Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Put(t.Context(), &pb.PutRequest{}); err == nil {
		t.Error("a put without a key succeeds")
	}
	if _, err := client.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	s := f.source()
	if s.Writes.Took.Count() != 4 || s.Writes.Failed != 1 || s.Reads.Took.Count() != 1 || s.Reads.Failed != 0 || s.Connections != 1 {
		t.Errorf("%d writes, %d failed; %d reads, %d failed; %d connections",
			s.Writes.Took.Count(), s.Writes.Failed, s.Reads.Took.Count(), s.Reads.Failed, s.Connections)
	}
}
