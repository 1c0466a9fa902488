package wal

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/concord-kv/concord/internal/vfs"
)

// window reads a file's sectors through a buffer of bounded size.
type window struct {
	file vfs.File
	path string
	buf  []byte
	off  int64 // of buf[0] in the file
	n    int   // bytes of buf in use; they end in zeros where the file is short
}

// sector returns a sector, valid until the next call. Bytes behind the end of
// the file count as never written.
func (w *window) sector(number int64) ([]byte, error) {
	at := number*sectorSize - w.off
	if at < 0 || at+sectorSize > int64(w.n) {
		w.off, at = number*sectorSize, 0
		n, err := w.file.ReadAt(w.buf, w.off)
		if err != nil && err != io.EOF {
			w.n = 0
			return nil, fmt.Errorf("read %s: %w", w.path, err)
		}
		w.n = max((n+sectorSize-1)/sectorSize*sectorSize, sectorSize)
		clear(w.buf[n:w.n])
	}
	return w.buf[at : at+sectorSize], nil
}

// scanner reads records of one segment and verifies every sector it enters.
type scanner struct {
	win     window
	seg     *segment
	seq     uint64 // of the write that is read
	key     uint64 // of that write in seg
	chain   uint64 // over the sectors before the current one
	start   int64  // first sector of the write
	sector  int64  // the current one
	mark    byte   // of it
	crc     uint32 // of it
	payload []byte // what is left of it
	left    uint32 // of an entry's data, not yet read
	partial bool   // started inside a write: its chain is not known
	body    [maxBody]byte
}

func newScanner(seg *segment, buf []byte) *scanner {
	return &scanner{seg: seg, win: window{file: seg.file, path: seg.path, buf: buf}}
}

func (s *scanner) corrupt(reason string, args ...any) error {
	return &CorruptError{File: s.seg.path, Offset: s.sector * sectorSize, Reason: fmt.Sprintf(reason, args...)}
}

// load enters a sector of the current write. It returns errUnwritten where
// the last byte says that the sector was never written to its end.
func (s *scanner) load(number int64) error {
	s.sector = number
	sector, err := s.win.sector(number)
	if err != nil {
		return err
	}
	s.mark = sector[sectorSize-1]
	if s.mark == markNone {
		return errUnwritten
	}
	if !sealed(sector, place{s.key, s.seq, number}) {
		return s.corrupt("the sector does not match its checksum as part of write %d", s.seq)
	}
	s.crc = binary.LittleEndian.Uint32(sector[payloadSize:])
	s.payload = sector[:payloadSize]
	return nil
}

// enter starts to read write seq, whose first sector is given.
func (s *scanner) enter(seq uint64, number int64) error {
	s.seq, s.key = seq, writeKey(s.seg.head.key, seq)
	s.start = number
	if err := s.load(number); err != nil {
		return err
	}
	if s.mark != markFirst && s.mark != markOnly {
		return s.corrupt("a write starts here but its first sector is another")
	}
	return nil
}

// advance goes to the next sector of the same write.
func (s *scanner) advance() error {
	if s.mark != markFirst && s.mark != markMiddle {
		return s.corrupt("a record goes on behind the end of its write")
	}
	s.chain = fold(s.chain, s.crc)
	if err := s.load(s.sector + 1); err != nil {
		return err
	}
	if s.mark != markMiddle && s.mark != markLast {
		return s.corrupt("a write goes on here but the sector starts another")
	}
	return nil
}

func (s *scanner) read(dst []byte) error {
	for len(dst) > 0 {
		if len(s.payload) == 0 {
			if err := s.advance(); err != nil {
				return err
			}
		}
		n := copy(dst, s.payload)
		s.payload, dst = s.payload[n:], dst[n:]
	}
	return nil
}

// skip passes over the data of an entry.
func (s *scanner) skip() error {
	for s.left > 0 {
		if len(s.payload) == 0 {
			if err := s.advance(); err != nil {
				return err
			}
		}
		n := min(int(s.left), len(s.payload))
		s.payload = s.payload[n:]
		s.left -= uint32(n)
	}
	return nil
}

// record is one record's head. An entry's data follow: scanner.left bytes.
type record struct {
	kind byte
	pos  int64 // in the segment's payload
	typ  uint8
	num  [4]uint64
}

// next reads a record up to an entry's data.
func (s *scanner) next() (record, error) {
	if len(s.payload) == 0 {
		if err := s.advance(); err != nil {
			return record{}, err
		}
	}
	r := record{pos: s.sector*payloadSize - int64(len(s.payload))}
	before := s.chain // over the sectors before the record's first
	if err := s.read(s.body[:recordHeader]); err != nil {
		return r, err
	}
	r.kind = s.body[0]
	n := binary.LittleEndian.Uint32(s.body[1:])
	if r.kind == 0 || r.kind >= kindEnd {
		return r, s.corrupt("record kind %d is unknown", r.kind)
	}
	if r.kind == kindEntry {
		if n == 0 {
			return r, s.corrupt("an entry has no type")
		}
		s.left = n - 1
		err := s.read(s.body[:1])
		r.typ = s.body[0]
		return r, err
	}
	if n != bodySize[r.kind] {
		return r, s.corrupt("record kind %d has %d bytes, not %d", r.kind, n, bodySize[r.kind])
	}
	if err := s.read(s.body[:n]); err != nil {
		return r, err
	}
	for i := range int(n / 8) {
		r.num[i] = binary.LittleEndian.Uint64(s.body[8*i:])
	}
	if r.kind == kindCommit {
		return r, s.commit(r, before)
	}
	return r, nil
}

// commit checks the record that ends a write.
func (s *scanner) commit(r record, before uint64) error {
	switch {
	case s.mark != markLast && s.mark != markOnly:
		return s.corrupt("write %d ends before its last sector", s.seq)
	case s.partial:
		return nil
	case r.num[0] != uint64(s.sector-s.start+1):
		return s.corrupt("write %d has %d sectors, its end says %d", s.seq, s.sector-s.start+1, r.num[0])
	case r.num[1] != before:
		return s.corrupt("write %d does not match the checksum over its sectors", s.seq)
	}
	s.chain = fold(s.chain, s.crc)
	return nil
}

// write reads one whole write that must follow on x, and appends to ops what
// it changes. errUnwritten: it is not there, or not all of it.
func (s *scanner) write(x *index, ops []op, chained bool) ([]op, error) {
	r, err := s.next()
	if err != nil {
		return ops, err
	}
	if r.kind != kindBegin || r.num[0] != s.seq {
		return ops, s.corrupt("write %d does not start with its number", s.seq)
	}
	if chained && r.num[1] != s.chain {
		return ops, s.corrupt("write %d does not follow on the one before it", s.seq)
	}
	if !chained {
		// The first sector is folded in when it is left: start from what it says.
		s.chain = r.num[1]
	}
	w := walker{s: s, base: x.base.Index, last: x.last, lastAt: s.seg.lastPoint}
	for {
		r, err := s.next()
		if err != nil {
			return ops, err
		}
		if r.kind == kindCommit {
			break
		}
		if ops, err = w.step(r, ops); err != nil {
			return ops, err
		}
	}
	ops = w.endEntries(ops)
	s.seg.lastPoint = w.lastAt
	if w.high > 0 {
		s.seg.note(w.low, w.high)
	}
	return ops, nil
}

// walker follows the entries of one write, checking that indexes go on.
type walker struct {
	s          *scanner
	base, last uint64
	next, term uint64 // as in encoder
	entries    bool   // since the last op that set the last index
	lastAt     int64
	jump       bool
	low, high  uint64 // of the entries seen
}

func (w *walker) endEntries(ops []op) []op {
	if w.entries {
		ops = append(ops, op{kind: kindCommit, a: w.last})
		w.entries = false
	}
	return ops
}

func (w *walker) step(r record, ops []op) ([]op, error) {
	s := w.s
	switch r.kind {
	case kindEntry:
		if w.next == 0 {
			return ops, s.corrupt("an entry has no position")
		}
		if w.jump || w.lastAt < 0 || r.pos-w.lastAt >= pointSpacing {
			ops = append(ops, op{kind: kindEntry, at: point{
				index: w.next, term: w.term, seg: s.seg, pos: r.pos, seq: s.seq, jump: w.jump || w.lastAt < 0}})
			w.lastAt = r.pos
		}
		if w.high == 0 || w.next < w.low {
			w.low = w.next
		}
		w.high = max(w.high, w.next)
		w.last, w.entries, w.jump = w.next, true, false
		w.next++
		return ops, s.skip()
	case kindPosition:
		ops = w.endEntries(ops)
		if r.num[0] <= w.base || r.num[0] > w.last+1 {
			return ops, s.corrupt("entry %d does not follow on entries %d to %d", r.num[0], w.base+1, w.last)
		}
		w.jump = w.jump || r.num[0] != w.last+1
		w.next, w.term = r.num[0], r.num[1]
		w.last = w.next - 1
	case kindReset:
		ops = w.endEntries(ops)
		w.base, w.last, w.next, w.lastAt = r.num[0], r.num[0], 0, -1
	case kindBase:
		ops = w.endEntries(ops)
		if r.num[3] != w.last || r.num[0] < w.base || r.num[0] > w.last {
			return ops, s.corrupt("the log should reach to entry %d here and reaches from %d to %d", r.num[3], w.base+1, w.last)
		}
		w.base = r.num[0]
	case kindMark, kindState:
	default:
		return ops, s.corrupt("record kind %d inside a write", r.kind)
	}
	return append(ops, op{kind: r.kind, a: r.num[0], b: r.num[1], c: r.num[2], d: r.num[3]}), nil
}
