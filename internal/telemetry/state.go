package telemetry

import "github.com/concord-kv/concord/kv"

// stateFamilies are of the log, the state, and copies of it.
var stateFamilies = []Family{
	{
		Name: "concord_log_write_seconds", Help: "How long writes of the log took until they were durable, many entries at a time.", Kind: Histogram, Topic: topicLog,
		spread: one(func(s *sample) *kv.Durations { return &s.member.Log.Writes }),
	},
	{
		Name: "concord_log_sync_seconds", Help: "How long the fdatasync in such a write took.", Kind: Histogram, Topic: topicLog,
		spread: one(func(s *sample) *kv.Durations { d := s.events.sync.Load(); return &d }),
	},
	{
		Name: "concord_log_entries_total", Help: "Entries written to the log.", Topic: topicLog,
		one: func(s *sample) float64 { return float64(s.member.Log.Entries) },
	},
	{
		Name: "concord_log_written_bytes_total", Help: "Bytes of entries written to the log.", Topic: topicLog, one: count(logBytes),
	},
	{
		Name: "concord_log_bytes", Help: "What the log takes on disk.", Kind: Gauge, Topic: topicLog,
		one: func(s *sample) float64 { return float64(s.member.Log.Size) },
	},
	{
		Name: "concord_log_kept_entries", Help: "Entries that the log has, of those a snapshot has some.", Kind: Gauge, Topic: topicLog,
		one: func(s *sample) float64 { return float64(s.member.Log.Last + 1 - s.member.Log.First) },
	},
	{
		Name: "concord_disk_free_bytes", Help: "What the data directory may grow by; NaN where the system does not tell.", Kind: Gauge, Topic: topicLog,
		one: func(s *sample) float64 { return certain(s.member.Log.DiskFree) },
	},
	{
		Name: "concord_disk_full", Help: "1 while the disk has no space and puts are refused.", Kind: Gauge, Topic: topicLog,
		one: func(s *sample) float64 { return oneIf(s.member.Log.Full) },
	},
	{
		Name: "concord_disk_stalled", Help: "1 while a write of the log has not ended for an election timeout.", Kind: Gauge, Topic: topicLog,
		one: func(s *sample) float64 { return oneIf(s.member.Log.Stalled) },
	},
	{
		Name: "concord_disk_stalls_total", Help: "How often a write of the log has begun to last longer than that.", Topic: topicLog, one: count(diskStalls),
	},

	{
		Name: "concord_apply_seconds", Help: "How long batches of committed entries took to become state.", Kind: Histogram, Topic: topicState,
		spread: one(func(s *sample) *kv.Durations { return &s.member.Apply.Batches }),
	},
	{
		Name: "concord_applied_entries_total", Help: "Entries that have become state.", Topic: topicState,
		one: func(s *sample) float64 { return float64(s.member.Apply.Entries) },
	},
	{
		Name: "concord_keys", Help: "Keys that exist.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return float64(s.status.Keys) },
	},
	{
		Name: "concord_versions", Help: "Versions of keys in memory: current ones, history and deletions.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return float64(s.member.State.Versions) },
	},
	{
		Name: "concord_data_bytes", Help: "Bytes of keys and values that exist (live), and of versions that were replaced or deleted and can still be read (history).", Kind: Gauge, Topic: topicState, Labels: []string{"kind"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			put(float64(s.status.LiveBytes), "live")
			put(float64(s.status.HistoryBytes), "history")
		},
	},
	{
		Name: "concord_state_memory_bytes", Help: "Memory of the state, outside of the Go heap: pages of keys, of records (versions with their values), of the tree and the hash that find them, of revisions, and the rest.",
		Kind: Gauge, Topic: topicState, Labels: []string{"kind"},
		each: func(s *sample, put func(v float64, labels ...string)) {
			m := &s.member.State
			put(float64(m.Keys), "keys")
			put(float64(m.Records), "records")
			put(float64(m.Tree), "tree")
			put(float64(m.Hash), "hash")
			put(float64(m.Index), "revisions")
			put(float64(max(0, s.status.MemoryBytes-m.Keys-m.Records-m.Tree-m.Hash-m.Index)), "other")
		},
	},
	{
		Name: "concord_state_pinned_bytes", Help: "The part of that memory that is kept for reads and copies under way only.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return float64(s.member.State.Pinned) },
	},
	{
		Name: "concord_memory_limit_bytes", Help: "The limit on the memory of the process; 0 without one.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return float64(s.member.Memory.Limit) },
	},
	{
		Name: "concord_memory_used_bytes", Help: "What counts towards that limit; 0 without one.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return float64(s.member.Memory.Used) },
	},
	{
		Name: "concord_memory_full", Help: "1 while the limit is reached and what makes the state larger is refused.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return oneIf(s.member.Memory.Full) },
	},
	{
		Name: "concord_compactions_total", Help: "Compactions that this member has applied.", Topic: topicState, one: count(compactions),
	},
	{
		Name: "concord_compacted_revisions_total", Help: "Revisions that can be read no more because of them.", Topic: topicState, one: count(compactedRevisions),
	},
	{
		Name: "concord_compact_revision", Help: "The oldest revision that can be read.", Kind: Gauge, Topic: topicState,
		one: func(s *sample) float64 { return float64(s.status.CompactRevision) },
	},

	{
		Name: "concord_snapshot_seconds", Help: "How long snapshots of the state took.", Kind: Histogram, Topic: topicCopies,
		spread: one(func(s *sample) *kv.Durations { return &s.member.Snapshots.Taken }),
	},
	{
		Name: "concord_snapshot_errors_total", Help: "Snapshots that failed.", Topic: topicCopies,
		one: func(s *sample) float64 { return float64(s.member.Snapshots.Errors) },
	},
	{
		Name: "concord_snapshot_bytes", Help: "Bytes of the last snapshot that this process has taken.", Kind: Gauge, Topic: topicCopies,
		one: func(s *sample) float64 { return float64(s.member.Snapshots.Bytes) },
	},
	{
		Name: "concord_snapshot_installed_total", Help: "Snapshots that this member took its state from, because it was too far behind.", Topic: topicCopies, one: count(snapshotsInstalled),
	},
	{
		Name: "concord_snapshot_send_seconds", Help: "How long sending snapshots to other members took.", Kind: Histogram, Topic: topicCopies,
		spread: one(func(s *sample) *kv.Durations { d := s.events.sent.Load(); return &d }),
	},
	{
		Name: "concord_backup_seconds", Help: "How long backups from this member took.", Kind: Histogram, Topic: topicCopies,
		spread: one(func(s *sample) *kv.Durations { d := s.events.backup.Load(); return &d }),
	},
	{
		Name: "concord_backup_errors_total", Help: "Backups that did not come to their end.", Topic: topicCopies, one: count(backupErrors),
	},
	{
		Name: "concord_backup_last_timestamp_seconds", Help: "When the last whole backup was taken from this member since its start, as Unix time; 0 when none was.", Kind: Gauge, Topic: topicCopies,
		one: moment(lastBackup),
	},
}

// one puts durations without labels.
func one(read func(s *sample) *kv.Durations) func(s *sample, put func(d *kv.Durations, labels ...string)) {
	return func(s *sample, put func(d *kv.Durations, labels ...string)) { put(read(s)) }
}

// moment reads when something happened last, as Unix time.
func moment(which int) func(s *sample) float64 {
	return func(s *sample) float64 { return float64(s.events.levels[which].Load()) / 1000 }
}
