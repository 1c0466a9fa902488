package wal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/concord-kv/concord/internal/vfs"
)

const (
	firstSegment = 4 << 20
	// zeroStep is how much is zeroed between two syncs and looks at the pace;
	// small, so that the log's own syncs wait little behind it.
	zeroStep = 512 << 10
	// zeroLead is zeroed before the pace is looked at.
	zeroLead = 1 << 20
)

var errStopped = errors.New("stopped")

// preparer has the next segment ready before it is needed: blocks allocated,
// zeros written, name durable. It works in a goroutine of its own at twice the
// pace at which the current segment fills, or inside calls when synchronous.
type preparer struct {
	fs      vfs.FS
	dir     string
	o       Options
	log     uint64
	done    chan struct{} // closed when the goroutine has ended; nil: none
	noSpace atomic.Bool

	// work is held by whoever makes or removes files.
	work sync.Mutex

	mu   sync.Mutex // guards what follows
	cond sync.Cond
	preparation
}

// preparation is how far a preparer is and what it has to do.
type preparation struct {
	ready       []*segment
	number      uint64     // of the segment to be made next
	size        int64      // of it
	trash       []*segment // to be removed
	spare       string     // a file to be used again, or ""
	reserve     bool       // there is a reserve
	hurry       int        // callers that wait for work
	blocked     bool       // the disk was full; wait until told to try again
	stop        bool
	used, total int64 // of the current segment, bytes
	err         error
}

func newPreparer(fs vfs.FS, dir string, o Options, f *found) *preparer {
	p := &preparer{fs: fs, dir: dir, o: o}
	p.number, p.size, p.reserve = 1, min(firstSegment, o.SegmentSize), f.reserve
	p.cond.L = &p.mu
	if len(f.segs) > 0 {
		p.log = f.segs[0].head.log
		p.ready = append(p.ready, f.segs[f.current+1:]...)
		last := f.segs[len(f.segs)-1]
		p.number = last.head.number + 1
		p.size = p.after(last.size)
	} else {
		p.log = random()
	}
	return p
}

// after returns the size of the segment that follows one of the given size.
func (p *preparer) after(size int64) int64 {
	return min(max(2*size, p.size), p.o.SegmentSize)
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never returns an error: it ends the program instead
	return binary.LittleEndian.Uint64(b[:])
}

func (p *preparer) start() {
	if p.o.Synchronous {
		return
	}
	p.done = make(chan struct{})
	go p.run()
}

// run prepares until close.
func (p *preparer) run() {
	defer close(p.done)
	for {
		p.mu.Lock()
		for !p.stop && !p.wanting() {
			p.cond.Wait()
		}
		stop := p.stop
		p.mu.Unlock()
		if stop {
			return
		}
		p.work.Lock()
		p.fill()
		p.work.Unlock()
	}
}

func (p *preparer) wanting() bool {
	return len(p.trash) > 0 || p.err == nil && !p.blocked && (len(p.ready) == 0 || p.lacksReserve())
}

func (p *preparer) lacksReserve() bool { return !p.reserve && p.o.Reserve > 0 }

// fill does all that is wanted. A full disk sets noSpace, another error err.
// The caller holds work.
func (p *preparer) fill() {
	p.mu.Lock()
	trash := p.trash
	p.trash = nil
	next, reserve := len(p.ready) == 0 && p.err == nil, p.lacksReserve() && p.err == nil
	p.mu.Unlock()
	err := p.remove(trash)
	if err == nil && next {
		err = p.makeNext()
	}
	if err == nil && reserve {
		err = p.makeReserve()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case errors.Is(err, errStopped):
	case errors.Is(err, syscall.ENOSPC):
		p.blocked = true
		p.noSpace.Store(true)
	case err != nil:
		p.err = err
	default:
		p.noSpace.Store(false)
	}
}

// makeNext makes the next segment from the spare file or a new one.
func (p *preparer) makeNext() error {
	p.mu.Lock()
	number, size, path := p.number, p.size, p.spare
	p.spare = ""
	p.mu.Unlock()
	used := path != "" // holds old bytes
	if !used {
		path = filepath.Join(p.dir, "next"+tempSuffix)
	}
	seg, err := p.makeSegment(path, number, size, used)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.ready = append(p.ready, seg)
	p.number, p.size = number+1, p.after(size)
	p.mu.Unlock()
	return nil
}

// makeSegment makes the file path into a segment. used tells that it holds old
// bytes, which must all be zeroed.
func (p *preparer) makeSegment(path string, number uint64, size int64, used bool) (_ *segment, err error) {
	f, err := p.fs.OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return nil, fmt.Errorf("prepare log segment: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("prepare log segment: %w", err), f.Close(), p.fs.Remove(path))
		}
	}()
	if err = f.Truncate(size); err != nil {
		return nil, err
	}
	if err = f.Allocate(0, size); err != nil {
		return nil, err
	}
	if !p.o.Synchronous {
		if err = p.zero(f, size, used); err != nil {
			return nil, err
		}
	}
	return p.name(f, path, number, size)
}

// name writes the header into a prepared file and gives it the name of a
// segment, durably.
func (p *preparer) name(f vfs.File, path string, number uint64, size int64) (*segment, error) {
	head := header{number: number, log: p.log, key: random()}
	var sector [sectorSize]byte
	head.encode(sector[:])
	if _, err := f.WriteAt(sector[:], 0); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	name := segmentPath(p.dir, number)
	if err := p.fs.Rename(path, name); err != nil {
		return nil, err
	}
	if err := p.fs.SyncDir(p.dir); err != nil {
		return nil, err
	}
	return newSegment(head, name, f, size), nil
}

// zero writes zeros ahead of use: an append into blocks that were written
// before is faster than into blocks that are only allocated.
func (p *preparer) zero(f vfs.File, size int64, used bool) error {
	zeros := make([]byte, min(zeroStep, size))
	for off := int64(0); off < size; off += int64(len(zeros)) {
		stop, hurry := p.pace(off, size)
		if stop {
			return errStopped
		}
		if hurry && !used {
			return nil // allocated blocks read as zeros too
		}
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-off)], off); err != nil {
			return err
		}
		if p.done == nil {
			continue // inside Open: no log's syncs to wait behind these
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// pace waits until the current segment is so full that zeroing should have
// passed off.
func (p *preparer) pace(off, size int64) (stop, hurry bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.stop && p.hurry == 0 && p.total > 0 && float64(off-zeroLead) >= 2*float64(size)*float64(p.used)/float64(p.total) {
		p.cond.Wait()
	}
	return p.stop, p.hurry > 0
}

// advance tells how full the current segment is.
func (p *preparer) advance(seg *segment) {
	p.mu.Lock()
	p.used, p.total = seg.used.Load()*sectorSize, seg.size
	wanting := p.wanting()
	p.mu.Unlock()
	if p.o.Synchronous && wanting {
		p.fill()
	}
	p.cond.Broadcast()
}

func (p *preparer) makeReserve() error {
	path := filepath.Join(p.dir, reserveName)
	f, err := p.fs.OpenFile(path, os.O_RDWR|os.O_CREATE)
	if err == nil {
		err = f.Allocate(0, p.o.Reserve)
		if err == nil {
			err = f.Sync()
		}
		err = errors.Join(err, f.Close())
		if err == nil {
			err = p.fs.SyncDir(p.dir)
		}
		if err != nil {
			err = errors.Join(err, p.fs.Remove(path))
		}
	}
	if err != nil {
		return fmt.Errorf("reserve disk space for the log: %w", err)
	}
	p.mu.Lock()
	p.reserve = true
	p.mu.Unlock()
	return nil
}

// useReserve makes the reserve the next segment.
func (p *preparer) useReserve() (*segment, error) {
	path := filepath.Join(p.dir, reserveName)
	f, err := p.fs.OpenFile(path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	seg, err := p.name(f, path, p.number, p.o.Reserve)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.mu.Lock()
	p.number, p.reserve = p.number+1, false
	p.mu.Unlock()
	return seg, nil
}

// take returns a segment with room for a write of so many sectors. ENOSPC:
// there is none and nothing has changed.
func (p *preparer) take(sectors int64) (*segment, error) {
	seg := p.pop()
	if seg == nil {
		var err error
		if seg, err = p.wait(); err != nil {
			return nil, err
		}
	}
	p.cond.Broadcast()
	if size := (sectors + 1) * sectorSize; seg.size < size {
		if err := seg.file.Allocate(0, size); err != nil {
			p.mu.Lock()
			p.ready = append([]*segment{seg}, p.ready...)
			p.mu.Unlock()
			return nil, err
		}
		seg.size = size // made durable by the sync of the write that needs it
	}
	return seg, nil
}

func (p *preparer) pop() *segment {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return nil
	}
	seg := p.ready[0]
	p.ready = p.ready[1:]
	return seg
}

// wait makes the next segment now, from the reserve if the disk is full.
func (p *preparer) wait() (*segment, error) {
	p.lockHurried()
	defer p.unlockHurried()
	if seg := p.pop(); seg != nil {
		return seg, nil
	}
	p.fill()
	if seg := p.pop(); seg != nil {
		return seg, nil
	}
	p.mu.Lock()
	err, reserve := p.err, p.reserve
	p.mu.Unlock()
	switch {
	case err != nil:
		return nil, err
	case !reserve:
		return nil, syscall.ENOSPC
	}
	return p.useReserve()
}

// lockHurried takes work. Nothing is paced until unlockHurried: the log waits.
func (p *preparer) lockHurried() {
	p.mu.Lock()
	p.hurry++
	p.mu.Unlock()
	p.cond.Broadcast()
	p.work.Lock()
}

func (p *preparer) unlockHurried() {
	p.work.Unlock()
	p.mu.Lock()
	p.hurry--
	p.mu.Unlock()
}

// retry tries again after a full disk.
func (p *preparer) retry() error {
	p.lockHurried()
	defer p.unlockHurried()
	p.fill()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.blocked = p.noSpace.Load()
	switch {
	case p.err != nil:
		return p.err
	case p.blocked:
		return ErrNoSpace
	}
	return nil
}

// drop has segments removed that the log no longer needs.
func (p *preparer) drop(segs []*segment) error {
	p.mu.Lock()
	p.trash = append(p.trash, segs...)
	p.blocked = false
	p.mu.Unlock()
	if p.o.Synchronous {
		p.fill()
	}
	p.cond.Broadcast()
	return p.failure()
}

// remove removes segments, but keeps one file that nobody reads as a spare.
func (p *preparer) remove(segs []*segment) error {
	for _, seg := range segs {
		last, err := seg.release()
		if err != nil {
			return err
		}
		p.mu.Lock()
		keep := last && p.spare == "" && !p.o.Synchronous && seg.size == p.size
		p.mu.Unlock()
		if !keep {
			if err := p.fs.Remove(seg.path); err != nil {
				return fmt.Errorf("remove log segment: %w", err)
			}
			continue
		}
		spare := filepath.Join(p.dir, "spare"+freeSuffix)
		if err := p.fs.Rename(seg.path, spare); err != nil {
			return fmt.Errorf("remove log segment: %w", err)
		}
		p.mu.Lock()
		p.spare = spare
		p.mu.Unlock()
	}
	if len(segs) == 0 {
		return nil
	}
	// Before the spare's bytes change its old name must be gone for good.
	if err := p.fs.SyncDir(p.dir); err != nil {
		return fmt.Errorf("remove log segment: %w", err)
	}
	return nil
}

func (p *preparer) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// close ends the goroutine and closes what was prepared.
func (p *preparer) close() error {
	p.mu.Lock()
	p.stop = true
	p.mu.Unlock()
	p.cond.Broadcast()
	if p.done != nil {
		<-p.done
	}
	p.work.Lock()
	defer p.work.Unlock()
	var err error
	for _, seg := range append(p.ready, p.trash...) {
		_, e := seg.release()
		err = errors.Join(err, e)
	}
	p.ready, p.trash = nil, nil
	return err
}
