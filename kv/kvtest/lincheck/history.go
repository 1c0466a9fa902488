package lincheck

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Kind is what an operation does to its key.
type Kind uint8

// The kinds of operations.
const (
	Get Kind = iota
	Put
	Delete
	// Swap is a put that happens when the key's mod revision is Expect; an
	// Expect of 0 means that the key must not exist.
	Swap
)

// String gives the kind's name.
func (k Kind) String() string {
	return [...]string{"get", "put", "delete", "swap"}[k]
}

// Never is the return time of an operation that was never answered.
const Never = math.MaxInt64

// Operation is one call of one client and its answer.
type Operation struct {
	// Client numbers the caller, from 0. A client has one call at a time.
	Client int
	Kind   Kind
	Key    string
	// Value is what a Put or Swap writes. The check is sharper and faster
	// when no value is written twice.
	Value string
	// Expect is the mod revision that a Swap compares with.
	Expect kv.Revision
	// Call and Return are when it began and was answered, on one clock for
	// the whole history. Both ends belong to the operation.
	Call, Return int64
	// Unknown says that it may or may not have happened; Return does not
	// count then, and neither do the fields below. Operations that did not
	// happen, and reads that failed, do not belong into a history.
	Unknown bool
	Answer  Answer
}

// Answer is what an operation returned.
type Answer struct {
	// Revision is that of the result's header; 0 when it is not known.
	Revision kv.Revision
	// Done says that a Get found its key, a Delete deleted it or a Swap
	// succeeded.
	Done bool
	// Value and Mod are what a Get found.
	Value string
	Mod   kv.Revision
}

// String writes the operation with its answer.
func (o Operation) String() string {
	s := fmt.Sprintf("client %d [%d,%d] %v %q", o.Client, o.Call, o.Return, o.Kind, o.Key)
	switch o.Kind {
	case Put:
		s += fmt.Sprintf("=%q", o.Value)
	case Swap:
		s += fmt.Sprintf("=%q if mod=%d", o.Value, o.Expect)
	}
	if o.Unknown {
		return s + " -> unknown"
	}
	return s + fmt.Sprintf(" -> rev=%d done=%v value=%q mod=%d", o.Answer.Revision, o.Answer.Done, o.Answer.Value, o.Answer.Mod)
}

// History collects operations. Its methods may be called concurrently. The zero
// History is empty and takes operations by hand.
type History struct {
	clock func() int64

	mu  sync.Mutex
	ops []Operation
}

// NewHistory returns a history for recorders, which read the given clock; nil
// means nanoseconds of real, monotonic time since now. The clock is called
// concurrently.
func NewHistory(clock func() int64) *History {
	if clock == nil {
		start := time.Now()
		clock = func() int64 { return int64(time.Since(start)) }
	}
	return &History{clock: clock}
}

// Add adds an operation.
func (h *History) Add(o Operation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o.Unknown {
		o.Return = Never
		o.Answer = Answer{}
	}
	h.ops = append(h.ops, o)
}

// Len tells how many operations there are.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.ops)
}

// Operations returns a copy of what was added, in that order.
func (h *History) Operations() []Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]Operation(nil), h.ops...)
}
