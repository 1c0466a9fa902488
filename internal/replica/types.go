package replica

import (
	"context"
	"io"
	"time"

	"github.com/concord-kv/concord/internal/snap"
)

// Position is where an entry stands in the log: its index, its term, and cluster
// time in milliseconds, which never falls. It is an alias, so that a machine
// need not import this package.
type Position = struct {
	Index, Term uint64
	Now         int64
}

// Machine is the replicated state machine. One goroutine calls it.
type Machine interface {
	// Apply runs the commands of the entry at this position, in order, and
	// sets results[i] to what commands[i] gives: any value, or an error that
	// every member makes of it; results is nil where nobody on this member
	// waits for any. Indexes grow by one over Apply and ApplyMembers; entries without
	// commands come too. The machine keeps no memory of commands.
	Apply(at Position, commands [][]byte, results []any)
	// ApplyMembers runs the context of a membership change. If the result is
	// an error, the change is refused by every member.
	ApplyMembers(at Position, change []byte) any
	// Snapshot pins the state; write streams it, from another goroutine, and
	// release, called once in the end, lets it go.
	Snapshot() (write func(io.Writer) error, release func())
	// Restore replaces the state by what a Snapshot wrote.
	Restore(r io.Reader) error
	// Maintain does a bounded piece of upkeep that does not change the state,
	// and reports whether there is more. It is called when nothing waits and
	// now and then when something does.
	Maintain() (more bool)
	// Hash is the running hash of the state and the index that it belongs to.
	Hash() (index uint64, hash uint64)
}

// LogReader is what a Core reads of the log. It returns what InputWritten has
// reported durable.
type LogReader interface {
	State() HardState
	FirstIndex() uint64
	LastIndex() uint64
	// Term of entry i, from FirstIndex to LastIndex.
	Term(i uint64) (uint64, error)
	// Entries returns entries from lo up to but without hi, at least one, and
	// no more than maxBytes of data behind the first.
	Entries(lo, hi uint64, maxBytes int64) ([]Entry, error)
}

// Log keeps entries and hard state on disk. Append and TruncateBefore are called
// by one goroutine, the methods of LogReader by another.
type Log interface {
	LogReader
	// Append makes the batches durable, in order. After an error nothing is
	// known about them, and the replica ends.
	Append(batches ...Batch) error
	// TruncateBefore may free the entries below i.
	TruncateBefore(i uint64) error
}

// Snapshots keeps snapshots on disk. Its methods may be called concurrently.
type Snapshots interface {
	// List gives the snapshots kept, newest first.
	List() []SnapshotMeta
	// Create makes a snapshot durable and verifies it before it returns.
	Create(m SnapshotMeta, write func(io.Writer) error) (SnapshotMeta, error)
	// Open reads the state in the snapshot at index, verifying it on the way.
	Open(index uint64) (io.ReadCloser, error)
	// SendTo writes the snapshot at index for Receive on another member.
	SendTo(index uint64, w io.Writer) error
	// Receive makes what SendTo wrote a snapshot here, durable and verified.
	Receive(r io.Reader) (SnapshotMeta, error)
	// Retain drops all but the newest n.
	Retain(n int) error
}

// SnapshotMeta describes a snapshot; its ConfState is a marshalled
// raftpb.ConfState.
type SnapshotMeta = snap.Meta

// Transport sends to peers.
type Transport interface {
	// Send queues payload for a peer and never blocks. It returns false when
	// it dropped it. payload must not be changed any more.
	Send(to uint64, ch Channel, payload []byte) bool
	// SendStream sends what write writes and returns when the peer's
	// ReceiveStream has.
	SendStream(ctx context.Context, to uint64, header []byte, write func(io.Writer) error) error
}

// Observer is told what happens. Its funcs are called on the replica's own
// goroutines and must not block; nil ones are not called.
type Observer struct {
	// StateChanged is called after Term, Leader, Role, Leaderless or Stalled
	// changed.
	StateChanged func(State)
	// LogWritten is called after each write of the log.
	LogWritten func(entries int, took time.Duration)
	// EntriesApplied is called after each task.
	EntriesApplied func(entries int, took time.Duration)
	// SnapshotTaken is called after each attempt to take a snapshot.
	SnapshotTaken func(m SnapshotMeta, took time.Duration, err error)
	// SnapshotInstalled is called after the machine took its state from one
	// that another member sent.
	SnapshotInstalled func(s SnapshotInfo, took time.Duration)
	// SnapshotSent is called after each attempt to send one.
	SnapshotSent func(to, index uint64, took time.Duration, err error)
	// MessageRejected is called for messages that made no sense.
	MessageRejected func(from uint64, err error)
}
