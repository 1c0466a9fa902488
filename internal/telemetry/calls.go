package telemetry

import (
	"sync/atomic"

	"google.golang.org/grpc/codes"
)

// Call counts the calls of one gRPC method, under the names of etcd's metrics
// (those of go-grpc-prometheus). Counting one call takes some atomic additions
// and allocates nothing.
type Call struct {
	labels [3]string // type, service, method

	started, received, sent atomic.Uint64
	handled                 [codes.Unauthenticated + 1]atomic.Uint64
}

// Call adds a method. kind is unary, server_stream, client_stream or
// bidi_stream.
func (m *Metrics) Call(service, method, kind string) *Call {
	c := &Call{labels: [...]string{kind, service, method}}
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

// Received counts a message from the client.
func (c *Call) Received() { c.received.Add(1) }

// Sent counts a message to the client.
func (c *Call) Sent() { c.sent.Add(1) }

// figures gives nothing for a method that was never called.
func (c *Call) figures(yield func(Figure)) {
	count := func(name, help string, n *atomic.Uint64, more ...string) {
		if v := n.Load(); v > 0 {
			labels := append([]string{"grpc_type", c.labels[0], "grpc_service", c.labels[1], "grpc_method", c.labels[2]}, more...)
			yield(Figure{Name: name, Help: help, Labels: labels, Value: float64(v)})
		}
	}
	count("grpc_server_started_total", "Total number of RPCs started on the server.", &c.started)
	count("grpc_server_msg_received_total", "Total number of RPC stream messages received on the server.", &c.received)
	count("grpc_server_msg_sent_total", "Total number of gRPC stream messages sent by the server.", &c.sent)
	for code := range c.handled {
		count("grpc_server_handled_total", "Total number of RPCs completed on the server, regardless of success or failure.",
			&c.handled[code], "grpc_code", codes.Code(code).String())
	}
}
