package replica

import (
	"sync"
	"sync/atomic"
)

// inbox is a queue of inputs for one goroutine, which wake wakes.
type inbox struct {
	wake     chan struct{} // holds one
	maxBytes int64

	mu     sync.Mutex
	space  sync.Cond
	inputs []Input
	bytes  int64 // of messages
	closed bool
}

func newInbox(maxBytes int64) *inbox {
	b := &inbox{wake: make(chan struct{}, 1), maxBytes: maxBytes}
	b.space.L = &b.mu
	return b
}

func (b *inbox) kick() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// put queues what is not from the network.
func (b *inbox) put(in Input) {
	b.mu.Lock()
	b.inputs = append(b.inputs, in)
	first := len(b.inputs) == 1
	b.mu.Unlock()
	if first {
		b.kick()
	}
}

// receive queues a message, and blocks while too much waits. What is urgent may
// take twice the room, so that it does not wait behind the rest.
func (b *inbox) receive(from uint64, payload []byte, urgent bool) {
	limit := b.maxBytes
	if urgent {
		limit *= 2
	}
	b.mu.Lock()
	for b.bytes > 0 && b.bytes+int64(len(payload)) > limit && !b.closed {
		b.space.Wait()
	}
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.bytes += int64(len(payload))
	b.inputs = append(b.inputs, Input{Kind: InputMessage, Peer: from, Payload: payload})
	first := len(b.inputs) == 1
	b.mu.Unlock()
	if first {
		b.kick()
	}
}

// take returns all inputs and keeps reuse for the next ones.
func (b *inbox) take(reuse []Input) []Input {
	clear(reuse)
	b.mu.Lock()
	inputs := b.inputs
	b.inputs = reuse[:0]
	b.bytes = 0
	b.mu.Unlock()
	b.space.Broadcast()
	return inputs
}

func (b *inbox) close() {
	b.mu.Lock()
	b.closed = true
	b.inputs, b.bytes = nil, 0
	b.mu.Unlock()
	b.space.Broadcast()
}

// feed is a queue of work for one goroutine. The core bounds what is in it.
type feed[T any] struct {
	wake  chan struct{}
	mu    sync.Mutex
	items []T
}

func newFeed[T any]() *feed[T] { return &feed[T]{wake: make(chan struct{}, 1)} }

func (f *feed[T]) put(items ...T) {
	if len(items) == 0 {
		return
	}
	f.mu.Lock()
	f.items = append(f.items, items...)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *feed[T]) take() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	items := f.items
	f.items = nil
	return items
}

// progress is how far this member has applied, and who waits for that.
type progress struct {
	applied atomic.Uint64

	mu    sync.Mutex
	waits []progressWait
	err   error
}

type progressWait struct {
	index   uint64
	waiters []*waiter
}

// when answers ws once index is applied.
func (p *progress) when(index uint64, ws ...*waiter) {
	p.mu.Lock()
	err := p.err
	if err == nil && p.applied.Load() < index {
		p.waits = append(p.waits, progressWait{index, ws})
		ws = nil
	}
	p.mu.Unlock()
	for _, w := range ws {
		w.answer(nil, err)
	}
}

// set moves applied on.
func (p *progress) set(index uint64) {
	p.mu.Lock()
	p.applied.Store(index)
	var ready []*waiter
	keep := p.waits[:0]
	for _, w := range p.waits {
		if w.index <= index {
			ready = append(ready, w.waiters...)
		} else {
			keep = append(keep, w)
		}
	}
	clear(p.waits[len(keep):])
	p.waits = keep
	p.mu.Unlock()
	for _, w := range ready {
		w.answer(nil, nil)
	}
}

func (p *progress) close(err error) {
	p.mu.Lock()
	waits := p.waits
	p.waits, p.err = nil, err
	p.mu.Unlock()
	for _, wait := range waits {
		for _, w := range wait.waiters {
			w.answer(nil, err)
		}
	}
}

// rounds gathers reads: while one round is under way, those who arrive join the
// next.
type rounds struct {
	mu      sync.Mutex
	next    []*waiter
	current []*waiter
	id      uint64 // of the round under way; 0 for none
	last    uint64
	err     error
}

// join adds a reader, and reports whether the next round could start now.
func (r *rounds) join(w *waiter) (start bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return false, r.err
	}
	r.next = append(r.next, w)
	return r.id == 0 && len(r.next) == 1, nil
}

// start begins a round if readers wait and none is under way.
func (r *rounds) start() (id uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.id != 0 || len(r.next) == 0 {
		return 0, false
	}
	r.current, r.next = r.next, nil
	r.last++
	r.id = r.last
	return r.id, true
}

// end returns the readers of round id.
func (r *rounds) end(id uint64) []*waiter {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.id != id {
		return nil
	}
	ws := r.current
	r.current, r.id = nil, 0
	return ws
}

func (r *rounds) close(err error) {
	r.mu.Lock()
	ws := append(r.next, r.current...)
	r.next, r.current, r.err = nil, nil, err
	r.mu.Unlock()
	for _, w := range ws {
		w.answer(nil, err)
	}
}
