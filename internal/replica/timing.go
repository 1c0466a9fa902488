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

// Times knows when lately applied entries got how far on this member, see
// [Config]. The zero value is ready, and knows nothing while [Replica.SetTimed]
// is off.
type Times struct {
	durable durable
	given   time.Time // when the task that runs was; the applying goroutine's
}

// Seen is when an entry got how far on a member; a zero time is not known.
type Seen struct {
	// Received: it was on its way to the log, packed by this member or sent by
	// the leader. Logged: it was durable here. Committed: it might be applied.
	Received, Logged, Committed time.Time
}

// Of tells of the entry that is being applied; only [Machine] may ask, in Apply.
func (t *Times) Of(index uint64) Seen {
	if t.given.IsZero() {
		return Seen{}
	}
	received, logged := t.durable.since(index)
	return Seen{received, logged, t.given}
}

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
const durableKept = 256

// durable is when the newest entries became durable on this member.
type durable struct {
	mu   sync.Mutex
	ring [durableKept]struct {
		last      uint64
		given, at time.Time
	}
	count int
}

// add notes writes that were durable at that time.
func (d *durable) add(writes []logWork, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range writes {
		entries := writes[i].write.Batch.Entries
		if len(entries) == 0 {
			continue
		}
		w := &d.ring[d.count%durableKept]
		w.last, w.given, w.at = entries[len(entries)-1].Index, writes[i].given, at
		d.count++
	}
}

// since is when entry index was given to be written, and when it was durable;
// zero when that is not known any more.
func (d *durable) since(index uint64) (given, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := d.count - 1; i >= 0 && i >= d.count-durableKept; i-- {
		w := &d.ring[i%durableKept]
		if w.last < index {
			return given, at
		}
		given, at = w.given, w.at
	}
	if d.count > durableKept {
		return time.Time{}, time.Time{} // the write is older than what is kept
	}
	return given, at
}
