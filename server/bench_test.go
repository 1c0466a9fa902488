package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// benchServer is the environment variable that makes this test binary a server
// for the benchmarks, of the kind that it names.
const benchServer = "CONCORD_BENCH_SERVER"

// instant answers at once and keeps nothing: what is left is the API.
type instant struct {
	kv.Store
	revision atomic.Int64
	value    []byte
}

func (s *instant) Txn(context.Context, kv.Txn) (kv.TxnResult, error) {
	return kv.TxnResult{
		Header: kv.Header{Revision: kv.Revision(s.revision.Add(1))}, Succeeded: true,
		Ops: []kv.OpResult{{Kind: kv.OpPut}},
	}, nil
}

func (s *instant) Range(_ context.Context, r kv.Range) (kv.RangeResult, error) {
	return kv.RangeResult{
		Header: kv.Header{Revision: 9}, Count: 1,
		KVs: []kv.KeyValue{{Key: r.Key, Value: s.value, CreateRevision: 3, ModRevision: 7, Version: 2}},
	}, nil
}

type fixed struct{ kv.Cluster }

func (fixed) Status() kv.Status {
	return kv.Status{Cluster: 1 << 60, Member: 1 << 61, Leader: 1, Term: 3}
}

func (fixed) Identity() (kv.ClusterID, kv.MemberID, kv.Term) { return 1 << 60, 1 << 61, 3 }

// echo is the floor: the same messages and gRPC, and nothing else.
type echo struct{ pb.UnimplementedKVServer }

func (e *echo) Put(context.Context, *pb.PutRequest) (*pb.PutResponse, error) {
	return &pb.PutResponse{Header: &pb.ResponseHeader{ClusterId: 1 << 60, MemberId: 1 << 61, Revision: 9, RaftTerm: 3}}, nil
}

// runBenchServer serves until it is interrupted.
func runBenchServer(kind string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	if kind == "echo" {
		g := grpc.NewServer(grpc.NumStreamWorkers(256))
		pb.RegisterKVServer(g, &echo{})
		context.AfterFunc(ctx, g.Stop)
		return g.Serve(l)
	}
	s, err := server.New(&instant{value: make([]byte, 256)}, fixed{}, server.Config{Listeners: []net.Listener{l}})
	if err != nil {
		return err
	}
	return s.Run(ctx)
}

// startBenchServer runs a server of the given kind in a process of its own and
// gives its address. stop ends it and tells the CPU time it took in seconds.
func startBenchServer(b *testing.B, kind string) (addr string, stop func() float64) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchServer+"="+kind)
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(line), func() float64 {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, lines)
		_ = cmd.Wait()
		return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
}

// BenchmarkServerCPU measures the CPU of a server process per operation, with
// a store that costs nothing, against the floor of gRPC with the same messages.
func BenchmarkServerCPU(b *testing.B) {
	put := func(ctx context.Context, c pb.KVClient) error {
		_, err := c.Put(ctx, &pb.PutRequest{Key: []byte("key00001"), Value: make([]byte, 256)})
		return err
	}
	get := func(ctx context.Context, c pb.KVClient) error {
		_, err := c.Range(ctx, &pb.RangeRequest{Key: []byte("key00001")})
		return err
	}
	for _, l := range []sharing{{1, 1}, {100, 1}, {100, 10}, {100, 100}, {1000, 100}} {
		for _, k := range []struct {
			name, kind string
			run        func(context.Context, pb.KVClient) error
		}{{"floor", "echo", put}, {"put", "concord", put}, {"get", "concord", get}} {
			b.Run(fmt.Sprintf("%s/clients=%d/conns=%d", k.name, l.clients, l.conns), func(b *testing.B) {
				addr, stop := startBenchServer(b, k.kind)
				load(b, addr, l, k.run)
				b.ReportMetric(stop()/float64(b.N)*1e6, "cpu-µs/op")
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			})
		}
	}
}

// sharing is how many callers share how many connections.
type sharing struct{ clients, conns int }

// load runs b.N operations.
func load(b *testing.B, addr string, l sharing, run func(context.Context, pb.KVClient) error) {
	b.Helper()
	var kvs []pb.KVClient
	for range l.conns {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		kvs = append(kvs, pb.NewKVClient(conn))
		if err := run(b.Context(), kvs[len(kvs)-1]); err != nil {
			b.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	for i := range l.clients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := run(b.Context(), kvs[i%len(kvs)]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}
