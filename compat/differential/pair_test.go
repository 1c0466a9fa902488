package differential

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/compat/servers"
)

// callTimeout is how long one call may take on a busy machine.
const callTimeout = 30 * time.Second

// pair is etcd with one member and Concord with one or more.
type pair struct {
	etcd, concord *servers.Cluster
	calls         int
}

func newPair(tb testing.TB, members int, opts ...servers.Option) *pair {
	tb.Helper()
	return &pair{etcd: servers.Etcd(tb, 1, opts...), concord: servers.Concord(tb, members, opts...)}
}

// conn is the connection to Concord for the next call: members take turns.
func (p *pair) conn() *grpc.ClientConn {
	p.calls++
	return p.concord.Conns[p.calls%len(p.concord.Conns)]
}

// call makes one call by name.
type call func(ctx context.Context, c *grpc.ClientConn) answer

// both makes the call to both at the same time.
func (p *pair) both(do call) (etcd, concord answer) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	var done sync.WaitGroup
	done.Go(func() { etcd = do(ctx, p.etcd.Conns[0]) })
	concord = do(ctx, p.conn())
	done.Wait()
	return etcd, concord
}

// callOf finds the call that a request is for. A stream's answer is all its
// responses.
func callOf(req proto.Message) call {
	r := func(m proto.Message, err error) answer { return answer{m, err} }
	switch q := req.(type) {
	case *pb.RangeRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer { return r(pb.NewKVClient(c).Range(ctx, q)) }
	case *pb.PutRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer { return r(pb.NewKVClient(c).Put(ctx, q)) }
	case *pb.DeleteRangeRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer { return r(pb.NewKVClient(c).DeleteRange(ctx, q)) }
	case *pb.TxnRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer { return r(pb.NewKVClient(c).Txn(ctx, q)) }
	case *pb.CompactionRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer { return r(pb.NewKVClient(c).Compact(ctx, q)) }
	}
	return leaseCall(req)
}

func leaseCall(req proto.Message) call {
	r := func(m proto.Message, err error) answer { return answer{m, err} }
	switch q := req.(type) {
	case *pb.LeaseGrantRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer {
			return r(pb.NewLeaseClient(c).LeaseGrant(ctx, q))
		}
	case *pb.LeaseRevokeRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer {
			return r(pb.NewLeaseClient(c).LeaseRevoke(ctx, q))
		}
	case *pb.LeaseTimeToLiveRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer {
			return r(pb.NewLeaseClient(c).LeaseTimeToLive(ctx, q))
		}
	case *pb.LeaseLeasesRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer {
			return r(pb.NewLeaseClient(c).LeaseLeases(ctx, q))
		}
	case *pb.LeaseKeepAliveRequest:
		return func(ctx context.Context, c *grpc.ClientConn) answer { return keepAlive(ctx, c, q) }
	}
	panic(fmt.Sprintf("no call for %T", req))
}

func keepAlive(ctx context.Context, c *grpc.ClientConn, q *pb.LeaseKeepAliveRequest) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(c).LeaseKeepAlive(ctx)
	if err == nil {
		err = stream.Send(q)
	}
	if err != nil {
		return answer{nil, err}
	}
	resp, err := stream.Recv()
	return answer{resp, err}
}

// rangeStream joins the chunks: where they are divided depends on sizes, but
// only the last may have header, more and count.
func rangeStream(q *pb.RangeRequest) call {
	return func(ctx context.Context, c *grpc.ClientConn) answer {
		stream, err := pb.NewKVClient(c).RangeStream(ctx, q)
		if err != nil {
			return answer{nil, err}
		}
		whole := &pb.RangeResponse{}
		for {
			chunk, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return answer{whole, nil}
			case err != nil:
				return answer{nil, err}
			case whole.Header != nil:
				return answer{nil, fmt.Errorf("a chunk after the one with a header")}
			}
			r := chunk.RangeResponse
			if r.Header == nil && (r.More || r.Count != 0) {
				return answer{nil, fmt.Errorf("a chunk without header has more or count")}
			}
			whole.Kvs = append(whole.Kvs, r.Kvs...)
			whole.Header, whole.More, whole.Count = r.Header, r.More, r.Count
		}
	}
}
