package etcdapi

import (
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/kv"
)

// right is what a method asks of its caller while authentication is on.
type right uint8

const (
	// anybody may call: the answer shows nothing that is protected.
	anybody right = iota + 1
	// byStore: what the call touches decides, and the store or the authority
	// checks it against the caller, in one step with the call.
	byStore
	// asks and what is added to it is one of [kv.Right].
	asks
)

const (
	anyUser       = asks + right(kv.AnyUser)
	manageCluster = asks + right(kv.ManageCluster)
	takeBackup    = asks + right(kv.TakeBackup)
)

// rights is the table of what methods ask. A method that is not in it is
// refused, and a server does not start with one: see [Ungoverned].
//
// It says what etcd 3.7 asks, in server/etcdserver/api/v3rpc and
// server/etcdserver/v3_server.go.
var rights = map[string]right{
	"/etcdserverpb.KV/Range":       byStore,
	"/etcdserverpb.KV/RangeStream": byStore,
	"/etcdserverpb.KV/Put":         byStore,
	"/etcdserverpb.KV/DeleteRange": byStore,
	"/etcdserverpb.KV/Txn":         byStore,
	"/etcdserverpb.KV/Compact":     manageCluster,

	"/etcdserverpb.Watch/Watch": byStore,

	// The store checks the keys of the lease besides.
	"/etcdserverpb.Lease/LeaseGrant":      anyUser,
	"/etcdserverpb.Lease/LeaseRevoke":     anyUser,
	"/etcdserverpb.Lease/LeaseKeepAlive":  byStore,
	"/etcdserverpb.Lease/LeaseTimeToLive": anyUser,
	"/etcdserverpb.Lease/LeaseLeases":     byStore,

	"/etcdserverpb.Cluster/MemberAdd":     manageCluster,
	"/etcdserverpb.Cluster/MemberRemove":  manageCluster,
	"/etcdserverpb.Cluster/MemberUpdate":  manageCluster,
	"/etcdserverpb.Cluster/MemberPromote": manageCluster,
	"/etcdserverpb.Cluster/MemberList":    anyUser,

	"/etcdserverpb.Maintenance/Alarm":      anyUser, // and more to change one: see requestRights
	"/etcdserverpb.Maintenance/Status":     anyUser,
	"/etcdserverpb.Maintenance/Defragment": manageCluster,
	"/etcdserverpb.Maintenance/Hash":       takeBackup,
	"/etcdserverpb.Maintenance/HashKV":     takeBackup,
	"/etcdserverpb.Maintenance/Snapshot":   takeBackup,
	"/etcdserverpb.Maintenance/MoveLeader": manageCluster,
	"/etcdserverpb.Maintenance/Downgrade":  manageCluster,

	"/etcdserverpb.Auth/AuthStatus":           byStore,
	"/etcdserverpb.Auth/Authenticate":         anybody,
	"/etcdserverpb.Auth/AuthEnable":           byStore,
	"/etcdserverpb.Auth/AuthDisable":          byStore,
	"/etcdserverpb.Auth/UserAdd":              byStore,
	"/etcdserverpb.Auth/UserGet":              byStore,
	"/etcdserverpb.Auth/UserList":             byStore,
	"/etcdserverpb.Auth/UserDelete":           byStore,
	"/etcdserverpb.Auth/UserChangePassword":   byStore,
	"/etcdserverpb.Auth/UserGrantRole":        byStore,
	"/etcdserverpb.Auth/UserRevokeRole":       byStore,
	"/etcdserverpb.Auth/RoleAdd":              byStore,
	"/etcdserverpb.Auth/RoleGet":              byStore,
	"/etcdserverpb.Auth/RoleList":             byStore,
	"/etcdserverpb.Auth/RoleDelete":           byStore,
	"/etcdserverpb.Auth/RoleGrantPermission":  byStore,
	"/etcdserverpb.Auth/RoleRevokePermission": byStore,

	"/v3lockpb.Lock/Lock":             byStore,
	"/v3lockpb.Lock/Unlock":           byStore,
	"/v3electionpb.Election/Campaign": byStore,
	"/v3electionpb.Election/Proclaim": byStore,
	"/v3electionpb.Election/Leader":   byStore,
	"/v3electionpb.Election/Observe":  byStore,
	"/v3electionpb.Election/Resign":   byStore,

	"/grpc.health.v1.Health/Check": anybody,
	"/grpc.health.v1.Health/List":  anybody,
	"/grpc.health.v1.Health/Watch": anybody,

	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      anybody,
	"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": anybody,
}

// requestRights are for methods that ask more for some requests.
var requestRights = map[string]func(request any) right{
	"/etcdserverpb.Maintenance/Alarm": func(request any) right {
		if r, ok := request.(*pb.AlarmRequest); ok && r.Action == pb.AlarmRequest_GET {
			return anyUser
		}
		return manageCluster
	},
}

// errUngoverned refuses a method that is not in the table.
var errUngoverned = status.Error(codes.PermissionDenied, "etcdserver: permission denied")

// Ungoverned lists the methods of services for which the table has no right, in
// order.
func Ungoverned(services map[string]grpc.ServiceInfo) (methods []string) {
	for service, info := range services {
		for _, m := range info.Methods {
			if name := "/" + service + "/" + m.Name; rights[name] == 0 {
				methods = append(methods, name)
			}
		}
	}
	slices.Sort(methods)
	return methods
}

// Guard returns a registrar by which s gets services whose methods are entered
// only by who may. It costs nothing where anybody may, or where the store
// checks.
func (a *API) Guard(s grpc.ServiceRegistrar) grpc.ServiceRegistrar { return &guard{api: a, server: s} }

// guard stands before every method of the services that are registered by it.
type guard struct {
	api    *API
	server grpc.ServiceRegistrar
}

// RegisterService implements [grpc.ServiceRegistrar].
func (g *guard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods, guarded.Streams = slices.Clone(desc.Methods), slices.Clone(desc.Streams)
	for i := range guarded.Methods {
		g.unary("/"+desc.ServiceName+"/"+guarded.Methods[i].MethodName, &guarded.Methods[i])
	}
	for i := range guarded.Streams {
		g.stream("/"+desc.ServiceName+"/"+guarded.Streams[i].StreamName, &guarded.Streams[i])
	}
	g.server.RegisterService(&guarded, impl)
}

func (g *guard) unary(name string, m *grpc.MethodDesc) {
	need, more, enter := rights[name], requestRights[name], m.Handler
	if need == anybody || need == byStore {
		return
	}
	m.Handler = func(srv any, ctx context.Context, decode func(any) error, by grpc.UnaryServerInterceptor) (any, error) {
		ctx, err := g.api.require(ctx, need)
		if err != nil {
			return nil, err
		}
		if more == nil {
			return enter(srv, ctx, decode, by)
		}
		return enter(srv, ctx, func(request any) error {
			if err := decode(request); err != nil {
				return err
			}
			_, err := g.api.require(ctx, more(request))
			return err
		}, by)
	}
}

func (g *guard) stream(name string, s *grpc.StreamDesc) {
	need, enter := rights[name], s.Handler
	if need == anybody || need == byStore {
		return
	}
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		ctx, err := g.api.require(stream.Context(), need)
		if err != nil {
			return err
		}
		return enter(srv, &identifiedStream{ServerStream: stream, ctx: ctx, check: func() error {
			_, err := g.api.require(stream.Context(), need) // as if it came now, which renews a token
			return err
		}})
	}
}

// identifiedStream is a stream whose caller is known, and asked for the right
// again now and then: a snapshot may be sent for longer than the right lasts.
type identifiedStream struct {
	grpc.ServerStream
	ctx   context.Context
	check func() error
	sent  int // messages; one goroutine sends
}

// checkEvery is how many messages are sent between two checks: 8 MiB of an etcd
// snapshot, 64 MiB of a backup. A check asks a majority.
const checkEvery = 256

// SendMsg sends a message, if the caller still has the right.
func (s *identifiedStream) SendMsg(m any) error {
	if s.sent++; s.sent%checkEvery == 0 {
		if err := s.check(); err != nil {
			return err
		}
	}
	return s.ServerStream.SendMsg(m)
}

// Context has the caller.
func (s *identifiedStream) Context() context.Context { return s.ctx }
