package telemetry

import (
	"net/http/httptest"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestText(t *testing.T) {
	m := new(Metrics) // without the process's own
	m.Add(func(yield func(Figure)) {
		yield(Figure{Name: "z_total", Help: "Ends\nhere \\.", Value: 3})
		yield(Figure{Name: "level", Help: "Up and down.", Kind: Level, Labels: []string{"name", "a\"b\\c\nd", "other", "x"}, Value: -0.5})
		yield(Figure{Name: "took_seconds", Help: "Time.", Kind: Spread, Labels: []string{"kind", "k"}, Times: Times{
			Bounds: []time.Duration{time.Millisecond, 2 * time.Second}, Below: []uint64{1, 3}, Count: 4, Sum: 10 * time.Second,
		}})
	})
	m.Add(func(yield func(Figure)) { yield(Figure{Name: "level", Help: "Up and down.", Kind: Level, Value: 1e9}) })
	page := httptest.NewRecorder()
	m.ServeHTTP(page, nil)
	want := `# HELP level Up and down.
# TYPE level gauge
level{name="a\"b\\c\nd",other="x"} -0.5
level 1e+09
# HELP took_seconds Time.
# TYPE took_seconds histogram
took_seconds_bucket{kind="k",le="0.001"} 1
took_seconds_bucket{kind="k",le="2"} 3
took_seconds_bucket{kind="k",le="+Inf"} 4
took_seconds_sum{kind="k"} 10
took_seconds_count{kind="k"} 4
# HELP z_total Ends\nhere \\.
# TYPE z_total counter
z_total 3
`
	if got := page.Body.String(); got != want || page.Header().Get("Content-Type") != "text/plain; version=0.0.4; charset=utf-8" {
		t.Errorf("%v\n%s", page.Header(), got)
	}
}

// sample is a line of the format that is no comment.
var sample = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-+0-9.e]+$`)

// TestProcess finds what Prometheus's own clients tell of a process.
func TestProcess(t *testing.T) {
	text := string(New().text())
	wanted := []string{"go_goroutines", "go_memstats_heap_alloc_bytes", "go_memstats_alloc_bytes_total", "go_gc_cycles_total_gc_cycles_total", "go_info"}
	if runtime.GOOS == "linux" {
		wanted = append(wanted, "process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
			"process_start_time_seconds", "process_open_fds", "process_max_fds", "go_threads")
	}
	for _, name := range wanted {
		if !strings.Contains(text, "\n# TYPE "+name+" ") && !strings.HasPrefix(text, "# HELP "+name+" ") {
			t.Errorf("there is no %s", name)
		}
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case !strings.HasPrefix(line, "#"):
			if !sample.MatchString(line) {
				t.Errorf("no sample: %s", line)
			}
		case strings.HasPrefix(line, "# TYPE "):
			if seen[line] {
				t.Errorf("twice: %s", line)
			}
			seen[line] = true
		}
	}
}

func TestCalls(t *testing.T) {
	m := new(Metrics)
	c := m.Call("pkg.S", "Do", "unary")
	m.Call("pkg.S", "Never", "unary")
	const callers, calls = 4, 1000
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for i := range calls {
				c.Begin()
				if i%2 == 0 {
					c.End(codes.OK)
				} else {
					c.End(codes.NotFound)
				}
			}
		})
	}
	wg.Wait()
	s := m.Call("pkg.S", "Stream", "bidi_stream")
	s.Begin()
	s.Received()
	s.Sent()
	s.Sent()
	c.End(99)
	want := `grpc_server_handled_total{grpc_type="unary",grpc_service="pkg.S",grpc_method="Do",grpc_code="OK"} 2000
grpc_server_handled_total{grpc_type="unary",grpc_service="pkg.S",grpc_method="Do",grpc_code="Unknown"} 1
grpc_server_handled_total{grpc_type="unary",grpc_service="pkg.S",grpc_method="Do",grpc_code="NotFound"} 2000
grpc_server_msg_received_total{grpc_type="unary",grpc_service="pkg.S",grpc_method="Do"} 4000
grpc_server_msg_received_total{grpc_type="bidi_stream",grpc_service="pkg.S",grpc_method="Stream"} 1
grpc_server_msg_sent_total{grpc_type="unary",grpc_service="pkg.S",grpc_method="Do"} 2000
grpc_server_msg_sent_total{grpc_type="bidi_stream",grpc_service="pkg.S",grpc_method="Stream"} 2
grpc_server_started_total{grpc_type="unary",grpc_service="pkg.S",grpc_method="Do"} 4000
grpc_server_started_total{grpc_type="bidi_stream",grpc_service="pkg.S",grpc_method="Stream"} 1
`
	var got strings.Builder
	for line := range strings.Lines(string(m.text())) {
		if !strings.HasPrefix(line, "#") {
			got.WriteString(line)
		}
	}
	if got.String() != want {
		t.Errorf("%s", got.String())
	}
}

// BenchmarkCall is what counting adds to one call: alone, and where all
// processors do nothing but count the same method.
func BenchmarkCall(b *testing.B) {
	c := New().Call("pkg.S", "Do", "unary")
	b.Run("alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			c.Begin()
			c.End(codes.OK)
		}
	})
	b.Run("contended", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				c.Begin()
				c.End(codes.OK)
			}
		})
	})
}

// BenchmarkPage is what one look costs.
func BenchmarkPage(b *testing.B) {
	m := New()
	b.ReportAllocs()
	for b.Loop() {
		m.text()
	}
}
