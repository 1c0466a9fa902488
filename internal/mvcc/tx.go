package mvcc

import (
	"fmt"
	"unsafe"

	"github.com/concord-kv/concord/kv"
)

// Record is a key as it stands at some revision. Inside a transaction its Key
// and Value lie in the store's pages: they must not be changed, and must not be
// used after the next Tx.Commit, CompactStep, Load or Close. Clone copies them.
type Record struct{ kv.KeyValue }

// Clone returns a copy that the caller owns.
func (r Record) Clone() kv.KeyValue {
	buf := make([]byte, len(r.Key)+len(r.Value))
	n := copy(buf, r.Key)
	copy(buf[n:], r.Value)
	out := r.KeyValue
	out.Key, out.Value = buf[:n:n], buf[n:]
	return out
}

// Tx is a transaction. It reads its own writes; others see them after Commit,
// all at once.
type Tx struct {
	s       *Store
	open    bool
	touched []ref // versions written, in order
}

// Begin starts the next transaction. There is one at a time.
func (s *Store) Begin() *Tx {
	if s.tx.open {
		panic("mvcc: a transaction was begun while another is open")
	}
	s.tx.open = true
	return &s.tx
}

// Revision is what Commit makes current if anything changes.
func (t *Tx) Revision() kv.Revision { return t.s.Revision() + 1 }

// Changed reports whether the transaction has changed anything.
func (t *Tx) Changed() bool { return len(t.touched) > 0 }

// Get returns the key as it stands, own writes included, without copying.
func (t *Tx) Get(key []byte) (Record, bool) {
	s := t.s
	r := s.hash.find(s.hash.sum(key), key)
	if r == 0 {
		return Record{}, false
	}
	k := s.key(r)
	v := s.version(k.newest())
	if v.tombstone() {
		return Record{}, false
	}
	return record(k, v), true
}

// Range is [View.Range] on the state with own writes.
func (t *Tx) Range(r *kv.Range) (kv.RangeResult, error) {
	v := View{s: t.s, rev: t.s.Revision(), compacted: t.s.CompactRevision(), open: true}
	if t.Changed() {
		v.rev++
	}
	return v.Range(r)
}

// Ascend yields the keys of a range that exist, in order, own writes included,
// without copying. Nothing may be written while it runs.
func (t *Tx) Ascend(key, end []byte, yield func(Record) bool) {
	s := t.s
	s.scan(key, end, t.Revision(), func(found []found) bool {
		for _, f := range found {
			if !yield(record(s.key(f.key), s.version(f.version))) {
				return false
			}
		}
		return true
	})
}

// Put writes a key. It returns what it wrote and what that replaced: prev is
// zero, its Version too, when the key did not exist. Within a transaction the
// last write to a key counts.
func (t *Tx) Put(key, value []byte, lease kv.LeaseID, expires kv.Time) (now, prev Record) {
	s := t.s
	t.check(key)
	sum := s.hash.sum(key)
	f := fields{create: t.Revision(), version: 1, lease: lease, expires: expires, value: value}
	r := s.hash.find(sum, key)
	if r == 0 {
		r, k := newKey(&s.keys, key, uint32(sum>>32), 0)
		t.write(k, r, &f, false)
		s.hash.insert(sum, r)
		s.tree.insert(key, r)
		add(&s.counts.keys, 1)
		add(&s.counts.live, int64(len(key)+len(value)))
		return t.written(k, &f), Record{}
	}
	k := s.key(r)
	old := s.version(k.newest())
	if old.tombstone() {
		add(&s.counts.keys, 1)
		add(&s.counts.live, int64(len(key)+len(value)))
	} else {
		prev = record(k, old)
		f.create, f.version = prev.CreateRevision, prev.Version+1
		add(&s.counts.live, int64(len(value)-len(prev.Value)))
	}
	t.write(k, r, &f, false)
	return t.written(k, &f), prev
}

func (t *Tx) written(k keyRecord, f *fields) Record {
	return Record{kv.KeyValue{
		Key: k.bytes(), Value: f.value, CreateRevision: f.create, ModRevision: t.Revision(),
		Version: f.version, Lease: f.lease, Expires: f.expires,
	}}
}

// Delete removes a key and returns what it was, if it existed.
func (t *Tx) Delete(key []byte) (prev Record, existed bool) {
	s := t.s
	t.check(key)
	r := s.hash.find(s.hash.sum(key), key)
	if r == 0 {
		return Record{}, false
	}
	k := s.key(r)
	old := s.version(k.newest())
	if old.tombstone() {
		return Record{}, false
	}
	prev = record(k, old)
	add(&s.counts.keys, -1)
	add(&s.counts.live, -int64(len(prev.Key)+len(prev.Value)))
	t.write(k, r, &fields{}, true)
	return prev, true
}

func (t *Tx) check(key []byte) {
	if !t.open {
		panic("mvcc: a write outside a transaction")
	}
	if len(key) == 0 || len(key) > maxKey {
		panic(fmt.Sprintf("mvcc: a key of %d bytes got past the limits", len(key)))
	}
}

// write adds a version to key k at r. Readers see the key's new version at once
// and pass over it until its revision is current.
func (t *Tx) write(k keyRecord, r ref, f *fields, tombstone bool) {
	s, mod, prev := t.s, t.Revision(), k.newest()
	f.sub = int64(len(t.touched))
	at := len(t.touched)
	if prev != 0 {
		old := s.version(prev)
		if old.mod() == mod { // written before in this transaction
			f.sub = old.fields().sub
			at = int(f.sub)
			below := old.prev()
			add(&s.counts.versions, -1)
			if old.tombstone() {
				add(&s.counts.history, -old.size())
			}
			defer s.killVersion(prev)
			prev = below
		} else if !old.tombstone() {
			add(&s.counts.history, old.size())
		}
	}
	head, size := versionHead(f, mod, tombstone)
	if tombstone {
		add(&s.counts.history, size)
		add(&s.counts.deletes, 1)
	} else {
		add(&s.counts.puts, 1)
	}
	var v ref
	var p unsafe.Pointer
	if head&flagLarge != 0 {
		v, p = s.mem.allocLarge(size, int64(mod))
	} else {
		v, p = s.versions.alloc(size)
		s.versions.maxRev = int64(mod)
	}
	fill(p, head, mod, f)
	w := version{(*[8]uint64)(p)}
	w.w[0] = head | uint64(prev)
	w.w[1] |= uint64(r)
	k.setNewest(v)
	add(&s.counts.versions, 1)
	if at < len(t.touched) {
		t.touched[at] = v
	} else {
		t.touched = append(t.touched, v)
	}
	f.value = w.fields().value
}

// Commit publishes the transaction and returns the current revision, one more
// than before if anything changed. Then it wakes the watchers of what was
// touched.
func (t *Tx) Commit() kv.Revision {
	s := t.s
	if !t.open {
		panic("mvcc: a commit outside a transaction")
	}
	t.open = false
	if len(t.touched) == 0 {
		return s.Revision()
	}
	rev := t.Revision()
	if len(t.touched) == 1 {
		s.index.set(rev, uint64(t.touched[0]))
	} else {
		s.index.set(rev, s.newList(t.touched, rev))
	}
	s.rev.Store(int64(rev))
	// Published first: a watcher that registers in between sees rev in its view.
	s.hub.committed(rev, t.touched)
	s.hub.settled.Store(int64(rev))
	t.touched = t.touched[:0]
	if cap(t.touched) > 1<<16 {
		t.touched = nil
	}
	if len(s.retired.items)-s.retired.first >= retireBatch {
		s.reclaim(2 * retireBatch)
	}
	return rev
}

// Discard ends a transaction that has changed nothing.
func (t *Tx) Discard() {
	if len(t.touched) > 0 {
		panic("mvcc: a transaction with changes was discarded")
	}
	t.open = false
}
