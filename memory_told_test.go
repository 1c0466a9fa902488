package concord

import (
	"errors"
	"sync/atomic"
	"testing"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// TestMemoryLimitIsTold: observers hear that the limit is reached, what is refused
// for it, and that there is room again.
func TestMemoryLimitIsTold(t *testing.T) {
	var heap atomic.Int64
	n := open(t, t.TempDir(), MemoryLimit(leastMemory), withHeap(heap.Load))
	s, err := n.Subscribe(t.Context(), "limit.hit", "limit.cleared")
	if err != nil {
		t.Fatal(err)
	}
	ceiling := n.cfg.memory.ceiling()
	heap.Store(leastMemory)
	if e := heardEvent[observe.Limit](t, s); e.Kind != observe.LimitHit || e.Limit != "memory" || e.Value < leastMemory || e.Max != ceiling {
		t.Errorf("reached: %+v", e)
	}
	if _, err := n.Put(t.Context(), "key", "value"); !errors.Is(err, kv.ErrNoMemory) {
		t.Fatal(err)
	}
	if e := heardEvent[observe.Limit](t, s); e != (observe.Limit{Kind: observe.LimitHit, Limit: "memory"}) {
		t.Errorf("refused: %+v", e)
	}
	heap.Store(0)
	if e := heardEvent[observe.Limit](t, s); e.Kind != observe.LimitCleared || e.Limit != "memory" || e.Value >= ceiling {
		t.Errorf("room again: %+v", e)
	}
}
