package concord

import (
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
	slowApplies                 atomic.Uint64
	snapshotBytes               atomic.Int64

	logWrites, applies, snapshots kv.DurationCounter
	roundTrips                    roundTrips

	pulse  pulse
	served served
	events events

	// steward has how the leader judges the membership. It is set by Open.
	steward *steward.Steward
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
			f.logWrites.Add(took)
		},
		EntriesApplied: func(entries int, took time.Duration) {
			f.appliedEntries.Add(uint64(entries))
			f.applies.Add(took)
			if took > kv.SlowApply {
				f.slowApplies.Add(1)
			}
		},
		SnapshotTaken: func(m snap.Meta, took time.Duration, err error) {
			if err != nil {
				f.snapshotErrors.Add(1)
				return
			}
			f.snapshots.Add(took)
			f.snapshotBytes.Store(m.Size)
		},
		MessageRejected: func(uint64, error) { f.badMessages.Add(1) },
	}
}
