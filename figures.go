package concord

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/kv"
)

// figures are written by the goroutines of the replica, one each, and read by
// anyone.
type figures struct {
	leader, leaderChanges       atomic.Uint64
	logEntries, appliedEntries  atomic.Uint64
	snapshotErrors, badMessages atomic.Uint64

	logWrites, applies, snapshots durations

	pulse pulse

	// steward has how the leader judges the membership. It is set by Open.
	steward *steward.Steward
}

// durations is [kv.Durations] while it is written.
type durations struct {
	counts [len(kv.Durations{}.Counts)]atomic.Uint64
	sum    atomic.Int64
}

func (d *durations) add(took time.Duration) {
	d.counts[min(bits.Len64(uint64(max(took-1, 0)/kv.ShortestBound)), len(d.counts)-1)].Add(1)
	d.sum.Add(int64(took))
}

func (d *durations) load() (out kv.Durations) {
	for i := range d.counts {
		out.Counts[i] = d.counts[i].Load()
	}
	out.Sum = time.Duration(d.sum.Load())
	return out
}

// observer has the replica count.
func (f *figures) observer() replica.Observer {
	return replica.Observer{
		StateChanged: func(s replica.State) {
			if s.Leader != 0 && f.leader.Swap(s.Leader) != s.Leader {
				f.leaderChanges.Add(1)
			}
		},
		LogWritten: func(entries int, took time.Duration) {
			f.logEntries.Add(uint64(entries))
			f.logWrites.add(took)
		},
		EntriesApplied: func(entries int, took time.Duration) {
			f.appliedEntries.Add(uint64(entries))
			f.applies.add(took)
		},
		SnapshotTaken: func(_ snap.Meta, took time.Duration, err error) {
			if err != nil {
				f.snapshotErrors.Add(1)
				return
			}
			f.snapshots.add(took)
		},
		MessageRejected: func(uint64, error) { f.badMessages.Add(1) },
	}
}

// Figures implements [kv.Measured].
func (n *Node) Figures() kv.Figures {
	f := n.figures
	puts, deletes := n.machine.Changes()
	return kv.Figures{
		LeaderChanges: f.leaderChanges.Load(),
		LogEntries:    f.logEntries.Load(), LogWrites: f.logWrites.load(),
		AppliedEntries: f.appliedEntries.Load(), Applies: f.applies.load(),
		Snapshots: f.snapshots.load(), SnapshotErrors: f.snapshotErrors.Load(),
		BadMessages: f.badMessages.Load(),
		Puts:        puts, Deletes: deletes,
	}
}

var _ kv.Measured = (*Node)(nil)
