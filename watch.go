package concord

import (
	"context"
	"errors"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// A watch is a read: a cursor into history, and a wake-up when its range
// changed. It holds no view while the consumer works, so a slow consumer pins
// nothing.

// The bounds of what a watch reads at once, so that it pins pages for a short
// time only.
const (
	watchChunkEvents = 1024
	watchChunkBytes  = 1 << 20
)

// Watch implements [kv.Watcher].
func (n *Node) Watch(ctx context.Context, w kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	return func(yield func(kv.WatchBatch, error) bool) {
		c := &cursor{node: n, req: w, yield: yield}
		if err := c.admit(ctx); err != nil {
			yield(kv.WatchBatch{}, err)
			return
		}
		if err := c.run(ctx); err != nil {
			yield(kv.WatchBatch{}, err)
		}
	}
}

// admit returns nil when the watch may begin.
func (c *cursor) admit(ctx context.Context) error {
	call := c.node.begin(ctx, observe.OpWatch)
	err := c.node.cfg.limits.CheckWatch(&c.req)
	if err == nil {
		err = c.node.mayServe()
	}
	if err == nil && c.req.Start == 0 {
		// What was acknowledged before the call is not "after now".
		err = c.node.barrier(ctx, kv.Strong)
	}
	if err == nil {
		c.caller = c.node.caller(ctx)
		err = c.enter()
	}
	if call != nil {
		call.event.Bytes = int64(len(c.req.Key) + len(c.req.End))
		c.node.end(ctx, call, err)
	}
	return err
}

// cursor is one watch under way.
type cursor struct {
	node    *Node
	req     kv.WatchRequest
	yield   func(kv.WatchBatch, error) bool
	caller  *kv.Caller // nil where there is nothing that it may not see
	watcher *mvcc.Watcher
	// replaced is closed when a snapshot took the place of the state that
	// watcher belongs to.
	replaced <-chan struct{}
	// next is the first revision not yet yielded.
	next kv.Revision
	// seen is the last revision up to which all was yielded; it is never ahead
	// of the store.
	seen kv.Revision
	// reading is the oldest revision that is still to be read, while c is in
	// node.watches. The compactor reads it.
	reading atomic.Int64
	// revs is the buffer for wake-ups, batches the one for what was read.
	revs    []kv.Revision
	batches []kv.WatchBatch
}

// run yields until ctx ends, the consumer stops (nil) or an error ends the
// watch. There may be a hundred thousand that stand in follow: frames below it
// that are small let the runtime keep their stacks at 4 KiB.
func (c *cursor) run(ctx context.Context) error {
	rev, more, err := c.begin()
	defer func() {
		c.watcher.Close()
		c.tell(observe.WatchCancelled, 0, 0)
	}()
	for more && err == nil {
		if more, err = c.read(c.next, rev); !more || err != nil {
			break
		}
		if err = c.follow(ctx); err != errReplaced {
			break
		}
		// Read on from the new state's history.
		c.watcher.Close()
		rev, _ = c.register()
		err = nil
	}
	return err
}

// begin registers and yields where the watch starts. It returns the revision up
// to which history is to be read, and whether the consumer wants it.
func (c *cursor) begin() (rev kv.Revision, more bool, err error) {
	rev, compacted := c.register()
	c.tell(observe.WatchCreated, 0, 0)
	c.next = c.req.Start
	if c.next == 0 {
		c.next = rev + 1
	}
	if c.next < compacted || c.next < 0 {
		return 0, false, &kv.CompactedError{Compacted: compacted}
	}
	c.seen = min(rev, c.next-1)
	return rev, c.yield(kv.WatchBatch{Revision: c.seen}, nil), nil
}

// enter returns nil when the caller may begin to watch.
func (c *cursor) enter() error {
	view := c.node.machine.ViewAs(c.caller)
	defer view.Close()
	return view.MayRead(c.req.Key, c.req.End)
}

// still returns nil when the caller may watch on.
func (c *cursor) still() error {
	if c.caller == nil {
		return nil
	}
	view := c.node.machine.ViewAs(c.caller)
	defer view.Close()
	return view.MayWatch(&c.req)
}

// rights returns a channel that is closed when somebody's rights change, or nil
// where they do not matter.
func (c *cursor) rights() <-chan struct{} {
	if c.caller == nil {
		return nil
	}
	return c.node.machine.AccessChanged()
}

// register makes the watcher, and returns the revision up to which changes may
// not wake it, and the oldest that can be read.
func (c *cursor) register() (rev, compacted kv.Revision) {
	c.watcher, c.replaced = c.node.machine.Watch(c.req.Key, c.req.End)
	view := c.node.machine.View()
	defer view.Close()
	return view.Header().Revision, view.CompactRevision()
}

// errReplaced ends follow when a snapshot was installed.
var errReplaced = errors.New("the state was replaced by a snapshot")

// follow yields what changes from now on. It returns nil when the consumer
// stops.
func (c *cursor) follow(ctx context.Context) error {
	var idle *time.Timer
	var silent <-chan time.Time
	if c.req.Progress > 0 {
		idle = time.NewTimer(c.req.Progress)
		defer idle.Stop()
		silent = idle.C
	}
	rights, halted := c.rights(), c.node.halted()
	if err := c.still(); err != nil { // perhaps not since before rights were followed
		return err
	}
	for {
		mark := false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-halted:
			return c.node.whyHalted()
		case <-c.replaced:
			return errReplaced
		case <-rights:
			rights = c.rights()
			if err := c.still(); err != nil {
				return err
			}
			continue
		case <-c.watcher.C:
		case <-silent:
			mark = true
		case <-c.req.ProgressRequests:
			mark = true
		}
		// Read before the wake-ups are taken: all changes up to it have woken
		// this watcher by now.
		rev := c.node.machine.Settled()
		more, err := c.drain()
		if more && err == nil && mark {
			c.seen = max(rev, c.seen)
			more = c.yield(kv.WatchBatch{Revision: c.seen}, nil)
		}
		if !more || err != nil {
			return err
		}
		if idle != nil {
			idle.Reset(c.req.Progress)
		}
	}
}

// drain yields the revisions that woke the watcher.
func (c *cursor) drain() (more bool, err error) {
	revs, all := c.watcher.Take(c.revs[:0])
	c.revs = revs
	if len(revs) == 0 {
		return true, nil
	}
	if !all {
		return c.read(max(c.next, revs[0]), revs[len(revs)-1])
	}
	for _, rev := range revs {
		if rev < c.next {
			continue // read already, while catching up
		}
		if more, err := c.read(rev, rev); !more || err != nil {
			return more, err
		}
	}
	return true, nil
}

// read yields the changes at from..to, in chunks, and moves the cursor behind
// them. It reports whether the consumer wants more.
func (c *cursor) read(from, to kv.Revision) (more bool, err error) {
	if from > to {
		return true, nil
	}
	c.reading.Store(int64(from))
	c.node.watches.add(c)
	defer c.node.watches.remove(c)
	for from <= to {
		c.reading.Store(int64(from))
		reached, err := c.readChunk(from, to)
		if err != nil {
			return false, err
		}
		if reached < to {
			c.tell(observe.WatchLagging, 0, to-reached)
		}
		events := 0
		for i := range c.batches {
			if !c.yield(c.batches[i], nil) {
				return false, nil
			}
			events += len(c.batches[i].Events)
		}
		if events > 0 {
			c.tell(observe.WatchDispatched, events, to-reached)
		}
		from = reached + 1
		c.seen = max(c.seen, reached)
		c.next = max(c.next, from)
	}
	return true, nil
}

// readChunk reads whole revisions from history until there is enough for now,
// and returns the last revision that was read.
func (c *cursor) readChunk(from, to kv.Revision) (reached kv.Revision, err error) {
	view := c.node.machine.ViewAs(c.caller)
	defer view.Close()
	c.batches = c.batches[:0]
	events, size, reached := 0, 0, to
	err = view.Changes(from, to, &c.req, func(rev kv.Revision, ev kv.Event) bool {
		last := len(c.batches) - 1
		if last < 0 || c.batches[last].Revision != rev {
			if events >= watchChunkEvents || size >= watchChunkBytes {
				reached = rev - 1
				return false
			}
			c.batches = append(c.batches, kv.WatchBatch{Revision: rev})
			last++
		}
		events++
		size += len(ev.KV.Key) + len(ev.KV.Value)
		c.batches[last].Events = append(c.batches[last].Events, ev)
		return true
	})
	if err != nil {
		return 0, err
	}
	return reached, nil
}

// watches are those that have something to read: few, of however many there are.
type watches struct {
	mu  sync.Mutex
	all map[*cursor]struct{}
}

func (w *watches) add(c *cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all == nil {
		w.all = map[*cursor]struct{}{}
	}
	w.all[c] = struct{}{}
}

func (w *watches) remove(c *cursor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.all, c)
}

// oldest is the oldest revision that a watch has still to read, 0 when none has.
func (w *watches) oldest() (rev kv.Revision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.all {
		if r := kv.Revision(c.reading.Load()); rev == 0 || r < rev {
			rev = r
		}
	}
	return rev
}
