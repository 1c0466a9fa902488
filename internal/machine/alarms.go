package machine

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// The commands of upkeep have kinds far from the others'.
//
//	alarm     = raised (1 byte) member (8 bytes, little endian) type
//	downgrade = version
const (
	kindAlarm kind = iota + 64
	kindDowngrade
)

// maxAlarms bounds the table; a client may name members that are none.
const maxAlarms = 1 << 10

// upkeep is the part of the config that nobody changes in daily life. Its slice
// is replaced, never changed.
type upkeep struct {
	alarms    []kv.Alarm // by type and member
	downgrade string
}

func compareAlarms(a, b kv.Alarm) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Member, b.Member))
}

// EncodeAlarm encodes that an alarm is raised or cleared. Its result is a *bool,
// whether that changed anything, or an error.
func EncodeAlarm(dst []byte, a kv.Alarm, raised bool) []byte {
	dst = append(dst, byte(kindAlarm), 0, boolByte(raised))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(a.Member))
	return binary.AppendUvarint(dst, uint64(a.Type))
}

// EncodeDowngrade encodes the version that the cluster is being taken down to;
// empty for none. Its result is a *kv.Header.
func EncodeDowngrade(dst []byte, version string) []byte {
	return appendBytes(append(dst, byte(kindDowngrade), 0), version)
}

// runUpkeep runs the commands of upkeep.
func (m *Machine) runUpkeep(d *decoder, k kind) any {
	c := *m.config.Load()
	if k == kindDowngrade {
		c.downgrade = string(d.bytes())
		if len(c.downgrade) > maxVersion {
			d.reject(kv.Errorf(kv.InvalidArgument, "a version of %d bytes is none", len(c.downgrade)))
		}
		if d.end() != nil {
			return nil
		}
		m.at.hash.mix(uint64(kindDowngrade), sum([]byte(c.downgrade)))
		m.setConfig(&c)
		h := m.header()
		return &h
	}
	raised, id := d.byte() == 1, d.take(8)
	t := kv.AlarmType(d.atMost(math.MaxInt32, errRange))
	if d.end() != nil {
		return nil
	}
	a := kv.Alarm{Member: kv.MemberID(binary.LittleEndian.Uint64(id)), Type: t}
	changed, err := c.setAlarm(a, raised)
	if err != nil {
		return err
	}
	if changed {
		m.at.hash.mix(uint64(a.Member), uint64(a.Type)<<1|uint64(boolByte(raised)))
		m.setConfig(&c)
	}
	return &changed
}

func (u *upkeep) setAlarm(a kv.Alarm, raised bool) (changed bool, err error) {
	i, found := slices.BinarySearchFunc(u.alarms, a, compareAlarms)
	switch {
	case a.Type == kv.AlarmAny || found == raised:
		return false, nil
	case !raised:
		u.alarms = slices.Delete(slices.Clone(u.alarms), i, i+1)
		return true, nil
	case len(u.alarms) >= maxAlarms:
		return false, kv.Errorf(kv.ResourceExhausted, "there are %d alarms already", len(u.alarms))
	}
	u.alarms = slices.Insert(slices.Clone(u.alarms), i, a)
	return true, nil
}

func (u *upkeep) raised(t kv.AlarmType) bool {
	return slices.ContainsFunc(u.alarms, func(a kv.Alarm) bool { return a.Type == t })
}

func (m *Machine) alarmed() bool { return len(m.config.Load().alarms) > 0 }

// refusal is why an alarm keeps a command from being run, or nil: grows says
// that it would add keys or leases.
func (m *Machine) refusal(grows bool) error {
	u := &m.config.Load().upkeep
	switch {
	case len(u.alarms) == 0:
		return nil
	case u.raised(kv.AlarmCorrupt):
		return kv.ErrCorrupt
	case grows && u.raised(kv.AlarmNoSpace):
		return kv.ErrNoSpace
	}
	return nil
}

// grows reports whether a branch of t puts a key, taken or not: so etcd has it.
func grows(t *kv.Txn) bool {
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		for i := range ops {
			if op := &ops[i]; op.Kind == kv.OpPut || op.Kind == kv.OpTxn && grows(op.Txn) {
				return true
			}
		}
	}
	return false
}

// suspended reports whether nothing may expire, because the members differ.
func (m *Machine) suspended() bool { return m.config.Load().raised(kv.AlarmCorrupt) }

// Alarms lists the alarms by type and member, as applied last. Any goroutine.
func (m *Machine) Alarms() []kv.Alarm { return slices.Clone(m.config.Load().alarms) }

// Downgrade is the version that the cluster is being taken down to. Any
// goroutine.
func (m *Machine) Downgrade() string { return m.config.Load().downgrade }

func (u *upkeep) write(s *sectionWriter) {
	s.uint(uint64(len(u.alarms)))
	for _, a := range u.alarms {
		s.uint(uint64(a.Type))
		s.uint(uint64(a.Member))
	}
	s.string(u.downgrade)
}

func (u *upkeep) read(s *sectionReader) {
	s.each(maxAlarms, func() {
		u.alarms = append(u.alarms, kv.Alarm{Type: kv.AlarmType(s.most(math.MaxInt32)), Member: kv.MemberID(s.uint())})
	})
	u.downgrade = string(s.bytes(maxVersion))
	if !slices.IsSortedFunc(u.alarms, compareAlarms) {
		s.failf("alarms are out of order")
	}
}
