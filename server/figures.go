package server

import (
	"time"

	"github.com/concord-kv/concord/internal/telemetry"
	"github.com/concord-kv/concord/kv"
)

// etcdBounds is how many of the bounds of [kv.Durations] etcd's histograms of the
// disk have: from 1 ms on.
const etcdBounds = 14

// memberFigures are what a member counts, under the names of etcd's metrics
// where it has the figure, and under Concord's own.
func memberFigures(source kv.Measured) func(yield func(telemetry.Figure)) {
	return func(yield func(telemetry.Figure)) {
		f := source.Figures()
		writes := spread(f.Log.Writes)
		for _, c := range []telemetry.Figure{
			{Name: "etcd_server_leader_changes_seen_total", Help: "The number of leader changes seen.", Value: float64(f.LeaderChanges)},
			{Name: "etcd_mvcc_put_total", Help: "Total number of puts seen by this member.", Value: float64(f.State.Puts)},
			{Name: "etcd_mvcc_delete_total", Help: "Total number of deletes seen by this member.", Value: float64(f.State.Deletes)},
			{Name: "etcd_disk_wal_fsync_duration_seconds", Help: "The latency distributions of fsync called by WAL.", Kind: telemetry.Spread, Times: coarse(writes)},
			{Name: "concord_log_write_seconds", Help: "How long writes of the log took until they were durable.", Kind: telemetry.Spread, Times: writes},
			{Name: "concord_log_entries_total", Help: "Entries written to the log.", Value: float64(f.Log.Entries)},
			{Name: "concord_apply_seconds", Help: "How long batches of committed entries took to apply.", Kind: telemetry.Spread, Times: spread(f.Apply.Batches)},
			{Name: "concord_applied_entries_total", Help: "Entries applied to the state.", Value: float64(f.Apply.Entries)},
		} {
			yield(c)
		}
		for _, c := range []telemetry.Figure{
			{Name: "concord_snapshot_errors_total", Help: "Snapshots that failed.", Value: float64(f.Snapshots.Errors)},
			{Name: "concord_bad_messages_total", Help: "Messages of other members that made no sense.", Value: float64(f.BadMessages)},
		} {
			if c.Value > 0 {
				yield(c)
			}
		}
		if s := spread(f.Snapshots.Taken); s.Count > 0 {
			yield(telemetry.Figure{Name: "concord_snapshot_seconds", Help: "How long snapshots took.", Kind: telemetry.Spread, Times: s})
		}
	}
}

// spread turns counts of each length into counts of all up to a bound.
func spread(d kv.Durations) telemetry.Times {
	t := telemetry.Times{Sum: d.Sum, Count: d.Count()}
	for bound := 62500 * time.Nanosecond; bound <= 8192*time.Millisecond; bound *= 2 {
		below := uint64(0)
		for _, n := range d.Counts[:kv.DurationCell(bound)+1] {
			below += n
		}
		t.Bounds, t.Below = append(t.Bounds, bound), append(t.Below, below)
	}
	return t
}

// coarse leaves the bounds that etcd has.
func coarse(t telemetry.Times) telemetry.Times {
	first := len(t.Bounds) - etcdBounds
	t.Bounds, t.Below = t.Bounds[first:], t.Below[first:]
	return t
}
