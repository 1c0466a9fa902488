package etcdapi

import (
	"context"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
)

// TestRightsTable has a row for every method, and a method for every row.
func TestRightsTable(t *testing.T) {
	s := grpc.NewServer()
	api := New(nil, nil, Options{})
	defer api.Close()
	api.Register(s)
	healthpb.RegisterHealthServer(api.Guard(s), health.NewServer())
	reflection.Register(s)
	if missing := Ungoverned(s.GetServiceInfo()); len(missing) > 0 {
		t.Errorf("no right: %v", missing)
	}
	methods := map[string]bool{}
	for service, info := range s.GetServiceInfo() {
		for _, m := range info.Methods {
			methods["/"+service+"/"+m.Name] = true
		}
	}
	for name := range rights {
		if !methods[name] {
			t.Errorf("%s has a right and is no method", name)
		}
	}
	for name := range requestRights {
		if rights[name] < asks {
			t.Errorf("%s asks for more than nothing", name)
		}
	}
}

// unknownService is one that nobody has given rights.
type unknownService struct{}

func TestUngoverned(t *testing.T) {
	s := grpc.NewServer()
	api := New(nil, nil, Options{})
	defer api.Close()
	entered := false
	api.Guard(s).RegisterService(&grpc.ServiceDesc{
		ServiceName: "x.Y", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Z"}},
		Streams: []grpc.StreamDesc{{StreamName: "S", Handler: func(any, grpc.ServerStream) error { entered = true; return nil }}},
	}, unknownService{})
	if got := Ungoverned(s.GetServiceInfo()); len(got) != 2 || got[0] != "/x.Y/S" || got[1] != "/x.Y/Z" {
		t.Errorf("%v", got)
	}
	desc := grpc.StreamDesc{StreamName: "S", Handler: func(any, grpc.ServerStream) error { entered = true; return nil }}
	(&guard{api: api}).stream("/x.Y/S", &desc)
	if err := desc.Handler(nil, &identifiedStream{ctx: t.Context()}); err != errUngoverned || entered {
		t.Errorf("a method without a right was entered: %v", err)
	}
	unary := grpc.MethodDesc{MethodName: "Z"}
	(&guard{api: api}).unary("/x.Y/Z", &unary)
	if _, err := unary.Handler(nil, t.Context(), nil, nil); err != errUngoverned {
		t.Errorf("a method without a right was entered: %v", err)
	}
}

// countedStream takes messages, and revokes the token of its caller after some.
type countedStream struct {
	grpc.ServerStream
	ctx   context.Context
	taken int
	door  *door
}

func (s *countedStream) Context() context.Context { return s.ctx }

func (s *countedStream) SendMsg(any) error {
	if s.taken++; s.taken == checkEvery+10 {
		clear(s.door.tokens)
	}
	return nil
}

// TestLongStream ends a stream whose caller has lost the right, soon after.
func TestLongStream(t *testing.T) {
	d := newDoor()
	api := &API{authority: d}
	const many = 10 * checkEvery
	desc := grpc.StreamDesc{StreamName: "Snapshot", Handler: func(_ any, s grpc.ServerStream) error {
		for range many {
			if err := s.SendMsg(nil); err != nil {
				return err
			}
		}
		return nil
	}}
	(&guard{api: api}).stream("/etcdserverpb.Maintenance/Snapshot", &desc)
	stream := &countedStream{ctx: callContext(t.Context(), "token", secret), door: d}
	if err := desc.Handler(nil, stream); rpctypes.ErrorDesc(err) != rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidAuthToken) || stream.taken >= 2*checkEvery {
		t.Errorf("after %d messages: %v", stream.taken, err)
	}
	stream = &countedStream{ctx: callContext(t.Context(), "token", "good.12"), door: &door{}}
	if d.tokens = newDoor().tokens; desc.Handler(nil, stream) != nil || stream.taken != many {
		t.Errorf("a good one ended after %d messages", stream.taken)
	}
}
