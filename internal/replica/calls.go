package replica

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// waiter is a call that blocks. Whoever answers sets value and err and then wakes
// the caller, unless the caller has left.
type waiter struct {
	wake  chan struct{} // holds one
	state atomic.Uint32
	value any
	err   error
	times *stamps // nil where nobody takes the time
	home  *waiters
}

// The states of a waiter.
const (
	waiting uint32 = iota
	answered
	left
)

// waiters keeps waiters that are not in use.
type waiters struct{ pool sync.Pool }

func (p *waiters) get() *waiter {
	if w, ok := p.pool.Get().(*waiter); ok {
		w.state.Store(waiting)
		return w
	}
	return &waiter{wake: make(chan struct{}, 1), home: p}
}

// free gives w back; nobody may know it any more.
func (w *waiter) free() {
	w.value, w.err, w.times = nil, nil, nil
	w.home.pool.Put(w)
}

// answer ends the call. It is called once.
func (w *waiter) answer(value any, err error) {
	if w.state.Load() == left {
		w.free()
		return
	}
	w.value, w.err = value, err
	if w.state.CompareAndSwap(waiting, answered) {
		w.wake <- struct{}{}
	} else {
		w.free()
	}
}

// wait blocks until the answer comes or ctx ends.
func (w *waiter) wait(ctx context.Context) (any, error) { return w.waitTimed(ctx, nil) }

// waitTimed also fills in t, unless it is nil.
func (w *waiter) waitTimed(ctx context.Context, t *Timing) (any, error) {
	if done := ctx.Done(); done == nil {
		<-w.wake
	} else {
		select {
		case <-w.wake:
		case <-done:
			if w.state.CompareAndSwap(waiting, left) {
				return nil, fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
			}
			<-w.wake
		}
	}
	value, err := w.value, w.err
	if t != nil && w.times != nil {
		w.times.fill(t)
	}
	w.free()
	return value, err
}

// batch is a group and its callers, in the order of its commands.
type batch struct {
	group   Group
	waiters []*waiter
	times   stamps
}

func (b *batch) answer(values []any, err error) {
	timed := !b.times.applied.IsZero()
	for i, w := range b.waiters {
		if err != nil {
			w.answer(nil, err)
			continue
		}
		if timed {
			w.times = &b.times
		}
		w.answer(values[i], nil)
	}
}

// calls gathers proposals into groups, and finds the callers again.
type calls struct {
	maxCount int
	maxBytes int64
	maxGroup int
	pool     *waiters

	mu sync.Mutex
	// open is the group that calls go into; sealed are full ones before it.
	open    *batch
	sealed  []*batch
	local   []*batch          // bound to a term
	given   map[uint64]*batch // to the core, by sequence
	spare   [][]byte          // memory of groups that were applied
	changes map[uint64]*waiter
	seq     uint64
	refuse  error // what new calls get
	timed   atomic.Bool
	count   int // calls in open, sealed and given
	bytes   int64
}

func newCalls(o Options, pool *waiters) *calls {
	return &calls{
		maxCount: o.MaxWaiting, maxBytes: o.MaxWaitingBytes, maxGroup: o.MaxEntryBytes, pool: pool,
		open: &batch{}, given: make(map[uint64]*batch), changes: make(map[uint64]*waiter),
	}
}

// add puts a copy of cmd into the open group. wake says to look at the groups:
// for the first call, and when a group has grown enough to be taken early.
func (c *calls) add(cmd []byte) (w *waiter, wake bool, err error) {
	w = c.pool.get()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.admit(len(cmd)); err != nil {
		w.free()
		return nil, false, err
	}
	if len(c.open.waiters) > 0 && len(c.open.group.Data)+len(cmd) > c.maxGroup {
		c.seal()
	}
	c.open.group.Add(cmd)
	c.open.waiters = append(c.open.waiters, w)
	n := len(c.open.waiters)
	return w, n == 1 || n >= 16 && n&(n-1) == 0, nil
}

func (c *calls) admit(size int) error {
	switch {
	case c.refuse != nil:
		return c.refuse
	case c.count >= c.maxCount, c.bytes > 0 && c.bytes+int64(size) > c.maxBytes:
		return ErrOverloaded
	}
	c.count++
	c.bytes += int64(size)
	return nil
}

// seal closes the open group. The next one gets memory of an earlier one, or as
// much as this one came to need.
func (c *calls) seal() {
	b := c.open
	c.sealed = append(c.sealed, b)
	var data []byte
	if n := len(c.spare); n > 0 {
		data, c.spare = c.spare[n-1], c.spare[:n-1]
	} else {
		data = make([]byte, 0, min(len(b.group.Data)*9/8, c.maxGroup))
	}
	c.open = &batch{group: Group{Data: data}, waiters: make([]*waiter, 0, len(b.waiters)*9/8)}
}

// The memory kept for groups to come: as many as are under way under load.
const (
	maxSpare      = 8
	maxSpareBytes = 1 << 20
)

// reuse takes back the memory of groups that were answered and forgotten.
func (c *calls) reuse(groups []*Group) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range groups {
		if len(c.spare) < maxSpare && cap(g.Data) <= maxSpareBytes {
			c.spare = append(c.spare, g.Data[:0])
		}
		g.Data = nil
	}
}

// openCount is how many calls are in the open group.
func (c *calls) openCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open.waiters)
}

// take hands out the oldest group if wants agrees. It becomes the core's.
func (c *calls) take(wants func(waiting int, bytes int64) bool) *Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.open.waiters)+len(c.sealed) == 0 {
		return nil
	}
	next := c.open
	if len(c.sealed) > 0 {
		next = c.sealed[0]
	}
	if !wants(len(next.waiters), int64(len(next.group.Data))) {
		return nil
	}
	if len(c.sealed) == 0 {
		c.seal()
	}
	c.sealed[0] = nil
	c.sealed = c.sealed[1:]
	return c.give(next)
}

// give names a batch and remembers it.
func (c *calls) give(b *batch) *Group {
	c.seq++
	b.group.Seq = c.seq
	if c.timed.Load() {
		b.times.queued = time.Now()
	}
	c.given[c.seq] = b
	return &b.group
}

// addLocal makes a group of its own for cmd, bound to term. It goes before what
// waits.
func (c *calls) addLocal(term uint64, cmd []byte) (*waiter, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.admit(len(cmd)); err != nil {
		return nil, err
	}
	w := c.pool.get()
	b := &batch{group: Group{Term: term}, waiters: []*waiter{w}}
	b.group.Add(cmd)
	c.local = append(c.local, b)
	return w, nil
}

// takeLocal hands out the oldest group that is bound to a term.
func (c *calls) takeLocal() *Group {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.local) == 0 {
		return nil
	}
	b := c.local[0]
	c.local = append([]*batch(nil), c.local[1:]...)
	return c.give(b)
}

// resolve answers the calls of a group; at is when what was done, or zero.
func (c *calls) resolve(seq uint64, values []any, err error, at stamps) {
	c.mu.Lock()
	b := c.given[seq]
	delete(c.given, seq)
	if b != nil {
		c.count -= len(b.waiters)
		c.bytes -= commandBytes(&b.group)
	}
	c.mu.Unlock()
	if b != nil { // else it was given up before
		if !at.applied.IsZero() {
			at.queued = b.times.queued
			b.times = at
		}
		b.answer(values, err)
	}
}

// commandBytes is what admit counted for g: its data without the lengths.
func commandBytes(g *Group) int64 {
	return int64(len(g.Data) - g.lengths)
}

// addChange registers a configuration change.
func (c *calls) addChange() (w *waiter, id uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.admit(0); err != nil {
		return nil, 0, err
	}
	c.count--
	c.seq++
	w = c.pool.get()
	c.changes[c.seq] = w
	return w, c.seq, nil
}

// resolveChange answers a configuration change.
func (c *calls) resolveChange(id uint64, value any, err error) {
	c.mu.Lock()
	w := c.changes[id]
	delete(c.changes, id)
	c.mu.Unlock()
	if w != nil {
		w.answer(value, err)
	}
}

// setRefuse makes new calls fail with err, or lets them in again if it is nil,
// and fails the calls that nobody was given.
func (c *calls) setRefuse(err error) {
	c.mu.Lock()
	c.refuse = err
	var failed []*batch
	if err != nil {
		failed = append(append(c.sealed, c.local...), c.open)
		c.sealed, c.local, c.open = nil, nil, &batch{}
		for _, b := range failed {
			c.count -= len(b.waiters)
			c.bytes -= commandBytes(&b.group)
		}
	}
	c.mu.Unlock()
	for _, b := range failed {
		b.answer(nil, err)
	}
}

// close fails all calls: those that the core had may have run.
func (c *calls) close() {
	c.setRefuse(ErrClosed)
	c.mu.Lock()
	given, changes := c.given, c.changes
	c.given, c.changes = nil, nil
	c.count, c.bytes = 0, 0
	c.mu.Unlock()
	for _, b := range given {
		b.answer(nil, ErrStopped)
	}
	for _, w := range changes {
		w.answer(nil, ErrStopped)
	}
}
