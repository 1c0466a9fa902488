// Package telemetry serves Prometheus the figures of a member: what the member
// says of itself, what its server counts, and what its events add up to. Nothing
// is computed until somebody scrapes; until then all there is are atomic counts.
//
// Each metric has one entry in the tables of this package, from which come what
// is exported and what docs/TELEMETRY.md says of it.
package telemetry

import (
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"

	"github.com/concord-kv/concord/kv"
)

// Source is where the figures come from, one function a layer. Each is called
// once a scrape. Member may be nil, and its figures are then zero.
type Source struct {
	Status func() kv.Status
	Member func() kv.Figures
	Server func() Server
}

// Server is what a server counts and knows.
type Server struct {
	// EtcdVersion is the version of etcd whose API is spoken, x.y.z.
	EtcdVersion string
	// Connections are open; Received and Sent are bytes on those that speak
	// gRPC.
	Connections    int64
	Received, Sent uint64
	// Healthy and Unhealthy count the answers of /health.
	Healthy, Unhealthy uint64
	// Quota is what etcd's status shows; 0 is none.
	Quota int64
	// CertificateEnds is when the certificate for clients ends; zero without
	// one.
	CertificateEnds time.Time
}

// Metrics is a set of metrics. Its methods may be called concurrently.
type Metrics struct {
	// Set by New, then read only.
	source   Source
	events   *Events
	registry *prometheus.Registry
	handler  http.Handler
	descs    []*prometheus.Desc // of families, in their order

	mu    sync.Mutex
	calls []*Call // replaced, never changed
}

// New makes the metrics of a member, with those of the process and of the Go
// runtime that Prometheus's clients have.
func New(source Source) *Metrics {
	m := &Metrics{source: source, events: new(Events), registry: prometheus.NewPedanticRegistry()}
	for i := range families {
		f := &families[i]
		m.descs = append(m.descs, prometheus.NewDesc(f.Name, f.Help, f.Labels, nil))
	}
	m.registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.handler = promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{EnableOpenMetrics: true, CoalesceGather: true})
	return m
}

// Events is what counts the member's events; give its Observer to the member.
func (m *Metrics) Events() *Events { return m.events }

// ServeHTTP serves the metrics as they are now: in Prometheus's text format, in
// OpenMetrics or as protocol buffers, as the client asks. The last have the
// histograms as native ones, too.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// Gather returns all metrics as they are now.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) { return m.registry.Gather() }

// Describe implements [prometheus.Collector].
func (m *Metrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *Metrics) Collect(to chan<- prometheus.Metric) {
	m.mu.Lock()
	s := &sample{now: time.Now(), events: m.events, calls: m.calls}
	m.mu.Unlock()
	s.status = m.source.Status()
	if m.source.Member != nil {
		s.member = m.source.Member()
		distinguish(s.member.Peers)
	}
	s.server = m.source.Server()
	for i := range families {
		families[i].collect(s, m.descs[i], to)
	}
}

// sample is everything at one moment.
type sample struct {
	now    time.Time
	status kv.Status
	member kv.Figures
	server Server
	events *Events
	calls  []*Call
}

// distinguish takes the name from all but one that share it: no two may have the
// same labels.
func distinguish(peers []kv.PeerFigures) {
	seen := map[string]bool{}
	for i := range peers {
		if seen[peers[i].Name] {
			peers[i].Name = ""
		}
		seen[peers[i].Name] = true
	}
}
