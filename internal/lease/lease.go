// Package lease keeps deadlines in cluster time: leases with the keys attached
// to them, and the TTLs of single keys.
//
// It is pure: time comes in as an argument, and nothing expires by itself. A
// lease lives until it is revoked, however long its deadline has passed; who
// wants it gone asks [Table.Due] and revokes.
package lease

import (
	"encoding/binary"
	"iter"
	"math"
	"time"
	"unsafe"

	"github.com/tidwall/btree"

	"github.com/concord-kv/concord/kv"
)

// Lease is a deadline that was granted.
type Lease struct {
	ID kv.LeaseID
	// TTL is its full length in milliseconds.
	TTL int64
	// Deadline is the last time at which it certainly lives.
	Deadline kv.Time
	// Generation counts its renewals.
	Generation uint64
}

// Duration is the lease's full length.
func (l Lease) Duration() time.Duration { return time.Duration(l.TTL) * time.Millisecond }

// Left is what remains of the lease at now; it is not negative.
func (l Lease) Left(now kv.Time) time.Duration { return max(0, l.Deadline.Sub(now)) }

// record is a lease in the table. due is where it stands among the deadlines:
// at or before its own, because a renewal does not move it; [Table.Due] does
// when it comes across. So a renewal costs one search in one tree.
type record struct {
	ttl        int64
	deadline   kv.Time
	due        kv.Time
	generation uint64
}

// Table holds leases and deadlines. The zero Table is not ready; use [New]. It
// is for one goroutine at a time, but a [Table.Copy] may be read by any number.
type Table struct {
	leases *btree.Map[kv.LeaseID, record]
	// deadlines has due and id of each lease, big endian.
	deadlines *set
	// attached has the id of a lease, big endian, and a key.
	attached *set
	// ttls has the time a key expires, big endian, and the key.
	ttls *set
	// scratch is where the entries to search for are put together.
	scratch []byte
}

// New returns an empty table.
func New() *Table {
	return &Table{leases: new(btree.Map[kv.LeaseID, record]), deadlines: newSet(), attached: newSet(), ttls: newSet()}
}

// Copy returns the table as it is now, to read only. It costs O(1); later
// changes to t copy what they touch.
func (t *Table) Copy() *Table {
	return &Table{leases: t.leases.Copy(), deadlines: t.deadlines.copy(), attached: t.attached.copy(), ttls: t.ttls.copy()}
}

// Len counts the leases; Attached and TTLs count the keys that have a lease and
// a TTL.
func (t *Table) Len() int { return t.leases.Len() }

// Attached counts the keys attached to leases.
func (t *Table) Attached() int { return t.attached.n }

// TTLs counts the keys that have a TTL of their own.
func (t *Table) TTLs() int { return t.ttls.n }

// Get returns a lease.
func (t *Table) Get(id kv.LeaseID) (Lease, bool) {
	r, ok := t.leases.Get(id)
	return r.lease(id), ok
}

func (r record) lease(id kv.LeaseID) Lease {
	return Lease{ID: id, TTL: r.ttl, Deadline: r.deadline, Generation: r.generation}
}

// All yields the leases by id.
func (t *Table) All() iter.Seq[Lease] {
	return func(yield func(Lease) bool) {
		t.leases.Scan(func(id kv.LeaseID, r record) bool { return yield(r.lease(id)) })
	}
}

// Grant adds a lease of ttl milliseconds from now. It returns
// [kv.ErrLeaseExists] when the id is taken.
func (t *Table) Grant(id kv.LeaseID, ttl int64, now kv.Time) (Lease, error) {
	if _, ok := t.leases.Get(id); ok {
		return Lease{}, kv.ErrLeaseExists
	}
	l := Lease{ID: id, TTL: ttl, Deadline: now + kv.Time(ttl)}
	t.add(l)
	return l, nil
}

func (t *Table) add(l Lease) {
	t.leases.Set(l.ID, record{ttl: l.TTL, deadline: l.Deadline, due: l.Deadline, generation: l.Generation})
	t.deadlines.insert(t.entry(uint64(l.Deadline), uint64(l.ID)))
}

// Renew moves the deadline to a full TTL from now and counts one generation. It
// returns [kv.ErrLeaseNotFound] when there is no such lease.
func (t *Table) Renew(id kv.LeaseID, now kv.Time) (Lease, error) {
	r, ok := t.leases.Get(id)
	if !ok {
		return Lease{}, kv.ErrLeaseNotFound
	}
	r.deadline = now + kv.Time(r.ttl)
	r.generation++
	t.leases.Set(id, r)
	return r.lease(id), nil
}

// Revoke removes a lease and detaches its keys. It reports whether there was
// such a lease.
func (t *Table) Revoke(id kv.LeaseID) bool {
	r, ok := t.leases.Delete(id)
	if !ok {
		return false
	}
	t.deadlines.remove(t.entry(uint64(r.due), uint64(id)))
	var keys []string
	for key := range t.Keys(id) {
		keys = append(keys, string(key))
	}
	for _, key := range keys {
		t.Detach(id, []byte(key))
	}
	return true
}

// Keys yields the keys attached to a lease in order. They alias the table: they
// must not be changed, nor the table while they are used.
func (t *Table) Keys(id kv.LeaseID) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var prefix [8]byte
		binary.BigEndian.PutUint64(prefix[:], uint64(id))
		for e := range t.attached.from(string(prefix[:])) {
			if binary.BigEndian.Uint64(e) != uint64(id) || !yield(e[8:]) {
				return
			}
		}
	}
}

// Attach notes that a key belongs to a lease, which must exist.
func (t *Table) Attach(id kv.LeaseID, key []byte) {
	t.attached.insert(t.keyEntry(uint64(id), key))
}

// Detach takes back an Attach.
func (t *Table) Detach(id kv.LeaseID, key []byte) {
	t.attached.remove(t.keyEntry(uint64(id), key))
}

// SetTTL notes that a key, which expired at old, now expires at expires; zero
// means never.
func (t *Table) SetTTL(key []byte, old, expires kv.Time) {
	if old == expires {
		return
	}
	if old != 0 {
		t.ttls.remove(t.keyEntry(uint64(old), key))
	}
	if expires != 0 {
		t.ttls.insert(t.keyEntry(uint64(expires), key))
	}
}

// Due appends to leases those whose deadline has come at now, earliest first,
// until it holds max of them. More says that there may be others: it stops
// early also after max deadlines that turned out to be renewed.
//
// It changes how the deadlines are kept, but nothing that can be seen.
func (t *Table) Due(leases []Lease, now kv.Time, max int) (_ []Lease, more bool) {
	type moved struct {
		id  kv.LeaseID
		due kv.Time
	}
	var renewed []moved
	for e := range t.deadlines.from("") {
		due, id := kv.Time(binary.BigEndian.Uint64(e)), kv.LeaseID(binary.BigEndian.Uint64(e[8:]))
		if due > now {
			break
		}
		if len(leases) >= max || len(renewed) >= max {
			more = true
			break
		}
		if r, _ := t.leases.Get(id); r.deadline > now {
			renewed = append(renewed, moved{id, due})
		} else {
			leases = append(leases, r.lease(id))
		}
	}
	for _, m := range renewed {
		t.deadlines.remove(t.entry(uint64(m.due), uint64(m.id)))
		r, _ := t.leases.Get(m.id)
		r.due = r.deadline
		t.leases.Set(m.id, r)
		t.deadlines.insert(t.entry(uint64(r.due), uint64(m.id)))
	}
	return leases, more
}

// DueKeys yields the keys whose TTL is over at now, earliest first, with the
// time at which they expired. They alias the table.
func (t *Table) DueKeys(now kv.Time) iter.Seq2[kv.Time, []byte] {
	return func(yield func(kv.Time, []byte) bool) {
		for e := range t.ttls.from("") {
			at := kv.Time(binary.BigEndian.Uint64(e))
			if at > now || !yield(at, e[8:]) {
				return
			}
		}
	}
}

// Next returns a time before which nothing is due, and [math.MaxInt64] where
// nothing ever is. A lease that was renewed may be due later than said.
func (t *Table) Next() kv.Time {
	next := kv.Time(math.MaxInt64)
	for _, s := range [...]*set{t.deadlines, t.ttls} {
		for e := range s.from("") {
			next = min(next, kv.Time(binary.BigEndian.Uint64(e)))
			break
		}
	}
	return next
}

// entry puts together what deadlines holds. The string is good until the next
// entry is: the sets copy what they keep.
func (t *Table) entry(a, b uint64) string {
	t.scratch = binary.BigEndian.AppendUint64(t.scratch[:0], a)
	t.scratch = binary.BigEndian.AppendUint64(t.scratch, b)
	return unsafe.String(&t.scratch[0], len(t.scratch))
}

// keyEntry puts together what attached and ttls hold.
func (t *Table) keyEntry(a uint64, key []byte) string {
	t.scratch = append(binary.BigEndian.AppendUint64(t.scratch[:0], a), key...)
	return unsafe.String(&t.scratch[0], len(t.scratch))
}
