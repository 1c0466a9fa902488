package telemetry

import (
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

// Call counts the calls of one gRPC method, under the names of etcd's metrics
// (those of go-grpc-prometheus). Counting a call without streams takes two
// atomic additions and allocates nothing.
type Call struct {
	labels [3]string // type, service, method
	stream bool

	started atomic.Uint64
	handled [codes.Unauthenticated + 1]atomic.Uint64
	// Of streams. Other calls receive one message each, and send one if they
	// succeed.
	received, sent atomic.Uint64
}

// unary is the kind of calls without streams.
const unary = "unary"

// Call adds a method. kind is unary, server_stream, client_stream or
// bidi_stream.
func (m *Metrics) Call(service, method, kind string) *Call {
	c := &Call{labels: [...]string{kind, service, method}, stream: kind != unary}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls = append(m.calls[:len(m.calls):len(m.calls)], c)
	return c
}

// Begin counts a call that begins.
func (c *Call) Begin() { c.started.Add(1) }

// End counts a call that ends.
func (c *Call) End(code codes.Code) {
	if int(code) >= len(c.handled) {
		code = codes.Unknown
	}
	c.handled[code].Add(1)
}

// Received counts a message on a stream from the client.
func (c *Call) Received() { c.received.Add(1) }

// Sent counts a message on a stream to the client.
func (c *Call) Sent() { c.sent.Add(1) }

// figures gives nothing for a method that was never called.
func (c *Call) figures(yield func(Figure)) {
	count := func(name, help string, v uint64, more ...string) {
		if v > 0 {
			labels := append([]string{"grpc_type", c.labels[0], "grpc_service", c.labels[1], "grpc_method", c.labels[2]}, more...)
			yield(Figure{Name: name, Help: help, Labels: labels, Value: float64(v)})
		}
	}
	received, sent := c.received.Load(), c.sent.Load()
	if !c.stream {
		received, sent = c.started.Load(), c.handled[codes.OK].Load()
	}
	count("grpc_server_started_total", "Total number of RPCs started on the server.", c.started.Load())
	count("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.", received)
	count("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.", sent)
	for code := range c.handled {
		count("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.",
			c.handled[code].Load(), "grpc_code", codes.Code(code).String())
	}
}
