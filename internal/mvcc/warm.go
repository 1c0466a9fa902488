package mvcc

import (
	"sync/atomic"

	"github.com/concord-kv/concord/kv"
)

// WarmGroup is how many keys one call of [Store.Warm] takes. The processor has
// about a dozen cache misses under way at once; with much more keys the first are
// out of its cache again when they are written.
const WarmGroup = 32

// Warm has what the writer is about to look up, of at most [WarmGroup] keys, on
// the way into the cache: the writer's. One look-up is a chain of three cache misses: the slot
// of the hash, the key, its newest version. Here each link is followed for all
// keys before the next, so that the misses overlap (Chen, Ailamaki, Gibbons and
// Mowry, "Improving hash join performance through prefetching", 2004, which calls
// it group prefetching). It changes nothing.
func (s *Store) Warm(keys [][]byte) {
	var sums [WarmGroup]uint64
	var refs [WarmGroup]ref
	n := min(len(keys), WarmGroup)
	t := s.hash.both.Load().cur
	for i, key := range keys[:n] {
		sums[i] = s.hash.sum(key)
		refs[i] = ref(atomic.LoadUint64(t.at(t.home(uint32(sums[i] >> 32)))))
	}
	for i := range n {
		refs[i] = s.hash.guess(t, sums[i], uint64(refs[i]))
	}
	for i, r := range refs[:n] {
		if r != 0 {
			refs[i] = s.key(r).newest()
		}
	}
	sum := kv.Revision(0)
	for _, r := range refs[:n] {
		if r != 0 {
			sum += s.version(r).mod()
		}
	}
	s.hash.warmed = sum
}

// guess is probe by the tag alone.
func (h *hashIndex) guess(t table, sum, first uint64) ref {
	tag := sum & (1<<24 - 1)
	for i, x := t.home(uint32(sum>>32)), first; x != 0; x = atomic.LoadUint64(t.at(i)) {
		if x>>tagShift == tag && x > slotGone {
			return ref(x & refMask)
		}
		i = t.next(i)
	}
	return 0
}
