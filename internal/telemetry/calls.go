package telemetry

import (
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/concord-kv/concord/kv"
)

// Call counts the calls of one gRPC method, under the names of etcd's metrics
// (those of go-grpc-prometheus). Counting a call without streams takes four
// atomic additions and a look at the clock, and allocates nothing.
type Call struct {
	kind, service, method string
	epoch                 time.Time // from which Begin counts: the monotonic clock alone is cheaper to read

	started atomic.Uint64
	handled [codes.Unauthenticated + 1]atomic.Uint64
	took    kv.DurationCounter
	// Of streams. Other calls receive one message each, and send one if they
	// succeed.
	received, sent atomic.Uint64
}

// unary is the kind of calls without streams.
const unary = "unary"

// Call adds a method. kind is unary, server_stream, client_stream or
// bidi_stream.
func (m *Metrics) Call(service, method, kind string) *Call {
	c := &Call{kind: kind, service: service, method: method, epoch: time.Now()}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls[:len(m.calls):len(m.calls)], c)
	return c
}

// Begin counts a call that begins, and returns when.
func (c *Call) Begin() time.Duration {
	c.started.Add(1)
	return time.Since(c.epoch)
}

// End counts a call that began then and ends now.
func (c *Call) End(began time.Duration, code codes.Code) {
	if int(code) >= len(c.handled) {
		code = codes.Unknown
	}
	c.handled[code].Add(1)
	c.took.Add(time.Since(c.epoch) - began)
}

// Received counts a message on a stream from the client.
func (c *Call) Received() { c.received.Add(1) }

// Sent counts a message on a stream to the client.
func (c *Call) Sent() { c.sent.Add(1) }

// under is how many calls are under way.
func (c *Call) under() int64 {
	ended := uint64(0) // read first: what begins meanwhile counts
	for i := range c.handled {
		ended += c.handled[i].Load()
	}
	return int64(c.started.Load() - ended)
}

// Under is how many calls are under way, streams among them.
func (m *Metrics) Under() (n int64) {
	for _, c := range m.all() {
		n += c.under()
	}
	return n
}

// Calls counts the calls of some methods that have ended.
func (m *Metrics) Calls(service string, methods ...string) (f kv.CallFigures) {
	for _, c := range m.all() {
		if c.service != service || !slices.Contains(methods, c.method) {
			continue
		}
		took := c.took.Load()
		f.Took.Add(&took)
		for code := range c.handled {
			if codes.Code(code) != codes.OK {
				f.Failed += c.handled[code].Load()
			}
		}
	}
	return f
}

func (m *Metrics) all() []*Call {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls // which is replaced, never changed
}

// callLabels are those of go-grpc-prometheus.
var callLabels = []string{"grpc_type", "grpc_service", "grpc_method"}

// byCall puts a value of each method that was called.
func byCall(value func(c *Call) uint64) func(s *sample, put func(v float64, labels ...string)) {
	return func(s *sample, put func(v float64, labels ...string)) {
		for _, c := range s.calls {
			if v := value(c); v > 0 {
				put(float64(v), c.kind, c.service, c.method)
			}
		}
	}
}

// callFamilies are those of go-grpc-prometheus.
var callFamilies = []Family{
	{
		Name: "grpc_server_started_total", Help: "Total number of RPCs started on the server.", Labels: callLabels, Topic: topicEtcd,
		each: byCall(func(c *Call) uint64 { return c.started.Load() }),
	},
	{
		Name: "grpc_server_handled_total", Help: "Total number of RPCs completed on the server, regardless of success or failure.",
		Labels: append(callLabels[:3:3], "grpc_code"), Topic: topicEtcd,
		each: func(s *sample, put func(v float64, labels ...string)) {
			for _, c := range s.calls {
				for code := range c.handled {
					if n := c.handled[code].Load(); n > 0 {
						put(float64(n), c.kind, c.service, c.method, codes.Code(code).String())
					}
				}
			}
		},
	},
	{
		Name: "grpc_server_msg_received_total", Help: "Total number of RPC stream messages received on the server.", Labels: callLabels, Topic: topicEtcd,
		each: byCall(func(c *Call) uint64 {
			if c.kind == unary {
				return c.started.Load()
			}
			return c.received.Load()
		}),
	},
	{
		Name: "grpc_server_msg_sent_total", Help: "Total number of gRPC stream messages sent by the server.", Labels: callLabels, Topic: topicEtcd,
		each: byCall(func(c *Call) uint64 {
			if c.kind == unary {
				return c.handled[codes.OK].Load()
			}
			return c.sent.Load()
		}),
	},
	{
		Name: "grpc_server_handling_seconds", Kind: Histogram, Labels: callLabels, Topic: topicEtcd,
		Help: "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
		spread: func(s *sample, put func(d *kv.Durations, labels ...string)) {
			for _, c := range s.calls {
				if d := c.took.Load(); d.Count() > 0 {
					put(&d, c.kind, c.service, c.method)
				}
			}
		},
	},
}
