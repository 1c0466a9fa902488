package mvcc

import (
	"testing"

	"github.com/concord-kv/concord/kv"
)

// Warm finds what is there and changes nothing, also while the hash grows, after
// deletes and for more keys than it takes.
func TestWarm(t *testing.T) {
	s := New(Options{})
	defer s.Close()
	const keys = 2000
	for i := range keys {
		tx := s.Begin()
		tx.Put(benchKey(nil, i), []byte("value"), 0, 0)
		if i%3 == 0 && i > 0 {
			tx.Delete(benchKey(nil, i-1))
		}
		rev := tx.Commit()
		group := [][]byte{benchKey(nil, i), benchKey(nil, i+1)}
		for j := range WarmGroup {
			group = append(group, benchKey(nil, i/2+j))
		}
		before := s.Stats()
		s.Warm(group)
		if s.Revision() != rev || s.Stats() != before {
			t.Fatalf("revision %d and %+v after Warm, %d and %+v before", s.Revision(), s.Stats(), rev, before)
		}
		s.Warm(group[:1])
		// By a tag of 24 bits: it may be another key's.
		if s.hash.both.Load().old.slots == 0 && s.hash.warmed == 0 {
			t.Fatalf("Warm did not find key %d", i)
		}
		s.Warm(nil)
	}
	if k, ok := s.Get(benchKey(nil, keys-1)); !ok || k.ModRevision != kv.Revision(keys+1) {
		t.Fatalf("the last key is %v, %v", k, ok)
	}
}
