package wal

import (
	"slices"
	"sort"
)

// pointSpacing is how far apart in a segment the places are from which
// Entries can start to read, in bytes of payload: 40 bytes of memory for 32 KiB.
const pointSpacing = 32 << 10

// point is a place in a segment where an entry's record starts.
type point struct {
	index, term uint64
	seg         *segment
	pos         int64  // in the segment's payload
	seq         uint64 // of the write it is in
	// jump: what stands before it in the file is not the entry before it.
	jump bool
}

// run is a stretch of entries with one term.
type run struct{ index, term uint64 }

// index is what the log knows of its entries in memory.
type index struct {
	base   Mark   // the position before the first entry
	last   uint64 // the last entry
	low    uint64 // entries from here on are in the files that were read
	oldest uint64 // the first segment that is needed
	state  State
	mark   Mark
	runs   []run   // by index, terms differ
	points []point // by index; the first one is at or below the first entry
	cuts   uint64  // counts the times that entries were replaced or dropped
}

// op is one change to an index. A write makes a list of them, which takes
// effect when the write is durable; recovery makes the same list.
type op struct {
	kind byte // of the record it comes from, kindEntry: a point, kindCommit: the last index
	a, b uint64
	c, d uint64
	at   point
}

func (x *index) first() uint64 { return x.base.Index + 1 }

func (x *index) apply(ops []op) {
	for i := range ops {
		o := &ops[i]
		switch o.kind {
		case kindBase:
			x.trim(Mark{o.a, o.b})
			x.oldest = o.c
		case kindReset:
			x.mark, x.base = Mark{o.a, o.b}, Mark{o.a, o.b}
			x.last, x.low = o.a, o.a+1
			x.runs, x.points = nil, nil
			x.cuts++
		case kindPosition:
			x.place(o.a, o.b)
		case kindEntry:
			x.points = append(x.points, o.at)
		case kindCommit:
			x.last = o.a
		case kindMark:
			x.mark = Mark{o.a, o.b}
		case kindState:
			x.state = State{o.a, o.b, o.c}
		}
	}
}

// place says that entries of the given term follow from i on, and drops what
// stood there.
func (x *index) place(i, term uint64) {
	if i <= x.last {
		x.points = x.points[:sort.Search(len(x.points), func(k int) bool { return x.points[k].index >= i })]
		x.runs = x.runs[:sort.Search(len(x.runs), func(k int) bool { return x.runs[k].index >= i })]
		x.last = i - 1
		x.cuts++
	}
	x.low = min(x.low, i)
	if n := len(x.runs); n == 0 || x.runs[n-1].term != term {
		x.runs = append(x.runs, run{i, term})
	}
}

// trim drops the entries up to base.Index.
func (x *index) trim(base Mark) {
	if base.Index <= x.base.Index {
		return
	}
	x.base = base
	x.last = max(x.last, base.Index)
	if k := x.pointFor(x.first()); k > 0 {
		x.points = slices.Delete(x.points, 0, k)
	}
	k := sort.Search(len(x.runs), func(k int) bool { return x.runs[k].index > x.first() })
	if k > 1 {
		x.runs = slices.Delete(x.runs, 0, k-1)
	}
}

// pointFor returns the place of the last point at or below i, or -1.
func (x *index) pointFor(i uint64) int {
	return sort.Search(len(x.points), func(k int) bool { return x.points[k].index > i }) - 1
}

func (x *index) term(i uint64) (uint64, error) {
	switch {
	case i == x.base.Index:
		return x.base.Term, nil
	case i == x.mark.Index:
		return x.mark.Term, nil
	case i < x.base.Index:
		return 0, ErrCompacted
	case i > x.last:
		return 0, ErrUnavailable
	}
	k := sort.Search(len(x.runs), func(k int) bool { return x.runs[k].index > i })
	return x.runs[k-1].term, nil
}

// freeable returns how many of the leading segments hold nothing that is
// needed once the log starts at first. The last segment always is.
func (x *index) freeable(segs []*segment, first uint64) int {
	n := 0
	for n < len(segs)-1 {
		// The live entries of segs[n] end where those of a later segment start.
		end := x.last + 1
		for _, p := range x.points {
			if p.seg.head.number > segs[n].head.number {
				end = p.index
				break
			}
		}
		if end > first {
			break
		}
		n++
	}
	return n
}
