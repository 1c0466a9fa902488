package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"expvar"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/internal/telemetry"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// counted registers services so that their calls are counted, also those that
// are refused. It wraps handlers instead of being an interceptor: with one,
// gRPC's generated code allocates twice for each call.
type counted struct {
	grpc.ServiceRegistrar
	metrics *telemetry.Metrics
}

// RegisterService implements [grpc.ServiceRegistrar].
func (c counted) RegisterService(desc *grpc.ServiceDesc, impl any) {
	with := *desc
	with.Methods, with.Streams = nil, nil
	for _, m := range desc.Methods {
		with.Methods = append(with.Methods, countUnary(m, c.metrics.Call(desc.ServiceName, m.MethodName, "unary")))
	}
	for _, s := range desc.Streams {
		with.Streams = append(with.Streams, countStream(s, c.metrics.Call(desc.ServiceName, s.StreamName, streamKind(s))))
	}
	c.ServiceRegistrar.RegisterService(&with, impl)
}

func countUnary(m grpc.MethodDesc, c *telemetry.Call) grpc.MethodDesc {
	handle := m.Handler
	m.Handler = func(srv any, ctx context.Context, decode func(any) error, by grpc.UnaryServerInterceptor) (any, error) {
		began := c.Begin()
		resp, err := handle(srv, ctx, decode, by)
		c.End(began, codeOf(err))
		return resp, err
	}
	return m
}

func countStream(s grpc.StreamDesc, c *telemetry.Call) grpc.StreamDesc {
	handle := s.Handler
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		began := c.Begin()
		err := handle(srv, countedStream{stream, c})
		c.End(began, codeOf(err))
		return err
	}
	return s
}

// codeOf is the code that gRPC sends for what a handler returned.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

func streamKind(s grpc.StreamDesc) string {
	switch {
	case s.ClientStreams && s.ServerStreams:
		return "bidi_stream"
	case s.ClientStreams:
		return "client_stream"
	}
	return "server_stream"
}

// countedStream counts messages.
type countedStream struct {
	grpc.ServerStream
	call *telemetry.Call
}

// SendMsg implements [grpc.ServerStream].
func (s countedStream) SendMsg(m any) error {
	err := s.ServerStream.SendMsg(m)
	if err == nil {
		s.call.Sent()
	}
	return err
}

// RecvMsg implements [grpc.ServerStream].
func (s countedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.call.Received()
	}
	return err
}

// audible is what a cluster may offer besides: events of its member, told until
// stop is called, among them those of limits that the server tells it.
type audible interface {
	Listen(o observe.Observer) (stop func())
	TellLimit(l observe.Limit)
}

// newMetrics makes the metrics of a member.
func (s *Server) newMetrics(cluster kv.Cluster) *telemetry.Metrics {
	source := telemetry.Source{Status: cluster.Status, Server: s.figures}
	if measured, ok := cluster.(kv.Measured); ok {
		source.Member = measured.Figures
	}
	return telemetry.New(source)
}

// Metrics are those of /metrics, as they are whenever they are gathered. What
// events add up to stays zero with HTTPConfig.NoMetrics.
func (s *Server) Metrics() prometheus.Gatherer { return s.metrics }

// healthCounts count what /health has answered.
type healthCounts struct{ good, bad atomic.Uint64 }

func (c *healthCounts) tell(ok bool) {
	if ok {
		c.good.Add(1)
	} else {
		c.bad.Add(1)
	}
}

// figures are what the server itself counts and knows.
func (s *Server) figures() telemetry.Server {
	return telemetry.Server{
		EtcdVersion: etcdapi.Version, Quota: s.cfg.Etcd.Quota,
		Connections: s.split.open.Load(), Received: s.split.traffic.received.Load(), Sent: s.split.traffic.sent.Load(),
		Healthy: s.ready.counts.good.Load(), Unhealthy: s.ready.counts.bad.Load(),
		CertificateEnds: s.certificateEnds(),
	}
}

// certificateEnds is when the first certificate ends of those for clients; zero
// without TLS.
func (s *Server) certificateEnds() time.Time {
	first := certificateEnds(s.cfg.TLS)
	for _, l := range s.listeners {
		if own, ok := l.(*listener); ok {
			if ends := certificateEnds(own.tls); first.IsZero() || !ends.IsZero() && ends.Before(first) {
				first = ends
			}
		}
	}
	return first
}

// certificateEnds is when the certificate ends that a client is shown who does
// not say what it asks for; zero where there is none.
func certificateEnds(cfg *tls.Config) time.Time {
	if cfg == nil {
		return time.Time{}
	}
	var certificate *tls.Certificate
	if cfg.GetCertificate != nil {
		certificate, _ = cfg.GetCertificate(&tls.ClientHelloInfo{})
	}
	if certificate == nil && len(cfg.Certificates) > 0 {
		certificate = &cfg.Certificates[0]
	}
	if certificate == nil || len(certificate.Certificate) == 0 {
		return time.Time{}
	}
	leaf := certificate.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(certificate.Certificate[0]); err != nil {
			return time.Time{}
		}
	}
	return leaf.NotAfter
}

// serveVars serves the variables of package expvar, in etcd's shape, without the
// secrets of the command line.
func serveVars(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	fmt.Fprint(w, "{\n")
	first := true
	expvar.Do(func(v expvar.KeyValue) {
		if !first {
			fmt.Fprint(w, ",\n")
		}
		first = false
		if v.Key == "cmdline" {
			v.Value = expvar.Func(func() any { return withoutSecrets(os.Args) })
		}
		fmt.Fprintf(w, "%q: %s", v.Key, v.Value)
	})
	fmt.Fprint(w, "\n}\n")
}
