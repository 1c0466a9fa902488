package mvcc

import (
	"sync/atomic"

	"github.com/concord-kv/concord/kv"
)

// Options configures a [Store]. The zero value is good.
type Options struct {
	// Keys is how many keys are expected; the hash is sized for them. 0 means
	// a small one that grows.
	Keys int
}

// Store is the key space. One goroutine, the writer, calls Begin, SetCompacted,
// CompactStep, Load, Close and the methods of [Tx]; everything else may be
// called from any goroutine, also while the writer works.
type Store struct {
	// Memory. Readers translate refs; all else is the writer's.
	mem       *arena
	epochs    *epochs
	retired   retireList
	versions  bump // as they are written
	survivors bump // moved there from sparse pages
	keys      bump

	// Read by anyone, changed by the writer.
	hash  hashIndex
	tree  tree
	index revIndex

	// Written by the writer, read by anyone. They only grow.
	rev       atomic.Int64
	compacted atomic.Int64

	hub      *Hub
	tx       Tx
	compact  compaction
	counts   counts
	unmapped atomic.Bool // Close has given everything back
}

// counts are written by the writer and read by anyone.
type counts struct {
	keys, versions, live, history, pinned atomic.Int64
	puts, deletes                         atomic.Int64
}

// add is for the only writer: cheaper than an atomic addition.
func add(c *atomic.Int64, n int64) { c.Store(c.Load() + n) }

// New returns an empty store at revision 1.
func New(o Options) *Store {
	s := &Store{mem: newArena(), epochs: newEpochs()}
	s.versions = bump{a: s.mem, kind: pageVersions}
	s.survivors = bump{a: s.mem, kind: pageVersions}
	s.keys = bump{a: s.mem, kind: pageKeys}
	s.hash.init(s, o.Keys)
	s.tree.init(s, &s.keys)
	s.index.init(s.mem)
	s.hub = newHub(s)
	s.tx.s = s
	s.rev.Store(1)
	s.hub.settled.Store(1)
	s.compact.next = 1
	return s
}

// Close gives all memory back, at once or when the last open view is closed.
// Views taken later are empty and answer [kv.ErrClosed].
func (s *Store) Close() {
	s.epochs.current.Store(closedEpoch)
	s.unmapIfIdle()
}

func (s *Store) unmapIfIdle() {
	if s.epochs.idle() && s.unmapped.CompareAndSwap(false, true) {
		s.hash.close()
		for _, r := range s.retired.items[s.retired.first:] {
			if r.kind == retiredTable {
				unmapMemory(r.base, r.size)
			}
		}
		s.mem.close()
	}
}

func (s *Store) enter() (pin, bool) {
	p, ok := s.epochs.enter()
	if !ok {
		s.unmapIfIdle() // this attempt may have been in the way of another's
	}
	return p, ok
}

func (s *Store) leave(p pin) {
	s.epochs.leave(p)
	if s.epochs.current.Load() == closedEpoch {
		s.unmapIfIdle()
	}
}

// Revision is the current revision.
func (s *Store) Revision() kv.Revision { return kv.Revision(s.rev.Load()) }

// CompactRevision is the oldest revision that can be read; 0 before the first
// compaction.
func (s *Store) CompactRevision() kv.Revision { return kv.Revision(s.compacted.Load()) }

// Hub is the registry of watchers.
func (s *Store) Hub() *Hub { return s.hub }

// Raise makes rev, which is above Revision, the current one, without a change:
// the history up to it counts as compacted. It is for a state that is written
// out at once, as when a backup becomes a new cluster whose revisions must be
// above all that the old one has given out: memory of history is not given back.
func (s *Store) Raise(rev kv.Revision) {
	if rev <= s.Revision() || s.tx.open {
		panic("mvcc: revisions only rise, and between transactions")
	}
	s.rev.Store(int64(rev))
	s.hub.settled.Store(int64(rev))
	s.compacted.Store(int64(rev))
	s.compact = compaction{next: rev, target: rev, edge: rev}
}

// Get reads one key at the latest revision, without a view.
func (s *Store) Get(key []byte) (kv.KeyValue, bool) {
	p, ok := s.enter()
	if !ok {
		return kv.KeyValue{}, false
	}
	defer s.leave(p)
	return s.get(key, s.Revision())
}

// get is called by the writer or pinned.
func (s *Store) get(key []byte, rev kv.Revision) (kv.KeyValue, bool) {
	r := s.hash.find(s.hash.sum(key), key)
	if r == 0 {
		return kv.KeyValue{}, false
	}
	k := s.key(r)
	v := s.visible(k, rev)
	if v == 0 {
		return kv.KeyValue{}, false
	}
	return record(k, s.version(v)).Clone(), true
}

// View is the store at one revision: a small value that may be passed on and
// must be closed exactly once. While it is open, what it can see stays in
// memory; nothing else waits for it. Its methods may be called concurrently.
type View struct {
	s              *Store
	pin            pin
	open           bool
	rev, compacted kv.Revision
}

// View pins the current revision. It costs O(1) and never waits.
func (s *Store) View() View {
	p, ok := s.enter()
	if !ok {
		return View{s: s}
	}
	// Loaded in this order, rev has everything that compacted allows to be
	// removed, unless a compaction came in between.
	for {
		rev, compacted := s.Revision(), s.CompactRevision()
		if compacted <= rev {
			return View{s: s, pin: p, open: true, rev: rev, compacted: compacted}
		}
	}
}

// Close lets go of the view's memory.
func (v View) Close() {
	if v.open {
		v.s.leave(v.pin)
	}
}

// Revision is the view's revision; 0 when the store was closed.
func (v View) Revision() kv.Revision { return v.rev }

// CompactRevision is the oldest revision that can be read through the view.
func (v View) CompactRevision() kv.Revision { return v.compacted }

// Get returns a copy of the key as it was at rev; 0 means the view's revision.
// Outside of CompactRevision to Revision it finds nothing.
func (v View) Get(key []byte, rev kv.Revision) (kv.KeyValue, bool) {
	if rev == 0 {
		rev = v.rev
	}
	if !v.open || rev < v.compacted || rev > v.rev {
		return kv.KeyValue{}, false
	}
	return v.s.get(key, rev)
}

// Stats says what a store holds. All sizes are bytes.
type Stats struct {
	// Keys counts the keys that exist at the current revision.
	Keys int64
	// Versions counts version records in memory, tombstones and history too.
	Versions int64
	// LiveBytes are the keys and values that exist at the current revision,
	// HistoryBytes what superseded versions and tombstones take.
	LiveBytes, HistoryBytes int64
	// MemoryBytes is all that is mapped outside the Go heap; PinnedBytes is
	// the part of it that is kept for open views only.
	MemoryBytes, PinnedBytes int64
	// KeyBytes, VersionBytes, TreeBytes, HashBytes and IndexBytes are parts
	// of MemoryBytes.
	KeyBytes, VersionBytes, TreeBytes, HashBytes, IndexBytes int64
	// Puts and Deletes count keys put and deleted since New; they only grow.
	Puts, Deletes int64
}

// Stats tells what the store holds.
func (s *Store) Stats() Stats {
	m := s.mem
	return Stats{
		Keys:         s.counts.keys.Load(),
		Versions:     s.counts.versions.Load(),
		LiveBytes:    s.counts.live.Load(),
		HistoryBytes: s.counts.history.Load(),
		MemoryBytes:  m.mapped.Load(),
		PinnedBytes:  s.counts.pinned.Load(),
		KeyBytes:     m.kinds[pageKeys].Load(),
		VersionBytes: m.kinds[pageVersions].Load() + m.kinds[pageLarge].Load(),
		TreeBytes:    m.kinds[pageLeaves].Load() + m.kinds[pageInners].Load(),
		HashBytes:    s.hash.bytes(),
		IndexBytes:   m.kinds[pageIndex].Load(),
		Puts:         s.counts.puts.Load(),
		Deletes:      s.counts.deletes.Load(),
	}
}
