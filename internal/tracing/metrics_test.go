package tracing

import (
	"compress/gzip"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	collector "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/server"
)

// meter is a collector that keeps the metrics that it got last.
type meter struct {
	collector.UnimplementedMetricsServiceServer
	mu    sync.Mutex
	got   map[string]*metrics.Metric
	about map[string]string
	times int
}

// Export implements [collector.MetricsServiceServer].
func (m *meter) Export(_ context.Context, in *collector.ExportMetricsServiceRequest) (*collector.ExportMetricsServiceResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.got, m.about = map[string]*metrics.Metric{}, map[string]string{}
	m.times++
	for _, resource := range in.ResourceMetrics {
		for _, a := range resource.Resource.Attributes {
			m.about[a.Key] = a.Value.GetStringValue()
		}
		for _, scope := range resource.ScopeMetrics {
			for _, one := range scope.Metrics {
				m.got[one.Name] = one
			}
		}
	}
	return new(collector.ExportMetricsServiceResponse), nil
}

// ServeHTTP takes what Export takes.
func (m *meter) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(body)
	}
	text, err := io.ReadAll(body)
	in := new(collector.ExportMetricsServiceRequest)
	if err = errors.Join(err, proto.Unmarshal(text, in)); err != nil || req.URL.Path != "/v1/metrics" {
		http.Error(w, "no metrics", http.StatusBadRequest)
		return
	}
	_, _ = m.Export(req.Context(), in)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// over starts the collector, and says where it is.
func (m *meter) over(t *testing.T, protocol string) (endpoint string) {
	t.Helper()
	// However long this machine takes.
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "120000")
	t.Setenv("OTEL_METRIC_EXPORT_TIMEOUT", "120000")
	if protocol == "http" {
		s := httptest.NewServer(m)
		t.Cleanup(s.Close)
		return s.URL
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	collector.RegisterMetricsServiceServer(g, m)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return "http://" + l.Addr().String()
}

// TestMetrics has a member's metrics come to a collector, by both protocols: all
// that Prometheus finds, under the same names and of the same kinds.
func TestMetrics(t *testing.T) {
	node, err := concord.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(node, node, server.Config{Addrs: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-done, node.Close()); err != nil {
			t.Error(err)
		}
	}()
	for range 5 {
		if _, err := node.Put(t.Context(), "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			m := new(meter)
			cfg := Config{Endpoint: m.over(t, protocol), Protocol: protocol, Member: "n1", Version: "1.2.3"}
			sent, err := SendMetrics(t.Context(), cfg, time.Hour, s.Metrics())
			if err != nil {
				t.Fatal(err)
			}
			if err := sent.Shutdown(context.Background()); err != nil { // which sends them once more
				t.Fatal(err)
			}
			if m.times != 1 || m.about["service.name"] != "concord" || m.about["service.instance.id"] != "n1" || m.about["service.version"] != "1.2.3" {
				t.Errorf("sent %d times, from %v", m.times, m.about)
			}
			compare(t, s.Metrics(), m.got)
		})
	}
}

// compare looks at the names and kinds of all metrics, and at some closely.
func compare(t *testing.T, from prometheus.Gatherer, got map[string]*metrics.Metric) {
	t.Helper()
	list, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*dto.MetricFamily{}
	for _, f := range list {
		want[f.GetName()] = f
		m := got[f.GetName()]
		if m == nil {
			t.Errorf("%s has not come", f.GetName())
			continue
		}
		kind := m.GetGauge() != nil && f.GetType() == dto.MetricType_GAUGE ||
			m.GetSum().GetIsMonotonic() && f.GetType() == dto.MetricType_COUNTER ||
			m.GetHistogram() != nil && f.GetType() == dto.MetricType_HISTOGRAM ||
			m.GetSummary() != nil && f.GetType() == dto.MetricType_SUMMARY
		if !kind || m.Description != f.GetHelp() {
			t.Errorf("%v became %v", f, m)
		}
	}
	if len(got) < 100 {
		t.Errorf("only %d metrics have come", len(got))
	}
	for name := range got {
		if want[name] == nil && name != "go_gc_duration_seconds" {
			t.Errorf("%s has come, and is none of ours: %q", name, slices.Sorted(maps.Keys(want)))
		}
	}
	revision := got["concord_revision"].GetGauge().GetDataPoints()
	if len(revision) != 1 || revision[0].GetAsDouble() != want["concord_revision"].GetMetric()[0].GetGauge().GetValue() || revision[0].TimeUnixNano == 0 {
		t.Errorf("revision: %v", revision)
	}
	roles := got["concord_role"].GetGauge().GetDataPoints()
	if len(roles) != len(want["concord_role"].GetMetric()) || len(roles[0].Attributes) != 1 || roles[0].Attributes[0].Key != "role" {
		t.Errorf("roles: %v", roles)
	}
	terms := got["concord_leader_changes_total"].GetSum()
	if p := terms.GetDataPoints(); len(p) != 1 || p[0].StartTimeUnixNano == 0 || p[0].StartTimeUnixNano >= p[0].TimeUnixNano ||
		terms.AggregationTemporality != metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		t.Errorf("leader changes: %v", terms)
	}
	writes := got["concord_log_write_seconds"]
	if p := writes.GetHistogram().GetDataPoints(); writes.GetUnit() != "s" || len(p) != 1 || p[0].Count < 5 || p[0].GetSum() <= 0 ||
		len(p[0].ExplicitBounds) != 18 || len(p[0].BucketCounts) != 19 || total(p[0].BucketCounts) != p[0].Count {
		t.Errorf("writes of the log: %v", writes)
	}
}

func total(counts []uint64) (n uint64) {
	for _, c := range counts {
		n += c
	}
	return n
}

// TestMetricsAgain has them come while nobody asks.
func TestMetricsAgain(t *testing.T) {
	m := new(meter)
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "x_bytes_total"}, func() float64 { return 7 }))
	sent, err := SendMetrics(t.Context(), Config{Endpoint: m.over(t, "grpc")}, time.Millisecond, registry)
	if err != nil {
		t.Fatal(err)
	}
	times := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.times
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for times() < 3 { // the test's own time ends it
		<-tick.C
	}
	if err := sent.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if x := m.got["x_bytes_total"]; x.GetUnit() != "By" || x.GetSum().GetDataPoints()[0].GetAsDouble() != 7 {
		t.Errorf("%v", m.got)
	}
}

// TestNoCollector: the end of a member does not wait for one that is not there.
func TestNoCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody takes what comes
	sent, err := SendMetrics(t.Context(), Config{Endpoint: "http://" + l.Addr().String()}, time.Hour, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sent.Shutdown(ctx); err == nil {
		t.Error("metrics came to nobody")
	}
}

func TestSendsMetrics(t *testing.T) {
	for _, c := range []struct {
		endpoint, all, metrics, exporter, disabled string
		want                                       bool
	}{
		{want: false}, {endpoint: "http://x:1", want: true}, {all: "http://x:1", want: true}, {metrics: "http://x:1", want: true},
		{all: "http://x:1", exporter: "none"}, {all: "http://x:1", exporter: "prometheus"}, {all: "http://x:1", exporter: "otlp", want: true},
		{endpoint: "http://x:1", disabled: "true"},
	} {
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.all)
		t.Setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", c.metrics)
		t.Setenv("OTEL_METRICS_EXPORTER", c.exporter)
		t.Setenv("OTEL_SDK_DISABLED", c.disabled)
		if got := (Config{Endpoint: c.endpoint}).SendsMetrics(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if _, err := SendMetrics(t.Context(), Config{Endpoint: "nowhere"}, 0, prometheus.NewRegistry()); err == nil {
		t.Error("no URL is taken for one")
	}
}
