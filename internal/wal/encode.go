package wal

import (
	"encoding/binary"
)

const (
	firstBuffer = 64 << 10
	// maxBuffer bounds the memory of a write; a longer one is several pwrites
	// before its one fdatasync.
	maxBuffer = 4 << 20
)

// encoder lays the records of one write into sealed sectors and collects what
// the write changes. Memory is kept from write to write.
type encoder struct {
	seg    *segment
	seq    uint64
	key    uint64 // of this write in seg
	chain  uint64 // over all sectors sealed so far, those of earlier writes too
	start  int64  // number of the write's first sector
	sector int64  // number of the sector being filled
	fill   int    // payload bytes in it
	at     int    // its place in buf
	buf    []byte
	err    error // of the first pwrite that failed

	ops    []op
	next   uint64 // index of the entry that follows without a position record; 0: none
	term   uint64 // of the entries that follow
	lastAt int64  // payload position of the last point in seg, -1: none
}

// begin starts a write at the given sector; size is its length in bytes.
func (e *encoder) begin(seg *segment, sector int64, size int64) {
	want := int(min(max(size, firstBuffer), maxBuffer))
	if len(e.buf) < want {
		e.buf = make([]byte, (want+firstBuffer-1)/firstBuffer*firstBuffer)
	}
	e.seg, e.key = seg, writeKey(seg.head.key, e.seq)
	e.start, e.sector = sector, sector
	e.fill, e.at, e.err = 0, 0, nil
	e.ops, e.next, e.lastAt = e.ops[:0], 0, seg.lastPoint
	e.record(kindBegin, e.seq, e.chain)
}

// pos is the payload position in the segment of the next byte.
func (e *encoder) pos() int64 { return (e.sector-1)*payloadSize + int64(e.fill) }

func (e *encoder) put(b []byte) {
	for len(b) > 0 {
		if e.fill == payloadSize {
			e.advance()
		}
		n := copy(e.buf[e.at+e.fill:e.at+payloadSize], b)
		e.fill += n
		b = b[n:]
	}
}

// advance seals a full sector that is not the last of its write.
func (e *encoder) advance() {
	mark := markMiddle
	if e.sector == e.start {
		mark = markFirst
	}
	e.chain = fold(e.chain, seal(e.buf[e.at:e.at+sectorSize], place{e.key, e.seq, e.sector}, mark))
	e.sector++
	e.fill = 0
	e.at += sectorSize
	if e.at == len(e.buf) {
		e.flush()
	}
}

// flush hands the sealed sectors to the file.
func (e *encoder) flush() {
	if e.err == nil {
		_, e.err = e.seg.file.WriteAt(e.buf[:e.at], e.sector*sectorSize-int64(e.at))
	}
	e.at = 0
}

// record writes a record whose body is the given numbers.
func (e *encoder) record(kind byte, body ...uint64) {
	var b [recordHeader + maxBody]byte
	b[0] = kind
	binary.LittleEndian.PutUint32(b[1:], uint32(8*len(body)))
	for i, v := range body {
		binary.LittleEndian.PutUint64(b[recordHeader+8*i:], v)
	}
	e.put(b[:recordHeader+8*len(body)])
}

func (e *encoder) base(base Mark, oldest, last uint64) {
	e.record(kindBase, base.Index, base.Term, oldest, last)
	e.ops = append(e.ops, op{kind: kindBase, a: base.Index, b: base.Term, c: oldest, d: last})
}

func (e *encoder) mark(kind byte, m Mark) {
	e.record(kind, m.Index, m.Term)
	e.ops = append(e.ops, op{kind: kind, a: m.Index, b: m.Term})
	if kind == kindReset {
		e.next, e.lastAt = 0, -1
	}
}

func (e *encoder) state(s State) {
	e.record(kindState, s.Term, s.Vote, s.Commit)
	e.ops = append(e.ops, op{kind: kindState, a: s.Term, b: s.Vote, c: s.Commit})
}

// entries writes entries; last is the log's last index before them.
func (e *encoder) entries(entries []Entry, last uint64) {
	for i := range entries {
		ent := &entries[i]
		position := ent.Index != e.next || ent.Term != e.term
		if position {
			e.record(kindPosition, ent.Index, ent.Term)
			e.ops = append(e.ops, op{kind: kindPosition, a: ent.Index, b: ent.Term})
		}
		jump := i == 0 && ent.Index != last+1 || e.lastAt < 0
		if at := e.pos(); jump || at-e.lastAt >= pointSpacing {
			e.ops = append(e.ops, op{kind: kindEntry, at: point{
				index: ent.Index, term: ent.Term, seg: e.seg, pos: at, seq: e.seq, jump: jump}})
			e.lastAt = at
		}
		e.next, e.term = ent.Index+1, ent.Term
		var h [recordHeader + 1]byte
		h[0] = kindEntry
		binary.LittleEndian.PutUint32(h[1:], uint32(len(ent.Data)+1))
		h[recordHeader] = ent.Type
		e.put(h[:])
		e.put(ent.Data)
	}
	if n := len(entries); n > 0 {
		e.ops = append(e.ops, op{kind: kindCommit, a: entries[n-1].Index})
	}
}

// finish ends the write with its commit record and hands it to the file. It
// returns the first sector after it.
func (e *encoder) finish() (int64, error) {
	if e.fill == payloadSize {
		e.advance()
	}
	sectors := e.sector - e.start + 1
	if e.fill+recordHeader+16 > payloadSize {
		sectors++
	}
	e.record(kindCommit, uint64(sectors), e.chain)
	mark := markLast
	if sectors == 1 {
		mark = markOnly
	}
	clear(e.buf[e.at+e.fill : e.at+payloadSize])
	e.chain = fold(e.chain, seal(e.buf[e.at:e.at+sectorSize], place{e.key, e.seq, e.sector}, mark))
	e.at += sectorSize
	e.sector++
	e.flush()
	return e.sector, e.err
}
