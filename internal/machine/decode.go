package machine

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"github.com/concord-kv/concord/kv"
)

var (
	errTruncated = errors.New("it ends too early")
	errTrailing  = errors.New("bytes are left over")
	errRange     = errors.New("a number is out of range")
	errUnknown   = errors.New("unknown kind or flag")
	errVoters    = kv.Errorf(kv.InvalidArgument, "the number of voters is not odd, or more than %d", MaxVoters)
	errNegative  = &kv.Error{Code: kv.InvalidArgument, Message: "a number is negative"}
)

// decoder reads a command. The first error sticks, and everything read after it
// is zero. What it returns aliases the command.
type decoder struct {
	data []byte
	err  error
	// upload holds what staged puts refer to, which is nil where none is.
	upload []byte
	// lost notes that a staged put refers to bytes that are not there.
	lost bool
	// rejected is the result of a command that can be read, but asks for what
	// the limits rule out: somebody did not check them. That is no reason for
	// all members to stop.
	rejected error
}

func (d *decoder) fail(err error) {
	if d.err == nil && d.rejected == nil {
		d.err, d.data = err, nil
	}
}

func (d *decoder) reject(err error) {
	if d.err == nil && d.rejected == nil {
		d.rejected, d.data = err, nil
	}
}

// end complains about bytes that nobody read.
func (d *decoder) end() error {
	if len(d.data) > 0 {
		d.fail(errTrailing)
	}
	if d.rejected != nil {
		return d.rejected
	}
	return d.err
}

func (d *decoder) byte() byte {
	if len(d.data) == 0 {
		d.fail(errTruncated)
		return 0
	}
	b := d.data[0]
	d.data = d.data[1:]
	return b
}

func (d *decoder) uint() uint64 {
	if len(d.data) > 0 && d.data[0] < 0x80 { // most are lengths
		return uint64(d.byte())
	}
	n, w := binary.Uvarint(d.data)
	if w <= 0 {
		d.fail(errTruncated)
		return 0
	}
	d.data = d.data[w:]
	return n
}

// atMost reads a number and rejects the command with err where it is greater.
func (d *decoder) atMost(most uint64, err error) int64 {
	n := d.uint()
	if n > most {
		d.reject(err)
		return 0
	}
	return int64(n)
}

func (d *decoder) int() int64 {
	u := d.uint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.data)) {
		d.fail(errTruncated)
		return nil
	}
	b := d.data[:n:n]
	d.data = d.data[n:]
	return b
}

func (d *decoder) bytes() []byte { return d.take(d.uint()) }

// count reads how many things follow that take at least least bytes each, so
// that a wrong number cannot make us allocate.
func (d *decoder) count(least int) int {
	n := d.uint()
	if n > uint64(len(d.data)/least) {
		d.fail(errTruncated)
		return 0
	}
	return int(n)
}

// ttl reads a length of time, which is in milliseconds.
func (d *decoder) ttl() time.Duration {
	return time.Duration(d.atMost(uint64(kv.MaxTTL/time.Millisecond), kv.ErrTTLTooLarge)) * time.Millisecond
}

// request reads the id of a request where the flags say that there is one.
func (d *decoder) request(flags byte) (id kv.RequestID) {
	if flags&hasRequest != 0 {
		copy(id.Client[:], d.take(uint64(len(id.Client))))
		if id.Seq = d.uint(); id.Seq == 0 {
			d.fail(errRange)
		}
	}
	return id
}

func (d *decoder) uploadID() (id UploadID) {
	copy(id[:], d.take(uint64(len(id))))
	return id
}

// branches reads into t, whose slices it uses again.
func (d *decoder) branches(t *kv.Txn, depth int) {
	if depth > MaxDepth {
		d.reject(kv.Errorf(kv.InvalidArgument, "transactions nest deeper than %d", MaxDepth))
		return
	}
	t.Compare = t.Compare[:0]
	for n := d.count(5); n > 0 && d.err == nil; n-- {
		t.Compare = append(t.Compare, kv.Compare{})
		d.compare(&t.Compare[len(t.Compare)-1])
	}
	for _, ops := range [...]*[]kv.Op{&t.Success, &t.Failure} {
		*ops = (*ops)[:0]
		for n := d.count(3); n > 0 && d.err == nil; n-- {
			*ops = append(*ops, kv.Op{})
			d.op(&(*ops)[len(*ops)-1], depth)
		}
	}
}

func (d *decoder) compare(c *kv.Compare) {
	c.Target, c.Relation = kv.CompareTarget(d.byte()), kv.Relation(d.byte())
	withEnd := d.byte()
	if c.Target > kv.CompareLease || c.Relation > kv.NotEqual || withEnd > 1 {
		d.fail(errUnknown)
	}
	c.Key = d.bytes()
	if withEnd == 1 {
		c.End = d.bytes()
	}
	if c.Target == kv.CompareValue {
		c.Value = d.bytes()
	} else {
		c.Number = d.int()
	}
}

func (d *decoder) op(op *kv.Op, depth int) {
	op.Kind = kv.OpKind(d.byte())
	switch op.Kind {
	case kv.OpPut:
		d.put(op)
	case kv.OpDelete:
		bits := d.byte()
		if bits&^(bitPrev|bitEnd) != 0 {
			d.fail(errUnknown)
		}
		op.PrevKV = bits&bitPrev != 0
		op.Key = d.bytes()
		if bits&bitEnd != 0 {
			op.End = d.bytes()
		}
	case kv.OpRange:
		op.Range = new(kv.Range)
		d.rangeOp(op.Range)
	case kv.OpTxn:
		op.Txn = new(kv.Txn)
		d.branches(op.Txn, depth+1)
	default:
		d.fail(errUnknown)
	}
}

func (d *decoder) put(op *kv.Op) {
	bits := d.byte()
	if bits&bitEnd != 0 || bits >= bitStaged<<1 {
		d.fail(errUnknown)
	}
	op.Kind = kv.OpPut
	op.PrevKV = bits&bitPrev != 0
	op.IgnoreValue = bits&bitIgnoreValue != 0
	op.IgnoreLease = bits&bitIgnoreLease != 0
	op.Key = d.bytes()
	if bits&bitStaged == 0 {
		op.Value = d.bytes()
	} else {
		op.Value = d.staged()
	}
	if bits&bitLease != 0 {
		op.Lease = kv.LeaseID(d.int())
	}
	if bits&bitTTL != 0 {
		op.TTL = d.ttl()
	}
}

// staged reads where in the upload a value lies and returns it.
func (d *decoder) staged() []byte {
	offset, n := d.uint(), d.uint()
	if have := uint64(len(d.upload)); offset > have || n > have-offset {
		d.lost = true
		return nil
	}
	return d.upload[offset : offset+n : offset+n]
}

func (d *decoder) rangeOp(r *kv.Range) {
	bits := d.uint()
	if bits >= rangeMaxCreate<<1 {
		d.fail(errUnknown)
	}
	r.Key = d.bytes()
	if bits&rangeEnd != 0 {
		r.End = d.bytes()
	}
	r.KeysOnly, r.CountOnly = bits&rangeKeysOnly != 0, bits&rangeCountOnly != 0
	var n [7]int64
	for i := range n {
		if bits&(rangeRevision<<i) != 0 {
			n[i] = d.int()
		}
	}
	r.Revision, r.Limit = kv.Revision(n[0]), n[1]
	r.Sort = kv.Sort{By: kv.SortTarget(n[2] >> 2 & 0xff), Order: kv.SortOrder(n[2] & 3)}
	if n[2] < 0 || n[2]>>2 > int64(kv.SortByValue) || r.Sort.Order > kv.Descending {
		d.fail(errUnknown)
	}
	r.MinMod, r.MaxMod = kv.Revision(n[3]), kv.Revision(n[4])
	r.MinCreate, r.MaxCreate = kv.Revision(n[5]), kv.Revision(n[6])
}

func (d *decoder) expire() (term kv.Term, leases []ExpiredLease, keys []ExpiredKey) {
	term = kv.Term(d.uint())
	for n := d.count(2); n > 0 && d.err == nil; n-- {
		leases = append(leases, ExpiredLease{ID: kv.LeaseID(d.int()), Generation: d.uint()})
	}
	for n := d.count(2); n > 0 && d.err == nil; n-- {
		keys = append(keys, ExpiredKey{Key: d.bytes(), Mod: kv.Revision(d.uint())})
	}
	return term, leases, keys
}

// maxVersion bounds the length of a version.
const maxVersion = 64

// The bits of settings.
const (
	settingLeaderReads = 1 << iota
	settingRetention
	settingHistoryBytes
	_ // a setting that is no more
	settingAutopilot
	settingVoters
	settingDeadAfter
	settingLevel
	settingNewer
)

// MaxVoters is the greatest number of voters that can be asked for.
const MaxVoters = 99

// settings reads a change and makes it to s.
func (d *decoder) settings(s *Settings) {
	bits := d.uint()
	if bits&(settingHistoryBytes<<1) != 0 || bits >= settingNewer {
		d.fail(errUnknown)
	}
	if bits&settingLeaderReads != 0 {
		s.LeaderReads = d.byte() == 1
	}
	if bits&settingRetention != 0 {
		s.Retention = d.ttl()
	}
	if bits&settingHistoryBytes != 0 {
		s.HistoryBytes = d.atMost(math.MaxInt64, errNegative)
	}
	if bits&settingAutopilot != 0 {
		s.Autopilot = d.byte() == 1
	}
	if bits&settingVoters != 0 {
		s.Voters = int(d.atMost(MaxVoters, errVoters))
		if s.Voters%2 == 0 && s.Voters != 0 {
			d.reject(errVoters)
		}
	}
	if bits&settingDeadAfter != 0 {
		s.DeadAfter = d.ttl()
	}
	if bits&settingLevel != 0 {
		s.Level = uint32(d.atMost(math.MaxUint32, errRange))
	}
}
