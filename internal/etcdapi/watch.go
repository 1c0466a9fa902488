package etcdapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// invalidWatch is the watch id of answers that belong to no watch or to all.
const invalidWatch = -1

// watchServer is the service etcdserverpb.Watch.
type watchServer struct {
	*API
	pb.UnsafeWatchServer
}

// watchStream carries any number of watches. Each has a goroutine that reads
// the store and sends; they take turns. A client that does not read stops them
// all in Send, where nothing piles up, since a watch is a cursor in history.
type watchStream struct {
	api    *API
	stream pb.Watch_WatchServer
	ctx    context.Context
	cancel context.CancelCauseFunc // ends ctx and the stream

	// mu orders what is sent and guards all below and the watches' fields.
	mu      sync.Mutex
	watches map[int64]*watch
	nextID  int64
	closed  bool
	// delivered is the highest revision of which events were sent.
	delivered kv.Revision
	progress  progress
}

// watch is one watch of a stream.
type watch struct {
	// Set at creation, then read only.
	cancel   context.CancelFunc
	ask      chan struct{} // asks the store for an empty batch
	started  chan struct{} // closed when the creation has been answered
	now      bool          // from now on: no start revision was given
	empty    bool          // there is no key in its range
	fragment bool
	notify   bool // send progress of its own
	ext      extensions

	// Guarded by the stream's mu.
	id      int64
	created bool
	// synced: everything up to this revision was sent.
	synced kv.Revision
	// asked counts the empty batches due that ask asked for.
	asked int
}

// askProgress asks the store for an empty batch, unless it is asked already and
// has not looked yet. It may have looked and not answered. With the stream's mu.
func (w *watch) askProgress() {
	select {
	case w.ask <- struct{}{}:
		w.asked++
	default:
	}
}

// Watch serves one stream of watches.
func (s *watchServer) Watch(stream pb.Watch_WatchServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.stopped, func() { cancel(rpctypes.ErrGRPCStopped) })()
	if requiresLeader(ctx) {
		defer s.leader.watch(cancel)()
	}
	ws := &watchStream{api: s.API, stream: stream, ctx: ctx, cancel: cancel, watches: map[int64]*watch{}}
	ws.progress.wake.L = &ws.mu
	go ws.receive()
	<-ctx.Done()
	// The goroutines are not waited for: one may stand in Send until this
	// returns. No other starts to send from here on.
	go ws.close()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return rpctypes.ErrGRPCWatchCanceled
}

// close ends the watches; ctx, from which theirs derive, has ended already.
func (ws *watchStream) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	clear(ws.watches)
	ws.progress.wake.Broadcast()
}

// receive handles the client's requests in order. When the client has no more
// of them its watches go on.
func (ws *watchStream) receive() {
	for {
		req, err := ws.stream.Recv()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			ws.cancel(err)
			return
		}
		switch r := req.RequestUnion.(type) {
		case *pb.WatchRequest_CreateRequest:
			if r.CreateRequest != nil {
				err = ws.create(r.CreateRequest)
			}
		case *pb.WatchRequest_CancelRequest:
			if r.CancelRequest != nil {
				ws.remove(r.CancelRequest.WatchId)
			}
		case *pb.WatchRequest_ProgressRequest:
			ws.requestProgress()
		}
		if err != nil {
			ws.cancel(err)
			return
		}
	}
}

// create starts a watch and returns when the client was told of it: clients
// match the answers to their requests by order.
func (ws *watchStream) create(r *pb.WatchCreateRequest) error {
	x, err := extensionsOf(r)
	if err != nil {
		return err
	}
	if len(r.Key) == 0 {
		r.Key = []byte{0} // the least key, as etcd
	}
	if r.StartRevision < 0 {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		ws.refuse(rpctypes.ErrCompacted)
		return nil
	}
	ctx, cancel := context.WithCancel(ws.ctx)
	w := &watch{
		id: r.WatchId, cancel: cancel, now: r.StartRevision == 0,
		empty:    !x.wanted && len(r.RangeEnd) > 0 && !kv.FromKey(r.RangeEnd) && bytes.Compare(r.Key, r.RangeEnd) >= 0,
		fragment: r.Fragment, notify: r.ProgressNotify, ext: x,
		ask: make(chan struct{}, 1), started: make(chan struct{}),
	}
	remove, err := ws.api.opts.Callers.AddWatch(ctx)
	if err != nil {
		ws.fail(w, err)
		return nil
	}
	go func() {
		defer remove()
		ws.run(ctx, w, ws.api.store.Watch(ctx, ws.request(r, w)))
	}()
	select {
	case <-w.started:
	case <-ws.ctx.Done():
	}
	return nil
}

func (ws *watchStream) request(r *pb.WatchCreateRequest, w *watch) kv.WatchRequest {
	req := kv.WatchRequest{
		Key: r.Key, End: r.RangeEnd, Start: kv.Revision(r.StartRevision), PrevKV: r.PrevKv, ProgressRequests: w.ask,
	}
	for _, f := range r.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			req.NoPut = true
		case pb.WatchCreateRequest_NODELETE:
			req.NoDelete = true
		}
	}
	if w.notify {
		// Spread, so that watches made together do not all report together.
		p := ws.api.opts.Progress
		req.Progress = p + rand.N(p/10+time.Nanosecond)
	}
	return req
}

// admit gives w an id, unless it brought one, or refuses it. That comes after the
// store has let it in: who may not watch learns nothing else. With mu.
func (ws *watchStream) admit(w *watch) bool {
	if w.empty {
		close(w.started)
		ws.refuse(errEmptyRange)
		return false
	}
	if w.id == 0 {
		for ws.watches[ws.nextID] != nil {
			ws.nextID++
		}
		w.id = ws.nextID
		ws.nextID++
	}
	if ws.watches[w.id] != nil || w.id == invalidWatch {
		close(w.started)
		ws.refuse(errDuplicate)
		return false
	}
	ws.watches[w.id] = w
	if ws.progress.pending {
		w.askProgress()
	}
	return true
}

// run reads batches for w until w is cancelled or fails.
func (ws *watchStream) run(ctx context.Context, w *watch, batches iter.Seq2[kv.WatchBatch, error]) {
	defer w.cancel()
	for batch, err := range batches {
		switch {
		case ctx.Err() != nil: // cancelled by the client, or the stream ends
			return
		case err != nil:
			ws.fail(w, err)
			return
		case !ws.deliver(w, batch):
			return
		}
	}
	if ctx.Err() == nil {
		ws.fail(w, kv.ErrClosed)
	}
}

// deliver sends a batch and reports whether w still stands.
func (ws *watchStream) deliver(w *watch, b kv.WatchBatch) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	switch {
	case ws.closed, w.created && !ws.stands(w), !w.created && !ws.admit(w):
		return false
	case !w.created:
		ws.announce(w, b.Revision)
		w.synced = b.Revision
		if len(b.Events) == 0 {
			ws.finishProgress()
			return true
		}
	}
	if len(b.Events) == 0 {
		w.synced = max(w.synced, b.Revision)
		if w.asked > 0 {
			w.asked--
		} else if w.notify {
			ws.send(&pb.WatchResponse{Header: ws.header(b.Revision, w.ext), WatchId: w.id})
		}
		ws.finishProgress()
		return true
	}
	if !ws.pause(w, b.Revision) {
		return false
	}
	ws.sendEvents(w, b)
	w.synced = b.Revision
	ws.delivered = max(ws.delivered, b.Revision)
	ws.finishProgress()
	return true
}

// stands reports whether w was neither cancelled nor ended. With mu.
func (ws *watchStream) stands(w *watch) bool { return !ws.closed && ws.watches[w.id] == w }

// announce tells the client that w exists. A watch from now on is announced at
// exactly the revision it starts from, because clients resume after that one.
// With mu.
func (ws *watchStream) announce(w *watch, at kv.Revision) {
	w.created = true
	if !w.now {
		at = max(at, ws.api.now().Revision)
	}
	ws.send(&pb.WatchResponse{Header: ws.header(at, w.ext), WatchId: w.id, Created: true})
	close(w.started)
}

// remove cancels a watch for the client; of an unknown one nothing is said.
func (ws *watchStream) remove(id int64) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	w := ws.watches[id]
	if w == nil || ws.closed {
		return
	}
	ws.drop(w)
	ws.send(&pb.WatchResponse{Header: ws.header(ws.api.now().Revision, w.ext), WatchId: id, Canceled: true})
}

// fail tells the client that the store ended w. When another member, or a later
// moment, may do better it ends the stream instead: clients go on elsewhere then,
// but take a cancelled watch for the end.
func (ws *watchStream) fail(w *watch, err error) {
	if kv.CodeOf(err) == kv.Unavailable {
		ws.cancel(toStatus(err))
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	now := ws.api.now().Revision
	switch code := kv.CodeOf(err); {
	case ws.closed, w.created && !ws.stands(w):
		return
	case w.created:
		ws.drop(w)
	case w.ext.wanted: // a client of Concord learns first that there is no watch
		close(w.started)
	case code == kv.PermissionDenied || code == kv.Unauthenticated:
		close(w.started)
		ws.refuse(toStatus(err))
		return
	case !ws.admit(w):
		return
	default:
		ws.announce(w, now)
		ws.drop(w)
	}
	r := &pb.WatchResponse{Header: ws.header(now, w.ext), WatchId: w.id, Canceled: true}
	var compacted *kv.CompactedError
	if errors.As(err, &compacted) {
		r.CompactRevision = int64(compacted.Compacted)
		if !w.ext.wanted {
			r.Header.Revision = 0 // as etcd's
		}
	} else {
		r.CancelReason = toStatus(err).Error()
	}
	if w.ext.wanted {
		setUnknown(r, appendStatus(nil, err))
	}
	ws.send(r)
}

// drop forgets w. With mu.
func (ws *watchStream) drop(w *watch) {
	delete(ws.watches, w.id)
	w.cancel()
	ws.progress.wake.Broadcast() // w may be held up there
	ws.finishProgress()
}

// refuse answers a creation that made no watch. With mu.
func (ws *watchStream) refuse(reason error) {
	ws.send(&pb.WatchResponse{
		Header:  ws.header(ws.api.now().Revision, extensions{}),
		WatchId: invalidWatch, Created: true, Canceled: true, CancelReason: reason.Error(),
	})
}

func (ws *watchStream) header(rev kv.Revision, x extensions) *pb.ResponseHeader {
	h := kv.Header{Revision: rev}
	if x.wanted {
		h.Time = ws.api.now().Time
	}
	return ws.api.header(h, x)
}

// send sends unless the stream has ended; a failure ends it by its context.
// With mu.
func (ws *watchStream) send(r *pb.WatchResponse) {
	if !ws.closed && ws.stream.Send(r) != nil {
		ws.closed = true
	}
}
