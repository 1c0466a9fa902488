package observe

import "time"

// ApplyKind is what became of an entry.
type ApplyKind uint8

// The kinds of [Apply].
const (
	Applied ApplyKind = iota + 1
	// UnknownCommand: the entry has a command that this program does not
	// know, and the member ends.
	UnknownCommand
)

var applyNames = [...]string{"", "operation.apply", "operation.unknown_command"}

// Apply is an entry of the log that was applied. Entries are packed: one has the
// commands of all who called at about the same time.
type Apply struct {
	Kind  ApplyKind
	Index uint64
	Term  uint64
	// Commands counts them; Operation is what they are, as in "put", or
	// "batch" when they are of several kinds. An entry of Raft's own has none.
	Commands  int
	Operation string
	Bytes     int64
	Duration  time.Duration
	// Replayed says that the entry was in the log when the member started.
	Replayed bool
}

// Name implements [Event].
func (e Apply) Name() string { return nameOf(applyNames[:], e.Kind) }

const proposalName = "operation.replicated"

// Proposal is a write that carries a trace, as one member has seen it: each that
// applies it tells of it.
type Proposal struct {
	Trace Trace
	// Member tells this, and Role is its part in Raft, as in [State].
	Member uint64
	Role   string
	// Index and Term of the entry of the log that the write is in.
	Index, Term uint64
	// Start is when this member had packed the entry, as the leader, or got it
	// from the leader. Phases count from there; Queued and Answered are 0.
	Start  time.Time
	Phases Phases
}

// Name implements [Event].
func (e Proposal) Name() string { return proposalName }

const stateName = "state.change"

// State is a member's part in Raft after it changed.
type State struct {
	// Role is "recovering" for a follower that has not applied all that was in
	// its log at the start, else "follower", "pre-candidate", "candidate",
	// "leader" or "learner". Before is the role until now, "" at the start.
	Role, Before string
	Member, Term uint64
	// Leader is 0 where none is known.
	Leader uint64
	// Leaderless says that none has been known for so long that calls are
	// refused, Stalled that the disk does not finish a write.
	Leaderless, Stalled bool
}

// Name implements [Event].
func (e State) Name() string { return stateName }

// SnapshotKind is what was done with a snapshot.
type SnapshotKind uint8

// The kinds of [Snapshot].
const (
	SnapshotCreated SnapshotKind = iota + 1
	// SnapshotInstalled: this member took its state from another's snapshot.
	SnapshotInstalled
	// SnapshotSent: another member has it.
	SnapshotSent
	// SnapshotFailed: taking one failed. It will be tried again.
	SnapshotFailed
)

var snapshotNames = [...]string{"", "snapshot.created", "snapshot.installed", "snapshot.sent", "snapshot.failed"}

// Snapshot is one that was taken, installed or sent.
type Snapshot struct {
	Kind          SnapshotKind
	Member, Index uint64
	// Peer is to whom it was sent.
	Peer     uint64
	Bytes    int64
	Duration time.Duration
	// Err is why it failed.
	Err error
}

// Name implements [Event].
func (e Snapshot) Name() string { return nameOf(snapshotNames[:], e.Kind) }

// StatusEvery is how often a member tells its [Status].
const StatusEvery = 10 * time.Second

const statusName = "cluster.status"

// Status is how the member is.
type Status struct {
	Member, Leader, Term uint64
	Role                 string
	Members              int
	Commit, Applied      uint64
	Revision, Compacted  int64
	Keys                 int64
	// Bytes is the size of the data with the history that is kept, Resident
	// what the process has of the machine's memory.
	Bytes, Resident int64
	// DiskFree is what the data directory's file system has left, -1 where
	// that is not known.
	DiskFree int64
	Leases   int
	Watches  int
}

// Name implements [Event].
func (e Status) Name() string { return statusName }

// DiskKind is what the disk did.
type DiskKind uint8

// The kinds of [Disk].
const (
	DiskWritten DiskKind = iota + 1
	// DiskStalled: a write has not ended for an election timeout.
	DiskStalled
	// DiskRecovered: it has, after all, or there is space again.
	DiskRecovered
	// DiskFull: there is no space left, and puts are refused.
	DiskFull
)

var diskNames = [...]string{"", "disk.write", "disk.stalled", "disk.recovered", "disk.full"}

// Disk is a write of the log, durable when it is told of, or trouble with one.
type Disk struct {
	Kind    DiskKind
	Entries int
	// Bytes of the entries, before they are framed.
	Bytes int64
	// Duration of the write, and of the fsync at its end, which is 0 where it
	// is not known.
	Duration, Sync time.Duration
}

// Name implements [Event].
func (e Disk) Name() string { return nameOf(diskNames[:], e.Kind) }

// TransportKind is what happened to a connection.
type TransportKind uint8

// The kinds of [Transport].
const (
	Connected TransportKind = iota + 1
	Disconnected
	// RoundTrip: the other answered a ping.
	RoundTrip
	// Dropped: messages did not fit into the queue, or there was no
	// connection; told at most once a second for each member.
	Dropped
)

var transportNames = [...]string{"", "transport.connected", "transport.disconnected", "transport.round_trip", "transport.dropped"}

// Transport is about the connection with another member.
type Transport struct {
	Kind TransportKind
	Peer uint64
	// RoundTrip to it and back, of the last ping.
	RoundTrip time.Duration
	// Queued is how many bytes wait to be sent, Drops how many messages were
	// dropped since the last event of the kind.
	Queued int64
	Drops  uint64
}

// Name implements [Event].
func (e Transport) Name() string { return nameOf(transportNames[:], e.Kind) }

// MembershipKind is how the members changed.
type MembershipKind uint8

// The kinds of [Membership].
const (
	MemberAdded MembershipKind = iota + 1
	MemberPromoted
	MemberRemoved
	MemberUpdated
)

var membershipNames = [...]string{"", "member.added", "member.promoted", "member.removed", "member.updated"}

// Membership is a change of the members that was applied.
type Membership struct {
	Kind    MembershipKind
	Member  uint64
	Index   uint64
	Members int // after the change
	Learner bool
}

// Name implements [Event].
func (e Membership) Name() string { return nameOf(membershipNames[:], e.Kind) }
