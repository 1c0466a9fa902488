package wal

import (
	"errors"
	"fmt"
)

// Entry is one position of the replicated log.
type Entry struct {
	Index, Term uint64
	// Type is the caller's; the log only keeps it.
	Type uint8
	Data []byte
}

// State is Raft's hard state.
type State struct{ Term, Vote, Commit uint64 }

// Mark says that a snapshot on disk covers the log up to Index.
type Mark struct{ Index, Term uint64 }

// Batch is what becomes durable at once: all of it or, after a crash before
// Append returned, perhaps nothing.
type Batch struct {
	// Entries have consecutive indexes. They replace what the log holds from
	// the first one's index on; that index is at most LastIndex()+1.
	Entries []Entry
	// State replaces the hard state unless it is the zero State.
	State State
	// Mark replaces the mark unless it is the zero Mark. Without Reset its
	// entry is in the log or is the one before the first.
	Mark Mark
	// Reset drops all entries, so that the log goes on after Mark. It comes
	// before Entries.
	Reset bool
}

// Options choose how a log uses its disk. The zero value is right for a
// server.
type Options struct {
	// SegmentSize is the length of a full-grown segment file in bytes; 0 means
	// 64 MiB. The first one has at most 4 MiB, and each is at most twice as
	// long as the one before. A batch that is longer makes its segment longer.
	SegmentSize int64
	// Reserve is the length in bytes of a file that is kept so that some more
	// can be appended when the disk is full; 0 means a quarter of SegmentSize,
	// negative none.
	Reserve int64
	// Synchronous prepares segments inside Append, without a goroutine, and
	// does not write zeros ahead of use: for simulation.
	Synchronous bool
}

// Errors of a log, compared with errors.Is.
var (
	// ErrCompacted: the entry was dropped by TruncateBefore or Reset.
	ErrCompacted = errors.New("wal: the entry is no longer in the log")
	// ErrUnavailable: the entry is behind the end of the log.
	ErrUnavailable = errors.New("wal: the entry is not yet in the log")
	// ErrFailed: a write or sync failed, now or earlier. What the log holds on
	// disk is known only after Open; this Log takes no more writes.
	ErrFailed = errors.New("wal: the log has failed and takes no more writes")
	// ErrNoSpace: the disk is full and so is all that was prepared. Nothing
	// was written and the call may be repeated.
	ErrNoSpace = errors.New("wal: no space left on the disk for the log")
	// ErrClosed: the log was closed.
	ErrClosed = errors.New("wal: the log is closed")
	// ErrFormat: the directory was written in a format that this program does
	// not know.
	ErrFormat = errors.New("wal: unknown format")
)

// CorruptError says where the log is damaged. Nothing was changed on disk.
type CorruptError struct {
	// File is the path of the damaged file, Offset the byte in it.
	File   string
	Offset int64
	Reason string
}

// Error names file, offset and reason.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("wal: %s is damaged at byte %d: %s", e.File, e.Offset, e.Reason)
}
