package machine

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/kv"
)

// sectionWriter writes the small parts of a snapshot. The first error sticks.
type sectionWriter struct {
	w   *bufio.Writer
	buf [binary.MaxVarintLen64]byte
	err error
}

func (s *sectionWriter) raw(b string) {
	if s.err == nil {
		_, s.err = s.w.WriteString(b)
	}
}

func (s *sectionWriter) tag(b byte) {
	if s.err == nil {
		s.err = s.w.WriteByte(b)
	}
}

func (s *sectionWriter) uint(n uint64) {
	if s.err == nil {
		_, s.err = s.w.Write(s.buf[:binary.PutUvarint(s.buf[:], n)])
	}
}

func (s *sectionWriter) bytes(b []byte) {
	s.uint(uint64(len(b)))
	if s.err == nil {
		_, s.err = s.w.Write(b)
	}
}

func (s *sectionWriter) string(b string) {
	s.uint(uint64(len(b)))
	s.raw(b)
}

// sectionReader reads them. The first error sticks, and what is read after it
// is zero.
type sectionReader struct {
	r       *bufio.Reader
	version byte // of the format
	err     error
}

func (s *sectionReader) failf(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf(format, args...)
	}
}

func (s *sectionReader) byte() (b byte) {
	if s.err == nil {
		b, s.err = s.r.ReadByte()
	}
	return b
}

func (s *sectionReader) uint() (n uint64) {
	if s.err == nil {
		n, s.err = binary.ReadUvarint(s.r)
	}
	if s.err != nil {
		return 0
	}
	return n
}

// most reads a number that is at most that.
func (s *sectionReader) most(most uint64) uint64 {
	n := s.uint()
	if n > most {
		s.failf("%d is more than %d", n, most)
		return 0
	}
	return n
}

// int reads a number that is not negative.
func (s *sectionReader) int() int64 { return int64(s.most(math.MaxInt64)) }

// take reads that many bytes, of which it has as many memory as there are.
func (s *sectionReader) take(n uint64) (b []byte) {
	const step = 1 << 20
	for n > 0 && s.err == nil {
		part := min(n, step)
		b = slices.Grow(b, int(part))[:len(b)+int(part)]
		_, s.err = io.ReadFull(s.r, b[len(b)-int(part):])
		n -= part
	}
	if s.err != nil {
		return nil
	}
	return b
}

func (s *sectionReader) bytes(most uint64) []byte { return s.take(s.most(most)) }

// each calls read as often as the number that comes next says, which is at most
// most.
func (s *sectionReader) each(most uint64, read func()) {
	for n := s.most(most); n > 0 && s.err == nil; n-- {
		read()
	}
}

func (p *reached) read(s *sectionReader) {
	p.index, p.term, p.now = kv.Index(s.uint()), kv.Term(s.uint()), kv.Time(s.int())
	p.hash, p.written = runningHash(s.uint()), s.int()
}

func (h *history) read(s *sectionReader) {
	s.each(maxSamples, func() {
		h.samples = append(h.samples, sample{kv.Time(s.int()), kv.Revision(s.int()), s.int()})
	})
}

func (c *config) write(s *sectionWriter) {
	s.uint(uint64(c.cluster))
	s.uint(uint64(len(c.members)))
	for i := range c.members {
		s.bytes(appendMember(nil, &c.members[i]))
	}
	s.uint(uint64(len(c.removed)))
	for _, id := range c.removed {
		s.uint(uint64(id))
	}
	s.tag(boolByte(c.settings.LeaderReads))
	s.uint(uint64(c.settings.Retention.Milliseconds()))
	s.uint(uint64(c.settings.HistoryBytes))
	c.upkeep.write(s)
	s.uint(uint64(c.founders))
	s.tag(boolByte(c.settings.Autopilot))
	s.uint(uint64(c.settings.Voters))
	s.uint(uint64(c.settings.DeadAfter.Milliseconds()))
	s.uint(uint64(c.settings.Level))
}

func (c *config) read(s *sectionReader) {
	c.cluster = kv.ClusterID(s.uint())
	s.each(maxMembers, func() {
		d := decoder{data: s.bytes(maxMemberBytes)}
		m := d.member()
		if err := d.end(); err != nil && s.err == nil {
			s.err = err
		}
		c.members = append(c.members, m)
	})
	s.each(math.MaxInt32, func() { c.removed = append(c.removed, kv.MemberID(s.uint())) })
	c.settings = DefaultSettings()
	c.settings.LeaderReads = s.byte() == 1
	c.settings.Retention = time.Duration(s.most(uint64(kv.MaxTTL/time.Millisecond))) * time.Millisecond
	c.settings.HistoryBytes = s.int()
	if s.version < 4 {
		s.bytes(maxVersion) // a setting that nobody could make
	}
	if s.version >= 3 {
		c.upkeep.read(s)
	}
	if s.version >= 4 {
		c.founders = int(s.most(maxMembers))
		c.settings.Autopilot = s.byte() == 1
		c.settings.Voters = int(s.most(MaxVoters))
		c.settings.DeadAfter = time.Duration(s.most(uint64(kv.MaxTTL/time.Millisecond))) * time.Millisecond
		c.settings.Level = uint32(s.most(math.MaxUint32))
	}
	if !slices.IsSortedFunc(c.members, compareMembers) || !slices.IsSorted(c.removed) {
		s.failf("members are out of order")
	}
}

func (c *captured) readLeases(s *sectionReader) {
	if s.err == nil {
		c.leases, s.err = lease.Read(s.r)
	}
}

func writeUploads(s *sectionWriter, all []upload) {
	s.uint(uint64(len(all)))
	for i := range all {
		u := &all[i]
		s.raw(string(u.id[:]))
		s.uint(uint64(len(u.buf)))
		s.uint(uint64(u.touched))
		s.uint(uint64(len(u.spans)))
		for _, part := range u.spans {
			s.uint(part.offset)
			s.bytes(part.data)
		}
	}
}

func (c *captured) readUploads(s *sectionReader) {
	var all uploads
	s.each(MaxUploads, func() {
		var id UploadID
		copy(id[:], s.take(uint64(len(id))))
		total, touched := s.most(MaxUploadBytes-all.reserved), kv.Time(s.int())
		s.each(MaxUploadBytes, func() {
			part := span{offset: s.uint(), data: s.bytes(total)}
			if s.err == nil {
				s.err = all.add(id, part, total, touched)
			}
		})
	})
	for _, u := range all.all {
		c.uploads = append(c.uploads, *u)
	}
}
