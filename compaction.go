package concord

import (
	"context"
	"math"
	"time"

	"github.com/concord-kv/concord/internal/compactor"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// Compaction is how a member that leads lets go of history, in etcd's terms. The
// zero Compaction keeps all of it.
type Compaction struct {
	// Age is how long history is kept, up to a tenth longer.
	Age time.Duration
	// Revisions is how many of the latest revisions are kept instead, looked
	// at every five minutes.
	Revisions int64
}

// AutoCompaction replaces what [Settings] say of history on this member; give it
// to all. Neither watchers nor a size have a say then. By default the settings
// hold.
func AutoCompaction(how Compaction) Option {
	return func(c *config) { c.hands.compaction = &how }
}

// compacting returns the duty to compact, or nil.
func (n *Node) compacting(l leader) func(context.Context) error {
	cfg := compactor.Config{
		Leader: l, History: pressed{n.machine, n.cfg.memory}, Encode: machine.EncodeCompact, Logger: n.log,
		Watched: n.watches.oldest,
	}
	if how := n.cfg.hands.compaction; how != nil {
		cfg.History, cfg.Watched = keeping{n.machine, *how}, nil
		switch {
		case how.Age > 0:
			cfg.Interval = min(how.Age, time.Hour) / 10
		case how.Revisions > 0:
			cfg.Interval = 5 * time.Minute
		default:
			return nil
		}
	}
	return compactor.New(cfg).Run
}

// keeping is the history as a Compaction wants it kept.
type keeping struct {
	*machine.Machine
	how Compaction
}

// Retention implements compactor.History.
func (k keeping) Retention() (age time.Duration, bytes int64) { return k.how.Age, math.MaxInt64 }

// RevisionAt implements compactor.History.
func (k keeping) RevisionAt(t kv.Time) kv.Revision {
	if k.how.Revisions > 0 {
		return max(0, k.Status().Revision-kv.Revision(k.how.Revisions))
	}
	return k.Machine.RevisionAt(t)
}

// pressed is the history, of which less is kept where memory is short.
type pressed struct {
	*machine.Machine
	memory *memory
}

// Retention implements compactor.History.
func (p pressed) Retention() (age time.Duration, bytes int64) {
	age, bytes = p.Machine.Retention()
	return age, p.memory.history(bytes, p.Status().HistoryBytes)
}
