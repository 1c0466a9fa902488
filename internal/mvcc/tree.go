package mvcc

import (
	"sync/atomic"
	"unsafe"
)

// The tree orders the keys: a B+ tree with one writer and readers without
// locks. It is no snapshot and needs to be none: readers take the keys that have
// a version at their revision and pass over the rest, so a newer tree serves an
// older reader. All that must hold is that a reader finds every key that was in
// the tree when it started, and that holds because
//
//   - a leaf grows in place: the item is written to a place not used before and
//     a word with the new order of places is stored (the permutation of
//     Masstree: Mao, Kohler, Morris, "Cache craftiness for fast multicore
//     key-value storage", EuroSys 2012);
//   - everything else replaces nodes: new ones are written, and one atomic
//     store in their parent makes them visible. The old ones are used again
//     when no reader can stand on them.
//
// So an insert costs no path copy, with or without views.
//
// Nodes compare eight bytes of the key behind a prefix that all keys of the
// node's range share (Bayer, Unterauer, "Prefix B-trees", TODS 2(1), 1977).
// Ranges are fixed by the separators around a node, so the prefix holds for
// keys to come.
const (
	leafItems = 15
	fanout    = 32 // a split copies a node: small ones make little garbage
	maxDepth  = 12 // 8·(32/3)^11 keys are more than there are refs

	leafSize  = int64(unsafe.Sizeof(leaf{}))
	innerSize = (int64(unsafe.Sizeof(inner{})) + 63) &^ 63

	// Bits of a node's head.
	nodeLive   = 1 << 63
	nodePrefix = 1<<17 - 1
	kidsShift  = 32 // inner: how many children, 8 bits
	kidsMask   = 1<<8 - 1
	levelShift = 40 // inner: 1 above the leaves
	checkedBit = 1 << 20

	// Below these a node is merged with a neighbour.
	fewItems, mergedItems = 5, 12
	fewKids, mergedKids   = 10, 26
)

// leaf holds up to 15 items in places; perm says how many and, from the lowest
// key on, in which.
type leaf struct {
	perm  uint64 // atomic: count in 4 bits, then 4 bits a place
	head  uint64 // nodeLive, length of the prefix
	frags [leafItems]uint64
	refs  [leafItems]uint64 // key records, atomic
}

// inner holds up to 32 children and what separates them.
type inner struct {
	head  uint64 // nodeLive, level, count, checkedBit, length of the prefix
	frags [fanout - 1]uint64
	seps  [fanout - 1]uint64 // separator records, atomic
	kids  [fanout]uint64     // atomic
}

type tree struct {
	s      *Store
	top    atomic.Uint64 // root | levels above the leaves << 40
	leaves slab
	inners slab
	seps   *bump
}

func permCount(p uint64) int     { return int(p & 15) }
func permAt(p uint64, i int) int { return int(p >> (4 + 4*i) & 15) }

// permInsert puts place at position i.
func permInsert(p uint64, i, place int) uint64 {
	low := uint64(1)<<(4+4*i) - 1
	return (p&low | p&^low<<4 | uint64(place)<<(4+4*i)) + 1
}

// permFirst is the order of n places one after another.
func permFirst(n int) (p uint64) {
	for i := range n {
		p |= uint64(i) << (4 + 4*i)
	}
	return p | uint64(n)
}

func (t *tree) leaf(r ref) *leaf   { return (*leaf)(t.s.mem.at(r)) }
func (t *tree) inner(r ref) *inner { return (*inner)(t.s.mem.at(r)) }

func (n *inner) count() int  { return int(n.head >> kidsShift & kidsMask) }
func (n *inner) prefix() int { return int(n.head & nodePrefix) }
func (n *inner) kid(i int) ref {
	return ref(atomic.LoadUint64(&n.kids[i]))
}
func (n *inner) sep(i int) ref { return ref(atomic.LoadUint64(&n.seps[i])) }

func (t *tree) init(s *Store, seps *bump) {
	t.s, t.seps = s, seps
	t.leaves = slab{s: s, kind: pageLeaves, size: leafSize}
	t.inners = slab{s: s, kind: pageInners, size: innerSize}
	r, l := t.newLeaf(0)
	l.perm = 0
	t.setRoot(r, 0)
}

func (t *tree) setRoot(r ref, height int) { t.top.Store(uint64(r) | uint64(height)<<40) }

func (t *tree) rootAndHeight() (ref, int) {
	top := t.top.Load()
	return ref(top & refMask), int(top >> 40)
}

func (t *tree) newLeaf(prefix int) (ref, *leaf) {
	r := t.leaves.alloc()
	l := t.leaf(r)
	l.head = nodeLive | uint64(prefix)
	return r, l
}

// place tells which child of n holds key.
func (t *tree) place(n *inner, key []byte) int {
	prefix, seps := n.prefix(), n.count()-1
	if seps == 0 {
		return 0
	}
	if n.head&checkedBit != 0 {
		// At the edges of the tree the range says nothing about the prefix.
		first := t.s.key(n.sep(0)).bytes()
		switch c := compareKeys(key[:min(prefix, len(key))], first[:prefix]); {
		case c < 0:
			return 0
		case c > 0:
			return seps
		}
	}
	frag := fragment(key, prefix)
	lo, hi := 0, seps
	for lo < hi { // the first separator above key
		mid := int(uint(lo+hi) >> 1)
		f := n.frags[mid]
		if f < frag || f == frag && compareKeys(t.s.key(n.sep(mid)).bytes(), key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// position is where key stands or belongs in the leaf's order.
func (t *tree) position(l *leaf, perm uint64, key []byte) (i int, found bool) {
	prefix, n := int(l.head&nodePrefix), permCount(perm)
	frag := fragment(key, prefix)
	lo, hi := 0, n
	if n > 0 { // ascending keys go to the end
		at := permAt(perm, n-1)
		if f := l.frags[at]; f < frag || f == frag && compareKeys(t.keyAt(l, at), key) < 0 {
			return n, false
		}
	}
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		at := permAt(perm, mid)
		f := l.frags[at]
		c := -1
		if f == frag {
			if c = compareKeys(t.keyAt(l, at), key); c == 0 {
				return mid, true
			}
		} else if f > frag {
			c = 1
		}
		if c < 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, false
}

func (t *tree) keyAt(l *leaf, place int) []byte {
	return t.s.key(ref(atomic.LoadUint64(&l.refs[place]))).bytes()
}

// path is the way from the root to a leaf, with the separators around it.
type path struct {
	nodes  [maxDepth]ref
	at     [maxDepth]int
	lo, hi [maxDepth + 1]ref // of nodes[i]; 0 is the end of the key space
	depth  int
	leaf   ref
}

// descend finds the leaf for key. When stop is given it ends early at that node
// and leaves it in p.leaf.
func (t *tree) descend(key []byte, stop ref, p *path) {
	r, height := t.rootAndHeight()
	p.depth = 0
	p.lo[0], p.hi[0] = 0, 0
	for d := 0; d < height && r != stop; d++ {
		n := t.inner(r)
		i := t.place(n, key)
		p.nodes[d], p.at[d] = r, i
		p.lo[d+1], p.hi[d+1] = p.lo[d], p.hi[d]
		if i > 0 {
			p.lo[d+1] = n.sep(i - 1)
		}
		if i < n.count()-1 {
			p.hi[d+1] = n.sep(i)
		}
		r = n.kid(i)
		p.depth = d + 1
	}
	p.leaf = r
}

// prefixOf is how many bytes all keys between two separators share.
func (t *tree) prefixOf(lo, hi ref) int {
	if lo == 0 || hi == 0 {
		return 0
	}
	return commonPrefix(t.s.key(lo).bytes(), t.s.key(hi).bytes())
}

// insert adds a key that is not there.
func (t *tree) insert(key []byte, r ref) {
	var p path
	t.descend(key, 0, &p)
	l := t.leaf(p.leaf)
	perm := l.perm
	i, _ := t.position(l, perm, key)
	n := permCount(perm)
	if n < leafItems {
		l.frags[n] = fragment(key, int(l.head&nodePrefix))
		atomic.StoreUint64(&l.refs[n], uint64(r))
		atomic.StoreUint64(&l.perm, permInsert(perm, i, n))
		return
	}
	var items [leafItems + 1]uint64
	for j := range n {
		items[j+b2i(j >= i)] = l.refs[permAt(perm, j)]
	}
	items[i] = uint64(r)
	cut := (leafItems + 1) / 2
	if i == n { // ascending keys fill their leaves
		cut = leafItems
		if p.hi[p.depth] != 0 {
			cut = leafItems - 3
		}
	}
	sep := separator(t.s.key(ref(items[cut-1])).bytes(), t.s.key(ref(items[cut])).bytes())
	sepRef, _ := newKey(t.seps, sep, 0, keySeparator)
	lo, hi := p.lo[p.depth], p.hi[p.depth]
	left := t.buildLeaf(items[:cut], lo, sepRef)
	right := t.buildLeaf(items[cut:], sepRef, hi)
	old := p.leaf
	t.replace(&p, p.depth, change{1, [2]ref{left, right}, sepRef})
	t.s.retire(retired{kind: retiredLeaf, ref: old})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// buildLeaf makes a leaf of key records in order.
func (t *tree) buildLeaf(items []uint64, lo, hi ref) ref {
	prefix := t.prefixOf(lo, hi)
	r, l := t.newLeaf(prefix)
	for i, k := range items {
		l.refs[i] = k
		l.frags[i] = fragment(t.s.key(ref(k)).bytes(), prefix)
	}
	l.perm = permFirst(len(items))
	return r
}

// kidList is an inner node taken apart, with room to grow by one.
type kidList struct {
	n     int // children
	kids  [2 * fanout]ref
	seps  [2 * fanout]ref
	level uint64
}

func (k *kidList) add(n *inner, from, to int) {
	for i := from; i < to; i++ {
		k.kids[k.n] = n.kid(i)
		if i < n.count()-1 {
			k.seps[k.n] = n.sep(i)
		}
		k.n++
	}
	k.level = n.head >> levelShift & 15
}

// change puts one or two new nodes, sep between them, where n nodes were.
type change struct {
	n     int
	nodes [2]ref
	sep   ref
}

// replace makes the change at p.at[d-1], d levels below the root, and splits and
// merges above.
func (t *tree) replace(p *path, d int, c change) {
	n, nodes, sep := c.n, c.nodes, c.sep
	if d == 0 {
		if nodes[1] == 0 {
			_, height := t.rootAndHeight()
			t.setRoot(nodes[0], height)
			return
		}
		_, height := t.rootAndHeight()
		k := kidList{n: 2, level: uint64(height) + 1}
		k.kids[0], k.kids[1], k.seps[0] = nodes[0], nodes[1], sep
		t.setRoot(t.buildInner(&k, 0, 2, fences{0, 0}), height+1)
		return
	}
	old, at := p.nodes[d-1], p.at[d-1]
	o := t.inner(old)
	if n == 1 && nodes[1] == 0 {
		atomic.StoreUint64(&o.kids[at], uint64(nodes[0]))
		return
	}
	var k kidList
	k.add(o, 0, at)
	k.kids[k.n] = nodes[0]
	if nodes[1] != 0 {
		k.seps[k.n] = sep
		k.n++
		k.kids[k.n] = nodes[1]
	}
	if at+n < o.count() {
		k.seps[k.n] = o.sep(at + n - 1)
	}
	k.n++
	k.add(o, at+n, o.count())
	k.level = o.head >> levelShift & 15
	t.replaceInner(p, d-1, &k)
	t.s.retire(retired{kind: retiredInner, ref: old})
}

// replaceInner puts what k holds where p.nodes[d] was.
func (t *tree) replaceInner(p *path, d int, k *kidList) {
	lo, hi := p.lo[d], p.hi[d]
	switch {
	case k.n > fanout:
		cut := k.n / 2
		if p.at[d] >= fanout-1 && hi == 0 {
			cut = k.n - 2 // ascending keys fill their nodes
		}
		sep := k.seps[cut-1]
		left := t.buildInner(k, 0, cut, fences{lo, sep})
		right := t.buildInner(k, cut, k.n, fences{sep, hi})
		t.replace(p, d, change{1, [2]ref{left, right}, sep})
	case d == 0 && k.n == 1:
		_, height := t.rootAndHeight()
		t.setRoot(k.kids[0], height-1)
	case d > 0 && k.n < fewKids && t.mergeInner(p, d, k):
	default:
		t.replace(p, d, change{n: 1, nodes: [2]ref{t.buildInner(k, 0, k.n, fences{lo, hi})}})
	}
}

// mergeInner joins k with a neighbour of p.nodes[d] if both fit in one node.
func (t *tree) mergeInner(p *path, d int, k *kidList) bool {
	parent, at := t.inner(p.nodes[d-1]), p.at[d-1]
	if at+1 < parent.count() && t.inner(parent.kid(at+1)).count()+k.n <= mergedKids {
		next := parent.kid(at + 1)
		k.seps[k.n-1] = parent.sep(at)
		k.add(t.inner(next), 0, t.inner(next).count())
		hi := p.hi[d-1]
		if at+2 < parent.count() {
			hi = parent.sep(at + 1)
		}
		t.replace(p, d, change{n: 2, nodes: [2]ref{t.buildInner(k, 0, k.n, fences{p.lo[d], hi})}})
		t.s.retire(retired{kind: retiredInner, ref: next})
		return true
	}
	if at > 0 && t.inner(parent.kid(at-1)).count()+k.n <= mergedKids {
		before := parent.kid(at - 1)
		b := t.inner(before)
		var j kidList
		j.add(b, 0, b.count())
		j.seps[j.n-1] = parent.sep(at - 1)
		copy(j.kids[j.n:], k.kids[:k.n])
		copy(j.seps[j.n:], k.seps[:k.n])
		j.n += k.n
		lo := p.lo[d-1]
		if at > 1 {
			lo = parent.sep(at - 2)
		}
		p.at[d-1]--
		t.replace(p, d, change{n: 2, nodes: [2]ref{t.buildInner(&j, 0, j.n, fences{lo, p.hi[d]})}})
		t.s.retire(retired{kind: retiredInner, ref: before})
		return true
	}
	return false
}

// fences are the separators around a node; 0 is the end of the key space.
type fences struct{ lo, hi ref }

// buildInner makes a node of the children from..to of k.
func (t *tree) buildInner(k *kidList, from, to int, around fences) ref {
	lo, hi := around.lo, around.hi
	r := t.inners.alloc()
	n := t.inner(r)
	count := to - from
	prefix, checked := t.prefixOf(lo, hi), uint64(0)
	if (lo == 0 || hi == 0) && count > 1 {
		prefix, checked = t.prefixOf(k.seps[from], k.seps[to-2]), checkedBit
	}
	for i := range count {
		n.kids[i] = uint64(k.kids[from+i])
		if i < count-1 {
			sep := k.seps[from+i]
			n.seps[i] = uint64(sep)
			n.frags[i] = fragment(t.s.key(sep).bytes(), prefix)
		}
	}
	n.head = nodeLive | k.level<<levelShift | uint64(count)<<kidsShift | checked | uint64(prefix)
	return r
}

// remove takes out a key that is there.
func (t *tree) remove(key []byte) {
	var p path
	t.descend(key, 0, &p)
	l := t.leaf(p.leaf)
	i, found := t.position(l, l.perm, key)
	if !found {
		panic("mvcc: a key to be removed is not in the tree")
	}
	var items [2 * leafItems]uint64
	n := copyItems(items[:], l, i)
	lo, hi := p.lo[p.depth], p.hi[p.depth]
	old := p.leaf
	if n >= fewItems || p.depth == 0 || !t.mergeLeaf(&p, items[:], n) {
		t.replace(&p, p.depth, change{n: 1, nodes: [2]ref{t.buildLeaf(items[:n], lo, hi)}})
	}
	t.s.retire(retired{kind: retiredLeaf, ref: old})
}

// copyItems lists the key records of l in order, without the one at skip.
func copyItems(dst []uint64, l *leaf, skip int) (n int) {
	for j := range permCount(l.perm) {
		if j != skip {
			dst[n] = l.refs[permAt(l.perm, j)]
			n++
		}
	}
	return n
}

// mergeLeaf joins the n items of p.leaf with a neighbour's if they fit in one leaf.
func (t *tree) mergeLeaf(p *path, items []uint64, n int) bool {
	d := p.depth
	parent, at := t.inner(p.nodes[d-1]), p.at[d-1]
	var all [2 * leafItems]uint64
	for _, side := range [...]int{1, -1} {
		other := at + side
		if other < 0 || other >= parent.count() {
			continue
		}
		next := parent.kid(other)
		l := t.leaf(next)
		if permCount(l.perm)+n > mergedItems {
			continue
		}
		first := min(at, other)
		lo, hi, gone := p.lo[d-1], p.hi[d-1], parent.sep(first)
		if first > 0 {
			lo = parent.sep(first - 1)
		}
		if first+2 < parent.count() {
			hi = parent.sep(first + 1)
		}
		var m int
		if side > 0 {
			m = copy(all[:], items[:n])
			m += copyItems(all[m:], l, -1)
		} else {
			m = copyItems(all[:], l, -1)
			m += copy(all[m:], items[:n])
		}
		p.at[d-1] = first
		t.replace(p, d, change{n: 2, nodes: [2]ref{t.buildLeaf(all[:m], lo, hi)}})
		t.s.retire(retired{kind: retiredLeaf, ref: next})
		t.s.killKey(gone)
		return true
	}
	return false
}
