package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"

	"github.com/concord-kv/concord/kv"
)

// repeat says when a call may be tried again after it may have been sent.
type repeat uint8

const (
	// never: it changes something and has no id.
	never repeat = iota
	// onConcord: it has an id, which a Concord cluster honours.
	onConcord
	// always: it is a read, or doing it twice is doing it once.
	always
)

// try is one call of one endpoint.
type try[R any] func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (R, error)

// call tries f at one endpoint after another until it has an answer that
// another endpoint would give too, or the time is over.
func call[R any](ctx context.Context, c *Client, again repeat, f try[R]) (R, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	var none R
	var unknown error // the last failure after which the call may have happened
	pause := c.cfg.Backoff
	for tries := 1; ; tries++ {
		i := c.current.Load()
		e := c.endpoints[i]
		res, sent, err := once(ctx, e, f)
		if err == nil {
			return res, nil
		}
		lost := sent && c.outcomeUnknown(err)
		if lost {
			unknown = err
		}
		switch {
		case c.ctx.Err() != nil || ctx.Err() != nil || lost && !c.mayRepeat(ctx, again):
			return none, c.giveUp(ctx, err, unknown)
		case !lost && !retriable(err):
			return none, wrapUnknown(err, unknown, again)
		}
		c.current.CompareAndSwap(i, (i+1)%int64(len(c.endpoints)))
		if tries%len(c.endpoints) == 0 {
			if !sleep(ctx, pause/2+rand.N(pause/2+1)) {
				return none, c.giveUp(ctx, err, unknown)
			}
			pause = min(2*pause, c.cfg.MaxBackoff)
		}
	}
}

// once runs f, again with a new token where the old one is not good any more, and
// tells whether the request may have left. Its errors are those of an embedded
// store.
func once[R any](ctx context.Context, e *endpoint, f try[R]) (res R, sent bool, err error) {
	return signed(ctx, e, func() (R, bool, error) { return attempt(ctx, e, f) })
}

// signed is once for what shows the session's token in its own way.
func signed[R any](ctx context.Context, e *endpoint, do func() (R, bool, error)) (res R, sent bool, err error) {
	if err := e.session.begin(ctx, e); err != nil {
		return res, false, err
	}
	for logins := 0; ; logins++ {
		shown := e.session.current()
		res, sent, err = do()
		if err == nil || logins == maxLogins {
			return res, sent, err
		}
		if again, failed := e.session.renew(ctx, e, shown, err); !again {
			return res, sent, failed
		}
	}
}

// attempt is one call of once.
func attempt[R any](ctx context.Context, e *endpoint, f try[R]) (res R, sent bool, err error) {
	var p peer.Peer // stays empty when no connection was found for the call
	e.calls.Add(1)
	res, err = f(ctx, e.conn.Load(), grpc.Peer(&p))
	e.calls.Add(-1)
	e.answers.Add(1)
	if sent = p.Addr != nil; sent {
		e.missed.Store(nil)
	}
	if err != nil {
		err = fromStatus(err)
		if !sent && errors.Is(err, kv.ErrUnavailable) {
			err = e.miss(err)
		}
	}
	return res, sent, err
}

// bound gives a call without a deadline the configured one. Close ends it too:
// closing the connections does that.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, c.cfg.Timeout, errTimeout)
}

// unreachable is the error of a call that no endpoint got, because of cause
// where it is not nil.
func (c *Client) unreachable(cause error) error {
	var why []string
	for _, e := range c.endpoints {
		if m := e.missed.Load(); m != nil {
			why = append(why, *m)
		}
	}
	return &kv.Error{
		Code: kv.Unavailable, Message: "no endpoint can be reached; nothing was done: " + strings.Join(why, "; "),
		Err: errors.Join(errNotSent, cause),
	}
}

// errNotSent is wrapped by the error of a call that found no connection.
var errNotSent = errors.New("not sent")

// errTimeout tells the client's own time limit from the caller's.
var errTimeout = errors.New("the client's time limit is over")

// outcomeUnknown reports whether the change of a call that was sent and failed
// with err may have happened. Concord's own answers say so; of an etcd server
// every unavailability is taken so, because "server stopped" of etcd may follow
// a proposal.
func (c *Client) outcomeUnknown(err error) bool {
	if errors.Is(err, kv.ErrRequestTooOld) {
		return false // unknown for good: asking again does not help
	}
	if errors.Is(err, kv.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return true
	}
	return errors.Is(err, kv.ErrClosed) && serverKind(c.server.Load()) != concordServer
}

// retriable reports whether another try may fare better after err, which says
// that nothing was done.
func retriable(err error) bool {
	return errors.Is(err, errNotSent) || errors.Is(err, kv.ErrNoLeader) || errors.Is(err, kv.ErrClosed)
}

// mayRepeat reports whether a call that may have been sent may be sent again.
func (c *Client) mayRepeat(ctx context.Context, again repeat) bool {
	return again == always || again == onConcord && c.isConcord(ctx)
}

// wrapUnknown makes sure that a definite answer to a retry does not hide that
// an earlier try may have happened. An answer to an id that is repeated safely
// is the first try's.
func wrapUnknown(err, unknown error, again repeat) error {
	if unknown == nil || again == always || errors.Is(err, kv.ErrUnavailable) {
		return err
	}
	switch kv.CodeOf(err) {
	case kv.Unavailable, kv.ResourceExhausted, kv.PermissionDenied, kv.Unauthenticated:
	default:
		return err // from apply, or a check that the first try failed as well
	}
	return &kv.Error{Code: kv.Unavailable, Message: fmt.Sprintf("%v; before that: %v", err, unknown), Err: unknown}
}

// giveUp is the error of a call whose time is over, or that must not be tried
// again.
func (c *Client) giveUp(ctx context.Context, last, unknown error) error {
	switch {
	case c.ctx.Err() != nil && unknown == nil:
		return &kv.Error{Code: kv.Canceled, Message: "the client is closed; nothing was done", Err: kv.ErrClosed}
	case unknown == nil && errors.Is(last, errNotSent) && !errors.Is(ctx.Err(), context.Canceled):
		return c.unreachable(ctx.Err())
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errTimeout):
		return ctx.Err() // the caller's own
	case unknown != nil && errors.Is(unknown, kv.ErrUnavailable):
		return unknown
	case unknown != nil:
		return &kv.Error{Code: kv.Unavailable, Message: kv.ErrTimeout.Message, Err: kv.ErrTimeout}
	}
	return last
}

// sleep waits for d or the end of ctx and reports whether d went by.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// askKind asks for the status of a member, which tells what the server is.
func (c *Client) askKind(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.StatusResponse, error) {
	req := new(pb.StatusRequest)
	setUnknown(req, wanted())
	resp, err := pb.NewMaintenanceClient(conn).Status(ctx, req, opts...)
	if err == nil {
		c.header(resp.Header)
	}
	return resp, err
}

// isConcord finds out, where that is not known yet, whether the cluster is one
// of Concord.
func (c *Client) isConcord(ctx context.Context) bool {
	for range c.endpoints {
		if kind := serverKind(c.server.Load()); kind != unknownServer {
			return kind == concordServer
		}
		i := c.current.Load()
		_, _, err := once(ctx, c.endpoints[i], c.askKind)
		if err != nil {
			c.current.CompareAndSwap(i, (i+1)%int64(len(c.endpoints)))
		}
	}
	return serverKind(c.server.Load()) == concordServer
}

// needConcord refuses what etcd would do wrongly without saying so.
func (c *Client) needConcord(ctx context.Context, what string) error {
	if serverKind(c.server.Load()) == concordServer || c.isConcord(ctx) {
		return nil
	}
	if serverKind(c.server.Load()) == etcdServer {
		return kv.Errorf(kv.Unsupported, "%s needs a Concord server; this is etcd: %w", what, kv.ErrUnsupported)
	}
	return kv.Errorf(kv.Unavailable, "%s needs a Concord server, and no endpoint answers; nothing was done", what)
}
