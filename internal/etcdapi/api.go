package etcdapi

import (
	"context"
	"log/slog"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/internal/headers"
	"github.com/concord-kv/concord/kv"
)

// Version is the etcd version whose API is served. Clients compare it with the
// least one that they can work with, so it is a plain x.y.z.
const Version = "3.7.3"

// maxChunk is the size that chunks of range streams aim at: etcd's, which has its
// request limit of 1.5 MiB there.
const maxChunk = 3 << 19

// Options configure an API. Zero fields mean their defaults.
type Options struct {
	// Limits bound requests. Ops counts as etcd's max-txn-ops does;
	// RequestBytes bounds the encoded request as etcd's max-request-bytes
	// does. The defaults are those of [kv.Limits]; etcd's are 128 and 1.5 MiB.
	Limits kv.Limits
	// InFlightBytes bounds what all requests of 64 KiB and more that are
	// under way carry together; default 512 MiB. What is over it is answered
	// with etcd's "too many requests".
	InFlightBytes int64
	// MinLeaseTTL is what shorter TTLs of leases are raised to; default 2 s,
	// etcd's value for its default election timeout. Clients that ask for
	// milliseconds by Concord's extension are not held to it.
	MinLeaseTTL time.Duration
	// Progress is how long a watch with progress_notify stays silent, up to a
	// tenth more; default 10 min, as etcd's.
	Progress time.Duration
	// NoLeader is how long a stream that requires a leader outlives the last
	// one; default 3 s, three of etcd's default election timeouts.
	NoLeader time.Duration
	// Quota bounds the bytes of keys, values and history: what would go beyond
	// raises etcd's alarm NOSPACE. It is reported as db_size_quota; default 0,
	// none, as anything negative.
	Quota int64
	// Callers bounds what callers may have; default nothing.
	Callers Callers
	// Logger defaults to none.
	Logger *slog.Logger
	// ClientScheme and PeerScheme go before member addresses that have none,
	// because etcd's clients expect URLs; default http.
	ClientScheme, PeerScheme string
	// Tokens are those that Authenticate hands out.
	Tokens Tokens
	// AuthRequired refuses who calls while authentication is off, and whoever
	// would switch it off.
	AuthRequired bool
}

func (o Options) withDefaults() Options {
	o.Limits = o.Limits.WithDefaults()
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&o.MinLeaseTTL, 2*time.Second)
	set(&o.Progress, 10*time.Minute)
	set(&o.NoLeader, 3*time.Second)
	if o.Callers == nil {
		o.Callers = freely{}
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.InFlightBytes == 0 {
		o.InFlightBytes = 512 << 20
	}
	if o.ClientScheme == "" {
		o.ClientScheme = "http"
	}
	if o.PeerScheme == "" {
		o.PeerScheme = "http"
	}
	return o
}

// Identity is what a [kv.Cluster] may offer besides, to fill response headers
// without the cost of a whole [kv.Status].
type Identity interface {
	Identity() (kv.ClusterID, kv.MemberID, kv.Term)
}

// API implements the services. Its methods may be called concurrently.
type API struct {
	// Set by New, then read only.
	store     kv.Store // tells itself who calls
	cluster   kv.Cluster
	authority kv.Authority // nil where there are no users
	identity  func() (kv.ClusterID, kv.MemberID, kv.Term)
	opts      Options
	stopped   context.Context
	stop      context.CancelFunc

	// Safe for concurrent use.
	inFlight admission
	leader   leaderMonitor
	puts     sync.Pool // *[1]kv.Op
}

// New makes the API of store and cluster. Where store is a [kv.Authority] too, it
// is asked who may do what.
func New(store kv.Store, cluster kv.Cluster, o Options) *API {
	a := &API{cluster: cluster, opts: o.withDefaults()}
	a.store = identified{store: a.limited(store), api: a}
	a.authority, _ = store.(kv.Authority)
	a.stopped, a.stop = context.WithCancel(context.Background())
	a.inFlight.max = a.opts.InFlightBytes
	a.leader = leaderMonitor{
		has:   func() bool { return cluster.Status().Leader != 0 },
		grace: a.opts.NoLeader,
	}
	a.puts.New = func() any { return new([1]kv.Op) }
	if id, ok := cluster.(Identity); ok {
		a.identity = id.Identity
	} else {
		a.identity = func() (kv.ClusterID, kv.MemberID, kv.Term) {
			s := cluster.Status()
			return s.Cluster, s.Member, s.Term
		}
	}
	return a
}

// Register adds the services to s, with a guard before them.
func (a *API) Register(s grpc.ServiceRegistrar) {
	s = a.Guard(s)
	pb.RegisterKVServer(s, &kvServer{API: a})
	pb.RegisterWatchServer(s, &watchServer{API: a})
	pb.RegisterLeaseServer(s, &leaseServer{API: a})
	pb.RegisterClusterServer(s, &clusterServer{API: a})
	pb.RegisterMaintenanceServer(s, &maintenanceServer{API: a})
	pb.RegisterAuthServer(s, &authServer{API: a})
	a.registerSessions(s)
}

// Close ends the streams with etcd's "server stopped", so that their clients go
// on elsewhere. Other calls are not touched.
func (a *API) Close() { a.stop() }

// header is the header of an answer made at h.
func (a *API) header(h kv.Header, x extensions) *pb.ResponseHeader {
	p := new(pb.ResponseHeader)
	a.fill(p, h, x)
	return p
}

func (a *API) fill(p *pb.ResponseHeader, h kv.Header, x extensions) {
	cluster, member, term := a.identity()
	p.ClusterId, p.MemberId, p.RaftTerm = uint64(cluster), uint64(member), uint64(term)
	p.Revision = int64(h.Revision)
	if x.wanted {
		setUnknown(p, appendVarint(nil, fieldHeaderTime, uint64(h.Time)))
	}
}

// now is the header of an answer that came from no operation.
func (a *API) now() kv.Header {
	s := a.cluster.Status()
	return kv.Header{Revision: s.Revision, Time: s.Time}
}

// checkLeader refuses a request that requires a leader where there is none, as
// etcd's clientv3.WithRequireLeader asks.
func (a *API) checkLeader(ctx context.Context) error {
	if requiresLeader(ctx) && a.cluster.Status().Leader == 0 {
		return rpctypes.ErrGRPCNoLeader
	}
	return nil
}

func requiresLeader(ctx context.Context) bool {
	v := headers.Values(ctx, rpctypes.MetadataRequireLeaderKey)
	return len(v) > 0 && v[0] == rpctypes.MetadataHasLeader
}
