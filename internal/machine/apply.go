package machine

import (
	"bytes"
	"math"
	"slices"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
)

// maxKey is the longest key that can be stored; see [kv.Limits].
const maxKey = 64 << 10

// run applies one command. Unless want is set the result may be left out.
func (m *Machine) run(command []byte, want bool) any {
	d := decoder{data: command}
	k, flags := kind(d.byte()), d.byte()
	if flags&^(hasRequest|callerFlags|hasTrace) != 0 || flags&hasRequest != 0 && k != kindTxn && k != kindUploadTxn {
		d.fail(errUnknown)
	}
	if flags&hasTrace != 0 {
		d.trace()
	}
	m.gate.who = auth.Subject{}
	if flags&callerFlags != 0 {
		if err := m.identify(&d, k, flags); err != nil && d.err == nil {
			return err
		}
	}
	var result any
	switch {
	case d.err != nil:
	case k == kindPut:
		var op kv.Op
		d.put(&op)
		if d.end() == nil && !d.lost {
			return m.runPut(&op, want)
		}
	case k == kindTxn || k == kindUploadTxn:
		result = m.runTxn(&d, k, flags)
	case k == kindExpire:
		result = m.runExpire(&d)
	case k <= kindCompact:
		result = m.runLease(&d, k)
	case k == kindAlarm || k == kindDowngrade:
		result = m.runUpkeep(&d, k)
	case k == kindAuth || k == kindToken || k == kindAccess:
		result = m.runAuth(&d, k)
	default:
		result = m.runConfig(&d, k)
	}
	if d.rejected != nil {
		return d.rejected
	}
	if d.err != nil || result == nil {
		m.refuse(command, d.err)
	}
	return result
}

// refuse stops the member.
func (m *Machine) refuse(command []byte, err error) {
	e := &CommandError{Index: m.at.index, Reason: errUnknown.Error()}
	if len(command) > 0 {
		e.Kind = command[0]
	}
	if err != nil {
		e.Reason = err.Error()
	}
	panic(e)
}

// putResult is the result of a transaction of one put.
type putResult struct {
	kv.TxnResult
	ops [1]kv.OpResult
}

// resultsAtOnce is how many results of puts share an allocation: whoever keeps
// one keeps two kilobytes.
const resultsAtOnce = 16

// newPutResult returns a result that shares its memory with others, unless it
// leads to a value.
func (m *Machine) newPutResult(prev []kv.KeyValue) *putResult {
	var r *putResult
	switch {
	case prev != nil:
		r = &putResult{}
	case len(m.results) == 0:
		m.results = make([]putResult, resultsAtOnce)
		fallthrough
	default:
		r, m.results = &m.results[0], m.results[1:]
	}
	r.ops[0] = kv.OpResult{Kind: kv.OpPut, Prev: prev}
	r.Ops = r.ops[:]
	return r
}

func (m *Machine) runPut(op *kv.Op, want bool) any {
	if err := m.refusal(true); err != nil {
		return err
	}
	if m.gate.who.Bound() {
		if err := m.mayPut(op); err != nil {
			return err
		}
	}
	tx := m.store.Begin()
	if err := m.checkPut(tx, op); err != nil {
		tx.Discard()
		return err
	}
	prev := m.put(tx, op)
	var before []kv.KeyValue
	if want && op.PrevKV && prev.Version != 0 {
		before = []kv.KeyValue{prev.Clone()}
	}
	revision := tx.Commit()
	if !want {
		return (*kv.TxnResult)(nil)
	}
	result := m.newPutResult(before)
	result.Header = kv.Header{Revision: revision, Time: m.at.now}
	result.Succeeded = true
	return &result.TxnResult
}

// hasLease takes mu, because [Machine.Due] moves deadlines about in the table.
func (m *Machine) hasLease(id kv.LeaseID) bool {
	m.lock()
	_, ok := m.shared.leases.Get(id)
	return ok
}

// checkPut finds out what would keep a put from being made. Limits were checked
// before, but those of the store are asserted: past them it would panic.
func (m *Machine) checkPut(r reader, op *kv.Op) error {
	if err := checkKey(op.Key); err != nil {
		return err
	}
	if op.Lease != 0 && !m.hasLease(op.Lease) {
		return kv.ErrLeaseNotFound
	}
	if op.IgnoreValue || op.IgnoreLease {
		if _, ok := r.Get(op.Key); !ok {
			return kv.ErrKeyNotFound
		}
	}
	return nil
}

func checkKey(key []byte) error {
	switch n := len(key); {
	case n == 0:
		return kv.ErrEmptyKey
	case n > maxKey:
		return kv.ErrKeyTooLarge
	}
	return nil
}

// put makes a put that was checked, and returns what it replaced.
func (m *Machine) put(tx *mvcc.Tx, op *kv.Op) mvcc.Record {
	value, id, expires := op.Value, op.Lease, kv.Time(0)
	if op.IgnoreValue || op.IgnoreLease {
		old, _ := tx.Get(op.Key)
		if op.IgnoreValue {
			value = old.Value
		}
		if op.IgnoreLease {
			id = old.Lease
		}
	}
	if op.TTL > 0 {
		expires = m.at.now.Add(op.TTL)
	}
	now, prev := tx.Put(op.Key, value, id, expires)
	m.link(op.Key, &prev, id, expires)
	m.at.written += int64(len(op.Key)+len(value)) + recordOverhead
	m.at.hash.put(op.Key, value, &now.KeyValue)
	return prev
}

// link moves a key from the lease and deadline that it had to new ones.
func (m *Machine) link(key []byte, prev *mvcc.Record, id kv.LeaseID, expires kv.Time) {
	if prev.Lease == id && prev.Expires == expires {
		return
	}
	m.lock()
	if leases := m.shared.leases; prev.Lease != id {
		if prev.Lease != 0 {
			leases.Detach(prev.Lease, key)
		}
		if id != 0 {
			leases.Attach(id, key)
		}
	}
	m.shared.leases.SetTTL(key, prev.Expires, expires)
}

// delete removes a key where it exists, and returns it.
func (m *Machine) delete(tx *mvcc.Tx, key []byte) (prev mvcc.Record, existed bool) {
	if prev, existed = tx.Delete(key); existed {
		m.link(key, &prev, 0, 0)
		m.at.written += int64(len(key)) + recordOverhead
		m.at.hash.bytes(key)
		m.at.hash.mix(uint64(tx.Revision()), uint64(prev.ModRevision))
	}
	return prev, existed
}

// runLease runs the commands that change leases, and a few others.
func (m *Machine) runLease(d *decoder, k kind) any {
	if k != kindKeepAlive {
		if err := m.refusal(k == kindGrant || k == kindPiece); err != nil {
			return err
		}
	}
	switch k {
	case kindPiece:
		id, offset, total := d.uploadID(), d.uint(), d.uint()
		if d.err != nil {
			return nil
		}
		if err := m.uploads.add(id, span{offset, d.data}, total, m.at.now); err != nil {
			return err
		}
		m.at.hash.bytes(id[:])
		m.at.hash.bytes(d.data)
		m.at.hash.mix(offset, total)
	case kindGrant:
		id, ttl := kv.LeaseID(d.int()), d.ttl().Milliseconds()
		if d.end() != nil {
			return nil
		}
		return m.grant(id, ttl)
	case kindKeepAlive:
		ids := make([]kv.LeaseID, 0, 1)
		for n := d.count(1); n > 0; n-- {
			ids = append(ids, kv.LeaseID(d.int()))
		}
		if d.end() != nil {
			return nil
		}
		return m.keepAlive(ids)
	case kindRevoke:
		id := kv.LeaseID(d.int())
		if d.end() != nil {
			return nil
		}
		if !m.hasLease(id) {
			return kv.ErrLeaseNotFound
		}
		if err := m.mayLease(id); err != nil {
			return err
		}
		m.revoke(id)
	case kindCompact:
		rev := kv.Revision(d.atMost(math.MaxInt64, errNegative))
		if d.end() != nil {
			return nil
		}
		if err := m.compact(rev); err != nil {
			return err
		}
	default:
		d.fail(errUnknown)
		return nil
	}
	h := m.header()
	return &h
}

func (m *Machine) grant(id kv.LeaseID, ttl int64) any {
	switch {
	case id <= 0:
		return kv.Errorf(kv.InvalidArgument, "lease id %d is not positive", int64(id))
	case ttl == 0:
		return kv.ErrInvalidTTL
	}
	m.lock()
	l, err := m.shared.leases.Grant(id, ttl, m.at.now)
	if err != nil {
		return err
	}
	m.hashLease(l)
	return &kv.LeaseResult{Header: m.header(), ID: id, TTL: l.Duration(), Left: l.Duration()}
}

func (m *Machine) keepAlive(ids []kv.LeaseID) any {
	m.lock()
	h := m.header()
	results := make([]kv.LeaseResult, len(ids))
	for i, id := range ids {
		results[i] = kv.LeaseResult{Header: h, ID: id}
		err := m.mayLease(id)
		var l lease.Lease
		if err == nil {
			l, err = m.shared.leases.Renew(id, m.at.now)
		}
		if err != nil {
			if len(ids) == 1 {
				return err
			}
			continue
		}
		m.hashLease(l)
		results[i].TTL, results[i].Left = l.Duration(), l.Duration()
	}
	if len(ids) == 1 {
		return &results[0]
	}
	return results
}

func (m *Machine) hashLease(l lease.Lease) {
	m.at.hash.mix(uint64(l.ID), l.Generation)
	m.at.hash.mix(uint64(l.TTL), uint64(l.Deadline))
}

// revoke ends a lease and deletes its keys in order, at one revision.
func (m *Machine) revoke(id kv.LeaseID) {
	m.lock()
	m.doomed = m.doomed[:0]
	for key := range m.shared.leases.Keys(id) {
		m.doomed = append(m.doomed, bytes.Clone(key))
	}
	m.deleteDoomed()
	m.shared.leases.Revoke(id)
	m.at.hash.mix(uint64(id), uint64(kindRevoke))
}

// deleteDoomed deletes the keys listed, at one revision.
func (m *Machine) deleteDoomed() {
	tx := m.store.Begin()
	for _, key := range m.doomed {
		m.delete(tx, key)
	}
	if tx.Changed() {
		tx.Commit()
	} else {
		tx.Discard()
	}
	clear(m.doomed)
}

// runExpire ends what the leader of this term found due, unless it was renewed
// or changed since: a lease at a revision of its own, as etcd does, the keys
// with a TTL together at one.
func (m *Machine) runExpire(d *decoder) any {
	term, leases, keys := d.expire()
	if d.end() != nil {
		return nil
	}
	if term == m.at.term && !m.suspended() {
		m.lock()
		for _, e := range leases {
			l, ok := m.shared.leases.Get(e.ID)
			if ok && l.Generation == e.Generation && l.Deadline <= m.at.now {
				m.revoke(e.ID)
			}
		}
		m.expireKeys(keys)
	}
	h := m.header()
	return &h
}

func (m *Machine) expireKeys(keys []ExpiredKey) {
	m.doomed = m.doomed[:0]
	tx := m.store.Begin()
	for _, k := range keys {
		r, ok := tx.Get(k.Key)
		if ok && r.ModRevision == k.Mod && r.Expires != 0 && r.Expires <= m.at.now {
			m.doomed = append(m.doomed, k.Key)
		}
	}
	tx.Discard()
	slices.SortFunc(m.doomed, bytes.Compare)
	m.deleteDoomed()
}

func (m *Machine) compact(rev kv.Revision) error {
	switch compacted := m.store.CompactRevision(); {
	case rev <= compacted:
		return &kv.CompactedError{Compacted: compacted}
	case rev > m.store.Revision():
		return kv.ErrFutureRevision
	}
	m.store.SetCompacted(rev)
	m.lock()
	m.shared.history.compacted(rev)
	m.at.hash.mix(uint64(rev), uint64(kindCompact))
	return nil
}

// runConfig runs the commands that change settings and members.
func (m *Machine) runConfig(d *decoder, k kind) any {
	c := *m.config.Load()
	switch k {
	case kindSettings:
		level := c.settings.Level
		d.settings(&c.settings)
		if d.end() != nil {
			return nil
		}
		c.settings.Level = max(level, min(c.settings.Level, c.membership.level()))
		if c.settings.Level > m.options.Level {
			panic(&LevelError{Cluster: c.settings.Level, Program: m.options.Level})
		}
	case kindMembers:
		changes := d.memberChanges()
		if d.end() != nil {
			return nil
		}
		if err := c.membership.apply(changes, c.settings.Level, true); err != nil {
			return err
		}
	default:
		d.fail(errUnknown)
		return nil
	}
	m.configure(&c)
	h := m.header()
	return &h
}

func (m *Machine) configure(c *config) {
	m.setConfig(c)
	c.settings.hash(&m.at.hash)
	c.membership.hash(&m.at.hash)
}
