package server

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/concord-kv/concord/kv"
)

// callCounter counts calls of one kind.
type callCounter struct {
	failed atomic.Uint64
	took   kv.DurationCounter
}

func (c *callCounter) load() kv.CallFigures {
	return kv.CallFigures{Failed: c.failed.Load(), Took: c.took.Load()}
}

// workload counts what clients ask for, in the kinds that tell most: it is what
// members show each other, see [kv.Fronted].
type workload struct {
	under         atomic.Int64
	reads, writes callCounter
}

// kind is what a method counts as; nil for one that counts as neither.
func (w *workload) kind(service, method string) *callCounter {
	if service != "etcdserverpb.KV" {
		return nil
	}
	switch method {
	case "Range":
		return &w.reads
	case "Put", "DeleteRange", "Txn":
		return &w.writes
	}
	return nil
}

// weighed registers services so that their calls count for a workload.
type weighed struct {
	grpc.ServiceRegistrar
	load *workload
}

// RegisterService implements [grpc.ServiceRegistrar].
func (w weighed) RegisterService(desc *grpc.ServiceDesc, impl any) {
	with := *desc
	with.Methods, with.Streams = nil, nil
	for _, m := range desc.Methods {
		with.Methods = append(with.Methods, w.unary(m, w.load.kind(desc.ServiceName, m.MethodName)))
	}
	for _, s := range desc.Streams {
		with.Streams = append(with.Streams, w.stream(s))
	}
	w.ServiceRegistrar.RegisterService(&with, impl)
}

func (w weighed) unary(m grpc.MethodDesc, kind *callCounter) grpc.MethodDesc {
	handle := m.Handler
	m.Handler = func(srv any, ctx context.Context, decode func(any) error, by grpc.UnaryServerInterceptor) (any, error) {
		w.load.under.Add(1)
		defer w.load.under.Add(-1)
		if kind == nil {
			return handle(srv, ctx, decode, by)
		}
		began := time.Now()
		resp, err := handle(srv, ctx, decode, by)
		kind.took.Add(time.Since(began))
		if err != nil {
			kind.failed.Add(1)
		}
		return resp, err
	}
	return m
}

func (w weighed) stream(s grpc.StreamDesc) grpc.StreamDesc {
	handle := s.Handler
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		w.load.under.Add(1)
		defer w.load.under.Add(-1)
		return handle(srv, stream)
	}
	return s
}

// served tells the members what clients ask for here.
func (s *Server) served() kv.ServedFigures {
	return kv.ServedFigures{
		Connections: s.split.open.Load(), Under: s.work.under.Load(),
		Reads: s.work.reads.load(), Writes: s.work.writes.load(),
	}
}
