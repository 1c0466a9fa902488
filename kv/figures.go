package kv

import "time"

// Figures count what a member has done since it started. Work that it did to
// read its own log at the start counts too.
type Figures struct {
	// LeaderChanges counts how often a leader was found that was not the one
	// known before.
	LeaderChanges uint64
	// LogEntries counts entries written to the log, and LogWrites how long
	// each write took until it was durable; one makes many entries durable.
	LogEntries uint64
	LogWrites  Durations
	// AppliedEntries counts entries applied, and Applies how long they took,
	// many at a time.
	AppliedEntries uint64
	Applies        Durations
	// Snapshots is how long snapshots took, and SnapshotErrors counts those
	// that failed.
	Snapshots      Durations
	SnapshotErrors uint64
	// BadMessages counts messages of peers that made no sense.
	BadMessages uint64
	// Puts and Deletes count keys put and deleted in this member's state, by
	// whoever asked for it, since the start or since the state was last
	// replaced by a snapshot of another member.
	Puts, Deletes uint64
}

// ShortestBound is the upper bound of the first of [Durations.Counts].
const ShortestBound = 62500 * time.Nanosecond

// Durations tells how long something took, how often.
type Durations struct {
	// Counts[i] took at most ShortestBound<<i and more than half of that; the
	// last one counts all that took longer than the one before it.
	Counts [19]uint64
	Sum    time.Duration
}

// Measured is what a [Cluster] may offer besides: figures of its member, at the
// cost of some loads.
type Measured interface{ Figures() Figures }
