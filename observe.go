package concord

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// ears are what hears of the member: its log, and what [Observe] was given.
type ears struct {
	logger    *slog.Logger
	observers []observe.Observer
	slow      time.Duration
}

// Observe gives functions that are called with what the member does; it may be
// given several times. They are called where the work is done and must return at
// once, see package observe. [Node.Subscribe] is for programs that take their
// time.
func Observe(o observe.Observer) Option {
	return func(c *config) { c.observers = append(c.observers, o) }
}

// SlowRequests has calls that take d or longer logged, as "slow request", with
// the times at which their parts were done; by default none are.
func SlowRequests(d time.Duration) Option { return func(c *config) { c.slow = d } }

// Subscribe receives the member's events of these names, or all of them when
// there are none, until ctx ends; [observe.Names] lists them. It returns an error
// for a name that no event has.
func (n *Node) Subscribe(ctx context.Context, names ...string) (*observe.Subscription, error) {
	s, err := n.figures.events.hub.Subscribe(names...)
	if err != nil {
		return nil, kv.Errorf(kv.InvalidArgument, "%w; see observe.Names", err)
	}
	context.AfterFunc(ctx, s.Close)
	return s, nil
}

// events are those of a member, and who listens to them.
type events struct {
	hub    observe.Hub
	member uint64 // set by begin, then read only
	part   part
	// slow is from when on a call is logged; 0 is never.
	slow time.Duration
	// calls says that somebody wants to know of calls.
	calls atomic.Bool
	// times tells what is applied when it got how far.
	times replica.Times
}

// listen lets those of cfg hear of everything from now on.
func (e *events) listen(cfg *config) {
	e.slow = cfg.slow
	e.hub.OnPanic(func(name string, panicked any) {
		cfg.logger.Error("an observer panicked; this is not logged again", "event", name, "panic", panicked, "stack", string(debug.Stack()))
	})
	for _, o := range cfg.observers {
		e.hub.Add(o)
	}
}

// follow switches clocks on and off with those who listen.
func (e *events) follow(timed func(bool)) {
	e.hub.OnChange(func(o *observe.Observer) {
		phases := e.slow > 0 || o.API != nil
		timed(phases || o.Proposal != nil)
		e.calls.Store(phases || o.Auth != nil || o.Limit != nil)
	})
}

// TellLimit tells who listens to the member that a limit was hit, or is not any
// more, that a server around it has.
func (n *Node) TellLimit(l observe.Limit) {
	if f := n.figures.events.hub.Load().Limit; f != nil {
		f(l)
	}
}

// limitNames are the limits of a member, by the error that says that one was hit.
var limitNames = []struct {
	err  error
	name string
}{
	{kv.ErrOverloaded, "waiting"},
	{kv.ErrNoMemory, "memory"}, // which is an ErrNoSpace, too
	{kv.ErrNoSpace, "space"},
	{kv.ErrTooManyClients, "request ids"},
	{kv.ErrTooManyUploads, "large values"},
	{kv.ErrRequestTooLarge, "request size"},
	{kv.ErrKeyTooLarge, "key size"},
	{kv.ErrTooManyOps, "operations"},
}

// limitOf names the limit that a call with this error hit, "" for none.
func limitOf(err error) string {
	for _, l := range limitNames {
		if errors.Is(err, l.err) {
			return l.name
		}
	}
	if kv.CodeOf(err) == kv.ResourceExhausted {
		return "other"
	}
	return ""
}
