package wal

const (
	readBuffer = 128 << 10
	// arena is how much memory the data of small entries share.
	arena = 64 << 10
)

// stretch is a part of a segment from which entries are read in a row.
type stretch struct {
	from point
	end  uint64 // index of the first entry that is not in it
	cuts uint64
	seg  *segment
}

// Entries returns the entries of [lo, hi), at least one and then no more than
// maxBytes of data. Their Data share memory that is the caller's. Below
// FirstIndex the error is ErrCompacted, above LastIndex ErrUnavailable; damage
// is a *CorruptError.
func (l *Log) Entries(lo, hi uint64, maxBytes int64) ([]Entry, error) {
	if lo >= hi {
		return nil, nil
	}
	var buf []byte
	select {
	case buf = <-l.bufs:
	default:
		buf = make([]byte, readBuffer)
	}
	defer func() {
		select {
		case l.bufs <- buf:
		default:
		}
	}()
	c := collector{left: maxBytes}
	for cuts := uint64(0); lo < hi && !c.full; {
		st, err := l.stretch(lo, hi)
		if err != nil {
			return nil, err
		}
		if len(c.entries) > 0 && st.cuts != cuts {
			// Entries were replaced meanwhile: what was read may be old.
			_, _ = st.seg.release()
			lo, c = c.entries[0].Index, collector{left: maxBytes}
			continue
		}
		cuts = st.cuts
		err = c.read(st, lo, buf)
		if _, e := st.seg.release(); err == nil {
			err = e
		}
		if err != nil {
			return nil, err
		}
		lo = st.end
	}
	return c.entries, nil
}

// stretch finds where entry lo stands. Its segment must be released.
func (l *Log) stretch(lo, hi uint64) (stretch, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	x := &l.x
	switch {
	case l.closed:
		return stretch{}, ErrClosed
	case lo < x.first():
		return stretch{}, ErrCompacted
	case hi > x.last+1:
		return stretch{}, ErrUnavailable
	}
	k := x.pointFor(lo)
	st := stretch{from: x.points[k], end: hi, cuts: x.cuts, seg: x.points[k].seg}
	for _, p := range x.points[k+1:] {
		if p.index >= hi {
			break
		}
		if p.jump {
			st.end = p.index
			break
		}
	}
	st.seg.refs.Add(1)
	return st, nil
}

// collector gathers entries until there are enough bytes.
type collector struct {
	entries []Entry
	left    int64
	full    bool
	memory  []byte
}

// read adds the entries of st from lo on.
func (c *collector) read(st stretch, lo uint64, buf []byte) error {
	s := newScanner(st.seg, buf)
	s.partial = true
	s.seq, s.key = st.from.seq, writeKey(st.seg.head.key, st.from.seq)
	if err := s.reload(st.from.pos/payloadSize + 1); err != nil {
		return err
	}
	s.payload = s.payload[st.from.pos%payloadSize:]
	for next, term := st.from.index, st.from.term; next < st.end; {
		r, err := s.next()
		if err == errUnwritten {
			err = s.corrupt("the sector is empty and was not")
		}
		if err != nil {
			return err
		}
		switch r.kind {
		case kindPosition:
			if r.num[0] != next {
				return s.corrupt("entry %d stands where entry %d should", r.num[0], next)
			}
			term = r.num[1]
		case kindEntry:
			if err := c.entry(s, Entry{Index: next, Term: term, Type: r.typ}, lo); err != nil || c.full {
				return err
			}
			next++
		case kindCommit:
			if err := s.enter(s.seq+1, s.sector+1); err != nil {
				if err == errUnwritten {
					err = s.corrupt("write %d is empty and was not", s.seq)
				}
				return err
			}
		}
	}
	return nil
}

// reload enters a sector in the middle of a write.
func (s *scanner) reload(number int64) error {
	err := s.load(number)
	if err == errUnwritten {
		return s.corrupt("the sector is empty and was not")
	}
	return err
}

// entry takes or skips one entry whose data are to be read.
func (c *collector) entry(s *scanner, e Entry, lo uint64) error {
	n := int64(s.left)
	if e.Index >= lo {
		if len(c.entries) > 0 && n > c.left {
			c.full = true
			return nil
		}
		if n > s.seg.size {
			return s.corrupt("entry %d has %d bytes and does not fit its segment", e.Index, n)
		}
		c.left -= n
		e.Data = c.alloc(int(n))
		s.left = 0
		if err := s.read(e.Data); err != nil {
			return s.unwritten(err)
		}
		c.entries = append(c.entries, e)
		return nil
	}
	return s.unwritten(s.skip())
}

func (s *scanner) unwritten(err error) error {
	if err == errUnwritten {
		return s.corrupt("the sector is empty and was not")
	}
	return err
}

// alloc returns n bytes, those of small entries from memory that they share.
func (c *collector) alloc(n int) []byte {
	if n == 0 {
		return nil
	}
	if n > arena/4 {
		return make([]byte, n)
	}
	if n > len(c.memory) {
		c.memory = make([]byte, arena)
	}
	b := c.memory[:n:n]
	c.memory = c.memory[n:]
	return b
}
