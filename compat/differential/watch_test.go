package differential

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/prototext"
)

// settleTime is how long the two may take to have sent the same.
const settleTime = 20 * time.Second

// watchStream collects what one server sends on a stream of watches.
type watchStream struct {
	pb.Watch_WatchClient
	mu sync.Mutex
	// control are the responses without events, in order.
	control []*pb.WatchResponse
	// events are those of each watch in order.
	events map[int64][]*mvccpb.Event
	err    error
	more   chan struct{}
}

func newWatchStream(ctx context.Context, c *grpc.ClientConn) (*watchStream, error) {
	stream, err := pb.NewWatchClient(c).Watch(ctx)
	if err != nil {
		return nil, err
	}
	s := &watchStream{Watch_WatchClient: stream, events: map[int64][]*mvccpb.Event{}, more: make(chan struct{}, 1)}
	go s.receive()
	return s, nil
}

func (s *watchStream) receive() {
	for {
		resp, err := s.Recv()
		s.mu.Lock()
		if err == nil {
			err = s.take(resp)
		}
		s.err = err
		s.mu.Unlock()
		select {
		case s.more <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// take checks a response by itself and files it. With mu.
func (s *watchStream) take(r *pb.WatchResponse) error {
	if len(r.Events) == 0 {
		if r.Created {
			delete(s.events, r.WatchId) // of an earlier watch
		}
		s.control = append(s.control, r)
		return nil
	}
	if r.Created || r.Canceled || r.CancelReason != "" || r.CompactRevision != 0 || r.Fragment {
		return fmt.Errorf("events with something else: %v", r)
	}
	have := s.events[r.WatchId]
	first, last := r.Events[0].Kv.ModRevision, r.Events[len(r.Events)-1].Kv.ModRevision
	if n := len(have); n > 0 && have[n-1].Kv.ModRevision >= first {
		return fmt.Errorf("revision %d is divided or comes late: %v", first, r)
	}
	if r.Header.Revision < last {
		return fmt.Errorf("a header before the events: %v", r)
	}
	s.events[r.WatchId] = append(have, r.Events...)
	return nil
}

// watchPair is one stream on both servers.
type watchPair struct {
	etcd, concord *watchStream
	member        *grpc.ClientConn // Concord's, of this stream
	cancel        context.CancelFunc
	ids           []int64
	// seen is how many responses without events were compared already.
	seen int
}

func (r *runner) newWatchPair() *watchPair {
	ctx, cancel := context.WithCancel(context.Background())
	r.tb.Cleanup(cancel)
	etcd, err := newWatchStream(ctx, r.pair.etcd.Conns[0])
	if err != nil {
		r.tb.Fatal(err)
	}
	member := r.conn()
	concord, err := newWatchStream(ctx, member)
	if err != nil {
		r.tb.Fatal(err)
	}
	return &watchPair{etcd: etcd, concord: concord, member: member, cancel: cancel}
}

// maxStreams and maxWatches keep the work for each event small.
const maxStreams, maxWatches = 3, 12

// syncTime is how long etcd may take to bring a watch from the past up to date,
// which it does every 100 ms.
const syncTime = 500 * time.Millisecond

// sync settles and gives etcd time to have every watch up to date: until then it
// drops requests for progress and ends watches for compactions that took nothing
// from them.
func (r *runner) sync() {
	r.settle()
	if wait := time.Until(r.past.Add(syncTime)); wait > 0 {
		<-time.After(wait)
	}
}

// unknownWatch is an id that no watch has.
const unknownWatch = 99

// watch creates or cancels a watch, or asks for progress.
func (r *runner) watch() {
	if len(r.streams) < maxStreams {
		r.streams = append(r.streams, r.newWatchPair())
	}
	i := r.IntN(len(r.streams))
	w := r.streams[i]
	switch n := r.IntN(20); {
	case len(w.ids) > maxWatches || n == 0:
		r.endStream(i)
	case n < 13:
		if r.createWatch(w) {
			// etcd keeps the watch on the stream: its id stays taken, and no
			// progress is reported any more.
			r.endStream(i)
		}
	case n < 17:
		id := int64(unknownWatch)
		if len(w.ids) > 0 && r.chance(90) {
			k := r.IntN(len(w.ids))
			id = w.ids[k]
			w.ids = slices.Delete(w.ids, k, k+1)
		}
		// What is on its way need not be sent after a cancellation.
		r.settle()
		r.sendWatch(w, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{
			CancelRequest: &pb.WatchCancelRequest{WatchId: id},
		}})
		r.settle()
	default:
		r.sync()
		r.sendWatch(w, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
			ProgressRequest: &pb.WatchProgressRequest{},
		}})
		r.settle()
	}
}

func (r *runner) endStream(i int) {
	r.settle()
	r.note("end of a stream of watches")
	r.streams[i].cancel()
	r.streams = slices.Delete(r.streams, i, i+1)
}

// createWatch reports whether the watch began before the compacted revision.
func (r *runner) createWatch(w *watchPair) (compacted bool) {
	c := &pb.WatchCreateRequest{Key: r.key(), RangeEnd: r.end(), PrevKv: r.chance(50), ProgressNotify: r.chance(20), Fragment: r.chance(20)}
	if r.chance(60) {
		c.StartRevision, r.past = r.oldRevision(), time.Now()
	}
	if r.chance(15) {
		c.WatchId = 1 + r.Int64N(20)
	}
	for range r.IntN(8) / 6 {
		c.Filters = append(c.Filters, pb.WatchCreateRequest_FilterType(r.IntN(3)))
	}
	before := w.seen
	r.sendWatch(w, &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: c}})
	r.settle()
	for _, resp := range w.etcd.control[min(before, len(w.etcd.control)):] {
		compacted = compacted || resp.CompactRevision != 0
		if resp.Created && !resp.Canceled {
			w.ids = append(w.ids, resp.WatchId)
		} else if k := slices.Index(w.ids, resp.WatchId); resp.Canceled && k >= 0 {
			w.ids = slices.Delete(w.ids, k, k+1)
		}
	}
	return compacted
}

func (r *runner) sendWatch(w *watchPair, req *pb.WatchRequest) {
	r.note(fmt.Sprintf("stream %p %s", w, prototext.MarshalOptions{}.Format(req)))
	r.counts["Watch"]++
	// Answers have the revision of the member that gives them: a linearizable
	// read brings it up to date.
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := pb.NewKVClient(w.member).Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		r.tb.Error("concord", err)
	}
	if err := w.etcd.Send(req); err != nil {
		r.tb.Error("etcd", err)
	}
	if err := w.concord.Send(req); err != nil {
		r.tb.Error("concord", err)
	}
	// Every creation is answered, and so are cancellations of watches that are
	// there, and progress requests when there are watches.
	if c := req.GetCancelRequest(); c == nil && (len(w.ids) > 0 || req.GetProgressRequest() == nil) || c != nil && c.WatchId != unknownWatch {
		w.seen++
	}
}

// settle waits until both have sent the same on every stream.
func (r *runner) settle() {
	deadline := time.NewTimer(settleTime)
	defer deadline.Stop()
	for _, w := range r.streams {
		for {
			same, why := w.same()
			if same {
				break
			}
			select {
			case <-w.etcd.more:
			case <-w.concord.more:
			case <-deadline.C:
				r.differ++
				r.tb.Errorf("watches differ on stream %p: %s", w, why)
				return
			}
		}
	}
}

// same compares what was sent and forgets events that were compared.
func (w *watchPair) same() (bool, string) {
	w.etcd.mu.Lock()
	defer w.etcd.mu.Unlock()
	w.concord.mu.Lock()
	defer w.concord.mu.Unlock()
	if w.etcd.err != nil || w.concord.err != nil {
		return false, fmt.Sprintf("etcd: %v, concord: %v", w.etcd.err, w.concord.err)
	}
	if len(w.etcd.control) < w.seen || len(w.etcd.control) != len(w.concord.control) {
		return false, fmt.Sprintf("%d answers wanted\n   etcd: %v\nconcord: %v", w.seen, w.etcd.control, w.concord.control)
	}
	for i := range w.etcd.control {
		if a, b := (answer{msg: w.etcd.control[i]}), (answer{msg: w.concord.control[i]}); !equal(a, b) {
			return false, fmt.Sprintf("answer %d\n   etcd: %v\nconcord: %v", i, a, b)
		}
	}
	for _, id := range w.watchIDs() {
		a, b := &pb.WatchResponse{Events: w.etcd.events[id]}, &pb.WatchResponse{Events: w.concord.events[id]}
		if !equal(answer{msg: a}, answer{msg: b}) {
			return false, fmt.Sprintf("events of watch %d\n   etcd: %v\nconcord: %v", id, a, b)
		}
	}
	for _, id := range w.watchIDs() {
		for _, s := range []*watchStream{w.etcd, w.concord} {
			if e := s.events[id]; len(e) > 1 {
				s.events[id] = e[len(e)-1:] // the last tells where the next must be
			}
		}
	}
	w.seen = len(w.etcd.control)
	return true, ""
}

// watchIDs are those that have had events. With both locks.
func (w *watchPair) watchIDs() (ids []int64) {
	for _, s := range []*watchStream{w.etcd, w.concord} {
		for id := range s.events {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return ids
}
