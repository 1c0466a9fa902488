package mvcc

import (
	"sync/atomic"

	"github.com/concord-kv/concord/kv"
)

// keyBatch are the key records of one leaf.
type keyBatch struct {
	n    int
	refs [leafItems]ref
}

// walk yields the key records of [key, end) leaf by leaf, in order. The caller
// is the writer or pinned.
func (t *tree) walk(key, end []byte, yield func(b *keyBatch) bool) {
	if kv.FromKey(end) {
		end = nil
	}
	var nodes [maxDepth]*inner
	var at [maxDepth]int
	r, height := t.rootAndHeight()
	for d := 0; d < height; d++ {
		nodes[d] = t.inner(r)
		at[d] = t.place(nodes[d], key)
		r = nodes[d].kid(at[d])
	}
	l := t.leaf(r)
	perm := atomic.LoadUint64(&l.perm)
	from, _ := t.position(l, perm, key)
	for {
		var b keyBatch
		for i := from; i < permCount(perm); i++ {
			b.refs[b.n] = ref(atomic.LoadUint64(&l.refs[permAt(perm, i)]))
			b.n++
		}
		last := t.cutBatch(&b, end)
		if b.n > 0 && !yield(&b) || last {
			return
		}
		d := height - 1
		for ; d >= 0 && at[d]+1 >= nodes[d].count(); d-- {
		}
		if d < 0 {
			return
		}
		at[d]++
		r := nodes[d].kid(at[d])
		for d++; d < height; d++ {
			nodes[d], at[d] = t.inner(r), 0
			r = nodes[d].kid(0)
		}
		l, from = t.leaf(r), 0
		perm = atomic.LoadUint64(&l.perm)
	}
}

// cutBatch takes the keys from end on out of b and reports whether there were any.
func (t *tree) cutBatch(b *keyBatch, end []byte) bool {
	if len(end) == 0 || b.n == 0 || compareKeys(t.s.key(b.refs[b.n-1]).bytes(), end) < 0 {
		return false
	}
	for b.n > 0 && compareKeys(t.s.key(b.refs[b.n-1]).bytes(), end) >= 0 {
		b.n--
	}
	return true
}

// found is a key and the version of it that a reader sees.
type found struct{ key, version ref }

// visible walks back from the key's newest version to the one at rev. It
// returns 0 when there is none or it is a tombstone.
func (s *Store) visible(k keyRecord, rev kv.Revision) ref {
	r := k.newest()
	for r != 0 {
		v := s.version(r)
		if v.mod() <= rev {
			if v.tombstone() {
				return 0
			}
			return r
		}
		r = v.prev()
	}
	return 0
}

// scan yields what a reader at rev sees of a range: the keys of a leaf at a
// time, so that the cache misses of their records overlap.
func (s *Store) scan(key, end []byte, rev kv.Revision, yield func(found []found) bool) {
	if len(end) == 0 {
		if r := s.hash.find(s.hash.sum(key), key); r != 0 {
			if v := s.visible(s.key(r), rev); v != 0 {
				yield([]found{{r, v}})
			}
		}
		return
	}
	var out [leafItems]found
	s.tree.walk(key, end, func(b *keyBatch) bool {
		var newest [leafItems]ref
		for i := range b.n {
			newest[i] = s.key(b.refs[i]).newest()
		}
		n := 0
		for i := range b.n {
			r := newest[i]
			if r == 0 {
				continue
			}
			v := s.version(r)
			if v.mod() > rev {
				if r = s.visible(s.key(b.refs[i]), rev); r == 0 {
					continue
				}
			} else if v.tombstone() {
				continue
			}
			out[n] = found{b.refs[i], r}
			n++
		}
		return n == 0 || yield(out[:n])
	})
}
