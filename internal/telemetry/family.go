package telemetry

import (
	"math"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

// Kind is how a metric changes.
type Kind uint8

// The kinds. A Counter only grows until the process ends, a Gauge goes up and
// down, a Histogram tells how long things took.
const (
	Counter Kind = iota
	Gauge
	Histogram
)

// String gives Prometheus's name of the kind.
func (k Kind) String() string { return [...]string{"counter", "gauge", "histogram"}[k] }

// Family is one metric.
type Family struct {
	// Name and Help are Prometheus's; Labels are the names of the labels.
	Name, Help string
	Kind       Kind
	Labels     []string
	// Topic is the part of the documentation that it belongs to.
	Topic string

	// One of these reads it from a sample: one value, values by label, or
	// durations by label.
	one    func(s *sample) float64
	each   func(s *sample, put func(v float64, labels ...string))
	spread func(s *sample, put func(d *kv.Durations, labels ...string))
}

// Families are all metrics that a server exports besides those of the process
// and of the Go runtime, in the order in which they are documented.
func Families() []Family { return slices.Clone(families) }

// families is all tables.
var families = append(append(append(append([]Family{}, clusterFamilies...), stateFamilies...), serviceFamilies...), etcdFamilies...)

// collect reads the metric.
func (f *Family) collect(s *sample, desc *prometheus.Desc, to chan<- prometheus.Metric) {
	kind := prometheus.CounterValue
	if f.Kind == Gauge {
		kind = prometheus.GaugeValue
	}
	put := func(v float64, labels ...string) { to <- prometheus.MustNewConstMetric(desc, kind, v, labels...) }
	switch {
	case f.one != nil:
		put(f.one(s))
	case f.each != nil:
		f.each(s, put)
	default:
		f.spread(s, func(d *kv.Durations, labels ...string) {
			to <- &histogram{desc, d, prometheus.MakeLabelPairs(desc, labels)}
		})
	}
}

// histogram is durations as Prometheus wants them, in both forms.
type histogram struct {
	desc   *prometheus.Desc
	d      *kv.Durations
	labels []*dto.LabelPair
}

// Desc implements [prometheus.Metric].
func (h *histogram) Desc() *prometheus.Desc { return h.desc }

// The bounds of classic histograms: 2 to the power of these milliseconds, from
// 62.5 µs to 8.192 s. From 1 ms on they are those of etcd's histograms of disks.
const firstBound, lastBound = -4, 13

// Write implements [prometheus.Metric].
func (h *histogram) Write(out *dto.Metric) error {
	out.Label = h.labels
	sum := h.d.Sum.Seconds()
	p := &dto.Histogram{SampleSum: &sum, SampleCount: proto.Uint64(h.d.Count())}
	below, next := uint64(0), firstBound
	for i, n := range h.d.Counts {
		below += n
		if bound := math.Ldexp(0.001, next); next <= lastBound && kv.DurationBound(i) == bound {
			p.Bucket = append(p.Bucket, &dto.Bucket{CumulativeCount: proto.Uint64(below), UpperBound: proto.Float64(bound)})
			next++
		}
	}
	native(p, h.d)
	out.Histogram = p
	return nil
}

// schema is that of the grid of [kv.Durations]: eight buckets to each doubling.
const schema = 3

// native adds the native form: of each doubling, the first two cells are one
// bucket.
// Source: Prometheus, "Native Histograms" (specification); client_model,
// metrics.proto.
func native(p *dto.Histogram, d *kv.Durations) {
	p.Schema, p.ZeroThreshold, p.ZeroCount = proto.Int32(schema), proto.Float64(kv.DurationBound(0)), proto.Uint64(d.Counts[0])
	base := int32(math.Round(math.Log2(kv.DurationBound(0)))) << schema
	last, before, pending := base, int64(0), uint64(0)
	for i, n := range d.Counts[1:] {
		pending += n
		const cells = 9
		if i%cells == 0 && i+2 < len(d.Counts) {
			continue // the next cell belongs to the same bucket
		}
		bucket := base + int32(i/cells)<<schema + int32(max(1, i%cells))
		if pending > 0 {
			if k := len(p.PositiveSpan); k > 0 && bucket == last+1 {
				*p.PositiveSpan[k-1].Length++
			} else {
				offset := bucket - last - 1
				if k == 0 {
					offset = bucket
				}
				p.PositiveSpan = append(p.PositiveSpan, &dto.BucketSpan{Offset: proto.Int32(offset), Length: proto.Uint32(1)})
			}
			p.PositiveDelta = append(p.PositiveDelta, int64(pending)-before)
			before, last, pending = int64(pending), bucket, 0
		}
	}
	if len(p.PositiveSpan) == 0 { // else a reader would take it for a classic one
		p.PositiveSpan = []*dto.BucketSpan{{Offset: proto.Int32(0), Length: proto.Uint32(0)}}
	}
}
