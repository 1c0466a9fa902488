package mvcc

import (
	"bytes"
	"testing"
)

// checkStore asserts what must hold between transactions: the tree is in order
// and whole, the hash finds what the tree has, every page's account of what
// lives is right.
func checkStore(t testing.TB, s *Store) {
	t.Helper()
	live := map[uint32]int64{}
	var last []byte
	keys := int64(0)
	s.tree.walk(nil, []byte{0}, func(b *keyBatch) bool {
		for _, r := range b.refs[:b.n] {
			k := s.key(r)
			if last != nil && bytes.Compare(last, k.bytes()) >= 0 {
				t.Fatalf("key %q follows %q", k.bytes(), last)
			}
			last = bytes.Clone(k.bytes())
			keys++
			if got := s.hash.find(s.hash.sum(last), last); got != r {
				t.Fatalf("the hash has %x for key %q, the tree %x", got, last, r)
			}
			live[r.slot()] += k.size()
			for at := k.newest(); at != 0; at = s.version(at).prev() {
				v := s.version(at)
				if v.key() != r || v.head()&flagDead != 0 {
					t.Fatalf("a version of key %q at %d is of another or dead", last, v.mod())
				}
				live[at.slot()] += v.size()
			}
		}
		return true
	})
	if got := s.hash.live.Load(); got != keys {
		t.Fatalf("the hash has %d keys, the tree %d", got, keys)
	}
	root, height := s.tree.rootAndHeight()
	c := &nodeChecker{t, s, live}
	c.check(root, height, fences{})
	var buf [1]uint64
	for rev := s.compact.next; rev <= s.Revision(); rev++ {
		if s.index.slot(rev) == nil {
			rev |= offMask // no page
			continue
		}
		if e := s.index.get(rev); e&entryList != 0 {
			live[ref(e&refMask).slot()] += 32 + 8*int64(len(s.entryRefs(e, &buf)))
		}
	}
	for _, r := range s.retired.items[s.retired.first:] {
		switch r.kind {
		case retiredLeaf:
			live[r.ref.slot()] += leafSize
		case retiredInner:
			live[r.ref.slot()] += innerSize
		}
	}
	checkAccounts(t, s, live)
}

// checkAccounts compares what lives in each page with its account.
func checkAccounts(t testing.TB, s *Store, live map[uint32]int64) {
	t.Helper()
	dead := int64(0)
	for slot := uint32(1); slot < s.mem.slots; slot++ {
		p := s.mem.page(slot)
		have := p.live
		for _, b := range [...]*bump{&s.versions, &s.survivors, &s.keys} {
			if b.slot == slot {
				have += b.live
				p.top = b.top
			}
		}
		if p.kind != pageFree && p.kind != pageIndex && have != live[slot] {
			t.Fatalf("page %d (%+v) accounts for %d bytes, has %d", slot, *p, have, live[slot])
		}
		if (p.kind == pageKeys || p.kind == pageVersions) && !p.retired {
			dead += int64(p.top) - have
		}
	}
	if dead != s.compact.dead {
		t.Fatalf("%d bytes are dead, the account says %d", dead, s.compact.dead)
	}
}

type nodeChecker struct {
	t    testing.TB
	s    *Store
	live map[uint32]int64
}

func (c *nodeChecker) check(r ref, height int, around fences) {
	t, s, live, lo, hi := c.t, c.s, c.live, around.lo, around.hi
	inside := func(k []byte, separator bool) {
		if lo != 0 {
			if c := bytes.Compare(s.key(lo).bytes(), k); c > 0 || c == 0 && separator {
				t.Fatalf("%q stands in a node from %q on", k, s.key(lo).bytes())
			}
		}
		if hi != 0 && bytes.Compare(k, s.key(hi).bytes()) >= 0 {
			t.Fatalf("%q stands in a node up to %q", k, s.key(hi).bytes())
		}
	}
	if height == 0 {
		l := s.tree.leaf(r)
		live[r.slot()] += leafSize
		for i := range permCount(l.perm) {
			at := permAt(l.perm, i)
			k := s.tree.keyAt(l, at)
			inside(k, false)
			if l.frags[at] != fragment(k, int(l.head&nodePrefix)) {
				t.Fatalf("key %q has a wrong fragment", k)
			}
		}
		if l.head&nodeLive == 0 {
			t.Fatal("a leaf of the tree is free")
		}
		return
	}
	n := s.tree.inner(r)
	live[r.slot()] += innerSize
	if n.head&nodeLive == 0 || n.count() == 0 || int(n.head>>levelShift&15) != height {
		t.Fatalf("an inner node of the tree has head %x at height %d", n.head, height)
	}
	for i := range n.count() {
		from, to := lo, hi
		if i > 0 {
			from = n.sep(i - 1)
			inside(s.key(from).bytes(), true)
			live[from.slot()] += s.key(from).size()
		}
		if i < n.count()-1 {
			to = n.sep(i)
		}
		c.check(n.kid(i), height-1, fences{from, to})
	}
}
