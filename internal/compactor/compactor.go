// Package compactor is the leader's duty to let go of old history: by age, but
// sparing what live watchers have still to read, and by size, sparing nobody.
package compactor

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Leader is what a Compactor needs of its member's replica. Any goroutine
// calls.
type Leader interface {
	// Leading returns the term that this member leads; leads is false where
	// another does.
	Leading() (term kv.Term, since time.Duration, leads bool)
	// ClusterTime is about what the leader would stamp an entry with now.
	ClusterTime() kv.Time
	// ProposeLocal proposes a command as the leader of term, and returns what
	// came of it.
	ProposeLocal(ctx context.Context, term kv.Term, command []byte) (any, error)
}

// History is what a Compactor reads of the state; the machine has it. Any
// goroutine calls.
type History interface {
	// Retention is how long history is kept, and how many bytes of it.
	Retention() (age time.Duration, bytes int64)
	// RevisionAt is the latest revision known to have been current at t, 0
	// when none is.
	RevisionAt(t kv.Time) kv.Revision
	// RevisionWithin is the earliest revision after which at most that many
	// bytes were written, 0 when no more ever were.
	RevisionWithin(bytes int64) kv.Revision
	// CompactRevision is the oldest revision that is kept now.
	CompactRevision() kv.Revision
}

// Config configures a Compactor. Leader, History and Encode are required.
type Config struct {
	Leader  Leader
	History History
	// Encode appends the command that compacts at a revision.
	Encode func(dst []byte, rev kv.Revision) []byte
	// Watched returns the oldest revision that a live watcher has still to
	// read, 0 when none has to; nil means 0.
	Watched func() kv.Revision
	// Interval is the time between two looks; 0 means 1s.
	Interval time.Duration
	// Logger hears of proposals that failed; nil means nobody.
	Logger *slog.Logger
}

// Compactor proposes compactions. Its methods are for one goroutine.
type Compactor struct{ cfg Config }

// New returns a Compactor.
func New(cfg Config) *Compactor {
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	if cfg.Watched == nil {
		cfg.Watched = func() kv.Revision { return 0 }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Compactor{cfg: cfg}
}

// Step returns the revision to compact at now and the term to propose it in;
// revision 0 means that there is nothing to do. It does no I/O, reads no clock
// and does not block.
func (c *Compactor) Step() (term kv.Term, rev kv.Revision) {
	term, _, leads := c.cfg.Leader.Leading()
	if !leads {
		return 0, 0
	}
	age, bytes := c.cfg.History.Retention()
	rev = c.cfg.History.RevisionAt(c.cfg.Leader.ClusterTime() - kv.Time(age/time.Millisecond))
	if watched := c.cfg.Watched(); watched != 0 {
		rev = min(rev, watched)
	}
	rev = max(rev, c.cfg.History.RevisionWithin(bytes))
	if rev <= c.cfg.History.CompactRevision() {
		return term, 0
	}
	return term, rev
}

// Run steps until ctx ends, and returns its error.
func (c *Compactor) Run(ctx context.Context) error {
	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		term, rev := c.Step()
		if rev == 0 {
			continue
		}
		_, err := c.cfg.Leader.ProposeLocal(ctx, term, c.cfg.Encode(nil, rev))
		// ErrCompacted: somebody compacted further by hand.
		if err != nil && ctx.Err() == nil && !errors.Is(err, kv.ErrCompacted) {
			c.cfg.Logger.Debug("compaction not proposed", "term", term, "revision", rev, "error", err)
		}
	}
}
