package tracing

import (
	"context"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/concord-kv/concord/observe"
)

// packed is how long a span's context is as an [observe.Trace]: the ids of trace
// and span, and the flags.
const packed = len(trace.TraceID{}) + len(trace.SpanID{}) + 1

func pack(c trace.SpanContext) observe.Trace {
	id, span := c.TraceID(), c.SpanID()
	var b [packed]byte
	n := copy(b[:], id[:])
	n += copy(b[n:], span[:])
	b[n] = byte(c.TraceFlags())
	return observe.NewTrace(b[:])
}

// unpack is the context of the span that is in t; invalid for any other bytes.
func unpack(t *observe.Trace) trace.SpanContext {
	b := t.Bytes()
	if len(b) != packed {
		return trace.SpanContext{}
	}
	var c trace.SpanContextConfig
	n := copy(c.TraceID[:], b)
	n += copy(c.SpanID[:], b[n:])
	c.TraceFlags, c.Remote = trace.TraceFlags(b[n]), true
	return trace.NewSpanContext(c)
}

// Observer tells of what a member does for sampled calls: give it to
// concord.Observe.
func (t *Tracer) Observer() observe.Observer {
	return observe.Observer{API: t.api, Proposal: t.proposal}
}

// under starts a span of that time below the call that e is part of.
func (t *Tracer) under(parent trace.SpanContext, name string, start time.Time, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	return t.tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), parent), name,
		trace.WithTimestamp(start), trace.WithAttributes(attrs...))
}

// api is a call of the member: of several, where a client's call makes several.
func (t *Tracer) api(e observe.API) {
	parent := unpack(&e.Trace)
	if !parent.IsValid() {
		return
	}
	attrs := []attribute.KeyValue{
		attribute.String("concord.operation", e.Op.String()), attribute.String("concord.result", e.Result),
		attribute.Int("concord.keys", e.Keys), attribute.Int64("concord.bytes", e.Bytes), attribute.Int64("concord.revision", e.Revision),
	}
	if e.Level != "" {
		attrs = append(attrs, attribute.String("concord.consistency", e.Level))
	}
	ctx, span := t.under(parent, e.Name(), e.Start, attrs...)
	// What is between is in the span of this member's part, see proposal.
	if p := &e.Phases; p.Applied != 0 {
		t.phase(ctx, "queue", e.Start, e.Start.Add(p.Queued))
		t.phase(ctx, "answer", e.Start.Add(p.Applied), e.Start.Add(p.Answered))
	}
	span.End(trace.WithTimestamp(e.Start.Add(e.Duration)))
}

// proposal is a member's part of a write.
func (t *Tracer) proposal(e observe.Proposal) {
	parent := unpack(&e.Trace)
	if !parent.IsValid() {
		return
	}
	ctx, span := t.under(parent, e.Name(), e.Start,
		attribute.String("concord.member", idText(e.Member)), attribute.String("concord.role", e.Role),
		attribute.Int64("concord.index", int64(e.Index)), attribute.Int64("concord.term", int64(e.Term)))
	// One after the other, each from the end of the one before. A time that is not
	// known has none, and the next one takes it in.
	from := e.Start
	for _, phase := range [...]struct {
		name string
		end  time.Duration
	}{{"log", e.Phases.Logged}, {"replicate", e.Phases.Committed}, {"apply", e.Phases.Applied}} {
		if phase.end != 0 {
			end := e.Start.Add(phase.end)
			t.phase(ctx, phase.name, from, end)
			from = end
		}
	}
	span.End(trace.WithTimestamp(e.Start.Add(e.Phases.Applied)))
}

// phase is a span of a part of that time.
func (t *Tracer) phase(ctx context.Context, name string, start, end time.Time) {
	_, span := t.tracer.Start(ctx, name, trace.WithTimestamp(start))
	if end.Before(start) {
		end = start
	}
	span.End(trace.WithTimestamp(end))
}

// idText writes an id as everywhere else.
func idText(id uint64) string { return strconv.FormatUint(id, 16) }
