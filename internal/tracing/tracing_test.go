package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	spans "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/observe"
	"github.com/concord-kv/concord/server"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a collector that keeps what it gets.
type receiver struct {
	collector.UnimplementedTraceServiceServer
	mu   sync.Mutex
	got  []*spans.Span
	text bytes.Buffer
}

// Export implements [collector.TraceServiceServer].
func (r *receiver) Export(_ context.Context, in *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, _ := proto.Marshal(in)
	r.text.Write(all)
	for _, resource := range in.ResourceSpans {
		for _, scope := range resource.ScopeSpans {
			r.got = append(r.got, scope.Spans...)
		}
	}
	return new(collector.ExportTraceServiceResponse), nil
}

// ServeHTTP takes what Export takes.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(body)
	}
	text, err := io.ReadAll(body)
	in := new(collector.ExportTraceServiceRequest)
	if err = errors.Join(err, proto.Unmarshal(text, in)); err != nil || req.URL.Path != "/v1/traces" {
		http.Error(w, "no traces", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(req.Context(), in)
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// over starts the receiver, and says where it is.
func (r *receiver) over(t *testing.T, protocol string) (endpoint string) {
	t.Helper()
	if protocol == "http" {
		s := httptest.NewServer(r)
		t.Cleanup(s.Close)
		return s.URL
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	collector.RegisterTraceServiceServer(g, r)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return "http://" + l.Addr().String()
}

// named are the spans of a name.
func (r *receiver) named(name string) (out []*spans.Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.got {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}

// below are the names of the spans below one, as they began.
func (r *receiver) below(parent *spans.Span) (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*spans.Span
	for _, s := range r.got {
		if bytes.Equal(s.ParentSpanId, parent.SpanId) && bytes.Equal(s.TraceId, parent.TraceId) {
			all = append(all, s)
			if s.StartTimeUnixNano < parent.StartTimeUnixNano || s.EndTimeUnixNano < s.StartTimeUnixNano {
				panic(s.Name + " began before what it is part of, or ended before it began")
			}
		}
	}
	slices.SortStableFunc(all, func(a, b *spans.Span) int { return int(a.StartTimeUnixNano) - int(b.StartTimeUnixNano) })
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

func newTracer(t *testing.T, protocol string, share float64) (*Tracer, *receiver) {
	t.Helper()
	r := new(receiver)
	tracer, err := New(t.Context(), Config{Endpoint: r.over(t, protocol), Protocol: protocol, Sample: share, Member: "n1", Version: "1.2.3"})
	if err != nil {
		t.Fatal(err)
	}
	return tracer, r
}

// member serves a member of its own; stop ends it and sends all spans.
func member(t *testing.T, tracer *Tracer) (addr string, stop func()) {
	t.Helper()
	node, err := concord.Open(t.Context(), t.TempDir(), concord.Observe(tracer.Observer()))
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(node, node, server.Config{Addrs: []string{"127.0.0.1:0"}, Tracing: tracer})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := errors.Join(<-done, node.Close(), tracer.Shutdown(context.Background())); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	return s.Addrs()[0].String(), stop
}

const parentID, parentSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

// TestPut looks at the spans of a put, by both protocols: what it is part of,
// what is part of it, and that neither key nor value is in them.
func TestPut(t *testing.T) {
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			tracer, r := newTracer(t, protocol, 0)
			addr, stop := member(t, tracer)
			conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			kv := etcdserverpb.NewKVClient(conn)
			put := &etcdserverpb.PutRequest{Key: []byte("hidden-key"), Value: []byte("hidden-value")}
			for flags, base := range map[string]context.Context{"00": t.Context(), "01": t.Context()} {
				ctx := metadata.AppendToOutgoingContext(base, traceParent, "00-"+parentID+"-"+parentSpan+"-"+flags)
				if _, err := kv.Put(ctx, put); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := kv.Put(t.Context(), put); err != nil { // nobody decided, and of these none is sampled
				t.Fatal(err)
			}
			stop()
			calls := r.named("etcdserverpb.KV/Put")
			if len(calls) != 1 || hex.EncodeToString(calls[0].TraceId) != parentID || hex.EncodeToString(calls[0].ParentSpanId) != parentSpan {
				t.Fatalf("spans of calls: %v", calls)
			}
			if below := r.below(calls[0]); !slices.Contains(below, "api.put") {
				t.Errorf("below the call: %q", below)
			}
			api := r.named("api.put")
			if len(api) != 1 {
				t.Fatalf("%d spans of the member's part", len(api))
			}
			phases := strings.Join(r.below(api[0]), " ")
			if phases != "queue answer" {
				t.Errorf("phases %q", phases)
			}
			part := r.named("operation.replicated")
			if len(part) != 1 || !strings.HasSuffix(strings.Join(r.below(part[0]), " "), "apply") {
				t.Errorf("the member's part: %v", part)
			}
			if r.text.Len() == 0 || bytes.Contains(r.text.Bytes(), []byte("hidden")) {
				t.Error("a key or a value is in the spans")
			}
		})
	}
}

// TestGateway has requests in JSON be part of what their sender says, once.
func TestGateway(t *testing.T) {
	tracer, r := newTracer(t, "grpc", 1)
	addr, stop := member(t, tracer)
	client := new(http.Client)
	send := func(path, flags string) {
		method, body := http.MethodPost, io.Reader(strings.NewReader(`{"key":"YQ==","value":"YQ=="}`))
		if strings.HasPrefix(path, "/v1/") {
			method, body = http.MethodGet, nil
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Traceparent", "00-"+parentID+"-"+parentSpan+"-"+flags)
		resp, err := client.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		_ = resp.Body.Close()
	}
	send("/v3/kv/put", "01")
	send("/v3/kv/put", "00")
	send("/v1/cluster/status", "01")
	client.CloseIdleConnections()
	stop()
	pages := r.named("POST /v3")
	if len(pages) != 1 || hex.EncodeToString(pages[0].TraceId) != parentID || !slices.Equal(r.below(pages[0]), []string{"etcdserverpb.KV/Put"}) {
		t.Errorf("%v", pages)
	}
	if len(r.named("etcdserverpb.KV/Put")) != 1 || len(r.named("GET /v1/cluster/status")) != 1 {
		t.Errorf("%v", r.got)
	}
}

// TestProposal has a member add its part to the trace of another one.
func TestProposal(t *testing.T) {
	tracer, r := newTracer(t, "grpc", 0)
	id, _ := trace.TraceIDFromHex(parentID)
	span, _ := trace.SpanIDFromHex(parentSpan)
	of := pack(trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled}))
	start, o := time.Now(), tracer.Observer()
	o.Proposal(observe.Proposal{
		Trace: of, Member: 0xa1, Role: "follower", Index: 7, Term: 2, Start: start,
		Phases: observe.Phases{Logged: 2000, Committed: 3000, Applied: 4000},
	})
	o.Proposal(observe.Proposal{Trace: observe.NewTrace([]byte("another system's")), Start: start})
	if err := tracer.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	parts := r.named("operation.replicated")
	if len(parts) != 1 || hex.EncodeToString(parts[0].ParentSpanId) != parentSpan ||
		said(parts[0], "concord.member") != "a1" || said(parts[0], "concord.role") != "follower" ||
		parts[0].EndTimeUnixNano != uint64(start.UnixNano()+4000) {
		t.Fatalf("%v", parts)
	}
	if below := r.below(parts[0]); !slices.Equal(below, []string{"log", "replicate", "apply"}) {
		t.Errorf("phases %q", below)
	}
	if len(r.got) != 4 {
		t.Errorf("%d spans", len(r.got))
	}
}

func TestSampling(t *testing.T) {
	for _, c := range []struct {
		sample     float64
		kind, arg  string
		share      float64
		alone, bad bool
	}{
		{0.5, "always_on", "", 0.5, false, false}, {-1, "", "", DefaultSample, false, false}, {-1, "", "0.25", 0.25, false, false},
		{-1, "always_on", "", 1, true, false}, {-1, "always_off", "", 0, true, false}, {-1, "traceidratio", "0.5", 0.5, true, false},
		{-1, "parentbased_always_on", "", 1, false, false}, {-1, "parentbased_always_off", "", 0, false, false},
		{-1, "jaeger_remote", "", 0, false, true}, {-1, "", "many", 0, false, true}, {-1, "", "NaN", 0, false, true}, {1.5, "", "", 0, false, true},
	} {
		t.Setenv("OTEL_TRACES_SAMPLER", c.kind)
		t.Setenv("OTEL_TRACES_SAMPLER_ARG", c.arg)
		cfg := Config{Sample: c.sample}
		if err := cfg.Check(); (err != nil) != c.bad {
			t.Errorf("%+v: %v", c, err)
		}
		if got, _ := cfg.sampling(); !c.bad && got != (sampling{c.share, c.alone}) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
	hits := 0
	half := &Tracer{threshold: 1 << 62}
	for range 10_000 {
		if half.samples(trace.SpanContext{}) {
			hits++
		}
	}
	if hits < 4500 || hits > 5500 {
		t.Errorf("%d of 10,000 at a share of a half", hits)
	}
}

func TestConfig(t *testing.T) {
	for _, c := range []Config{{Endpoint: "127.0.0.1:4317"}, {Endpoint: "ftp://x"}, {Endpoint: "http://"}, {Protocol: "udp"}} {
		if c.Check() == nil {
			t.Errorf("%+v is taken", c)
		}
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	if (Config{}).Enabled() {
		t.Error("without an endpoint")
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317")
	if !(Config{}).Enabled() {
		t.Error("the environment's endpoint does not count")
	}
	t.Setenv("OTEL_SDK_DISABLED", "true")
	if (Config{Endpoint: "http://127.0.0.1:4317"}).Enabled() {
		t.Error("OTEL_SDK_DISABLED does not count")
	}
}

// registry keeps what is registered.
type registry struct{ desc *grpc.ServiceDesc }

// RegisterService implements [grpc.ServiceRegistrar].
func (r *registry) RegisterService(desc *grpc.ServiceDesc, _ any) { r.desc = desc }

// TestUnsampled counts what a call that is not sampled allocates: nothing.
func TestUnsampled(t *testing.T) {
	r := new(registry)
	handle := func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) { return nil, nil }
	new(Tracer).Registrar(r).RegisterService(&grpc.ServiceDesc{ServiceName: "s", Methods: []grpc.MethodDesc{{MethodName: "m", Handler: handle}}}, nil)
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("content-type", "application/grpc", "user-agent", "x"))
	traced := r.desc.Methods[0].Handler
	if n := testing.AllocsPerRun(100, func() { _, _ = traced(nil, ctx, nil, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParent(f *testing.F) {
	f.Add("00-"+parentID+"-"+parentSpan+"-01", "a=b")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, parent, state string) {
		ctx := metadata.NewIncomingContext(context.Background(), metadata.MD{traceParent: {parent}, traceState: {state}})
		c := parentOf(ctx, carried{ctx})
		packed := pack(c)
		if back := unpack(&packed); back.TraceID() != c.TraceID() || back.SpanID() != c.SpanID() {
			t.Errorf("%v became %v", c, back)
		}
	})
}
