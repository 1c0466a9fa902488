package concord

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// newTestMemory is a memory of 800 bytes, of which 700 may be used, in a world
// where the state takes what state says.
func newTestMemory(limit int64) (m *memory, state *atomic.Int64) {
	state = new(atomic.Int64)
	m = newMemory(limit, state.Load, func() int64 { return 0 })
	m.collect = func() {}
	return m, state
}

// At the ceiling writes are refused, a byte below they are not; they are taken
// again when a sixteenth of the limit is free, not before.
func TestMemoryHysteresis(t *testing.T) {
	m, state := newTestMemory(800)
	now := time.Now()
	for i, step := range []struct {
		used          int64
		full, changed bool
		room          int64
	}{
		{0, false, false, 700},
		{699, false, false, 1},
		{700, true, true, -1},
		{900, true, false, -1},
		{651, true, false, -1},
		{650, false, true, 50},
		{699, false, false, 1},
		{700, true, true, -1},
	} {
		state.Store(step.used)
		full, changed := m.weigh(now)
		if room := m.room.Load(); full != step.full || changed != step.changed || room != step.room {
			t.Errorf("step %d, %d used: full %v, changed %v, room %d; want %+v", i, step.used, full, changed, room, step)
		}
		if err := m.refusal(1); errors.Is(err, kv.ErrNoMemory) != (step.room <= 1) || err != nil && kv.NextStep(err) == "" {
			t.Errorf("step %d: a byte is answered with %v", i, err)
		}
	}
}

// A member that refuses writes of a common size is full, also where smaller ones
// would still fit: who looks at it must see why. A write that is too large for any
// member does not make it so.
func TestMemoryIsFullForWritesThatDoNotFit(t *testing.T) {
	m, state := newTestMemory(800)
	now := time.Now()
	for i, step := range []struct {
		used, size    int64
		refused, full bool
	}{
		{660, 30, false, false},
		{680, 30, true, true}, // a sixteenth of the limit is 50
		{680, 10, true, true},
		{650, 30, false, false},
		{680, 51, true, false},
		{640, 100, true, false},
	} {
		state.Store(step.used)
		m.weigh(now)
		if err := m.refusal(step.size); (err != nil) != step.refused {
			t.Errorf("step %d: %d bytes are answered with %v", i, step.size, err)
		}
		if full, _ := m.weigh(now); full != step.full {
			t.Errorf("step %d: full %v after a write of %d bytes, want %v", i, full, step.size, step.full)
		}
	}
}

// A member with room refuses while another is full, until that one says that it
// is not, or has not said anything for a while.
func TestMemoryNotes(t *testing.T) {
	m, _ := newTestMemory(0)
	now := time.Now()
	m.weigh(now)
	if m.room.Load() != math.MaxInt64 || m.refusal(1<<40) != nil {
		t.Fatal("without a limit there is one")
	}
	if !m.note(7, true, now) || m.note(7, true, now) || m.room.Load() >= 0 || !errors.Is(m.refusal(1), kv.ErrNoMemory) {
		t.Error("a member that is full is not heard, or heard twice")
	}
	if c := m.condition(); c.Reason == "" || !c.Minor {
		t.Errorf("condition %+v", c)
	}
	m.note(8, true, now)
	if !m.note(7, false, now) || m.room.Load() >= 0 {
		t.Error("one of two that are full is enough")
	}
	m.weigh(now.Add(noteAge))
	if m.room.Load() >= 0 {
		t.Error("a note is forgotten too soon")
	}
	m.weigh(now.Add(noteAge + 1))
	if m.room.Load() != math.MaxInt64 || m.condition().Reason != "" {
		t.Error("a note is not forgotten")
	}
}

// Garbage is collected before writes are refused, and while they are.
func TestMemoryCollects(t *testing.T) {
	m, state := newTestMemory(800)
	collections := 0
	m.collect = func() { collections++; state.Store(600) }
	now := time.Now()
	state.Store(5000)
	if full, _ := m.weigh(now); full || collections != 1 {
		t.Errorf("full %v after %d collections", full, collections)
	}
	state.Store(5000)
	if full, _ := m.weigh(now.Add(collectEvery - 1)); !full || collections != 1 {
		t.Errorf("full %v after %d collections, a moment later", full, collections)
	}
	if full, _ := m.weigh(now.Add(collectEvery)); full || collections != 2 {
		t.Errorf("full %v after %d collections, a second later", full, collections)
	}
}

// Large values count twice while they are under way, all together.
func TestMemoryOfLargeValues(t *testing.T) {
	m, _ := newTestMemory(800)
	m.weigh(time.Now())
	if err := m.enterLarge(350); !errors.Is(err, kv.ErrNoMemory) {
		t.Errorf("350 twice in 700: %v", err)
	}
	if err := m.enterLarge(200); err != nil {
		t.Errorf("200 twice in 700: %v", err)
	}
	if err := m.enterLarge(250); !errors.Is(err, kv.ErrNoMemory) || m.sending.Load() != 200 {
		t.Errorf("200 and 250 twice in 700: %v, with %d under way", err, m.sending.Load())
	}
}

// Of history less is kept the less room there is.
func TestMemoryHistory(t *testing.T) {
	m, state := newTestMemory(800 << 20)
	for _, step := range []struct{ used, wanted, is, kept int64 }{
		{0, 256 << 20, 100 << 20, 256 << 20},
		{612 << 20, 256 << 20, 100 << 20, 256 << 20},
		{613 << 20, 256 << 20, 100 << 20, 50 << 20},
		{613 << 20, 1 << 20, 100 << 20, 1 << 20},
		{700 << 20, 256 << 20, 100 << 20, 0},
		{700 << 20, 256 << 20, 3 << 20, 256 << 20},
		{651 << 20, 256 << 20, 100 << 20, 0},
		{650 << 20, 256 << 20, 100 << 20, 50 << 20},
	} {
		state.Store(step.used)
		m.weigh(time.Now())
		if kept := m.history(step.wanted, step.is); kept != step.kept {
			t.Errorf("%d MiB used: %d of %d are kept, want %d", step.used>>20, kept, step.wanted, step.kept)
		}
	}
}

// withHeap replaces what the process takes besides the state.
func withHeap(f func() int64) Option { return func(c *config) { c.heap = f } }

// fill puts keys until the first refusal, which must be by name.
func fill(t *testing.T, n *Node, size int) (keys int) {
	t.Helper()
	value := make([]byte, size)
	for ; ; keys++ {
		_, err := kv.Put(t.Context(), n, fmt.Sprintf("k%06d", keys), value)
		if errors.Is(err, kv.ErrNoMemory) && errors.Is(err, kv.ErrNoSpace) && kv.NextStep(err) != "" {
			return keys
		}
		if err != nil || keys > 1<<20 {
			t.Fatalf("put %d: %v", keys, err)
		}
	}
}

// TestMemoryLimit fills a member, and finds that only what makes the state larger
// is refused, and that deletes bring the memory back, also that of history.
func TestMemoryLimit(t *testing.T) {
	n := open(t, t.TempDir(), MemoryLimit(leastMemory), withHeap(func() int64 { return 0 }))
	ctx := t.Context()
	lease, err := n.Grant(ctx, kv.Grant{TTL: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	keys := fill(t, n, 64<<10)
	if st := n.Status(); st.MemoryBytes > leastMemory {
		t.Errorf("the state takes %d of %d bytes", st.MemoryBytes, leastMemory)
	}
	if _, err := n.Grant(ctx, kv.Grant{TTL: time.Minute}); !errors.Is(err, kv.ErrNoMemory) {
		t.Errorf("grant: %v", err)
	}
	if _, err := kv.Put(ctx, n, "large", make([]byte, 4<<20)); !errors.Is(err, kv.ErrNoMemory) {
		t.Errorf("large put: %v", err)
	}
	if _, err := n.Txn(ctx, kv.Txn{Failure: []kv.Op{{Kind: kv.OpPut, Key: []byte("a")}}}); !errors.Is(err, kv.ErrNoMemory) {
		t.Errorf("transaction that may put: %v", err)
	}
	if _, err := n.Get(ctx, "k000000", kv.Strong); err != nil {
		t.Errorf("get: %v", err)
	}
	if _, err := n.KeepAlive(ctx, lease.ID); err != nil {
		t.Errorf("keep-alive: %v", err)
	}
	if _, err := n.Revoke(ctx, lease.ID); err != nil {
		t.Errorf("revoke: %v", err)
	}
	o := overviewOf(t, n)
	if r := o.Members[0].Report; !r.MemoryFull || r.MemoryLimit != leastMemory || r.MemoryUsed < leastMemory*3/4 || len(o.Health().Notes) != 1 {
		t.Errorf("the report says %+v, notes %q", r, o.Health().Notes)
	}
	for i := range keys / 2 {
		if _, err := n.Delete(ctx, fmt.Sprintf("k%06d", i)); err != nil {
			t.Fatalf("delete %d: %v", i, err)
		}
	}
	eventually(t, "writes are taken again", func() bool {
		_, err := n.Put(ctx, "again", "x")
		if err != nil && !errors.Is(err, kv.ErrNoMemory) {
			t.Fatal(err)
		}
		return err == nil
	})
	if _, err := n.Grant(ctx, kv.Grant{TTL: time.Minute}); err != nil {
		t.Errorf("grant: %v", err)
	}
	if again := fill(t, n, 64<<10); again < keys/4 {
		t.Errorf("%d keys fitted, half was deleted, and %d fitted then", keys, again)
	}
}

// TestMemoryLimitOfOne: one member that is full is enough, whoever leads and
// whoever is asked, and when it is gone it does not count any more.
func TestMemoryLimitOfOne(t *testing.T) {
	c := newTestCluster(t, 3)
	var takes atomic.Int64
	var group sync.WaitGroup
	for i := range 3 {
		var more []Option
		if i == 2 {
			more = []Option{MemoryLimit(leastMemory), withHeap(takes.Load)}
		}
		group.Go(func() { c.start(i, more...) })
	}
	group.Wait()
	for i := range 3 {
		c.ready(i)
	}
	ctx := t.Context()
	answered := func(what string, want error) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, n := range c.nodes {
				if n == nil {
					continue
				}
				if _, err := n.Put(ctx, "a", "b"); !errors.Is(err, want) {
					if err != nil && kv.CodeOf(err) != kv.Unavailable && !errors.Is(err, kv.ErrNoMemory) {
						t.Fatal(err)
					}
					return false
				}
			}
			return true
		})
	}
	answered("all take writes", nil)
	takes.Store(leastMemory)
	answered("all refuse", kv.ErrNoMemory)
	for _, n := range c.nodes {
		if _, err := n.Delete(ctx, "b"); err != nil {
			t.Errorf("delete: %v", err)
		}
		if _, err := n.Get(ctx, "a", kv.Strong); err != nil {
			t.Errorf("get: %v", err)
		}
	}
	if err := c.nodes[2].MoveLeader(ctx, c.nodes[2].id); err != nil {
		t.Fatal(err)
	}
	answered("all refuse with the full one as the leader", kv.ErrNoMemory)
	takes.Store(0)
	answered("all take writes again", nil)
	takes.Store(leastMemory)
	answered("all refuse again", kv.ErrNoMemory)
	c.close(2)
	answered("the others take writes", nil)
	if err := c.nodes[0].hearMemory(memoryNote{12345, true}); !errors.Is(err, kv.ErrMemberNotFound) {
		t.Errorf("a note of a stranger: %v", err)
	}
}

func TestMemoryLimitIsChecked(t *testing.T) {
	for _, limit := range []int64{-1, 1, leastMemory - 1} {
		n, err := Open(t.Context(), t.TempDir(), MemoryLimit(limit))
		if kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("limit %d: %v", limit, err)
		}
		if err == nil {
			t.Error(n.Close())
		}
	}
}

// The process needs something, and more when it holds more.
func TestHeapNeeded(t *testing.T) {
	before := heapNeeded()
	hold := make([]byte, 64<<20)
	runtime.GC()
	during := heapNeeded()
	runtime.KeepAlive(hold)
	if before < 1<<20 || during < before+32<<20 {
		t.Errorf("needs %d, and %d with 64 MiB more", before, during)
	}
}
