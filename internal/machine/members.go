package machine

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

// MemberOp is what happens to a member.
type MemberOp uint8

// The changes of membership. The zero op is invalid.
const (
	// AddMember adds a member whose id was never used.
	AddMember MemberOp = iota + 1
	// PromoteMember makes a learner a voter. Only the id counts.
	PromoteMember
	// RemoveMember removes a member for ever. Only the id counts.
	RemoveMember
	// UpdateMember replaces name and addresses; those left empty stay. It
	// changes nobody's vote and is also an ordinary command.
	UpdateMember
)

// MemberChange is one change of the member table.
type MemberChange struct {
	Op     MemberOp
	Member kv.Member
}

// Bounds on the member table, so that a decoder can trust it.
const (
	maxMembers     = 1 << 10
	maxMemberBytes = 64 << 10
)

// EncodeMembers encodes the context of a configuration change, for
// [Machine.ApplyMembers]: all changes are made, or none.
//
//	change = changes [flags (1 byte) [trailer]], see auth.go
//	changes = n (op (1 byte) member)…
//	member  = bits (1 byte) id (8 bytes, little endian) name, n peer, n client addresses [level version]
func EncodeMembers(dst []byte, changes ...MemberChange) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(changes)))
	for i := range changes {
		c := &changes[i]
		dst = appendMember(append(dst, byte(c.Op)), &c.Member)
	}
	return dst
}

// EncodeUpdateMember encodes an UpdateMember as an ordinary command. Its result
// is a *kv.Header or an error.
func EncodeUpdateMember(dst []byte, member kv.Member) []byte {
	dst = append(dst, byte(kindMembers), 0)
	return EncodeMembers(dst, MemberChange{Op: UpdateMember, Member: member})
}

// The bits of a member.
const (
	memberLearns = 1 << iota
	memberRelease
)

func appendMember(dst []byte, m *kv.Member) []byte {
	bits := boolByte(m.Learner)
	told := m.Level != 0 || m.Version != ""
	if told {
		bits |= memberRelease
	}
	dst = append(dst, bits)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(m.ID))
	dst = appendBytes(dst, m.Name)
	for _, addrs := range [...][]string{m.PeerAddrs, m.ClientAddrs} {
		dst = binary.AppendUvarint(dst, uint64(len(addrs)))
		for _, addr := range addrs {
			dst = appendBytes(dst, addr)
		}
	}
	if told {
		dst = appendBytes(binary.AppendUvarint(dst, uint64(m.Level)), m.Version)
	}
	return dst
}

func (d *decoder) memberChanges() []MemberChange {
	var changes []MemberChange
	for n := d.count(13); n > 0 && d.err == nil; n-- {
		c := MemberChange{Op: MemberOp(d.byte())}
		if c.Op < AddMember || c.Op > UpdateMember {
			d.fail(errUnknown)
		}
		c.Member = d.member()
		changes = append(changes, c)
	}
	return changes
}

func (d *decoder) member() kv.Member {
	bits := d.byte()
	if bits&^(memberLearns|memberRelease) != 0 {
		d.fail(errUnknown)
	}
	m := kv.Member{Learner: bits&memberLearns != 0}
	if id := d.take(8); id != nil {
		m.ID = kv.MemberID(binary.LittleEndian.Uint64(id))
	}
	m.Name = string(d.bytes())
	for _, addrs := range [...]*[]string{&m.PeerAddrs, &m.ClientAddrs} {
		for n := d.count(1); n > 0 && d.err == nil; n-- {
			*addrs = append(*addrs, string(d.bytes()))
		}
	}
	if bits&memberRelease != 0 {
		m.Level, m.Version = uint32(d.atMost(math.MaxUint32, errRange)), string(d.bytes())
	}
	return m
}

// membership is the member table: the one source of who belongs to a cluster,
// changed with Raft's configuration. Its slices are replaced, never changed.
type membership struct {
	cluster kv.ClusterID
	members []kv.Member   // by id
	removed []kv.MemberID // by id; never used again
	// founders is how many members the cluster began with; 0 where nobody
	// kept it.
	founders int
}

func newMembership(cluster kv.ClusterID, members []kv.Member) membership {
	s := membership{cluster: cluster, founders: len(members)}
	for i := range members {
		s.members = append(s.members, cloneMember(&members[i]))
	}
	slices.SortFunc(s.members, compareMembers)
	return s
}

func compareMembers(a, b kv.Member) int {
	if a.ID < b.ID {
		return -1
	}
	return int(boolByte(a.ID > b.ID))
}

func cloneMember(m *kv.Member) kv.Member {
	c := *m
	c.PeerAddrs, c.ClientAddrs = slices.Clone(m.PeerAddrs), slices.Clone(m.ClientAddrs)
	return c
}

func (s *membership) find(id kv.MemberID) (int, bool) {
	return slices.BinarySearchFunc(s.members, kv.Member{ID: id}, compareMembers)
}

// apply makes all changes in a cluster of that level, or returns an error, after
// which s must not be used.
func (s *membership) apply(changes []MemberChange, level uint32, updatesOnly bool) error {
	s.members, s.removed = slices.Clone(s.members), slices.Clone(s.removed)
	for i := range changes {
		c := &changes[i]
		if updatesOnly && c.Op != UpdateMember {
			return kv.Errorf(kv.InvalidArgument, "membership is changed by configuration changes only")
		}
		if err := cmp.Or(checkLevel(&c.Member, level), s.change(c)); err != nil {
			return err
		}
	}
	for i := range changes {
		if err := s.checkTwins(changes[i].Member.ID); err != nil {
			return err
		}
	}
	if !updatesOnly && !slices.ContainsFunc(s.members, func(m kv.Member) bool { return !m.Learner }) {
		return kv.Errorf(kv.FailedPrecondition, "no member that votes would be left")
	}
	return nil
}

func (s *membership) change(c *MemberChange) error {
	id := c.Member.ID
	at, ok := s.find(id)
	if c.Op == AddMember {
		return s.add(at, ok, &c.Member)
	}
	if !ok {
		return kv.Errorf(kv.NotFound, "member %v not found: %w", id, kv.ErrMemberNotFound)
	}
	m := &s.members[at]
	switch c.Op {
	case PromoteMember:
		if !m.Learner {
			return kv.ErrNotLearner
		}
		m.Learner = false
	case RemoveMember:
		s.members = slices.Delete(s.members, at, at+1)
		place, _ := slices.BinarySearch(s.removed, id)
		s.removed = slices.Insert(s.removed, place, id)
	case UpdateMember:
		if c.Member.Name != "" {
			m.Name = c.Member.Name
		}
		if c.Member.Level != 0 {
			m.Level, m.Version = c.Member.Level, c.Member.Version
		}
		if len(c.Member.PeerAddrs) > 0 {
			m.PeerAddrs = slices.Clone(c.Member.PeerAddrs)
		}
		if len(c.Member.ClientAddrs) > 0 {
			m.ClientAddrs = slices.Clone(c.Member.ClientAddrs)
		}
		return checkMemberSize(m)
	}
	return nil
}

func (s *membership) add(at int, taken bool, m *kv.Member) error {
	_, removed := slices.BinarySearch(s.removed, m.ID)
	switch {
	case m.ID == 0:
		return kv.Errorf(kv.InvalidArgument, "member id is zero")
	case taken:
		return kv.Errorf(kv.Exists, "member %v already exists: %w", m.ID, kv.ErrMemberExists)
	case removed:
		return kv.Errorf(kv.Exists, "member id %v was removed and cannot be used again: %w", m.ID, kv.ErrMemberExists)
	case len(s.members) >= maxMembers:
		return kv.Errorf(kv.ResourceExhausted, "there are %d members already", len(s.members))
	}
	if err := checkMemberSize(m); err != nil {
		return err
	}
	s.members = slices.Insert(s.members, at, cloneMember(m))
	return nil
}

func checkMemberSize(m *kv.Member) error {
	if n := len(appendMember(nil, m)); n > maxMemberBytes {
		return kv.Errorf(kv.InvalidArgument, "name and addresses of a member have %d bytes; at most %d are allowed", n, maxMemberBytes)
	}
	return nil
}

// checkTwins finds out whether another member has a peer address of the one with
// this id. That may be only while a member whose disk was lost comes back: its
// new identity learns under the name and address of the old one, which votes
// until the new one can take its place in one change.
func (s *membership) checkTwins(id kv.MemberID) error {
	at, ok := s.find(id)
	if !ok {
		return nil
	}
	m := &s.members[at]
	for i := range s.members {
		other := &s.members[i]
		if other.ID == id || m.Learner != other.Learner && m.Name != "" && m.Name == other.Name {
			continue
		}
		for _, addr := range m.PeerAddrs {
			if slices.Contains(other.PeerAddrs, addr) {
				return kv.Errorf(kv.Exists, "member %v has the peer address %s already: %w", other.ID, addr, kv.ErrMemberExists)
			}
		}
	}
	return nil
}

// ApplyMembers applies the entry of a configuration change, whose context is
// change (see [EncodeMembers]; nil where Raft made the entry itself). The result
// is a *kv.Header, or an error, which is the same on every member: then nothing
// was changed, and the configuration of Raft must not be either. It
// panics as [Machine.Apply] does.
func (m *Machine) ApplyMembers(at Position, change []byte) any {
	m.advance(at)
	defer m.publish()
	h := m.header()
	if len(change) == 0 {
		return &h
	}
	d := decoder{data: change}
	changes := d.memberChanges()
	m.gate.who = auth.Subject{}
	var denied error
	if len(d.data) > 0 {
		flags := d.byte()
		if flags == 0 || flags&^byte(callerFlags) != 0 {
			d.fail(errUnknown)
		}
		denied = m.identify(&d, kindMembers, flags)
	}
	if d.end() != nil {
		m.refuse([]byte{byte(kindMembers)}, d.err)
	}
	c := *m.config.Load()
	if err := cmp.Or(denied, c.membership.apply(changes, c.settings.Level, false)); err != nil {
		m.at.hash.mix(uint64(kindMembers), uint64(kv.CodeOf(err))+1)
		return err
	}
	m.configure(&c)
	return &h
}
