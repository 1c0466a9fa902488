package replica

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/internal/wal"
)

// InputKind says what an [Input] is.
type InputKind uint8

// The kinds of inputs, and the fields of Input that each uses.
const (
	// InputTick only brings the time. Core needs one at least every
	// Options.Tick, or it keeps time less finely.
	InputTick InputKind = iota
	// InputMessage: Payload came from Peer. The core keeps Payload.
	InputMessage
	// InputPropose: Group was taken on this member. Only when
	// [Core.Wants] says so.
	InputPropose
	// InputWritten: the writes up to and with Seq are durable. All completions
	// must be given, in order; one may cover several writes.
	InputWritten
	// InputApplied: Applied tells of the oldest [Task] not yet completed.
	InputApplied
	// InputRead: reads wait under ID, which grows from one to the next.
	// Only one may be under way.
	InputRead
	// InputConfChange: change the configuration by Change under ID.
	InputConfChange
	// InputTransfer: give leadership to Peer; 0 chooses who has caught up
	// most. Nothing answers it but a change of leader.
	InputTransfer
	// InputPeerUp: there is a connection to Peer.
	InputPeerUp
	// InputPeerDown: the connection to Peer broke.
	InputPeerDown
	// InputTakeSnapshot: a snapshot is wanted whether due or not.
	InputTakeSnapshot
	// InputUnreachable: a message to Peer was dropped.
	InputUnreachable
	// InputSnapshotCreated: Snapshot was taken here and is durable and
	// verified; Index is that of the oldest one still kept. Snapshot.Index 0
	// says that it failed.
	InputSnapshotCreated
	// InputSnapshotSent: sending a snapshot to Peer ended, well if OK.
	InputSnapshotSent
	// InputSnapshotReceived: a snapshot came from Peer with the header
	// Payload, and is durable and verified on this member.
	InputSnapshotReceived
	// InputReadLease: take part in leader leases from now on if OK, and no more
	// if not; at the start Options.ReadLease says it. A promise that was made
	// is kept.
	InputReadLease
	// InputTime: a leader counts cluster time on from Time, unless it is there
	// already. For tests of what ends by time.
	InputTime
)

// Input is one thing that happens to a [Core]. Which fields count depends on
// Kind.
type Input struct {
	Kind InputKind
	OK   bool
	// Now is monotonic time in nanoseconds that keeps running while the
	// machine sleeps; it never falls from one input to the next.
	Now      int64
	Peer     uint64
	ID       uint64
	Seq      uint64
	Index    uint64
	Payload  []byte
	Group    *Group
	Change   *ConfChange
	Applied  *Applied
	Snapshot SnapshotInfo
	Time     int64
}

// Output is what a [Core] wants done. Messages go out before Writes are durable:
// the core holds back whatever must wait. The caller owns all slices, but must
// not change what they point to.
type Output struct {
	// Messages to send, in order for each (To, Channel). Those that cannot be
	// sent are answered by InputUnreachable.
	Messages []Message
	// Writes to make durable, in order, answered by InputWritten.
	Writes []Write
	// Tasks to apply, in order, each answered by InputApplied.
	Tasks []Task
	// Answers to InputPropose, InputRead and InputConfChange.
	Answers []Answer
	// Snapshots to send, each answered by InputSnapshotSent, whatever happens.
	Snapshots []SnapshotSend
	// TruncateBefore, when not 0, allows the log to drop what is below it. All
	// earlier writes are durable by then.
	TruncateBefore uint64
	// Rejected are messages that made no sense and were dropped.
	Rejected []Rejected
	// Finished are groups that were applied: the core has forgotten them, so
	// that their memory may be used again.
	Finished []*Group
	// State is the state after the inputs. Publish it before sending Messages.
	State State
}

// Empty reports whether there is nothing to do. It does not look at State.
func (o *Output) Empty() bool {
	return len(o.Messages)|len(o.Writes)|len(o.Tasks)|len(o.Answers)|len(o.Snapshots)|len(o.Rejected) == 0 && o.TruncateBefore == 0
}

// The vocabulary of disk and network is theirs.
type (
	// Channel separates messages that must not wait for each other.
	Channel = transport.Channel
	// Entry is an entry of the log as the disk sees it.
	Entry = wal.Entry
	// HardState is what a member must not forget.
	HardState = wal.State
	// Mark says that a snapshot covers the log up to its index.
	Mark = wal.Mark
	// Batch is written to the log whole or not at all.
	Batch = wal.Batch
)

// Message goes to one peer.
type Message struct {
	To      uint64
	Channel Channel
	Payload []byte
}

// Write is a batch to make durable. Seq counts writes from 1.
type Write struct {
	Seq   uint64
	Batch Batch
}

// Task is work for the state machine. Exactly one of Install, Entries and Take
// is set.
type Task struct {
	// Install, when its Index is not 0, is a snapshot on this member's disk
	// that the machine is to become.
	Install SnapshotInfo
	// Entries to apply. A configuration change is always the last one, and no
	// other task is given before this one is answered.
	Entries []*raftpb.Entry
	// Refused says that the last entry is a change that the configuration does
	// not allow.
	Refused bool
	// Take asks for a snapshot of the state as it is now, with the
	// configuration in it. InputApplied answers the task, and later
	// InputSnapshotCreated.
	Take *raftpb.ConfState
}

// Applied tells how a [Task] went.
type Applied struct {
	// Index is that of the last entry, or of the snapshot.
	Index uint64
	// Groups are the sequences of this member's groups among the entries, and
	// Changes the IDs of its configuration changes.
	Groups, Changes []uint64
	// Changed says that the last entry is a configuration change that the
	// state machine accepted.
	Changed bool
}

// AnswerKind says what an [Answer] is about.
type AnswerKind uint8

// The kinds of answers.
const (
	// AnswerGroup: the group with sequence ID failed with Err. A group that
	// succeeds is answered by its Applier instead.
	AnswerGroup AnswerKind = iota
	// AnswerRead: the reads under ID may be served from a state that has
	// applied Index, or failed with Err.
	AnswerRead
	// AnswerConfChange: the change under ID failed with Err. One that
	// succeeds is answered by its Applier instead.
	AnswerConfChange
)

// Answer ends a request.
type Answer struct {
	Kind  AnswerKind
	ID    uint64
	Index uint64
	Err   error
}

// SnapshotInfo names a snapshot on disk.
type SnapshotInfo struct {
	Index, Term uint64
	ConfState   *raftpb.ConfState
	// Time is the cluster time of the last entry in it, in milliseconds.
	Time int64
	// Size in bytes.
	Size int64
}

// SnapshotSend asks to stream snapshot Index to a peer under Header.
type SnapshotSend struct {
	To     uint64
	Index  uint64
	Header []byte
}

// Rejected is a message that was dropped, and why.
type Rejected struct {
	From uint64
	Err  error
}

// State is what a core knows of itself.
type State struct {
	Term, Leader, Commit, Applied uint64
	Role                          Role
	// Caught says that an entry of this term is committed and known here to be:
	// before that a leader may not serve reads.
	Caught bool
	// LeaseUntil is when this leader's read lease ends, in the time of
	// Input.Now; 0 without a lease.
	LeaseUntil int64
	// LeaderSince is when this leader applied the first entry of its term, in
	// the time of Input.Now; 0 before that and on others.
	LeaderSince int64
	// Leaderless says that no leader has been known for
	// Options.NoLeaderTimeout: proposals and reads are refused.
	Leaderless bool
	// Stalled says that the disk has not finished a write for an election
	// timeout.
	Stalled bool
	// Slow is how long a write took because of which this leader hands
	// leadership to a voter with a quicker disk; 0 when it does not.
	Slow time.Duration

	stamp, offset int64
	conf          *raftpb.ConfState
}

// ClusterTime is cluster time, in milliseconds, at the time now of a leader:
// what its next entry would be stamped with at least.
func (s *State) ClusterTime(now int64) int64 { return max(s.stamp, (now+s.offset)/1e6) }

// Role is a member's part in Raft.
type Role uint8

// The roles. A learner is a Follower whose id is among the learners.
const (
	Follower Role = iota
	PreCandidate
	Candidate
	Leader
	Learner
)

var roleNames = [...]string{"follower", "pre-candidate", "candidate", "leader", "learner"}

// String gives the role's name.
func (r Role) String() string {
	if int(r) < len(roleNames) {
		return roleNames[r]
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// ChangeKind is what happens to a member in a [ConfChange].
type ChangeKind uint8

// The kinds of changes.
const (
	AddVoter ChangeKind = iota // also promotes a learner
	AddLearner
	RemoveMember
)

// MemberChange is one member's part of a [ConfChange].
type MemberChange struct {
	Kind ChangeKind
	ID   uint64
}

// ConfChange changes the configuration, by joint consensus when more than one
// member is concerned. With no Members only Context is applied, as for a change
// of address.
type ConfChange struct {
	Members []MemberChange
	// Context is given to Machine.ApplyMembers.
	Context []byte
	// Term, when not 0, is the only one in which this may be proposed, by the
	// member that leads it: it is never forwarded, and answered by ErrNotLeader
	// on others.
	Term uint64
}
