package replica

import (
	"context"
	"io"
	"log/slog"
	"time"
)

// Config configures a [Replica]. Logger and Observer are optional.
type Config struct {
	// ID is this member's identity; not 0, never used again after removal.
	ID uint64
	// Cluster goes into snapshots.
	Cluster uint64
	Machine Machine
	Log     Log
	// Snapshots must hold one at index 1 for a founder, and none for a member
	// that joins.
	Snapshots Snapshots
	// Transport is nil for a member that is alone.
	Transport Transport
	Options   Options
	// Now is monotonic time in nanoseconds that keeps running while the machine
	// sleeps; nil means CLOCK_BOOTTIME.
	Now      func() int64
	Logger   *slog.Logger
	Observer Observer
}

// Replica is a running member. Its methods are safe for concurrent use. Calls
// made before Run wait for it.
type Replica struct {
	cfg Config
}

// New restores the machine from the newest good snapshot and prepares to replay
// the log behind it. Run does the rest.
func New(cfg Config) (*Replica, error) { return &Replica{cfg: cfg}, nil }

// Run drives the member until ctx ends, which returns nil, or until it cannot go
// on: its log could not be written, its machine failed or did not understand an
// entry, or an invariant is broken. All goroutines have ended when it returns,
// and all calls have been answered. It may be called once.
func (r *Replica) Run(ctx context.Context) error { panic("not written yet") }

// Propose has every member apply cmd, which is copied, and returns what this
// member's machine made of it: a result, or the error that the machine gave as
// one. An error of the replica wraps ErrUnknown if cmd may have run.
func (r *Replica) Propose(ctx context.Context, cmd []byte) (any, error) { panic("not written yet") }

// ProposeLocal is Propose for decisions that only the leader of term may make:
// cmd is never forwarded and never appended in another term. ErrNotLeader means
// that it was not and will not be.
func (r *Replica) ProposeLocal(ctx context.Context, term uint64, cmd []byte) (any, error) {
	panic("not written yet")
}

// ReadIndex returns once this member has applied everything that was committed
// anywhere before the call, so that a read of the machine is linearizable. It
// asks a majority.
func (r *Replica) ReadIndex(ctx context.Context) error { panic("not written yet") }

// LeaderRead reports that this member holds the read lease now and has applied
// all that is committed: a read of the machine that starts after this call is
// linearizable. Always false unless Options.ReadLease is set.
func (r *Replica) LeaderRead() bool { panic("not written yet") }

// ProposeConfChange changes the membership and returns what this member's
// Machine.ApplyMembers gave for change.Context, once this member has applied
// the change, though a joint configuration may still be left later.
func (r *Replica) ProposeConfChange(ctx context.Context, change ConfChange) (any, error) {
	panic("not written yet")
}

// TransferLeader moves leadership to a voter, or, if to is 0, to the one that
// has caught up most, and returns when this member knows it moved.
func (r *Replica) TransferLeader(ctx context.Context, to uint64) error { panic("not written yet") }

// WaitApplied returns once this member has applied index.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error { panic("not written yet") }

// Snapshot takes a snapshot now and returns when it is durable and verified. It
// returns the newest one if nothing was applied since.
func (r *Replica) Snapshot(ctx context.Context) (SnapshotMeta, error) { panic("not written yet") }

// Status is what this member knows of itself.
type Status struct {
	State
	// Learner says that this member does not vote.
	Voters, Learners []uint64
	// FirstIndex and LastIndex bound the log on disk.
	FirstIndex, LastIndex uint64
}

// Status answers at once.
func (r *Replica) Status() Status { panic("not written yet") }

// Leadership is what the leader's duties need to know.
type Leadership struct {
	// Term that this member leads; 0 when it does not lead or has not applied
	// an entry of its own yet.
	Term uint64
	// Held is for how long it has, since that entry.
	Held time.Duration
	// Time is cluster time now, in milliseconds.
	Time int64
}

// Leadership answers at once.
func (r *Replica) Leadership() Leadership { panic("not written yet") }

// Receive takes a message from a peer; payload is the replica's. It blocks while
// too much waits.
func (r *Replica) Receive(from uint64, ch Channel, payload []byte) { panic("not written yet") }

// ReceiveStream takes a snapshot from a peer.
func (r *Replica) ReceiveStream(from uint64, header []byte, body io.Reader) error {
	panic("not written yet")
}

// PeerUp says that a peer is connected.
func (r *Replica) PeerUp(id uint64) { panic("not written yet") }

// PeerDown says that the connection with a peer closed.
func (r *Replica) PeerDown(id uint64) { panic("not written yet") }

// FirstSnapshot describes the snapshot that every founder of a cluster writes
// before its first start: index 1, term 1, the given voters.
func FirstSnapshot(cluster uint64, voters []uint64) SnapshotMeta { panic("not written yet") }
