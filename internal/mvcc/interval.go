package mvcc

import "math/rand/v2"

// intervals finds the ranges that hold a key: a treap by start and end of the
// range, each node with the highest end below it (interval tree: Cormen et al.,
// Introduction to Algorithms, 3rd ed., 14.3; treap: Seidel, Aragon, "Randomized
// search trees", Algorithmica 16, 1996). An empty end is no end.
type intervals struct{ root *interval }

type interval struct {
	in          watchers
	priority    uint64
	left, right *interval
	unbounded   bool // of this or one below
	max         string
}

func (n *interval) less(key, end string) bool {
	return n.in.key < key || n.in.key == key && n.in.end < end
}

func (n *interval) update() {
	n.max, n.unbounded = n.in.end, n.in.end == ""
	for _, c := range [...]*interval{n.left, n.right} {
		if c != nil {
			n.unbounded = n.unbounded || c.unbounded
			n.max = max(n.max, c.max)
		}
	}
}

// insert returns the watchers of the range, which may be there already.
func (t *intervals) insert(key, end string) *watchers {
	for n := t.root; n != nil; {
		if n.in.key == key && n.in.end == end {
			return &n.in
		}
		if n.less(key, end) {
			n = n.right
		} else {
			n = n.left
		}
	}
	n := &interval{in: watchers{key: key, end: end}, priority: rand.Uint64()}
	left, right := split(t.root, key, end)
	n.update()
	t.root = join(join(left, n), right)
	return &n.in
}

// remove takes out the node of in.
func (t *intervals) remove(in *watchers) { t.root = t.root.without(in) }

func (n *interval) without(in *watchers) *interval {
	switch {
	case &n.in == in:
		return join(n.left, n.right)
	case n.less(in.key, in.end):
		n.right = n.right.without(in)
	default:
		n.left = n.left.without(in)
	}
	n.update()
	return n
}

// split parts a tree into what lies below (key, end) and the rest.
func split(n *interval, key, end string) (left, right *interval) {
	if n == nil {
		return nil, nil
	}
	if n.less(key, end) {
		n.right, right = split(n.right, key, end)
		left = n
	} else {
		left, n.left = split(n.left, key, end)
		right = n
	}
	n.update()
	return left, right
}

func join(a, b *interval) *interval {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		a.right = join(a.right, b)
		a.update()
		return a
	}
	b.left = join(a, b.left)
	b.update()
	return b
}

// stab yields the ranges that hold key.
func (t *intervals) stab(key []byte, yield func(*watchers)) { t.root.stab(key, yield) }

func (n *interval) stab(key []byte, yield func(*watchers)) {
	for n != nil && (n.unbounded || n.max > string(key)) {
		n.left.stab(key, yield)
		if n.in.key > string(key) {
			return
		}
		if n.in.end == "" || n.in.end > string(key) {
			yield(&n.in)
		}
		n = n.right
	}
}
