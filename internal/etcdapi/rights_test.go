package etcdapi

import (
	"testing"

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
