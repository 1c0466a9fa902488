package replica

import (
	"context"
	"sync"
	"time"
)

// Timing is what [Replica.ProposeTimed] is told of a call, and what it finds out.
type Timing struct {
	// Start is when the call began.
	Start time.Time
	// How far it had got when, counted from Start; 0 is not known. Queued: the
	// core took it, to put it into an entry or to forward it. Logged: the entry
	// is durable here. Committed: it may be applied here. Applied: it was.
	Queued, Logged, Committed, Applied time.Duration
}

// SetTimed has proposals timed from now on, or not any more: a few clock reads
// for each group of them.
func (r *Replica) SetTimed(on bool) { r.calls.timed.Store(on) }

// ProposeTimed is Propose that fills in t when the proposal was applied while
// [Replica.SetTimed] is on.
func (r *Replica) ProposeTimed(ctx context.Context, cmd []byte, t *Timing) (any, error) {
	w, err := r.propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return w.waitTimed(ctx, t)
}

// stamps are when a group had got how far.
type stamps struct{ queued, logged, committed, applied time.Time }

// fill tells a call that began at t.Start.
func (s *stamps) fill(t *Timing) {
	since := func(at time.Time) time.Duration {
		if at.IsZero() {
			return 0
		}
		return max(at.Sub(t.Start), 1)
	}
	t.Queued, t.Logged = since(s.queued), since(s.logged)
	t.Committed, t.Applied = since(s.committed), since(s.applied)
}

// durableKept is how many writes of the log are remembered: more than are
// usually under way between the log and apply.
const durableKept = 64

// durable is when the newest entries became durable on this member.
type durable struct {
	mu   sync.Mutex
	ring [durableKept]struct {
		last uint64
		at   time.Time
	}
	count int
}

// add notes a write that ended with entry last.
func (d *durable) add(last uint64, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ring[d.count%durableKept].last = last
	d.ring[d.count%durableKept].at = at
	d.count++
}

// since is when entry index became durable, zero when that is not known any
// more.
func (d *durable) since(index uint64) (at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := d.count - 1; i >= 0 && i >= d.count-durableKept; i-- {
		w := &d.ring[i%durableKept]
		if w.last < index {
			return at
		}
		at = w.at
	}
	if d.count > durableKept {
		return time.Time{} // the write is older than what is kept
	}
	return at
}
