package tracing

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	otelcodes "go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/internal/headers"
	"github.com/concord-kv/concord/observe"
)

// The headers of W3C's Trace Context.
const traceParent, traceState = "traceparent", "tracestate"

// carried reads the headers of a call.
type carried struct{ ctx context.Context }

// Get implements [propagation.TextMapCarrier].
func (c carried) Get(key string) string {
	if values := headers.Values(c.ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set implements [propagation.TextMapCarrier].
func (carried) Set(string, string) {}

// Keys implements [propagation.TextMapCarrier].
func (carried) Keys() []string { return []string{traceParent, traceState} }

// parentOfCall is what a gRPC call is part of. Where its metadata does not say,
// nothing is allocated to find that out.
func parentOfCall(ctx context.Context) trace.SpanContext {
	if len(headers.Values(ctx, traceParent)) == 0 {
		return trace.SpanContext{}
	}
	return parentOf(ctx, carried{ctx})
}

// parentOf is what a call is part of, by its headers; invalid where they do not
// say.
func parentOf(ctx context.Context, headers propagation.TextMapCarrier) trace.SpanContext {
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.WithoutCancel(ctx), headers))
}

// begin starts the span of a call, and has what is called know of it.
func (t *Tracer) begin(ctx context.Context, parent trace.SpanContext, name string, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	under := ctx
	if parent.IsValid() {
		under = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	ctx, span := t.tracer.Start(under, name, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attrs...))
	return observe.WithTrace(ctx, pack(span.SpanContext())), span
}

// untraced are the services whose calls say nothing about the store.
var untraced = []string{"grpc.health.", "grpc.reflection."}

// Registrar returns a registrar by which s gets services whose sampled calls are
// spans. Streams that go both ways are none, because they last: what they do is.
func (t *Tracer) Registrar(s grpc.ServiceRegistrar) grpc.ServiceRegistrar { return &traced{s, t} }

type traced struct {
	grpc.ServiceRegistrar
	tracer *Tracer
}

// RegisterService implements [grpc.ServiceRegistrar].
func (r *traced) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, prefix := range untraced {
		if strings.HasPrefix(desc.ServiceName, prefix) {
			r.ServiceRegistrar.RegisterService(desc, impl)
			return
		}
	}
	with := *desc
	with.Methods, with.Streams = nil, nil
	for _, m := range desc.Methods {
		with.Methods = append(with.Methods, r.tracer.unary(desc.ServiceName, m))
	}
	for _, s := range desc.Streams {
		with.Streams = append(with.Streams, r.tracer.stream(desc.ServiceName, s))
	}
	r.ServiceRegistrar.RegisterService(&with, impl)
}

// rpcAttributes are those of OpenTelemetry's conventions for RPC.
func rpcAttributes(service, method string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("rpc.system", "grpc"), attribute.String("rpc.service", service), attribute.String("rpc.method", method),
	}
}

func (t *Tracer) unary(service string, m grpc.MethodDesc) grpc.MethodDesc {
	handle, name, attrs := m.Handler, service+"/"+m.MethodName, rpcAttributes(service, m.MethodName)
	m.Handler = func(srv any, ctx context.Context, decode func(any) error, by grpc.UnaryServerInterceptor) (any, error) {
		parent := parentOfCall(ctx)
		if !t.samples(parent) {
			return handle(srv, ctx, decode, by)
		}
		ctx, span := t.begin(ctx, parent, name, attrs...)
		resp, err := handle(srv, ctx, decode, by)
		endCall(span, err)
		return resp, err
	}
	return m
}

func (t *Tracer) stream(service string, s grpc.StreamDesc) grpc.StreamDesc {
	handle, name, attrs := s.Handler, service+"/"+s.StreamName, rpcAttributes(service, s.StreamName)
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		ctx := stream.Context()
		parent := parentOfCall(ctx)
		switch {
		case !t.samples(parent):
			return handle(srv, stream)
		case s.ClientStreams && s.ServerStreams:
			if !parent.IsValid() {
				return handle(srv, stream)
			}
			return handle(srv, &tracedStream{stream, observe.WithTrace(ctx, pack(parent))})
		}
		ctx, span := t.begin(ctx, parent, name, attrs...)
		err := handle(srv, &tracedStream{stream, ctx})
		endCall(span, err)
		return err
	}
	return s
}

// tracedStream is a stream whose context has a trace.
type tracedStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context has the trace.
func (s *tracedStream) Context() context.Context { return s.ctx }

// endCall ends a span with the code that the caller gets. The message stays out:
// it may name keys.
func endCall(span trace.Span, err error) {
	code := codes.OK
	if err != nil {
		if st, ok := status.FromError(err); ok {
			code = st.Code()
		} else {
			code = status.FromContextError(err).Code()
		}
	}
	span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(code)))
	switch code {
	case codes.Unknown, codes.DeadlineExceeded, codes.Unimplemented, codes.Internal, codes.Unavailable, codes.DataLoss:
		span.SetStatus(otelcodes.Error, code.String()) // as the conventions have it for servers
	}
	span.End()
}

// Handler serves requests of Concord's API and of the JSON gateway as spans,
// where they are sampled. The gateway's calls are part of them.
func (t *Tracer) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gateway := strings.HasPrefix(r.URL.Path, "/v3")
		if !gateway && !strings.HasPrefix(r.URL.Path, "/v1/") {
			next.ServeHTTP(w, r)
			return
		}
		headers := propagation.HeaderCarrier(r.Header)
		parent := parentOf(r.Context(), headers)
		sampled := t.samples(parent)
		if !sampled && gateway {
			// So that it is not asked again, with another answer.
			forward(r, "00-"+notSampled+"-00")
		}
		if !sampled {
			next.ServeHTTP(w, r)
			return
		}
		ctx, span := t.begin(r.Context(), parent, r.Method, attribute.String("http.request.method", r.Method))
		defer span.End()
		r = r.WithContext(ctx)
		if gateway {
			h := http.Header{}
			propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(h))
			forward(r, h.Get(traceParent))
			span.SetName(r.Method + " /v3")
			next.ServeHTTP(w, r)
			return
		}
		answer := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		span.SetAttributes(attribute.Int("http.response.status_code", answer.status))
		if answer.status >= http.StatusInternalServerError {
			span.SetStatus(otelcodes.Error, "")
		}
		if answer.status != http.StatusNotFound { // then the path is one of ours, and not anybody's
			span.SetName(r.Method + " " + r.URL.Path)
		}
	})
}

// notSampled are a trace and a span that nobody hears of.
const notSampled = "00000000000000000000000000000001-0000000000000001"

// forward has the gateway send a call as part of parent.
func forward(r *http.Request, parent string) {
	r.Header = r.Header.Clone()
	r.Header.Set("Grpc-Metadata-Traceparent", parent)
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
