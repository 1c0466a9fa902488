// Package steward is the leader's duty to tend the membership: it promotes
// learners, lets a member that lost its disk have its vote back, and replaces
// members that have been dead for long. [Decide] says what to do, as a function
// of what the leader knows; a [Steward] does it, one change at a time, by joint
// consensus, in the term of the decision only.
package steward

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Cluster is what a Steward needs of its member. One goroutine calls it.
type Cluster interface {
	// View is what this member knows as the leader; ok is false on others.
	View(ctx context.Context) (v View, ok bool)
	// Change makes the change as the leader of that term, all of it or nothing,
	// and returns when it was applied here. It is never forwarded.
	Change(ctx context.Context, term kv.Term, a Action) error
}

// Config configures a Steward. Cluster is required.
type Config struct {
	Cluster Cluster
	// Interval is the time between two looks; 0 means 1s.
	Interval time.Duration
	// Logger hears of changes made and of those that failed; nil means nobody.
	Logger *slog.Logger
}

// A change gets so long until it is taken for failed. What failed is tried again
// after the interval, then after twice as long each time, up to maxWait.
const (
	changeTimeout = 10 * time.Second
	maxWait       = 30 * time.Second
)

// Report is how a Steward saw its cluster last.
type Report struct {
	// Term is the one in which it was seen; 0 where this member does not lead.
	Term kv.Term
	// Judgement is that of [Advice].
	Judgement []string
}

// Steward tends the membership.
type Steward struct {
	cfg Config

	// Owned by Run.
	failures int
	last     kv.Term

	// Written by Run, read by anyone.
	report atomic.Pointer[Report]
}

// New returns a Steward.
func New(cfg Config) *Steward {
	if cfg.Interval == 0 {
		cfg.Interval = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Steward{cfg: cfg}
	s.report.Store(&Report{})
	return s
}

// Report returns the newest one. Any goroutine may call it.
func (s *Steward) Report() Report { return *s.report.Load() }

// Run tends the membership until ctx ends, and returns its error.
func (s *Steward) Run(ctx context.Context) error {
	timer := time.NewTimer(s.cfg.Interval)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		timer.Reset(s.step(ctx))
	}
}

// step looks once, acts on it, and returns how long to wait.
func (s *Steward) step(ctx context.Context) time.Duration {
	v, ok := s.cfg.Cluster.View(ctx)
	if !ok || v.Term != s.last {
		s.failures = 0
	}
	if s.last = v.Term; !ok {
		s.last = 0
		s.report.Store(&Report{})
		return s.cfg.Interval
	}
	advice := Decide(v)
	s.report.Store(&Report{Term: v.Term, Judgement: advice.Judgement})
	a := advice.Action
	if a == nil {
		s.failures = 0
		return s.cfg.Interval
	}
	changing, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	if err := s.cfg.Cluster.Change(changing, v.Term, *a); err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.Warn("membership not changed; tried again later", "reason", a.Reason, "error", err)
		}
		wait := min(s.cfg.Interval<<s.failures, maxWait)
		s.failures = min(s.failures+1, 16)
		return wait
	}
	s.failures = 0
	s.cfg.Logger.Info("membership changed", "reason", a.Reason, "promoted", a.Promote, "removed", a.Remove, "term", v.Term)
	return s.cfg.Interval
}
