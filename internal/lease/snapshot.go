package lease

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// errFormat is wrapped by every complaint of [Read].
var errFormat = errors.New("lease table is malformed")

// maxEntry bounds an entry of a set: a time or id, and a key of 64 KiB.
const maxEntry = 8 + 64<<10

// Write writes the table for [Read]: the number of leases and of each id
// (zigzag), TTL, deadline and generation; then twice a number of entries and
// the entries, first of the keys attached, then of the TTLs, each a length and
// 8 bytes big endian (lease id, or time) and the key. Numbers are unsigned
// varints. All is in order, so equal tables write equal bytes.
func (t *Table) Write(w *bufio.Writer) error {
	buf := binary.AppendUvarint(nil, uint64(t.Len()))
	for l := range t.All() {
		buf = binary.AppendVarint(buf, int64(l.ID))
		buf = binary.AppendUvarint(buf, uint64(l.TTL))
		buf = binary.AppendUvarint(buf, uint64(l.Deadline))
		buf = binary.AppendUvarint(buf, l.Generation)
		if _, err := w.Write(buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	for _, s := range [...]*set{t.attached, t.ttls} {
		if err := s.write(w, buf); err != nil {
			return err
		}
		buf = buf[:0]
	}
	return nil
}

func (s *set) write(w *bufio.Writer, buf []byte) error {
	_, err := w.Write(binary.AppendUvarint(buf, uint64(s.n)))
	s.pages.Scan(func(_ string, p *page) bool {
		if err == nil {
			_, err = w.Write(p.data)
		}
		return err == nil
	})
	return err
}

// Read reads what [Table.Write] wrote, and no more. It refuses what is out of
// order or does not belong together.
func Read(r *bufio.Reader) (*Table, error) {
	t := New()
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, fmt.Errorf("%w: number of leases: %w", errFormat, err)
	}
	for last := kv.LeaseID(math.MinInt64); n > 0; n-- {
		l, err := readLease(r)
		if err != nil {
			return nil, err
		}
		if l.ID <= last {
			return nil, fmt.Errorf("%w: lease %v after %v", errFormat, l.ID, last)
		}
		last = l.ID
		t.add(l)
	}
	if t.attached, err = readSet(r); err != nil {
		return nil, err
	}
	for e := range t.attached.from("") {
		id := kv.LeaseID(binary.BigEndian.Uint64(e))
		if _, ok := t.leases.Get(id); !ok {
			return nil, fmt.Errorf("%w: key of lease %v, which is not there", errFormat, id)
		}
	}
	t.ttls, err = readSet(r)
	return t, err
}

func readLease(r *bufio.Reader) (Lease, error) {
	id, err := binary.ReadVarint(r)
	var n [3]uint64
	for i := range n {
		if err == nil {
			n[i], err = binary.ReadUvarint(r)
		}
	}
	if err != nil {
		return Lease{}, fmt.Errorf("%w: lease: %w", errFormat, err)
	}
	if id == 0 || n[0] == 0 || n[0] > math.MaxInt64/4 || n[1] > math.MaxInt64/4 {
		return Lease{}, fmt.Errorf("%w: lease %d: ttl %d, deadline %d", errFormat, id, n[0], n[1])
	}
	return Lease{ID: kv.LeaseID(id), TTL: int64(n[0]), Deadline: kv.Time(n[1]), Generation: n[2]}, nil
}

func readSet(r *bufio.Reader) (*set, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, fmt.Errorf("%w: number of keys: %w", errFormat, err)
	}
	s := newSet()
	var e, last []byte
	for ; n > 0; n-- {
		size, err := binary.ReadUvarint(r)
		if err != nil {
			return nil, fmt.Errorf("%w: key: %w", errFormat, err)
		}
		if size <= 8 || size > maxEntry {
			return nil, fmt.Errorf("%w: key of %d bytes", errFormat, int64(size)-8)
		}
		e = slices.Grow(e[:0], int(size))[:size]
		if _, err := io.ReadFull(r, e); err != nil {
			return nil, fmt.Errorf("%w: key: %w", errFormat, err)
		}
		if len(last) > 0 && string(e) <= string(last) {
			return nil, fmt.Errorf("%w: keys are out of order", errFormat)
		}
		if binary.BigEndian.Uint64(e) > math.MaxInt64 {
			return nil, fmt.Errorf("%w: time or lease of a key is out of range", errFormat)
		}
		s.push(e)
		e, last = last, e
	}
	return s, nil
}

// push adds an entry above all others.
func (s *set) push(e []byte) {
	s.n++
	_, p, ok := s.pages.Max()
	if !ok {
		p = &page{epoch: s.epoch}
		s.pages.Set("", p)
	} else if len(p.data)+len(e) > pageBytes*3/4 {
		p = &page{epoch: s.epoch}
		s.pages.Set(string(e), p)
	}
	p.data = append(binary.AppendUvarint(p.data, uint64(len(e))), e...)
}
