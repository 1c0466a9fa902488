package etcdapi

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/internal/lockpb"
)

// unaryCall answers r by filling resp.
type unaryCall func(ctx context.Context, r, resp lockpb.Message) error

// registerSessions adds the services Lock and Election.
func (a *API) registerSessions(s grpc.ServiceRegistrar) {
	schema := lockpb.New()
	l := lockServer{a}
	a.registerDynamic(s, schema.Lock, map[protoreflect.Name]unaryCall{"Lock": l.lock, "Unlock": l.unlock})
	campaign, observe := schema.Election.Methods().ByName("Campaign"), schema.Election.Methods().ByName("Observe")
	e := electionServer{
		API: a, leaderKey: campaign.Output().Fields().ByName("leader").Message(), observed: observe.Output(),
	}
	desc := a.describe(schema.Election, map[protoreflect.Name]unaryCall{
		"Campaign": e.campaign, "Proclaim": e.proclaim, "Leader": e.leads, "Resign": e.resignLeader,
	})
	desc.Streams = []grpc.StreamDesc{{
		StreamName: string(observe.Name()), ServerStreams: true,
		Handler: func(_ any, stream grpc.ServerStream) error {
			r := lockpb.NewMessage(observe.Input())
			if err := stream.RecvMsg(r.Interface()); err != nil {
				return err
			}
			return a.blocking(stream.Context(), func(ctx context.Context) error { return e.observe(ctx, r, stream) })
		},
	}}
	s.RegisterService(desc, nil)
}

// registerDynamic adds a service without streams.
func (a *API) registerDynamic(s grpc.ServiceRegistrar, d protoreflect.ServiceDescriptor, calls map[protoreflect.Name]unaryCall) {
	s.RegisterService(a.describe(d, calls), nil)
}

// describe makes gRPC's description of a service from its descriptor.
func (a *API) describe(d protoreflect.ServiceDescriptor, calls map[protoreflect.Name]unaryCall) *grpc.ServiceDesc {
	desc := &grpc.ServiceDesc{ServiceName: string(d.FullName()), Metadata: d.ParentFile().Path()}
	for name, call := range calls {
		desc.Methods = append(desc.Methods, a.method(d.Methods().ByName(name), call))
	}
	return desc
}

// method decodes, runs the server's interceptor and calls, as generated code
// does.
func (a *API) method(m protoreflect.MethodDescriptor, call unaryCall) grpc.MethodDesc {
	run := func(ctx context.Context, r any) (any, error) {
		resp := lockpb.NewMessage(m.Output())
		err := a.blocking(ctx, func(ctx context.Context) error {
			return call(ctx, lockpb.Message{Message: r.(proto.Message).ProtoReflect()}, resp)
		})
		if err != nil {
			return nil, err
		}
		return resp.Interface(), nil
	}
	return grpc.MethodDesc{
		MethodName: string(m.Name()),
		Handler: func(srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			r := lockpb.NewMessage(m.Input()).Interface()
			if err := decode(r); err != nil {
				return nil, err
			}
			if interceptor == nil {
				return run(ctx, r)
			}
			return interceptor(ctx, r, &grpc.UnaryServerInfo{Server: srv, FullMethod: lockpb.FullMethod(m)}, run)
		},
	}
}

// blocking runs a call that may wait for long: until the client's context or the
// API ends, or, where the client requires a leader, there has been none for a
// while.
func (a *API) blocking(ctx context.Context, call func(context.Context) error) error {
	if err := a.checkLeader(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.stopped, func() { cancel(rpctypes.ErrGRPCStopped) })()
	if requiresLeader(ctx) {
		defer a.leader.watch(cancel)()
	}
	return sessionStatus(ctx, call(ctx))
}
