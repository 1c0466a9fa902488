package etcdapi

import (
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/kv"
)

// maxFragment is the size from which on a watch response is divided where the
// client takes fragments: etcd's request limit with its slack for gRPC.
const maxFragment = 1 << 21

// progress is the answer that a client has asked for with a progress request:
// the revision up to which every watch of the stream has been sent everything.
type progress struct {
	pending bool
	// again: another request came while this one was pending.
	again bool
	// goal is the least revision to answer with. No watch sends events above
	// it while the answer is pending, so the answer stays in order with them.
	goal kv.Revision
	wake sync.Cond
}

// requestProgress asks every watch where it stands. Without watches there is no
// answer, as in etcd.
func (ws *watchStream) requestProgress() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.progress.pending {
		ws.progress.again = true
		return
	}
	ws.startProgress()
}

// startProgress with mu.
func (ws *watchStream) startProgress() {
	if len(ws.watches) == 0 {
		return
	}
	p := &ws.progress
	p.pending, p.again = true, false
	p.goal = max(ws.delivered, ws.api.now().Revision)
	for _, w := range ws.watches {
		w.askProgress()
	}
	ws.finishProgress()
}

// finishProgress answers when all watches have come to the goal. With mu.
func (ws *watchStream) finishProgress() {
	p := &ws.progress
	if !p.pending {
		return
	}
	at := kv.Revision(-1)
	for _, w := range ws.watches {
		if !w.created || w.synced < p.goal {
			return
		}
		if at < 0 || w.synced < at {
			at = w.synced
		}
	}
	p.pending = false
	p.wake.Broadcast()
	if at < 0 { // the last watch is gone
		return
	}
	ws.send(&pb.WatchResponse{Header: ws.header(at, extensions{}), WatchId: invalidWatch})
	if p.again {
		ws.startProgress()
	}
}

// pause holds w up while a progress answer is pending that its events at rev
// would overtake, and reports whether w still stands. With mu.
func (ws *watchStream) pause(w *watch, rev kv.Revision) bool {
	p := &ws.progress
	for p.pending && rev > p.goal {
		w.synced = rev - 1 // batches are in order and whole
		ws.finishProgress()
		if p.pending {
			p.wake.Wait()
		}
		if !ws.stands(w) {
			return false
		}
	}
	return true
}

// sendEvents sends a batch, in fragments where the client takes them. With mu.
func (ws *watchStream) sendEvents(w *watch, b kv.WatchBatch) {
	r := &pb.WatchResponse{Header: ws.header(b.Revision, w.ext), WatchId: w.id, Events: fromEvents(b.Events, w.ext)}
	if !w.fragment || len(r.Events) < 2 || proto.Size(r) < maxFragment {
		ws.send(r)
		return
	}
	for events := r.Events; len(events) > 0; {
		n, size := 0, 0
		for n < len(events) {
			size += proto.Size(events[n]) + sizeSlack
			if n > 0 && size >= maxFragment {
				break
			}
			n++
		}
		ws.send(&pb.WatchResponse{
			Header: r.Header, WatchId: w.id, Events: events[:n:n], Fragment: n < len(events),
		})
		events = events[n:]
	}
}

// event is an event with its key, in one allocation.
type event struct {
	event mvccpb.Event
	kv    mvccpb.KeyValue
}

func fromEvents(events []kv.Event, x extensions) []*mvccpb.Event {
	block, out := make([]event, len(events)), make([]*mvccpb.Event, len(events))
	for i := range events {
		e, p := &events[i], &block[i]
		p.event.Kv = fromKV(&p.kv, &e.KV, x)
		if e.Type == kv.DeleteEvent {
			p.event.Type = mvccpb.Event_DELETE
		}
		if e.Prev != nil {
			p.event.PrevKv = fromKV(new(mvccpb.KeyValue), e.Prev, x)
		}
		out[i] = &p.event
	}
	return out
}
