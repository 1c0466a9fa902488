package wal

import "github.com/concord-kv/concord/internal/vfs"

// Log is an open log. Append, TruncateBefore, Prepare and Close are called by
// one goroutine at a time; all else may be called concurrently with them.
type Log struct{}

// Open opens the log in dir, or makes an empty one, repairs a torn tail and
// makes durable what it found. Damage is a *CorruptError, a newer format
// ErrFormat; then nothing was changed.
func Open(fs vfs.FS, dir string, o Options) (*Log, error) { panic("being written") }

// State returns the hard state.
func (l *Log) State() State { panic("being written") }

// Mark returns the last mark, zero when there is none.
func (l *Log) Mark() Mark { panic("being written") }

// FirstIndex is the index of the first entry; LastIndex()+1 when there is none.
func (l *Log) FirstIndex() uint64 { panic("being written") }

// LastIndex is the index of the last entry; FirstIndex()-1 when there is none.
func (l *Log) LastIndex() uint64 { panic("being written") }

// Term returns the term of entry i. It also knows FirstIndex()-1 and the mark.
// Else it returns ErrCompacted or ErrUnavailable.
func (l *Log) Term(i uint64) (uint64, error) { panic("being written") }

// Entries returns the entries of [lo, hi), at least one and then no more than
// maxBytes of data. Their Data share memory that is the caller's. Below
// FirstIndex the error is ErrCompacted, above LastIndex ErrUnavailable; damage
// is a *CorruptError.
func (l *Log) Entries(lo, hi uint64, maxBytes int64) ([]Entry, error) { panic("being written") }

// Append makes batches durable, in order and all together, by one write and
// one fdatasync. It does not keep the batches. After ErrNoSpace nothing was
// written and it may be called again; after a wrong batch too; after ErrFailed
// the log is dead.
func (l *Log) Append(batches ...Batch) error { panic("being written") }

// TruncateBefore drops the entries below i and frees whole segments. i is at
// most the mark's index plus one.
func (l *Log) TruncateBefore(i uint64) error { panic("being written") }

// Size is the number of bytes of log that are in use on disk.
func (l *Log) Size() int64 { panic("being written") }

// NoSpace tells that the disk is full: the log still takes what fits what was
// prepared (at least the reserve), and its caller should now refuse all
// that does not free space.
func (l *Log) NoSpace() bool { panic("being written") }

// Prepare tries again to have a next segment and the reserve. It returns
// ErrNoSpace while the disk is full.
func (l *Log) Prepare() error { panic("being written") }

// Close ends the log. It does not sync: what Append returned is durable.
func (l *Log) Close() error { panic("being written") }

// Report is what Verify found.
type Report struct {
	Segments    []SegmentInfo
	First, Last uint64
	State       State
	Mark        Mark
	// Torn tells that the last write was cut by a crash; Open repairs that.
	Torn bool
}

// SegmentInfo describes one segment file.
type SegmentInfo struct {
	File string
	// Size is the file's length, Used how much of it is log, in bytes.
	Size, Used int64
	// First and Last are the indexes of the entries in it, overlapped ones
	// included; both 0 when it has none.
	First, Last uint64
}

// Verify reads the whole log in dir without changing anything. The report
// holds what was found up to the first damage, which is the error.
func Verify(fs vfs.FS, dir string) (Report, error) { panic("being written") }
