package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/concord-kv/concord/internal/vfs"
)

// scanBuffer bounds the memory with which a log is read at start, in bytes.
const scanBuffer = 1 << 20

// buffer returns a buffer to read the segments with.
func (f *found) buffer() []byte {
	size := int64(sectorSize)
	for _, seg := range f.segs {
		size = max(size, seg.size)
	}
	return make([]byte, min(size, scanBuffer))
}

// found is what a directory holds. Reading it changes nothing on disk.
type found struct {
	fs     vfs.FS
	dir    string
	stale  []string   // files that a crash or a truncation left over
	segs   []*segment // those in use, then those only prepared
	active int        // the last one in use
	index  index
	seq    uint64 // of the last write
	chain  uint64 // behind it, if chained
	// chained: the chain is known, from the first write that was read on.
	chained bool
	// The last write stands in segs[active] in sectors [writeStart, used).
	writeStart int64
	// torn: sectors were found of a write that did not become whole. current
	// is the last segment in which they stand, or active.
	torn    bool
	current int
	reserve bool
	hole    string // where sectors that were never written begin
}

// scanDir reads a log; flag is os.O_RDWR or os.O_RDONLY. The result is valid, as far as it goes, with an error
// too; its segments are open.
func scanDir(fsys vfs.FS, dir string, flag int) (*found, error) {
	f := &found{fs: fsys, dir: dir, active: -1, current: -1}
	f.index.oldest = 1
	f.index.low = 1
	numbers, err := f.list()
	if err != nil {
		return f, err
	}
	for _, n := range numbers {
		seg, err := openSegment(fsys, segmentPath(dir, n), flag)
		if err != nil {
			return f, err
		}
		f.segs = append(f.segs, seg)
		if seg.head.number != n {
			return f, &CorruptError{File: seg.path, Reason: fmt.Sprintf("the file is segment %d under the name of %d", seg.head.number, n)}
		}
		if seg.head.log != f.segs[0].head.log {
			return f, &CorruptError{File: seg.path, Reason: "the segment belongs to another log than the one before it"}
		}
	}
	if len(f.segs) == 0 {
		return f, nil
	}
	if err := f.scan(f.buffer()); err != nil {
		return f, err
	}
	return f, f.whole()
}

// list returns the numbers of the segments, from the highest down to the
// first gap, ascending. What is below the gap was dropped from the log, if the
// log says so (whole checks it).
func (f *found) list() ([]uint64, error) {
	names, err := f.fs.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list log: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		ext := filepath.Ext(name)
		n, ok := parseName(name)
		switch {
		case ok:
			numbers = append(numbers, n)
		case ext == tempSuffix || ext == freeSuffix:
			f.stale = append(f.stale, filepath.Join(f.dir, name))
		case name == reserveName:
			f.reserve = true
		}
	}
	slices.Sort(numbers)
	k := len(numbers) - 1
	for k > 0 && numbers[k-1]+1 == numbers[k] {
		k--
	}
	for _, n := range numbers[:max(k, 0)] {
		f.stale = append(f.stale, segmentPath(f.dir, n))
	}
	return numbers[max(k, 0):], nil
}

// scan reads writes until there is no next one, then decides whether the log
// ends there. The next write stands behind the last one or at the start of a
// later segment: a segment with a torn tail is left as it is.
func (f *found) scan(buf []byte) error {
	f.active = 0
	if err := f.firstWrite(buf); err != nil {
		return err
	}
	for i, seg := range f.segs {
		if err := f.segment(seg, buf); err != nil {
			return f.follows(err)
		}
		if seg.used.Load() > 1 {
			f.active = i
		}
	}
	f.current = f.active
	return f.end(buf)
}

// firstWrite finds out where the first segment starts in the log. A segment
// before it that has no whole first sector was left after a torn write, and
// dropped from the log, if the log says so (whole checks it).
func (f *found) firstWrite(buf []byte) error {
	if f.segs[0].head.number == 1 {
		f.chained = true
		return nil
	}
	s := newScanner(f.segs[0], buf)
	sector, err := s.win.sector(1)
	for ; err == nil && sector[sectorSize-1] == markNone; sector, err = s.win.sector(1) {
		if len(f.segs) == 1 {
			return f.lost("the one after it has no start of a log")
		}
		if err := f.drop(); err != nil {
			return err
		}
		s = newScanner(f.segs[0], buf)
	}
	if err != nil {
		return err
	}
	seq := binary.LittleEndian.Uint64(sector[recordHeader:])
	if err := s.enter(seq, 1); err != nil {
		return err
	}
	if _, err := s.next(); err != nil { // begin
		return err
	}
	r, err := s.next()
	if err != nil {
		return err
	}
	if r.kind != kindBase {
		return f.lost("the one after it does not say where it starts")
	}
	f.seq = seq - 1
	f.index.base = Mark{r.num[0], r.num[1]}
	f.index.last, f.index.low = r.num[3], r.num[3]+1
	return nil
}

// segment reads the writes of one segment.
func (f *found) segment(seg *segment, buf []byte) error {
	s := newScanner(seg, buf)
	s.chain = f.chain
	var ops []op
	for number := int64(1); ; number = s.sector + 1 {
		if number == seg.sectors() {
			return nil
		}
		err := s.enter(f.seq+1, number)
		if err == nil {
			ops, err = s.write(&f.index, ops[:0], f.chained)
		}
		if err == errUnwritten {
			f.hole = fmt.Sprintf("byte %d of %s", s.sector*sectorSize, filepath.Base(seg.path))
			return nil
		}
		if err != nil {
			return err
		}
		f.index.apply(ops)
		f.chained = true
		f.seq, f.chain = f.seq+1, s.chain
		f.writeStart = number
		seg.used.Store(s.sector + 1)
	}
}

// end decides what stands behind the last whole write: nothing, or sectors of
// the one write that was under way when the member stopped. All else is
// damage; doc.go argues why.
func (f *found) end(buf []byte) error {
	for i := f.active; i < len(f.segs); i++ {
		seg := f.segs[i]
		s := newScanner(seg, buf)
		s.seq = f.seq + 1
		s.key = writeKey(seg.head.key, s.seq)
		for n := seg.used.Load(); n < seg.sectors(); n++ {
			if zero, err := s.win.zeros(n); err != nil {
				return err
			} else if zero > 0 {
				n += zero - 1
				continue
			}
			f.torn, f.current = true, i
			if err := s.load(n); err != nil && err != errUnwritten {
				return f.follows(err)
			}
		}
	}
	return nil
}

// follows adds to damage that was found behind a hole where the hole is: it
// may be what is damaged.
func (f *found) follows(err error) error {
	var c *CorruptError
	if f.hole != "" && errors.As(err, &c) {
		c.Reason += "; before it the log breaks off at " + f.hole
	}
	return err
}

// whole checks that nothing which the log says it has is missing, and sets
// aside the segments that it says it has dropped.
func (f *found) whole() error {
	x := &f.index
	if f.segs[0].head.number > x.oldest || x.first() < x.low {
		return f.lost(fmt.Sprintf("the log needs segments from %d on and entries from %d on", x.oldest, x.first()))
	}
	for f.segs[0].head.number < x.oldest && f.active > 0 {
		if err := f.drop(); err != nil {
			return err
		}
		f.active--
		f.current--
	}
	return nil
}

// lost tells of the missing segment before the first one.
func (f *found) lost(why string) error {
	return &CorruptError{File: segmentPath(f.dir, f.segs[0].head.number-1), Reason: "the segment is lost: " + why}
}

// drop sets the first segment aside, to be removed.
func (f *found) drop() error {
	f.stale = append(f.stale, f.segs[0].path)
	_, err := f.segs[0].release()
	f.segs = f.segs[1:]
	return err
}

// close closes all segments.
func (f *found) close() error {
	var err error
	for _, s := range f.segs {
		_, e := s.release()
		err = errors.Join(err, e)
	}
	return err
}

// zeros returns how many sectors from number on are zero, as far as the
// window reaches; 0 when the first one is not.
func (w *window) zeros(number int64) (int64, error) {
	if _, err := w.sector(number); err != nil {
		return 0, err
	}
	rest := w.buf[number*sectorSize-w.off : w.n]
	n := int64(0)
	for len(rest) > 0 && allZero(rest[:sectorSize]) {
		rest = rest[sectorSize:]
		n++
	}
	return n, nil
}

func allZero(b []byte) bool {
	for ; len(b) >= 32; b = b[32:] {
		le := binary.LittleEndian
		if le.Uint64(b)|le.Uint64(b[8:])|le.Uint64(b[16:])|le.Uint64(b[24:]) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
