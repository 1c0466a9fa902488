package tracing

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Metrics sends a collector the metrics that Prometheus would find, under the
// same names. Its method may be called concurrently.
type Metrics struct{ provider *metric.MeterProvider }

// SendMetrics begins to send what from has to the collector, every so often; 0
// is what OTEL_METRIC_EXPORT_INTERVAL says, else a minute. It does not wait for
// the collector. Sample of cfg does not count. Between two times nothing is done.
func SendMetrics(ctx context.Context, cfg Config, every time.Duration, from prometheus.Gatherer) (*Metrics, error) {
	cfg.Sample = 0
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	exporter, err := cfg.metricExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("send metrics to %s: %w", cfg.Endpoint, err)
	}
	about, err := cfg.resource(ctx)
	if err != nil {
		return nil, err
	}
	cfg.hear()
	reader := metric.NewPeriodicReader(exporter, metric.WithInterval(every), metric.WithProducer(&families{from, cfg.Version, time.Now()}))
	return &Metrics{metric.NewMeterProvider(metric.WithReader(reader), metric.WithResource(about))}, nil
}

func (c Config) metricExporter(ctx context.Context) (metric.Exporter, error) {
	if c.over("METRICS") == "http" {
		var opts []otlpmetrichttp.Option
		if c.Endpoint != "" {
			u, err := c.page("/v1/metrics")
			if err != nil {
				return nil, err
			}
			opts = append(opts, otlpmetrichttp.WithEndpointURL(u))
		}
		return otlpmetrichttp.New(ctx, opts...)
	}
	var opts []otlpmetricgrpc.Option
	if c.Endpoint != "" {
		opts = append(opts, otlpmetricgrpc.WithEndpointURL(c.Endpoint))
	}
	return otlpmetricgrpc.New(ctx, opts...)
}

// Shutdown sends the metrics once more, until ctx ends, and ends the sending.
func (m *Metrics) Shutdown(ctx context.Context) error { return m.provider.Shutdown(ctx) }

// SendsMetrics reports whether the configuration or the environment names an
// endpoint for metrics, and nothing switches them off.
func (c Config) SendsMetrics() bool {
	kind := os.Getenv("OTEL_METRICS_EXPORTER")
	return c.enabled("METRICS") && (kind == "" || kind == "otlp")
}

// enabled is about one kind of what is sent, by its name in the variables.
func (c Config) enabled(signal string) bool {
	return !disabled() && cmp.Or(c.Endpoint, os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")) != ""
}

// over is "http" or "grpc".
func (c Config) over(signal string) string {
	protocol := cmp.Or(c.Protocol, os.Getenv("OTEL_EXPORTER_OTLP_"+signal+"_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"))
	if strings.HasPrefix(protocol, "http") { // http/protobuf
		return "http"
	}
	return "grpc"
}

// page is the endpoint, with a path where it has none.
func (c Config) page(path string) (string, error) {
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return "", err
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = path
	}
	return u.String(), nil
}

// families are the metrics, read when they are sent.
type families struct {
	from    prometheus.Gatherer
	version string
	// began is since when counts are counted, where the process does not say.
	began time.Time
}

// Produce implements [metric.Producer].
func (f *families) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	list, err := f.from.Gather()
	scope := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: scopeName, Version: f.version}}
	r := reading{f.began, time.Now()}
	for _, family := range list {
		if family.GetName() == "process_start_time_seconds" && len(family.GetMetric()) == 1 {
			r.began = time.UnixMilli(int64(family.GetMetric()[0].GetGauge().GetValue() * 1000))
		}
	}
	for _, family := range list {
		if data := r.data(family); data != nil {
			scope.Metrics = append(scope.Metrics, metricdata.Metrics{
				Name: family.GetName(), Description: family.GetHelp(), Unit: unit(family.GetName()), Data: data,
			})
		}
	}
	return []metricdata.ScopeMetrics{scope}, err
}

// unit is that of a metric by its name, as UCUM writes it.
func unit(name string) string {
	switch name = strings.TrimSuffix(name, "_total"); {
	case strings.HasSuffix(name, "_seconds"):
		return "s"
	case strings.HasSuffix(name, "_bytes"):
		return "By"
	}
	return ""
}

// reading is all metrics at one time.
type reading struct{ began, now time.Time }

// data puts a family into OpenTelemetry's terms; nil where it has none for it.
// Source: OpenTelemetry, "Prometheus and OpenMetrics Compatibility".
func (r reading) data(family *dto.MetricFamily) metricdata.Aggregation {
	const since = metricdata.CumulativeTemporality
	switch list := family.GetMetric(); family.GetType() {
	case dto.MetricType_COUNTER:
		return metricdata.Sum[float64]{Temporality: since, IsMonotonic: true, DataPoints: each(list, func(m *dto.Metric) metricdata.DataPoint[float64] {
			return metricdata.DataPoint[float64]{Attributes: attributes(m), StartTime: r.began, Time: r.now, Value: m.GetCounter().GetValue()}
		})}
	case dto.MetricType_GAUGE, dto.MetricType_UNTYPED:
		return metricdata.Gauge[float64]{DataPoints: each(list, func(m *dto.Metric) metricdata.DataPoint[float64] {
			return metricdata.DataPoint[float64]{Attributes: attributes(m), Time: r.now, Value: m.GetGauge().GetValue() + m.GetUntyped().GetValue()}
		})}
	case dto.MetricType_HISTOGRAM:
		return metricdata.Histogram[float64]{Temporality: since, DataPoints: each(list, r.histogram)}
	case dto.MetricType_SUMMARY:
		return metricdata.Summary{DataPoints: each(list, r.summary)}
	}
	return nil
}

func each[P any](list []*dto.Metric, point func(*dto.Metric) P) []P {
	out := make([]P, len(list))
	for i, m := range list {
		out[i] = point(m)
	}
	return out
}

// attributes are the labels.
func attributes(m *dto.Metric) attribute.Set {
	all := make([]attribute.KeyValue, len(m.GetLabel()))
	for i, l := range m.GetLabel() {
		all[i] = attribute.String(l.GetName(), l.GetValue())
	}
	return attribute.NewSet(all...)
}

// histogram has the classic form: the bounds that boards and alerts use.
func (r reading) histogram(m *dto.Metric) metricdata.HistogramDataPoint[float64] {
	h := m.GetHistogram()
	p := metricdata.HistogramDataPoint[float64]{
		Attributes: attributes(m), StartTime: r.began, Time: r.now, Count: h.GetSampleCount(), Sum: h.GetSampleSum(),
	}
	below := uint64(0)
	for _, b := range h.GetBucket() {
		if !math.IsInf(b.GetUpperBound(), 1) { // which goes without saying
			p.Bounds = append(p.Bounds, b.GetUpperBound())
			p.BucketCounts = append(p.BucketCounts, b.GetCumulativeCount()-below)
			below = b.GetCumulativeCount()
		}
	}
	p.BucketCounts = append(p.BucketCounts, p.Count-below)
	return p
}

func (r reading) summary(m *dto.Metric) metricdata.SummaryDataPoint {
	s := m.GetSummary()
	p := metricdata.SummaryDataPoint{Attributes: attributes(m), StartTime: r.began, Time: r.now, Count: s.GetSampleCount(), Sum: s.GetSampleSum()}
	for _, q := range s.GetQuantile() {
		p.QuantileValues = append(p.QuantileValues, metricdata.QuantileValue{Quantile: q.GetQuantile(), Value: q.GetValue()})
	}
	return p
}
