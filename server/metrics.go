package server

import (
	"context"
	"expvar"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/internal/telemetry"
	"github.com/concord-kv/concord/kv"
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
		c.Begin()
		resp, err := handle(srv, ctx, decode, by)
		c.End(codeOf(err))
		return resp, err
	}
	return m
}

func countStream(s grpc.StreamDesc, c *telemetry.Call) grpc.StreamDesc {
	handle := s.Handler
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		c.Begin()
		err := handle(srv, countedStream{stream, c})
		c.End(codeOf(err))
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

// newMetrics makes the figures of a member.
func newMetrics(cluster kv.Cluster, quota int64) *telemetry.Metrics {
	m := telemetry.New()
	m.Add(statusFigures(cluster, quota))
	if measured, ok := cluster.(kv.Measured); ok {
		m.Add(memberFigures(measured))
	}
	return m
}

// healthCounts count what /health has answered.
type healthCounts struct{ good, bad atomic.Uint64 }

func (c *healthCounts) tell(ok bool) {
	if ok {
		c.good.Add(1)
	} else {
		c.bad.Add(1)
	}
}

func (c *healthCounts) figures(yield func(telemetry.Figure)) {
	for _, f := range []telemetry.Figure{
		{Name: "etcd_server_health_success", Help: "The total number of successful health checks", Value: float64(c.good.Load())},
		{Name: "etcd_server_health_failures", Help: "The total number of failed health checks", Value: float64(c.bad.Load())},
	} {
		if f.Value > 0 {
			yield(f)
		}
	}
}

// figures are of connections.
func (s *splitter) figures(yield func(telemetry.Figure)) {
	for _, f := range []telemetry.Figure{
		{Name: "concord_connections", Help: "Client connections that are open.", Kind: telemetry.Level, Value: float64(s.open.Load())},
		{Name: "etcd_network_client_grpc_received_bytes_total", Help: "The total number of bytes received from grpc clients.", Value: float64(s.traffic.received.Load())},
		{Name: "etcd_network_client_grpc_sent_bytes_total", Help: "The total number of bytes sent to grpc clients.", Value: float64(s.traffic.sent.Load())},
	} {
		yield(f)
	}
}

// statusFigures are what a member's status says, under the names of etcd's
// metrics, and those of Concord's own where etcd has none.
func statusFigures(cluster kv.Cluster, quota int64) func(yield func(telemetry.Figure)) {
	return func(yield func(telemetry.Figure)) {
		st := cluster.Status()
		for _, f := range etcdLevels(&st) {
			f.Kind = telemetry.Level
			yield(f)
		}
		if quota > 0 {
			yield(telemetry.Figure{Name: "etcd_server_quota_backend_bytes", Help: "Current backend storage quota size in bytes.", Kind: telemetry.Level, Value: float64(quota)})
		}
		for _, f := range []telemetry.Figure{
			{Name: "concord_term", Help: "The Raft term that this member is in.", Value: float64(st.Term)},
			{Name: "concord_live_bytes", Help: "Bytes of the keys and values that exist.", Value: float64(st.LiveBytes)},
			{Name: "concord_history_bytes", Help: "Bytes of versions that were replaced or deleted and can still be read.", Value: float64(st.HistoryBytes)},
			{Name: "concord_memory_bytes", Help: "Bytes that the state and its history take outside of the Go heap.", Value: float64(st.MemoryBytes)},
			{Name: "concord_cluster_time_seconds", Help: "Cluster time, which stands still while there is no leader.", Value: float64(st.Time) / 1000},
			{Name: "concord_info", Help: "1, with the version as a label.", Labels: []string{"version", st.Version}, Value: 1},
		} {
			f.Kind = telemetry.Level
			yield(f)
		}
	}
}

func etcdLevels(st *kv.Status) []telemetry.Figure {
	minor := etcdapi.Version[:strings.LastIndexByte(etcdapi.Version, '.')]
	return []telemetry.Figure{
		{Name: "etcd_server_has_leader", Help: "Whether or not a leader exists. 1 is existence, 0 is not.", Value: oneIf(st.Leader != 0)},
		{Name: "etcd_server_is_leader", Help: "Whether or not this member is a leader. 1 if is, 0 otherwise.", Value: oneIf(st.Role == kv.LeaderRole)},
		{Name: "etcd_server_is_learner", Help: "Whether or not this member is a learner. 1 if is, 0 otherwise.", Value: oneIf(st.Role == kv.LearnerRole)},
		{Name: "etcd_server_id", Help: "Server or member ID in hexadecimal format. 1 for 'server_id' label with current ID.", Labels: []string{"server_id", st.Member.String()}, Value: 1},
		{Name: "etcd_server_version", Help: "Which version is running. 1 for 'server_version' label with current version.", Labels: []string{"server_version", etcdapi.Version}, Value: 1},
		{Name: "etcd_server_go_version", Help: "Which Go version server is running with. 1 for 'server_go_version' label with current version.", Labels: []string{"server_go_version", runtime.Version()}, Value: 1},
		{Name: "etcd_cluster_version", Help: "Which version is running. 1 for 'cluster_version' label with current cluster version", Labels: []string{"cluster_version", minor}, Value: 1},
		{Name: "etcd_server_proposals_committed_total", Help: "The total number of consensus proposals committed.", Value: float64(st.Committed)},
		{Name: "etcd_server_proposals_applied_total", Help: "The total number of consensus proposals applied.", Value: float64(st.Applied)},
		{Name: "etcd_mvcc_db_total_size_in_bytes", Help: "Total size of the underlying database physically allocated in bytes.", Value: float64(st.MemoryBytes)},
		{Name: "etcd_mvcc_db_total_size_in_use_in_bytes", Help: "Total size of the underlying database logically in use in bytes.", Value: float64(st.LiveBytes)},
		{Name: "etcd_debugging_mvcc_keys_total", Help: "Total number of keys.", Value: float64(st.Keys)},
		{Name: "etcd_debugging_mvcc_current_revision", Help: "The current revision of store.", Value: float64(st.Revision)},
		{Name: "etcd_debugging_mvcc_compact_revision", Help: "The revision of the last compaction in store.", Value: float64(st.CompactRevision)},
	}
}

func oneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
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
