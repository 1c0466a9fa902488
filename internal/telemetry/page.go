package telemetry

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// contentType is that of Prometheus's text format, version 0.0.4.
// Source: https://prometheus.io/docs/instrumenting/exposition_formats
const contentType = "text/plain; version=0.0.4; charset=utf-8"

var kindNames = [...]string{Count: "counter", Level: "gauge", Spread: "histogram"}

// ServeHTTP serves the figures as they are now.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", contentType)
	_, _ = w.Write(m.text()) // the client may have gone
}

// gather asks every source. Figures of one name stand together.
func (m *Metrics) gather() []Figure {
	m.mu.Lock()
	calls, sources := m.calls, m.sources
	m.mu.Unlock()
	var all []Figure
	yield := func(f Figure) { all = append(all, f) }
	for _, source := range sources {
		source(yield)
	}
	for _, c := range calls {
		c.figures(yield)
	}
	slices.SortStableFunc(all, func(a, b Figure) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

func (m *Metrics) text() []byte {
	var b []byte
	last := ""
	for _, f := range m.gather() {
		if f.Name != last {
			last = f.Name
			b = append(b, "# HELP "+f.Name+" "+helpEscapes.Replace(f.Help)+"\n"...)
			b = append(b, "# TYPE "+f.Name+" "+kindNames[f.Kind]+"\n"...)
		}
		b = f.appendTo(b)
	}
	return b
}

// appendTo appends the figure's lines.
func (f *Figure) appendTo(b []byte) []byte {
	if f.Kind != Spread {
		return appendSample(b, f.Name, f.Labels, f.Value)
	}
	seconds := func(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'g', -1, 64) }
	labels := slices.Clip(f.Labels)
	for i, bound := range f.Times.Bounds {
		b = appendSample(b, f.Name+"_bucket", append(labels, "le", seconds(bound)), float64(f.Times.Below[i]))
	}
	b = appendSample(b, f.Name+"_bucket", append(labels, "le", "+Inf"), float64(f.Times.Count))
	b = appendSample(b, f.Name+"_sum", f.Labels, f.Times.Sum.Seconds())
	return appendSample(b, f.Name+"_count", f.Labels, float64(f.Times.Count))
}

func appendSample(b []byte, name string, labels []string, value float64) []byte {
	b = append(b, name...)
	for i := 0; i+1 < len(labels); i += 2 {
		if i == 0 {
			b = append(b, '{')
		} else {
			b = append(b, ',')
		}
		b = append(b, labels[i]+`="`+labelEscapes.Replace(labels[i+1])+`"`...)
	}
	if len(labels) > 1 {
		b = append(b, '}')
	}
	b = append(b, ' ')
	b = strconv.AppendFloat(b, value, 'g', -1, 64)
	return append(b, '\n')
}

// The characters that have a meaning in the format.
var (
	helpEscapes  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	labelEscapes = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)
