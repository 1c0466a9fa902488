// Package lessor is the leader's duty to end leases and keys whose time is
// over: it finds what is due and proposes its expiry. It decides nothing: what
// was renewed or changed before the proposal is applied, or is proposed by a
// leader that no longer leads, stays.
//
// While there is anything that ends by time it also sees to it that the log
// tells the time: else, where nothing is written, the other members would not
// know how much of it is left, and the next leader would begin to count where
// the last entry was.
package lessor

import (
	"context"
	"log/slog"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Leader is what a Lessor needs of its member's replica. Any goroutine calls.
type Leader interface {
	// Leading returns the term that this member leads, and for how long it
	// has: since it applied the first entry of that term. Leads is false
	// before that, and where another member leads.
	Leading() (term kv.Term, since time.Duration, leads bool)
	// ClusterTime is at most what the leader would stamp an entry with now.
	ClusterTime() kv.Time
	// ProposeLocal proposes a command as the leader of term, and never
	// forwards it. It returns when the command was applied here.
	ProposeLocal(ctx context.Context, term kv.Term, command []byte) (any, error)
}

// Deadlines are what a Lessor reads of the state; the machine has them. Any
// goroutine calls.
type Deadlines interface {
	// NextDeadline is a time before which nothing is due.
	NextDeadline() kv.Time
	// Expiry returns the command that ends, for the leader of term, at most
	// max leases and max keys that are due at now, nil where there are none,
	// and whether there may be more.
	Expiry(term kv.Term, now kv.Time, max int) (command []byte, more bool)
	// Beat returns a command for the leader of term that does nothing but bring
	// the time into the log: nil where nothing ends by time, or an entry of
	// since or later was applied.
	Beat(term kv.Term, since kv.Time) []byte
}

// Config configures a Lessor. Leader and Deadlines are required.
type Config struct {
	Leader    Leader
	Deadlines Deadlines
	// Quiet is how long a new leader proposes nothing, so that clients that
	// could not renew while there was none can do so; the election timeout.
	// 0 means 1s.
	Quiet time.Duration
	// Interval is the longest time between two looks, and so the most by
	// which an expiry is late in a cluster with a leader; 0 means 100ms.
	Interval time.Duration
	// Beat is how far the log may be behind in time; 0 means 1s.
	Beat time.Duration
	// Logger hears of proposals that failed; nil means nobody.
	Logger *slog.Logger
}

// MaxBatch bounds the leases, and the keys, of one proposal.
const MaxBatch = 1000

// pause is the shortest time between two proposals that found all there is.
const pause = 5 * time.Millisecond

// Lessor proposes expiry. Its methods are for one goroutine.
type Lessor struct{ cfg Config }

// New returns a Lessor.
func New(cfg Config) *Lessor {
	if cfg.Quiet == 0 {
		cfg.Quiet = time.Second
	}
	if cfg.Interval == 0 {
		cfg.Interval = 100 * time.Millisecond
	}
	if cfg.Beat == 0 {
		cfg.Beat = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Lessor{cfg: cfg}
}

// Proposal is a command to propose in a term, or none.
type Proposal struct {
	Term    kv.Term
	Command []byte
}

// Step decides what to propose now, and how long to wait, after it was applied,
// until the next step. It does no I/O, reads no clock and does not block.
func (l *Lessor) Step() (p Proposal, wait time.Duration) {
	term, since, leads := l.cfg.Leader.Leading()
	switch {
	case !leads:
		return p, l.cfg.Interval
	case since < l.cfg.Quiet:
		return p, min(l.cfg.Interval, l.cfg.Quiet-since)
	}
	now := l.cfg.Leader.ClusterTime()
	if left := l.cfg.Deadlines.NextDeadline() - now; left > 0 {
		p = Proposal{Term: term, Command: l.cfg.Deadlines.Beat(term, now-kv.Time(l.cfg.Beat/time.Millisecond))}
		// In cluster time, which may be far: compare before multiplying.
		if left >= kv.Time(l.cfg.Interval/time.Millisecond) {
			return p, l.cfg.Interval
		}
		return p, time.Duration(left) * time.Millisecond
	}
	command, more := l.cfg.Deadlines.Expiry(term, now, MaxBatch)
	if wait = pause; more {
		wait = 0
	}
	return Proposal{Term: term, Command: command}, wait
}

// Run steps until ctx ends, and returns its error. A proposal that fails is
// made anew after a while, from what is due then.
func (l *Lessor) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		p, wait := l.Step()
		if p.Command != nil {
			if _, err := l.cfg.Leader.ProposeLocal(ctx, p.Term, p.Command); err != nil && ctx.Err() == nil {
				l.cfg.Logger.Debug("expiry not proposed", "term", p.Term, "error", err)
				wait = l.cfg.Interval
			}
		}
		timer.Reset(wait)
	}
}
