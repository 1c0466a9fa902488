package client

import (
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

// Watch implements [kv.Watcher]. It outlives connections and members: it goes on
// elsewhere after the last revision that it has yielded, so no change is lost or
// seen twice. Each watch has a stream of its own, so one that is read slowly
// holds up no other.
func (c *Client) Watch(ctx context.Context, w kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	return func(yield func(kv.WatchBatch, error) bool) {
		if err := c.cfg.Limits.CheckWatch(&w); err != nil {
			yield(kv.WatchBatch{}, err)
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(c.ctx, cancel)()
		f := &follower{client: c, req: w, next: w.Start, yield: yield}
		defer f.wait()
		defer cancel()
		f.watchSilence(ctx)
		if err := f.run(ctx); err != nil && !f.stopped && ctx.Err() == nil {
			yield(kv.WatchBatch{}, err)
		} else if c.ctx.Err() != nil && !f.stopped {
			yield(kv.WatchBatch{}, kv.ErrClosed)
		}
	}
}

// follower is one watch across its streams.
type follower struct {
	client *Client
	req    kv.WatchRequest
	yield  func(kv.WatchBatch, error) bool

	// Owned by the goroutine that iterates.
	next    kv.Revision // the first one not yielded yet; 0 before the first stream of a watch from now on
	seen    kv.Revision // the highest one yielded
	opened  bool        // the first, empty batch was yielded
	stopped bool        // the consumer wants no more
	parts   []kv.Event  // fragments of one response

	// heard wakes the goroutine that looks out for silence.
	heard   chan struct{}
	running sync.WaitGroup

	// mu guards the stream for sending, and whether a progress answer is due.
	mu     sync.Mutex
	stream pb.Watch_WatchClient
	asked  bool
}

// errStopped ends a stream because the consumer wants no more.
var errStopped = errors.New("the consumer stopped")

// run follows one stream after another.
func (f *follower) run(ctx context.Context) error {
	c := f.client
	pause, logins := c.cfg.Backoff, 0
	for tries := 1; ctx.Err() == nil; tries++ {
		i := c.current.Load()
		before, shown := f.next, c.session.current()
		err := f.follow(ctx, c.endpoints[i])
		if f.stopped || ctx.Err() != nil {
			return nil
		}
		if f.next != before {
			tries, pause, logins = 0, c.cfg.Backoff, 0 // it had worked
		}
		if !resumable(err) {
			again, failed := c.session.renew(ctx, c.endpoints[i], shown, err)
			if logins++; again && logins <= maxLogins {
				continue
			}
			if failed == nil || !resumable(failed) {
				return err
			}
		}
		c.current.CompareAndSwap(i, (i+1)%int64(len(c.endpoints)))
		if tries%len(c.endpoints) == 0 {
			sleep(ctx, pause/2+rand.N(pause/2+1))
			pause = min(2*pause, c.cfg.MaxBackoff)
		}
	}
	return nil
}

// resumable reports whether another member, or a later moment, may go on.
func resumable(err error) bool {
	return errors.Is(err, io.EOF) || kv.CodeOf(err) == kv.Unavailable || kv.CodeOf(err) == kv.Canceled
}

// follow opens one stream and yields what it brings until it ends.
func (f *follower) follow(ctx context.Context, e *endpoint) error {
	// A member that is cut off would keep silent for ever.
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader))
	defer cancel()
	e.calls.Add(1) // until the watch is created, a stall counts
	counted := true
	answered := func() {
		if counted {
			counted = false
			e.calls.Add(-1)
			e.answers.Add(1)
		}
	}
	defer answered()
	if err := e.session.begin(ctx, e); err != nil {
		return err
	}
	stream, err := pb.NewWatchClient(e.conn.Load()).Watch(ctx)
	if err != nil {
		return fromStatus(err)
	}
	if err := f.start(stream); err != nil && !errors.Is(err, io.EOF) { // EOF: Recv has the reason
		return fromStatus(err)
	}
	defer f.detach()
	for {
		r, err := stream.Recv()
		if err != nil {
			if _, ok := status.FromError(err); ok {
				err = fromStatus(err)
			}
			return err
		}
		answered()
		if err := f.receive(r); err != nil {
			return err
		}
	}
}

// start asks for the watch on a new stream.
func (f *follower) start(stream pb.Watch_WatchClient) error {
	create := &pb.WatchCreateRequest{
		Key: f.req.Key, RangeEnd: f.req.End, StartRevision: int64(f.next), PrevKv: f.req.PrevKV, Fragment: true,
	}
	if f.req.NoPut {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NOPUT)
	}
	if f.req.NoDelete {
		create.Filters = append(create.Filters, pb.WatchCreateRequest_NODELETE)
	}
	setUnknown(create, wanted())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stream = stream
	f.parts = nil
	err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
	if err == nil && f.asked {
		err = stream.Send(progressRequest())
	}
	return err
}

func (f *follower) detach() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stream = nil
}

func progressRequest() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: new(pb.WatchProgressRequest)}}
}

// receive handles one answer.
func (f *follower) receive(r *pb.WatchResponse) error {
	h := f.client.header(r.Header)
	switch {
	case r.Canceled:
		return canceled(r)
	case r.Created:
		return f.created(h.Revision)
	case len(r.Events) == 0:
		return f.progress(r, h.Revision)
	}
	for _, e := range r.Events {
		f.parts = append(f.parts, toEvent(e))
	}
	if r.Fragment {
		return nil
	}
	events := f.parts
	f.parts = nil
	for len(events) > 0 {
		// A member of etcd that catches up sends several revisions at once.
		rev, n := events[0].KV.ModRevision, 1
		for n < len(events) && events[n].KV.ModRevision == rev {
			n++
		}
		if rev >= f.next {
			if err := f.emit(kv.WatchBatch{Revision: rev, Events: events[:n:n]}); err != nil {
				return err
			}
			f.next = rev + 1
		}
		events = events[n:]
	}
	return nil
}

// created yields the first batch, once: a watch that goes on elsewhere must not
// look like a new one.
func (f *follower) created(now kv.Revision) error {
	if f.opened {
		return nil
	}
	f.opened = true
	first := now
	if f.req.Start > 0 {
		first = min(now, f.req.Start-1)
	} else {
		f.next = now + 1
	}
	return f.emit(kv.WatchBatch{Revision: first})
}

// progress yields a mark, which is never below what was yielded before, even
// when it comes from a member that lags behind.
func (f *follower) progress(r *pb.WatchResponse, rev kv.Revision) error {
	if r.WatchId == -1 {
		f.mu.Lock()
		f.asked = false
		f.mu.Unlock()
	}
	if !f.opened {
		return nil
	}
	f.next = max(f.next, rev+1)
	return f.emit(kv.WatchBatch{Revision: max(rev, f.seen)})
}

func (f *follower) emit(b kv.WatchBatch) error {
	select {
	case f.heard <- struct{}{}:
	default:
	}
	f.seen = b.Revision
	if !f.yield(b, nil) {
		f.stopped = true
		return errStopped
	}
	return nil
}

// canceled is why the member ended the watch: Concord says it with a status,
// etcd with a compacted revision or in words.
func canceled(r *pb.WatchResponse) error {
	if b := content(r, fieldStatus); b != nil {
		st := new(spb.Status)
		if err := proto.Unmarshal(b, st); err != nil {
			return kv.Errorf(kv.Internal, "the server ended the watch for an unreadable reason: %w", err)
		}
		return fromStatus(status.ErrorProto(st))
	}
	if r.CompactRevision != 0 {
		return &kv.CompactedError{Compacted: kv.Revision(r.CompactRevision)}
	}
	reason := r.CancelReason
	if _, text, ok := strings.Cut(reason, " desc = "); ok {
		reason = text
	}
	switch known := byMessage[reason]; {
	case known == kv.ErrCompacted:
		return &kv.CompactedError{}
	case known != nil:
		return known
	}
	return kv.Errorf(kv.Internal, "the server ended the watch: %s", reason)
}

func toEvent(p *mvccpb.Event) kv.Event {
	e := kv.Event{KV: toKV(p.Kv)}
	if p.Type == mvccpb.Event_DELETE {
		e.Type, e.KV.Value = kv.DeleteEvent, nil
	}
	if p.PrevKv != nil {
		prev := toKV(p.PrevKv)
		e.Prev = &prev
	}
	return e
}

// watchSilence asks for marks on the consumer's behalf: when it says so, and
// when nothing came for the wanted time.
func (f *follower) watchSilence(ctx context.Context) {
	f.heard = make(chan struct{}, 1)
	if f.req.Progress <= 0 && f.req.ProgressRequests == nil {
		return
	}
	f.running.Go(func() {
		var silence <-chan time.Time
		var timer *time.Timer
		if f.req.Progress > 0 {
			timer = time.NewTimer(f.req.Progress)
			defer timer.Stop()
			silence = timer.C
		}
		requests := f.req.ProgressRequests
		// etcd drops a request that comes while a watch catches up.
		again := time.NewTicker(repeatAsk)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-again.C:
				f.askAgain()
				continue
			case <-f.heard:
			case <-silence:
				f.ask()
			case _, ok := <-requests:
				if !ok {
					requests = nil // closed: no more will come
					continue
				}
				f.ask()
				continue
			}
			if timer != nil {
				timer.Reset(f.req.Progress)
			}
		}
	})
}

// repeatAsk is how often a progress request is repeated that etcd has dropped.
const repeatAsk = 250 * time.Millisecond

// askAgain repeats a request that was not answered, except to Concord, which
// answers every one.
func (f *follower) askAgain() {
	f.mu.Lock()
	asked := f.asked
	f.mu.Unlock()
	if asked && serverKind(f.client.server.Load()) != concordServer {
		f.ask()
	}
}

// ask sends a progress request, or leaves it to the next stream.
func (f *follower) ask() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = true
	if f.stream != nil {
		_ = f.stream.Send(progressRequest()) // a failure ends the stream, and Recv says so
	}
}

func (f *follower) wait() { f.running.Wait() }
