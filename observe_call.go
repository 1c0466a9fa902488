package concord

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// call is a call of the member under way, of which somebody wants to know; it is
// nil where nobody does.
type call struct {
	event  observe.API
	timing replica.Timing
}

// callPool keeps calls that have ended.
var callPool = sync.Pool{New: func() any { return new(call) }}

// begin starts a call of which somebody wants to know, else it returns nil.
func (n *Node) begin(ctx context.Context, op observe.Op) *call {
	e := &n.figures.events
	if !e.calls.Load() {
		return nil
	}
	c := callPool.Get().(*call)
	c.event = observe.API{Op: op, Start: time.Now()}
	c.timing = replica.Timing{Start: c.event.Start}
	if e.hub.Load().Proposal != nil {
		c.event.Trace = observe.TraceOf(ctx)
	}
	return c
}

// end tells of a call that has ended. c is not nil, and not used any more.
func (n *Node) end(ctx context.Context, c *call, err error) {
	defer callPool.Put(c)
	ev := &c.event
	ev.Duration = time.Since(ev.Start)
	ev.Result = resultOf(err)
	if t := &c.timing; t.Applied != 0 {
		ev.Phases = observe.Phases{Queued: t.Queued, Logged: t.Logged, Committed: t.Committed, Applied: t.Applied, Answered: ev.Duration}
	}
	e := &n.figures.events
	o := e.hub.Load()
	if o.API != nil {
		o.API(*ev)
	}
	if err != nil {
		tellRefused(ctx, o, ev.Op, err)
	}
	if e.slow > 0 && ev.Duration >= e.slow {
		n.logSlow(ev)
	}
}

// mark has a command carry the trace of its call, if there is one. c may be nil.
func (c *call) mark(cmd []byte) []byte {
	if c == nil || c.event.Trace.IsZero() {
		return cmd
	}
	return machine.AppendTrace(cmd, c.event.Trace.Bytes())
}

// resultOf is an error in the words of its code.
func resultOf(err error) string {
	if err == nil {
		return "ok"
	}
	return kv.CodeOf(err).String()
}

// tellRefused tells of a right that is missing and of a limit that was hit.
func tellRefused(ctx context.Context, o *observe.Observer, op observe.Op, err error) {
	if o.Auth == nil && o.Limit == nil {
		return
	}
	user := ""
	if caller := kv.CallerOf(ctx); caller != nil {
		user = caller.User
	}
	switch kv.CodeOf(err) {
	case kv.PermissionDenied:
		if o.Auth != nil {
			o.Auth(observe.Auth{Kind: observe.Denied, User: user, Op: op})
		}
	case kv.Unauthenticated:
		if o.Auth != nil && op != observe.OpAuthenticate { // which is told as a login
			o.Auth(observe.Auth{Kind: observe.UnknownCaller, User: user, Op: op})
		}
	default:
		if limit := limitOf(err); limit != "" && o.Limit != nil {
			o.Limit(observe.Limit{Kind: observe.LimitHit, Limit: limit, Who: user})
		}
	}
}

// tellLogin tells of a password that was checked.
func (n *Node) tellLogin(user string, err error) {
	f := n.figures.events.hub.Load().Auth
	switch {
	case f == nil:
	case err == nil:
		f(observe.Auth{Kind: observe.LoggedIn, User: user, Op: observe.OpAuthenticate})
	case kv.CodeOf(err) == kv.Unauthenticated:
		f(observe.Auth{Kind: observe.LoginFailed, User: user, Op: observe.OpAuthenticate})
	}
}

// logSlow says where a slow request spent its time: no key, value or name of
// anybody is in it.
func (n *Node) logSlow(ev *observe.API) {
	attrs := make([]slog.Attr, 0, 12)
	attrs = append(attrs,
		slog.String("op", ev.Op.String()), slog.Duration("took", ev.Duration), slog.String("result", ev.Result),
		slog.Int("keys", ev.Keys), slog.Int64("bytes", ev.Bytes))
	if ev.Level != "" {
		attrs = append(attrs, slog.String("level", ev.Level))
	}
	if p := ev.Phases; p != (observe.Phases{}) {
		attrs = append(attrs, slog.Duration("queued", p.Queued), slog.Duration("logged", p.Logged),
			slog.Duration("committed", p.Committed), slog.Duration("applied", p.Applied))
	}
	n.log.LogAttrs(context.Background(), slog.LevelWarn, "slow request", attrs...)
}

// txn notes what t is and what became of it.
func (c *call) txn(t *kv.Txn, size int64, res *kv.TxnResult) {
	c.event.Bytes, c.event.Revision = size, int64(res.Revision)
	c.event.Keys = len(t.Success) + len(t.Failure)
	c.event.HasCondition = len(t.Compare) > 0
	if len(t.Success) > 0 {
		op := &t.Success[0]
		c.event.HasTTL = op.TTL > 0 || op.Lease != 0
	}
	c.event.Op = opOf(t)
	if t.ReadOnly() {
		c.event.Level = txnLevel(t).String()
	}
}

// read notes what a read found.
func (c *call) read(r *kv.Range, keys int, rev kv.Revision) {
	if len(r.End) == 0 {
		c.event.Op = observe.OpGet
	}
	c.event.Level, c.event.Bytes = r.Level.String(), int64(len(r.Key)+len(r.End))
	c.event.Keys, c.event.Revision = keys, int64(rev)
}

// strong notes what a read found that is always linearizable.
func (c *call) strong(keys int, rev kv.Revision) {
	c.event.Level, c.event.Keys, c.event.Revision = kv.Strong.String(), keys, int64(rev)
}

// opOf names a transaction by what it does.
func opOf(t *kv.Txn) observe.Op {
	kind := kv.OpKind(0)
	for i := range t.Success {
		if i > 0 && t.Success[i].Kind != kind {
			return observe.OpTxn
		}
		kind = t.Success[i].Kind
	}
	if !readsOnly(t.Failure) {
		return observe.OpTxn
	}
	one, plain := len(t.Success) == 1, len(t.Compare) == 0 && len(t.Failure) == 0
	switch {
	case kind == kv.OpPut && one && plain:
		return observe.OpPut
	case kind == kv.OpPut && one:
		return observe.OpPutIf
	case kind == kv.OpPut && plain:
		return observe.OpPutMany
	case kind == kv.OpDelete && one && plain && len(t.Success[0].End) == 0:
		return observe.OpDelete
	case kind == kv.OpDelete && one && len(t.Success[0].End) == 0:
		return observe.OpDeleteIf
	case kind == kv.OpDelete && plain:
		return observe.OpDeleteMany
	case kind == kv.OpRange && plain:
		return observe.OpGetMany
	}
	return observe.OpTxn
}

// readsOnly reports whether all of ops are reads.
func readsOnly(ops []kv.Op) bool {
	for i := range ops {
		if ops[i].Kind != kv.OpRange {
			return false
		}
	}
	return true
}
