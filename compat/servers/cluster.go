package servers

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// startTimeout bounds the start of a cluster, on a busy machine too.
const startTimeout = time.Minute

// Etcd's limits, which both are given.
const (
	MaxTxnOps       = 128
	MaxRequestBytes = 3 << 19
)

// Cluster is a running cluster.
type Cluster struct {
	// Name is etcd or concord.
	Name string
	// Endpoints has the client address of each member, as host:port.
	Endpoints []string
	// Conns has a connection to each member.
	Conns []*grpc.ClientConn
}

// Start starts a cluster by its name.
func Start(tb testing.TB, name string, members int, opts ...Option) *Cluster {
	tb.Helper()
	if name == "etcd" {
		return Etcd(tb, members, opts...)
	}
	return Concord(tb, members, opts...)
}

// Option changes a cluster that is about to start.
type Option func(*options)

type options struct{ authToken string }

// AuthToken gives a cluster etcd's --auth-token.
func AuthToken(spec string) Option { return func(o *options) { o.authToken = spec } }

func apply(opts []Option) (o options) {
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// dial fills Conns.
func (c *Cluster) dial(tb testing.TB) {
	tb.Helper()
	for _, endpoint := range c.Endpoints {
		conn, err := grpc.NewClient("passthrough:"+endpoint,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() {
			if err := conn.Close(); err != nil {
				tb.Error(err)
			}
		})
		c.Conns = append(c.Conns, conn)
	}
}

// memory is the usual file system in memory of Linux.
const memory = "/dev/shm"

// dataDir is a fresh directory.
func dataDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp(memory, "concord-compat-")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

func listen(tb testing.TB) net.Listener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

// freePort is a port that was free a moment ago, for servers that take no
// listener.
func freePort(tb testing.TB) string {
	tb.Helper()
	l := listen(tb)
	defer l.Close()
	return l.Addr().String()
}

func startContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	tb.Cleanup(cancel)
	return ctx
}
