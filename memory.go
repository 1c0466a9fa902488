package concord

import (
	"context"
	"fmt"
	"math"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// MemoryLimit is how much memory the process may take, in bytes; 0, the default,
// is no limit. Where the state, its history, large values under way and what
// lives in the Go heap come to seven eighths of it, writes that make the state
// larger are refused with [kv.ErrNoMemory], on all members of the cluster, before
// they reach the log. Reads, deletes, the end and the renewal of leases,
// compactions and changes of users go on, history is let go of sooner, and
// writes are taken again when a sixteenth of the limit is free.
//
// The last eighth is for garbage, so that a process that gives all its memory to
// the member does well to have [debug.SetMemoryLimit] follow; 'concord serve'
// does. At least 64 MiB.
func MemoryLimit(bytes int64) Option { return func(c *config) { c.limit = bytes } }

const (
	// leastMemory is the smallest limit: a member that holds nothing takes
	// some 20 MiB.
	leastMemory = 64 << 20
	// reserveShare of the limit is left for garbage and for writes that were
	// admitted and are not applied; resumeShare besides has to be free before
	// writes are taken again.
	reserveShare, resumeShare = 8, 16
	// tightShare of what may be used is left when history begins to go, of
	// which tightHistory of the limit is kept then. What is less than
	// fullHistory of it, or leastHistory, stays also while writes are refused.
	tightShare, tightHistory, fullHistory = 8, 16, 256
	leastHistory                          = 1 << 20
	// fastestFill is how many bytes a second no member can be filled with,
	// which tells when to look again.
	fastestFill             = 1 << 30
	lookSoonest, lookLatest = 10 * time.Millisecond, 250 * time.Millisecond
	// grantSize is about what a lease takes.
	grantSize = 256
	// collectEvery is how often at most garbage is collected to see what is
	// needed, and others are told that this member is full. What they were
	// told counts for noteAge.
	collectEvery = time.Second
	noteAge      = 3 * collectEvery
)

// memory keeps a member, and those that are told, below the memory limit.
type memory struct {
	// Set by Open, then read only. state and heap are what the state takes,
	// and what the process needs besides; collect frees garbage.
	limit       int64
	state, heap func() int64
	collect     func()

	// room is how many bytes may still be written: less than 0 while writes
	// are refused. All that a write costs is to look at it.
	room atomic.Int64
	// sending are the bytes of large values under way.
	sending atomic.Int64

	mu        sync.Mutex
	used      int64
	full      bool
	short     bool // what is no large write was refused since it was weighed
	collected time.Time
	notes     map[kv.MemberID]time.Time // who else is full, until when
}

func newMemory(limit int64, state, heap func() int64) *memory {
	m := &memory{limit: limit, state: state, heap: heap, collect: debug.FreeOSMemory, notes: map[kv.MemberID]time.Time{}}
	if heap == nil {
		m.heap = heapNeeded
	}
	m.room.Store(math.MaxInt64)
	return m
}

// ceiling is what may be used.
func (m *memory) ceiling() int64 { return m.limit - m.limit/reserveShare }

// weigh looks at what is used, and tells whether writes are refused and whether
// that has changed.
func (m *memory) weigh(now time.Time) (full, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit > 0 {
		was := m.full
		m.used = m.state() + m.heap() + m.sending.Load()
		// What lives in the heap is known as of the last collection.
		if (m.used >= m.ceiling() || m.full) && now.Sub(m.collected) >= collectEvery {
			m.collect()
			m.collected = now
			m.used = m.state() + m.heap() + m.sending.Load()
		}
		if enough := m.used <= m.ceiling()-m.limit/resumeShare; m.used >= m.ceiling() || m.short && !enough {
			m.full = true
		} else if enough {
			m.full = false
		}
		m.short, changed = false, m.full != was
	}
	m.decide(now)
	return m.full, changed
}

// decide sets the room. With mu.
func (m *memory) decide(now time.Time) {
	room := int64(math.MaxInt64)
	if m.limit > 0 {
		room = max(0, m.ceiling()-m.used)
	}
	for id, until := range m.notes {
		if now.After(until) {
			delete(m.notes, id)
		}
	}
	if m.full || len(m.notes) > 0 {
		room = -1
	}
	m.room.Store(room)
}

// note keeps that another member is full, or is not any more, and tells whether
// that is news.
func (m *memory) note(id kv.MemberID, full bool, now time.Time) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	until, was := m.notes[id]
	was = was && !now.After(until)
	if full {
		m.notes[id] = now.Add(noteAge)
	} else {
		delete(m.notes, id)
	}
	m.decide(now)
	return was != full
}

// told is what others are told of the memory.
func (m *memory) told() (limit, used int64, full bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.limit, m.used, m.full
}

// condition is what stands in the way of writes.
func (m *memory) condition() kv.Condition {
	c := kv.Condition{Name: "memory", Minor: true, Next: "delete keys, or give the member more memory; reads and deletes go on"}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.full:
		c.Reason = fmt.Sprintf("the memory limit of %d MiB is reached, and writes that make the state larger are refused", m.limit>>20)
	case len(m.notes) > 0:
		c.Reason = fmt.Sprintf("%d other members have reached their memory limits, and writes that make the state larger are refused", len(m.notes))
	}
	return c
}

// next is when to look again.
func (m *memory) next() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.limit == 0 || m.full {
		return lookLatest
	}
	left := m.ceiling() - m.used
	return min(max(time.Duration(left)*time.Second/fastestFill, lookSoonest), lookLatest)
}

// history is how many bytes that were written last may be kept for reads at
// older revisions, where the settings say wanted and there are kept of them. A
// delete writes little and makes a lot of history: while writes are refused, it
// all goes.
func (m *memory) history(wanted, kept int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.full || len(m.notes) > 0:
		if kept > max(m.limit/fullHistory, leastHistory) {
			return 0
		}
	case m.limit > 0 && m.used >= m.ceiling()-m.ceiling()/tightShare:
		return min(wanted, m.limit/tightHistory)
	}
	return wanted
}

// refusal is why size bytes cannot be written now, or nil where they can.
func (m *memory) refusal(size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.full:
		return outOfMemory("this member has reached its memory limit of %d MiB", m.limit>>20)
	case len(m.notes) > 0:
		for id := range m.notes {
			return outOfMemory("member %v has reached its memory limit", id)
		}
	case m.limit > 0:
		if left := m.ceiling() - m.used; size >= left {
			// Whoever is refused what would fit into a member that has just
			// taken writes again has to be told that it is full.
			m.short = m.short || size <= m.limit/resumeShare
			return outOfMemory("a write of %d bytes is too large for the %d that are left below the memory limit", size, max(0, left))
		}
	}
	return nil // it has just changed
}

// outOfMemory is an ErrNoMemory that says of whom.
func outOfMemory(format string, args ...any) error {
	return kv.WithNext(kv.Errorf(kv.ResourceExhausted, "%s: %w", fmt.Sprintf(format, args...), kv.ErrNoMemory),
		"delete keys, or give the member more memory and raise its --memory-limit; reads and deletes go on, and writes are taken again by themselves")
}

// heapNeeded is what the Go runtime needs: what was alive at the last
// collection, stacks, and its own tables. Garbage does not count.
func heapNeeded() int64 {
	s := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(s)
	at := func(i int) int64 { return int64(s[i].Value.Uint64()) }
	live, objects := at(0), at(1)
	if live == 0 { // before the first collection
		live = objects
	}
	return live + at(2) - objects - at(3) - at(4) - at(5)
}

// tendMemory looks at the memory for as long as the member runs, and tells the
// others while it is full.
func (n *Node) tendMemory(ctx context.Context) error {
	m := n.cfg.memory
	var told time.Time
	for {
		full, changed := m.weigh(time.Now())
		if changed {
			n.logMemory(full)
		}
		if changed || full && time.Since(told) >= collectEvery {
			told = time.Now()
			n.tellMemory(ctx, full)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(m.next()):
		}
	}
}

// logMemory says, also to observers, that writes are refused, or taken again.
func (n *Node) logMemory(full bool) {
	limit, used, _ := n.cfg.memory.told()
	ev := observe.Limit{Kind: observe.LimitCleared, Limit: "memory", Value: used, Max: n.cfg.memory.ceiling()}
	if full {
		ev.Kind = observe.LimitHit
	}
	n.TellLimit(ev)
	if full {
		n.log.Error("the memory limit is reached; writes that make the state larger are refused until there is room", "limit", limit, "used", used)
	} else {
		n.log.Info("there is room below the memory limit again; writes are taken", "limit", limit, "used", used)
	}
}

// memoryNote tells another member whether one is full.
type memoryNote struct {
	Member kv.MemberID `json:"member,string"`
	Full   bool        `json:"full"`
}

// tellMemory tells all other members, and waits for none for longer than it is
// until they are told again.
func (n *Node) tellMemory(ctx context.Context, full bool) {
	if n.transport == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, collectEvery)
	defer cancel()
	var group sync.WaitGroup
	for _, m := range n.machine.Members() {
		if addr := n.peerAddr(m); m.ID != n.id && addr != "" {
			group.Go(func() {
				// One that does not answer is told again, or forgets.
				_, _ = n.ask(ctx, addr, peerRequest{Memory: &memoryNote{n.id, full}})
			})
		}
	}
	group.Wait()
}

// hearMemory takes another member's note.
func (n *Node) hearMemory(note memoryNote) error {
	for _, m := range n.machine.Members() {
		if m.ID != note.Member || m.ID == n.id {
			continue
		}
		if n.cfg.memory.note(note.Member, note.Full, time.Now()) {
			n.log.Warn("a member tells of its memory", "member", note.Member, "name", m.Name, "full", note.Full)
		}
		return nil
	}
	return kv.ErrMemberNotFound
}

// checkRoom refuses what would make the state larger where there is no room:
// on the disk, or below a memory limit.
func (n *Node) checkRoom(t *kv.Txn, size int64) error {
	if err := n.checkSpace(t); err != nil {
		return err
	}
	if size < n.cfg.memory.room.Load() || !puts(t) {
		return nil
	}
	return n.cfg.memory.refusal(size)
}

// enterLarge admits a large value. It is in memory several times on its way: as
// the request, in pieces, and in the state. What is admitted must leave.
func (m *memory) enterLarge(size int64) error {
	if sending := m.sending.Add(size); sending+size >= m.room.Load() {
		if err := m.refusal(sending + size); err != nil {
			m.sending.Add(-size)
			return err
		}
	}
	return nil
}
