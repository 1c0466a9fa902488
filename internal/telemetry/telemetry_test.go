package telemetry

import (
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"google.golang.org/grpc/codes"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// silent is a member that has nothing to tell, among two others.
func silent() *Metrics {
	return New(Source{
		Status: func() kv.Status { return kv.Status{Member: 1} },
		Member: func() kv.Figures {
			return kv.Figures{Name: "n1", Peers: []kv.PeerFigures{{Member: 2, Name: "n2"}, {Member: 3, Name: "n2"}}}
		},
		Server: func() Server { return Server{EtcdVersion: "3.7.0"} },
	})
}

func gather(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	list, err := m.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*dto.MetricFamily{}
	for _, f := range list {
		out[f.GetName()] = f
	}
	return out
}

// TestHistogram compares both forms of a histogram with the durations.
func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 20 {
		var c kv.DurationCounter
		var all []time.Duration
		for range r.IntN(500) * round {
			d := time.Duration(math.Exp2(38 * r.Float64()))
			all = append(all, d)
			c.Add(d)
		}
		d := c.Load()
		var out dto.Metric
		if err := (&histogram{prometheus.NewDesc("x", "x", nil, nil), &d, nil}).Write(&out); err != nil {
			t.Fatal(err)
		}
		h := out.GetHistogram()
		if h.GetSampleCount() != uint64(len(all)) {
			t.Fatalf("%d samples, want %d", h.GetSampleCount(), len(all))
		}
		if len(h.GetBucket()) != 18 || h.GetBucket()[4].GetUpperBound() != 0.001 {
			t.Fatalf("%d buckets, the fifth up to %v", len(h.GetBucket()), h.GetBucket()[4].GetUpperBound())
		}
		for _, b := range h.GetBucket() {
			if want := atMost(all, b.GetUpperBound()); b.GetCumulativeCount() != want {
				t.Errorf("%d took at most %v, want %d", b.GetCumulativeCount(), b.GetUpperBound(), want)
			}
		}
		checkNative(t, h, all)
	}
}

func atMost(all []time.Duration, seconds float64) (n uint64) {
	for _, d := range all {
		if d.Seconds() <= seconds {
			n++
		}
	}
	return n
}

// checkNative reads the native form as the specification says.
func checkNative(t *testing.T, h *dto.Histogram, all []time.Duration) {
	t.Helper()
	if len(h.GetPositiveSpan()) == 0 {
		t.Error("a reader would not see that there is a native form")
	}
	below, bucket, count, at := h.GetZeroCount(), int32(0), int64(0), 0
	if want := atMost(all, h.GetZeroThreshold()); below != want {
		t.Errorf("%d in the zero bucket, want %d", below, want)
	}
	for i, span := range h.GetPositiveSpan() {
		if bucket += span.GetOffset(); i > 0 && span.GetOffset() < 1 {
			t.Errorf("span %d has offset %d", i, span.GetOffset())
		}
		for range span.GetLength() {
			count += h.GetPositiveDelta()[at]
			at++
			below += uint64(count)
			upper := math.Exp2(float64(bucket) / 8)
			if want := atMost(all, upper*(1+1e-12)); below != want && upper < 64 {
				t.Errorf("%d took at most %v, want %d", below, upper, want)
			}
			bucket++
		}
	}
	if at != len(h.GetPositiveDelta()) || below != uint64(len(all)) {
		t.Errorf("%d of %d deltas belong to spans; %d of %d samples", at, len(h.GetPositiveDelta()), below, len(all))
	}
}

var named = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// TestFamilies holds the tables to Prometheus's conventions.
func TestFamilies(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Families() {
		if seen[f.Name] || !named.MatchString(f.Name) || f.Help == "" || f.Topic == "" {
			t.Errorf("%+v: is there twice, has a bad name, no help or no topic", f)
		}
		seen[f.Name] = true
		if readers := oneIf(f.one != nil) + oneIf(f.each != nil) + oneIf(f.spread != nil); readers != 1 || (f.spread != nil) != (f.Kind == Histogram) || (f.one != nil && len(f.Labels) > 0) {
			t.Errorf("%s is a %v and has %v readers", f.Name, f.Kind, readers)
		}
		if !strings.HasPrefix(f.Name, "concord_") {
			continue // etcd has its own
		}
		switch total := strings.HasSuffix(f.Name, "_total"); {
		case total != (f.Kind == Counter):
			t.Errorf("%s is a %v", f.Name, f.Kind)
		case f.Kind == Histogram && !strings.HasSuffix(f.Name, "_seconds"):
			t.Errorf("%s has no unit", f.Name)
		}
	}
}

// TestSilent: a member that did nothing has metrics without contradictions, and
// peers with one name are told apart.
func TestSilent(t *testing.T) {
	all := gather(t, silent())
	for _, name := range []string{"go_goroutines", "go_info", "process_cpu_seconds_total", "concord_info", "etcd_server_has_leader"} {
		if all[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	if got := len(all["concord_peer_connected"].GetMetric()); got != 2 {
		t.Errorf("%d peers, want 2", got)
	}
}

// TestFormats: the client's wish decides, and protocol buffers have native
// histograms.
func TestFormats(t *testing.T) {
	m := silent()
	c := m.Call("s", "m", unary)
	c.End(c.Begin(), codes.OK)
	server := httptest.NewServer(m)
	defer server.Close()
	for accept, want := range map[string]string{
		"": "text/plain", "application/openmetrics-text;version=1.0.0": "application/openmetrics-text", string(expfmt.NewFormat(expfmt.TypeProtoDelim)): "application/vnd.google.protobuf",
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", accept)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if kind := resp.Header.Get("Content-Type"); err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(kind, want) {
			t.Errorf("%q was answered %d with %s: %v", accept, resp.StatusCode, kind, err)
		}
		dec := expfmt.NewDecoder(strings.NewReader(string(body)), expfmt.ResponseFormat(resp.Header))
		families, native := 0, false
		for {
			var f dto.MetricFamily
			if err := dec.Decode(&f); err == io.EOF {
				break
			} else if err != nil {
				if want != "application/openmetrics-text" { // which this reader does not know
					t.Fatal(err)
				}
				break
			}
			families++
			if f.GetName() == "grpc_server_handling_seconds" {
				native = f.GetMetric()[0].GetHistogram().Schema != nil
			}
		}
		if want != "application/openmetrics-text" && (families < len(Families())/2 || native != strings.Contains(want, "protobuf")) {
			t.Errorf("%s has %d families, native histograms: %v", want, families, native)
		}
		if want == "application/openmetrics-text" && !strings.HasSuffix(string(body), "# EOF\n") {
			t.Error("OpenMetrics has no end")
		}
	}
}

// TestEvents counts one of each kind.
func TestEvents(t *testing.T) {
	m := silent()
	o := m.Events().Observer()
	o.API(observe.API{Op: observe.OpPut, Result: "ok", Duration: 9 * time.Millisecond, Phases: observe.Phases{
		Queued: time.Millisecond, Logged: 3 * time.Millisecond, Committed: 4 * time.Millisecond, Applied: 6 * time.Millisecond, Answered: 9 * time.Millisecond,
	}})
	o.API(observe.API{Op: observe.OpRange, Result: "ok", Keys: 7})
	o.API(observe.API{Op: observe.OpPut, Result: "unavailable"})
	o.API(observe.API{Op: observe.OpGet, Result: "unavailable"})
	o.API(observe.API{Op: observe.OpPut, Result: "never heard of"})
	o.API(observe.API{Op: 255})
	for range 100 {
		o.Limit(observe.Limit{Kind: observe.LimitHit, Limit: "memory"})
	}
	for i := range 100 {
		o.Limit(observe.Limit{Kind: observe.LimitHit, Limit: strings.Repeat("x", i)})
	}
	o.Limit(observe.Limit{Kind: observe.LimitCleared, Limit: "memory"})
	o.Backup(observe.Backup{Duration: time.Second})
	o.Backup(observe.Backup{Err: io.EOF})
	o.Auth(observe.Auth{Kind: observe.Denied})
	o.Auth(observe.Auth{Kind: 77})
	all := gather(t, m)
	value := func(name string, labels ...string) float64 {
		for _, x := range all[name].GetMetric() {
			matches := 0
			for i := 0; i+1 < len(labels); i += 2 {
				for _, l := range x.GetLabel() {
					matches += int(oneIf(l.GetName() == labels[i] && l.GetValue() == labels[i+1]))
				}
			}
			if matches*2 == len(labels) {
				if h := x.GetHistogram(); h != nil {
					return h.GetSampleSum()
				}
				return x.GetCounter().GetValue() + x.GetGauge().GetValue()
			}
		}
		return math.NaN()
	}
	for _, c := range []struct {
		got, want float64
		what      string
	}{
		{value("concord_api_calls_total", "operation", "put", "result", "ok"), 1, "puts"},
		{value("concord_api_calls_total", "operation", "put", "result", "other"), 1, "puts with a result of a later version"},
		{value("concord_api_seconds", "operation", "put"), 0.009, "seconds of puts"},
		{value("concord_write_phase_seconds", "phase", "queue"), 0.001, "in the queue"},
		{value("concord_write_phase_seconds", "phase", "log"), 0.002, "in the log"},
		{value("concord_write_phase_seconds", "phase", "replicate"), 0.001, "replicated"},
		{value("concord_write_phase_seconds", "phase", "apply"), 0.002, "applied"},
		{value("concord_write_phase_seconds", "phase", "answer"), 0.003, "answered"},
		{value("concord_read_keys_total"), 7, "keys read"},
		{value("concord_proposals_failed_total"), 1, "failed proposals"},
		{value("concord_limit_hits_total", "limit", "memory"), 100, "hits of the memory limit"},
		{value("concord_limit_hits_total", "limit", "other"), 69, "hits of limits beyond the bound"},
		{value("concord_backup_errors_total"), 1, "failed backups"},
		{value("concord_backup_seconds"), 1, "seconds of backups"},
		{value("concord_auth_decisions_total", "decision", "denied"), 1, "denied"},
	} {
		if math.Abs(c.got-c.want) > 1e-12 || math.IsNaN(c.got) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	if value("concord_backup_last_timestamp_seconds") < 1e9 {
		t.Error("the last backup has no time")
	}
}

// TestResultNames: results are the words of kv's codes.
func TestResultNames(t *testing.T) {
	for code := kv.Internal; code <= kv.Unsupported; code++ {
		if resultNames[code+1] != code.String() {
			t.Errorf("code %d is %q here and %q there", code, resultNames[code+1], code)
		}
	}
	if len(resultNames) != int(kv.Unsupported)+3 {
		t.Error("there is a code that has no name here")
	}
}

// BenchmarkCall is what a call costs at the edge.
func BenchmarkCall(b *testing.B) {
	c := silent().Call("s", "m", unary)
	for range b.N {
		c.End(c.Begin(), codes.OK)
	}
}

// BenchmarkEvent is what counting a put's event costs.
func BenchmarkEvent(b *testing.B) {
	api := silent().Events().Observer().API
	e := observe.API{Op: observe.OpPut, Result: "ok", Duration: 9 * time.Millisecond, Phases: observe.Phases{
		Queued: time.Millisecond, Logged: 3 * time.Millisecond, Committed: 4 * time.Millisecond, Applied: 6 * time.Millisecond, Answered: 9 * time.Millisecond,
	}}
	for range b.N {
		api(e)
	}
}

// BenchmarkScrape is what a look costs.
func BenchmarkScrape(b *testing.B) {
	m := silent()
	for range b.N {
		if _, err := m.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
