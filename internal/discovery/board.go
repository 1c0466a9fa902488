package discovery

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// Bounds of what is remembered.
const (
	// mostKnown is how many other processes are known at once. Who has not been
	// heard of for longest makes room.
	mostKnown = 256
	// mostStrange is how many strangers are remembered. A new one is not, as long
	// as that many are: nobody can write the log full.
	mostStrange = 64
	// forgetAfter is how long somebody is remembered who is not heard of.
	forgetAfter = 10 * time.Minute
)

// board is where sources meet: what this process says, and what it knows. Who
// changes what the handler is told of leaves a mark and a wake-up; dispatch does
// the telling.
type board struct {
	// Set by newBoard, then read only.
	cluster string
	read    func() Announcement
	handler Handler
	news    chan struct{} // wakes dispatch
	// complain is told whether others would take what this process says.
	complain func(error)
	// wakes are called, without a lock, when this process or another has
	// something new to say; they must not block. Set before Run.
	announcers []func()
	relays     []func(Announcement, time.Duration)

	// Serialises reads of what this process says. Taken before mu.
	selfMu sync.Mutex

	mu        sync.Mutex
	self      Announcement // as it was said last
	gossip    string
	known     map[uint64]Sighting
	strangers map[stranger]Stranger
	conflicts map[conflict]Conflict
	fresh     marks
}

// stranger and conflict are what makes one different from another.
type (
	stranger struct {
		cluster, host string
		reason        Reason
	}
	conflict struct {
		kind ConflictKind
		a, b uint64
	}
)

// marks are what the handler has to be told.
type marks struct {
	known     map[uint64]bool
	strangers map[stranger]bool
	conflicts map[conflict]bool
}

func newMarks() marks {
	return marks{map[uint64]bool{}, map[stranger]bool{}, map[conflict]bool{}}
}

func newBoard(cfg Config, complain func(error)) *board {
	return &board{
		complain: complain,
		cluster:  cfg.Cluster, read: cfg.Self, handler: cfg.Handler, news: make(chan struct{}, 1),
		known: map[uint64]Sighting{}, strangers: map[stranger]Stranger{}, conflicts: map[conflict]Conflict{}, fresh: newMarks(),
	}
}

// speak returns what this process says now; ok is false for one that only
// listens. What is new has a new stamp.
func (b *board) speak() (a Announcement, ok bool) {
	if b.read == nil {
		return a, false
	}
	b.selfMu.Lock()
	defer b.selfMu.Unlock()
	a = b.read()
	changed := false
	defer func() {
		if changed {
			b.complain(a.check())
		}
	}()
	b.mu.Lock()
	defer b.mu.Unlock()
	a.Cluster, a.GossipAddr = b.cluster, b.gossip
	a.PeerAddrs, a.ClientAddrs = slices.Clone(a.PeerAddrs), slices.Clone(a.ClientAddrs)
	a = a.fit()
	if a.Stamp = b.self.Stamp; !a.Same(b.self) {
		changed = true
		a.Stamp++
		b.self = a
		for _, other := range b.known { // in any order: each is marked
			b.compare(a, other.Announcement)
		}
	}
	return a, true
}

// alone reports whether this process waits for a cluster. One that only listens
// does, as it has little time.
func (b *board) alone() bool {
	a, ok := b.speak()
	return !ok || a.ClusterID == 0
}

func (b *board) announce() {
	for _, wake := range b.announcers {
		wake()
	}
}

// gossips says where this process gossips from now on.
func (b *board) gossips(addr string) {
	b.mu.Lock()
	changed := b.gossip != addr
	b.gossip = addr
	b.mu.Unlock()
	if changed {
		b.announce()
	}
}

func (b *board) gossipAddr() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gossip
}

// hear takes what another process said: to this one, at from, or to somebody
// who told of it, which is age ago. It reports whether it is news.
func (b *board) hear(a Announcement, source, from string, age time.Duration) bool {
	if a.Cluster != b.cluster || a.ID == 0 || age < 0 || age >= forgetAfter {
		return false
	}
	self, speaks := b.speak()
	now := time.Now()
	s := Sighting{Announcement: a, Source: source, From: from, Heard: now.Add(-age)}
	b.mu.Lock()
	if speaks && a.ID == self.ID {
		if a.newer(self) || !self.newer(a) && !a.Same(self) { // else it is an echo
			b.conflict(Conflict{Twin, self, a})
		}
		b.mu.Unlock()
		return false
	}
	old, known := b.known[a.ID]
	news := !known || a.newer(old.Announcement)
	switch {
	case news:
		b.admit(s)
		b.compare(self, a)
	case old.Announcement.newer(a): // an old one that took its time, or is repeated
		b.mu.Unlock()
		return false
	default: // said again
		if old.Heard.Before(s.Heard) {
			old.Heard = s.Heard
		}
		if from != "" && old.From == "" {
			old.Source, old.From = source, from
		}
		b.known[a.ID] = old
	}
	b.mu.Unlock()
	if news {
		b.wake()
		for _, relay := range b.relays {
			relay(a, age)
		}
	}
	return news
}

// admit keeps a sighting, and makes room for it. mu is held.
func (b *board) admit(s Sighting) {
	if _, known := b.known[s.ID]; !known && len(b.known) >= mostKnown {
		b.forget(time.Now())
		if len(b.known) >= mostKnown {
			oldest := slices.MinFunc(slices.Collect(maps.Values(b.known)), func(a, b Sighting) int { return a.Heard.Compare(b.Heard) })
			b.drop(oldest.ID)
		}
	}
	b.known[s.ID] = s
	b.fresh.known[s.ID] = true
}

// drop forgets one process, and what it was at odds with. mu is held.
func (b *board) drop(id uint64) {
	delete(b.known, id)
	delete(b.fresh.known, id)
	maps.DeleteFunc(b.conflicts, func(c conflict, _ Conflict) bool { return c.kind == TwoClusters && (c.a == id || c.b == id) })
}

// forget drops who has not been heard of for too long. mu is held.
func (b *board) forget(now time.Time) {
	for id, s := range b.known {
		if now.Sub(s.Heard) >= forgetAfter {
			b.drop(id)
		}
	}
	maps.DeleteFunc(b.strangers, func(_ stranger, s Stranger) bool { return now.Sub(s.Heard) >= forgetAfter })
}

// compare finds clusters that exclude each other. mu is held.
func (b *board) compare(self, a Announcement) {
	excludes := func(x Announcement) bool {
		return x.ClusterID != 0 && a.ClusterID != 0 && x.ClusterID != a.ClusterID
	}
	if excludes(self) {
		b.conflict(Conflict{TwoClusters, self, a})
		return
	}
	for _, id := range slices.Sorted(maps.Keys(b.known)) {
		if other := b.known[id].Announcement; excludes(other) {
			b.conflict(Conflict{TwoClusters, other, a})
			return // one is enough to tell
		}
	}
}

// conflict marks one that is new. mu is held.
func (b *board) conflict(c Conflict) {
	key := conflict{c.Kind, min(c.A.ID, c.B.ID), max(c.A.ID, c.B.ID)}
	if c.Kind == Twin {
		key.a = c.B.Incarnation // a twin that is started again is told of again
	}
	if _, known := b.conflicts[key]; !known && len(b.conflicts) < mostKnown {
		b.conflicts[key] = c
		b.fresh.conflicts[key] = true
		b.wake()
	}
}

// meet takes a stranger.
func (b *board) meet(s Stranger, host string) {
	s.Heard = time.Now()
	key := stranger{s.Cluster, host, s.Reason}
	b.mu.Lock()
	_, known := b.strangers[key]
	if !known && len(b.strangers) >= mostStrange {
		b.forget(s.Heard)
	}
	if !known && len(b.strangers) < mostStrange {
		b.fresh.strangers[key] = true
	}
	if known || len(b.strangers) < mostStrange {
		b.strangers[key] = s
	}
	b.mu.Unlock()
	b.wake()
}

// gossipers returns where those gossip that are known and not in met, and notes
// that those in met are there.
func (b *board) gossipers(met map[uint64]bool) (addrs []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	for id, s := range b.known {
		switch {
		case met[id]:
			s.Heard = now
			b.known[id] = s
		case s.GossipAddr != "" && now.Sub(s.Heard) < forgetAfter:
			addrs = append(addrs, s.GossipAddr)
		}
	}
	return addrs
}

func (b *board) list() []Sighting {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(time.Now())
	return slices.SortedFunc(maps.Values(b.known), func(x, y Sighting) int { return cmp.Compare(x.ID, y.ID) })
}

func (b *board) strange() []Stranger {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget(time.Now())
	return slices.SortedFunc(maps.Values(b.strangers), func(x, y Stranger) int {
		return cmp.Or(cmp.Compare(x.Cluster, y.Cluster), cmp.Compare(x.Addr, y.Addr), cmp.Compare(x.Reason, y.Reason))
	})
}

func (b *board) wake() {
	select {
	case b.news <- struct{}{}:
	default: // it will look anyway
	}
}

// dispatch tells the handler, until ctx ends.
func (b *board) dispatch(ctx context.Context) {
	if b.handler == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.news:
		}
		found, conflicts, strangers := b.collect()
		for _, s := range found {
			b.handler.Found(s)
		}
		for _, c := range conflicts {
			b.handler.Conflict(c)
		}
		for _, s := range strangers {
			b.handler.Stranger(s)
		}
	}
}

// collect takes the marks.
func (b *board) collect() (found []Sighting, conflicts []Conflict, strangers []Stranger) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(b.fresh.known)) {
		if s, ok := b.known[id]; ok {
			found = append(found, s)
		}
	}
	for key := range b.fresh.conflicts {
		if c, ok := b.conflicts[key]; ok {
			conflicts = append(conflicts, c)
		}
	}
	for key := range b.fresh.strangers {
		if s, ok := b.strangers[key]; ok {
			strangers = append(strangers, s)
		}
	}
	b.fresh = newMarks()
	return found, conflicts, strangers
}

// quarrels are the conflicts that are known.
func (b *board) quarrels() []Conflict {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.SortedFunc(maps.Values(b.conflicts), func(x, y Conflict) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.A.ID, y.A.ID), cmp.Compare(x.B.ID, y.B.ID))
	})
}
