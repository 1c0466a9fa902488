package wal

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"syscall"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
)

// Log is an open log. Append, TruncateBefore, Prepare and Close are called by
// one goroutine at a time; all else may be called concurrently with them.
type Log struct {
	// Set by Open, then read only.
	fs   vfs.FS
	dir  string
	pre  *preparer
	bufs chan []byte // buffers of readers, to be used again

	// Owned by the goroutine that appends.
	enc    encoder
	seg    *segment // the current one, the last of segs
	err    error    // why the log takes no more writes
	moved  bool     // base has moved since it was last written
	synced time.Duration

	mu     sync.RWMutex // guards what follows; written by the appender only
	x      index
	segs   []*segment // in use, in order
	closed bool
}

// State returns the hard state.
func (l *Log) State() State {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.x.state
}

// Mark returns the last mark, zero when there is none.
func (l *Log) Mark() Mark {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.x.mark
}

// FirstIndex is the index of the first entry; LastIndex()+1 when there is none.
func (l *Log) FirstIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.x.first()
}

// LastIndex is the index of the last entry; FirstIndex()-1 when there is none.
func (l *Log) LastIndex() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.x.last
}

// Term returns the term of entry i. It also knows FirstIndex()-1 and the mark.
// Else it returns ErrCompacted or ErrUnavailable.
func (l *Log) Term(i uint64) (uint64, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.x.term(i)
}

// Size is the number of bytes of log that are in use on disk.
func (l *Log) Size() int64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var n int64
	for _, s := range l.segs {
		n += s.used.Load() * sectorSize
	}
	return n
}

// NoSpace tells that the disk is full: the log still takes what fits what was
// prepared (at least the reserve), and its caller should now refuse all
// that does not free space.
func (l *Log) NoSpace() bool { return l.pre.noSpace.Load() }

// SyncTime is how long the fdatasync of the last write took. Only the goroutine
// that appends may call it.
func (l *Log) SyncTime() time.Duration { return l.synced }

// Prepare tries again to have a next segment and the reserve. It returns
// ErrNoSpace while the disk is full.
func (l *Log) Prepare() error {
	if l.err != nil {
		return l.err
	}
	err := l.pre.retry()
	if err != nil && !errors.Is(err, ErrNoSpace) {
		return l.fail(err)
	}
	return err
}

// Append makes batches durable, in order and all together, by one write and
// one fdatasync. It does not keep the batches. After ErrNoSpace nothing was
// written and it may be called again; after a wrong batch too; after ErrFailed
// the log is dead.
func (l *Log) Append(batches ...Batch) error {
	if l.err != nil {
		return l.err
	}
	size, err := l.check(batches)
	if size == 0 || err != nil {
		return err
	}
	if err := l.begin(size, 1); err != nil {
		return err
	}
	last := l.x.last
	for i := range batches {
		b := &batches[i]
		if b.Reset {
			l.enc.mark(kindReset, b.Mark)
			last = b.Mark.Index
		}
		l.enc.entries(b.Entries, last)
		if n := len(b.Entries); n > 0 {
			last = b.Entries[n-1].Index
		}
		if b.Mark != (Mark{}) && !b.Reset {
			l.enc.mark(kindMark, b.Mark)
		}
		if b.State != (State{}) {
			l.enc.state(b.State)
		}
	}
	return l.commit()
}

// check validates batches against the log and returns a bound of the payload
// that they need, 0 when they change nothing.
func (l *Log) check(batches []Batch) (int64, error) {
	const fixed = recordHeader + maxBody
	var size int64
	base, last := l.x.base.Index, l.x.last
	for i := range batches {
		b := &batches[i]
		if b.Reset {
			if b.Mark == (Mark{}) {
				return 0, errors.New("wal: a reset needs a mark")
			}
			base, last = b.Mark.Index, b.Mark.Index
			size += fixed
		}
		for k := range b.Entries {
			e := &b.Entries[k]
			if e.Index <= base || e.Index > last+1 || k > 0 && e.Index != last+1 {
				return 0, fmt.Errorf("wal: entry %d does not follow on entries %d to %d", e.Index, base+1, last)
			}
			if int64(len(e.Data)) >= math.MaxUint32 {
				return 0, fmt.Errorf("wal: entry %d is too long: %d bytes", e.Index, len(e.Data))
			}
			if k == 0 || e.Term != b.Entries[k-1].Term {
				size += fixed
			}
			size += int64(len(e.Data)) + recordHeader + 1
			last = e.Index
		}
		if b.Mark != (Mark{}) {
			if b.Mark.Index < base || b.Mark.Index > last {
				return 0, fmt.Errorf("wal: mark %d is not among entries %d to %d", b.Mark.Index, base+1, last)
			}
			size += fixed
		}
		if b.State != (State{}) {
			size += fixed
		}
	}
	return size, nil
}

// begin starts a write with room for size bytes of payload, in the current
// segment if that leaves spare sectors free there, else in the next one.
func (l *Log) begin(size int64, spare int64) error {
	if err := l.pre.failure(); err != nil {
		return l.fail(err)
	}
	const fixed = 5 * (recordHeader + maxBody) // begin, base, mark, state, commit
	sectors := (size+fixed)/payloadSize + 2
	seg, sector, fresh := l.seg, l.seg.used.Load(), false
	if sector+sectors+spare > seg.sectors() {
		next, err := l.pre.take(sectors + spare)
		if errors.Is(err, syscall.ENOSPC) {
			return ErrNoSpace
		}
		if err != nil {
			return l.fail(err)
		}
		seg, sector = next, 1
	}
	fresh = sector == 1
	l.enc.seq++
	l.enc.begin(seg, sector, sectors*sectorSize)
	// The first write of a segment says all that the segments before it do.
	if fresh || l.moved {
		l.enc.base(l.x.base, l.x.oldest, l.x.last)
	}
	if fresh && l.x.mark != (Mark{}) {
		l.enc.mark(kindMark, l.x.mark)
	}
	if fresh && l.x.state != (State{}) {
		l.enc.state(l.x.state)
	}
	return nil
}

// commit ends the write, makes it durable and lets it take effect.
func (l *Log) commit() error {
	e := &l.enc
	used, err := e.finish()
	if err != nil {
		return l.fail(err)
	}
	began := time.Now()
	if err := e.seg.file.Sync(); err != nil {
		return l.fail(err)
	}
	l.synced = time.Since(began)
	e.seg.lastPoint = e.lastAt
	e.seg.used.Store(used)
	l.mu.Lock()
	if e.seg != l.seg {
		l.seg = e.seg
		l.segs = append(l.segs, e.seg)
	}
	l.x.apply(e.ops)
	l.mu.Unlock()
	l.moved = false
	l.pre.advance(e.seg)
	return nil
}

// fail ends the log: after a failed write or sync nobody knows what the disk
// has, and the kernel may say of a second sync that it succeeded.
func (l *Log) fail(err error) error {
	l.err = fmt.Errorf("%w: %w", ErrFailed, err)
	return l.err
}

// TruncateBefore drops the entries below i and frees whole segments. i is at
// most the mark's index plus one. It is durable when segments were freed, else
// with the next Append.
func (l *Log) TruncateBefore(i uint64) error {
	if l.err != nil {
		return l.err
	}
	if i > l.x.mark.Index+1 {
		return fmt.Errorf("wal: entries below %d are not covered by the snapshot at %d", i, l.x.mark.Index)
	}
	base := l.x.base
	if i > l.x.first() {
		term, err := l.x.term(i - 1)
		if err != nil {
			return err
		}
		base = Mark{i - 1, term}
	}
	n := l.x.freeable(l.segs, base.Index+1)
	if n == 0 {
		if base != l.x.base {
			l.mu.Lock()
			l.x.trim(base)
			l.mu.Unlock()
			l.moved = true
		}
		return nil
	}
	freed := l.segs[:n:n]
	if err := l.begin(0, 0); err != nil {
		return err
	}
	l.enc.base(base, l.segs[n].head.number, l.x.last)
	if err := l.commit(); err != nil {
		return err
	}
	l.mu.Lock()
	l.segs = append([]*segment(nil), l.segs[n:]...)
	l.mu.Unlock()
	if err := l.pre.drop(freed); err != nil {
		return l.fail(err)
	}
	return nil
}

// Close ends the log. It does not sync: what Append returned is durable.
func (l *Log) Close() error {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed = true
	segs := l.segs
	l.segs = nil
	l.mu.Unlock()
	if l.err == nil {
		l.err = ErrClosed
	}
	err := l.pre.close()
	for _, s := range segs {
		_, e := s.release()
		err = errors.Join(err, e)
	}
	return err
}
