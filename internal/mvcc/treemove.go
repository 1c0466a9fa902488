package mvcc

import "sync/atomic"

// moveKey leads the item of key from its record at from to the one at to.
func (t *tree) moveKey(key []byte, from, to ref) {
	var p path
	t.descend(key, 0, &p)
	l := t.leaf(p.leaf)
	if i, found := t.position(l, l.perm, key); found {
		if at := permAt(l.perm, i); ref(l.refs[at]) == from {
			atomic.StoreUint64(&l.refs[at], uint64(to))
			return
		}
	}
	panic("mvcc: a key to be moved is not in the tree")
}

// moveSeparator leads the one node that has the separator from to to.
func (t *tree) moveSeparator(key []byte, from, to ref) {
	r, height := t.rootAndHeight()
	for range height {
		n := t.inner(r)
		i := t.place(n, key)
		if i > 0 && n.sep(i-1) == from {
			atomic.StoreUint64(&n.seps[i-1], uint64(to))
			return
		}
		r = n.kid(i)
	}
	panic("mvcc: a separator to be moved is not in the tree")
}

// moveLeaf puts a copy in the place of a leaf. It is false for a leaf without
// keys, which cannot be found.
func (t *tree) moveLeaf(r ref) bool {
	l := t.leaf(r)
	if permCount(l.perm) == 0 {
		return false
	}
	var p path
	t.descend(t.keyAt(l, permAt(l.perm, 0)), r, &p)
	if p.leaf != r {
		return true // taken out already
	}
	to := t.leaves.alloc()
	*t.leaf(to) = *l
	t.replace(&p, p.depth, change{n: 1, nodes: [2]ref{to}})
	t.s.retire(retired{kind: retiredLeaf, ref: r})
	return true
}

// moveInner puts a copy in the place of an inner node. It is false for a node
// with one child.
func (t *tree) moveInner(r ref) bool {
	n := t.inner(r)
	if n.count() < 2 {
		return false
	}
	var p path
	t.descend(t.s.key(n.sep(0)).bytes(), r, &p)
	if p.leaf != r {
		return true // taken out already
	}
	to := t.inners.alloc()
	*t.inner(to) = *n
	t.replace(&p, p.depth, change{n: 1, nodes: [2]ref{to}})
	t.s.retire(retired{kind: retiredInner, ref: r})
	return true
}
