package client

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/concord-kv/concord/kv"
)

// TestIDs gives ids out and back in any order: none comes twice, each client's
// grow by one, and none that is under way is a window behind its client's newest.
func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clients := byte(0)
		s := ids{random: func() (id [16]byte) {
			clients++
			return [16]byte{clients}
		}}
		type held struct {
			id   kv.RequestID
			done func()
		}
		var busy []held
		newest := map[[16]byte]uint64{}
		for range rapid.IntRange(0, 500).Draw(t, "steps") {
			if len(busy) > 0 && rapid.IntRange(0, 2).Draw(t, "give back") == 0 {
				i := rapid.IntRange(0, len(busy)-1).Draw(t, "which")
				busy[i].done()
				busy = append(busy[:i], busy[i+1:]...)
				continue
			}
			id, done := s.take()
			if id.Seq != newest[id.Client]+1 {
				t.Fatalf("%d after %d", id.Seq, newest[id.Client])
			}
			newest[id.Client] = id.Seq
			busy = append(busy, held{id, done})
			for _, b := range busy {
				if newest[b.id.Client]-b.id.Seq >= window {
					t.Fatalf("%d is under way and %d was given out", b.id.Seq, newest[b.id.Client])
				}
			}
		}
	})
}
