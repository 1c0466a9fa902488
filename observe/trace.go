package observe

import "context"

// MaxTrace is how many bytes a trace may have: a W3C trace id, span id and flags
// take 25.
const MaxTrace = 32

// Trace names what a call is part of, for a tracing system: bytes that mean
// nothing here. The zero value is none.
type Trace struct {
	size  uint8
	bytes [MaxTrace]byte
}

// NewTrace makes a trace of b, which is copied. One that is longer than
// [MaxTrace] is none.
func NewTrace(b []byte) (t Trace) {
	if len(b) <= MaxTrace {
		t.size = uint8(copy(t.bytes[:], b))
	}
	return t
}

// IsZero reports whether there is none.
func (t *Trace) IsZero() bool { return t.size == 0 }

// Bytes are those that it was made of; they share t's memory.
func (t *Trace) Bytes() []byte { return t.bytes[:t.size] }

type traceKey struct{}

// WithTrace has the calls made with the context carry t, where an observer has a
// function for [Proposal]. It should be done for calls that are sampled, and only
// for those.
func WithTrace(ctx context.Context, t Trace) context.Context {
	if t.IsZero() {
		return ctx
	}
	return context.WithValue(ctx, traceKey{}, &t)
}

// TraceOf returns what [WithTrace] gave the context, or the zero value.
func TraceOf(ctx context.Context) Trace {
	if t, ok := ctx.Value(traceKey{}).(*Trace); ok {
		return *t
	}
	return Trace{}
}
