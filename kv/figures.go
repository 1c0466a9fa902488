package kv

import "time"

// Measured is what a [Cluster] may offer besides: figures of its member, at the
// cost of some loads.
type Measured interface{ Figures() Figures }

// Figures are what a member has counted since it started, and how it is now.
// Work that it did to read its own log at the start counts too.
type Figures struct {
	// LeaderChanges counts how often a leader was found that was not the one
	// known before.
	LeaderChanges uint64
	// BadMessages counts messages of peers that made no sense.
	BadMessages uint64
	// UpTime is how long the member has been running.
	UpTime time.Duration
	// Name is the member's own.
	Name string

	Proposals ProposalFigures
	Log       LogFigures
	Apply     ApplyFigures
	Snapshots SnapshotFigures
	State     StateFigures
	Memory    MemoryFigures
	Leases    LeaseFigures
	Watches   WatchFigures
	Access    AccessFigures
	Members   MemberFigures
	// Peers are the other members, by id.
	Peers []PeerFigures
	// Alarms are those raised for any member.
	Alarms []Alarm
}

// ProposalFigures are of what waits to be agreed on: calls of this member, and
// the bytes of their commands.
type ProposalFigures struct{ Waiting, WaitingBytes int64 }

// LogFigures are of the log on disk.
type LogFigures struct {
	// Entries counts those written, and Writes how long each write took until
	// it was durable; one makes many entries durable.
	Entries uint64
	Writes  Durations
	// First and Last bound what is kept, and Size is what it takes, in bytes.
	First, Last Index
	Size        int64
	// Full is a disk without space, Stalled a write that has not ended for an
	// election timeout.
	Full, Stalled bool
	// DiskFree is what the data directory may grow by, in bytes; less than 0
	// where that is not known.
	DiskFree int64
}

// ApplyFigures are of entries becoming state.
type ApplyFigures struct {
	// Entries counts them, and Batches how long they took, many at a time.
	Entries uint64
	Batches Durations
	// Slow counts the batches that took longer than [SlowApply].
	Slow uint64
}

// SlowApply is what a batch of entries may take: etcd's bound for one entry.
const SlowApply = 100 * time.Millisecond

// SnapshotFigures are of the state on disk: how long snapshots took, how many
// failed, and the bytes of the last.
type SnapshotFigures struct {
	Taken  Durations
	Errors uint64
	Bytes  int64
}

// StateFigures are of keys, versions and the memory that they take, in bytes.
type StateFigures struct {
	// Puts and Deletes count keys put and deleted in this member's state, by
	// whoever asked for it, since the start or since the state was last
	// replaced by a snapshot of another member.
	Puts, Deletes uint64
	// Versions counts records in memory: of keys that exist, of history and of
	// deletions.
	Versions int64
	// Pinned is kept for reads and watches under way only.
	Pinned int64
	// Keys, Records, Tree, Hash and Index are parts of [Status.MemoryBytes]:
	// pages of keys, of versions and values, of the order of keys, of their
	// hash, and of revisions.
	Keys, Records, Tree, Hash, Index int64
}

// MemoryFigures are of the limit on the process's memory: 0 without one, what
// counts towards it, and whether it is reached.
type MemoryFigures struct {
	Limit, Used int64
	Full        bool
}

// LeaseFigures count the leases that exist, the keys that hang on them, and the
// keys that have a time of their own.
type LeaseFigures struct{ Live, Attached, TTLs int64 }

// WatchFigures are of the watches of this member.
type WatchFigures struct {
	// Open are those that run, Behind those of them that have something to
	// read, or whose consumer has not taken it yet.
	Open, Behind int64
	// Lag is by how many revisions the last of them is behind.
	Lag int64
}

// AccessFigures are of who may do what.
type AccessFigures struct {
	// Enabled tells whether authentication is on.
	Enabled bool
	// Users and Roles are those that exist, and Checking is how many passwords
	// wait to be checked.
	Users, Roles, Checking int64
}

// MemberFigures are of the cluster as this member sees it.
type MemberFigures struct {
	// Voters and Learners count the members, Reached the voters among them
	// that this member is connected with, itself too.
	Voters, Learners, Reached int64
	// Known are the processes of this cluster that discovery has heard of,
	// Strangers those that were heard and do not belong here, and Problems the
	// ways of finding others that do not work now.
	Known, Strangers, Problems int64
}

// PeerFigures are what a member knows of another one.
type PeerFigures struct {
	Member MemberID
	// Name is for people; it may be empty.
	Name      string
	Connected bool
	// RoundTrips is how long pings took, there and back.
	RoundTrips Durations
	// Sent and Received count bytes, without TLS's own; Queued is what waits
	// to be sent, and Dropped counts messages that were not sent, Urgent those
	// of them that were heartbeats, votes and the like.
	Sent, Received  uint64
	Queued          int64
	Dropped, Urgent uint64
	// Silent is since when nothing was heard of it, or since when this member
	// has been running where that is less.
	Silent time.Duration
	// Lag is how many committed entries it has not acknowledged; known to the
	// leader only, else -1.
	Lag int64
}
