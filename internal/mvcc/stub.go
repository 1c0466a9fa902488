package mvcc

import (
	"io"

	"github.com/concord-kv/concord/kv"
)

// Store is the key space.
type Store struct{ rev kv.Revision }

// New returns an empty store at revision 1.
func New(o Options) *Store { panic("under construction") }

// Close gives all memory back, as soon as the last open view is closed.
func (s *Store) Close() { panic("under construction") }

// Begin starts the next transaction. There is one at a time, and only the
// writer's goroutine uses it. Transactions that change nothing cost nothing.
func (s *Store) Begin() *Tx { panic("under construction") }

// Get reads one key at the latest revision without opening a view. Any goroutine.
func (s *Store) Get(key []byte) (kv.KeyValue, bool) { panic("under construction") }

// View pins the current revision. Any goroutine; O(1); it never waits.
func (s *Store) View() View { panic("under construction") }

// Revision is the current revision. Any goroutine.
func (s *Store) Revision() kv.Revision { panic("under construction") }

// CompactRevision is the oldest revision that can be read; 0 before the first compaction.
func (s *Store) CompactRevision() kv.Revision { panic("under construction") }

// SetCompacted makes rev the oldest readable revision, at once. The caller has
// checked that it lies above CompactRevision and not above Revision. Writer only.
func (s *Store) SetCompacted(rev kv.Revision) { panic("under construction") }

// CompactStep does about budget record visits of physical compaction and page
// reclaim and reports whether there is more to do now. Writer only.
func (s *Store) CompactStep(budget int) (more bool) { panic("under construction") }

// Stats tells what the store holds. Any goroutine.
func (s *Store) Stats() Stats { panic("under construction") }

// Load fills a new, empty store from what View.WriteTo wrote, decoding on
// parallel goroutines (0: GOMAXPROCS). After an error the store is good for Close only.
func (s *Store) Load(r io.Reader, parallel int) error { panic("under construction") }

// Hub is the registry of watchers.
func (s *Store) Hub() *Hub { panic("under construction") }

// Tx is a transaction: it reads its own writes; readers see them after Commit, all at once.
type Tx struct{ s *Store }

// Revision is what Commit will make current if anything changed.
func (t *Tx) Revision() kv.Revision { panic("under construction") }

// Get returns the key as it stands, own writes included. It copies nothing, see [Record].
func (t *Tx) Get(key []byte) (Record, bool) { panic("under construction") }

// Range is View.Range on the state with own writes.
func (t *Tx) Range(r *kv.Range) (kv.RangeResult, error) { panic("under construction") }

// Ascend yields the existing keys of a range in order, own writes included,
// without copying. The transaction must not change while it runs.
func (t *Tx) Ascend(key, end []byte, yield func(Record) bool) { panic("under construction") }

// Put writes a key and returns the written record (its revisions and version)
// and what it replaced; prev.Version 0 means that the key did not exist.
func (t *Tx) Put(key, value []byte, lease kv.LeaseID, expires kv.Time) (now, prev Record) {
	panic("under construction")
}

// Delete removes a key and returns what it removed, if it existed.
func (t *Tx) Delete(key []byte) (prev Record, existed bool) { panic("under construction") }

// Changed reports whether the transaction has changed anything.
func (t *Tx) Changed() bool { panic("under construction") }

// Commit publishes the transaction and returns the current revision: one more
// than before if anything changed. It wakes the watchers of the keys touched.
func (t *Tx) Commit() kv.Revision { panic("under construction") }

// Discard ends a transaction that has changed nothing; else it panics.
func (t *Tx) Discard() { panic("under construction") }

// View is the store at one revision. It is a small value that may be passed
// on; it must be closed exactly once. Any goroutine.
type View struct{ s *Store }

// Close lets go of the view's pages.
func (v View) Close() { panic("under construction") }

// Revision is the view's revision.
func (v View) Revision() kv.Revision { panic("under construction") }

// CompactRevision is the oldest revision readable through the view.
func (v View) CompactRevision() kv.Revision { panic("under construction") }

// Get returns a copy of the key at rev, 0 meaning the view's. A rev outside
// CompactRevision..Revision finds nothing.
func (v View) Get(key []byte, rev kv.Revision) (kv.KeyValue, bool) { panic("under construction") }

// Range answers r exactly as etcd would. Header.Time is left to the caller.
// Errors: *kv.CompactedError, kv.ErrFutureRevision.
func (v View) Range(r *kv.Range) (kv.RangeResult, error) { panic("under construction") }

// Changes yields the changes to the keys of a range made at from..to (both
// included, to 0 meaning the view's revision), in revision order and within a
// revision in the order made. prev fills Event.Prev where the state before is
// still readable. A from below CompactRevision is a *kv.CompactedError.
// For a single key the cost depends on that key's changes only; for a range it
// depends on all changes made at from..to.
func (v View) Changes(from, to kv.Revision, key, end []byte, prev bool, yield func(rev kv.Revision, ev kv.Event) bool) error {
	panic("under construction")
}

// WriteTo writes the view, history included, for Load.
func (v View) WriteTo(w io.Writer) (int64, error) { panic("under construction") }

// Hub wakes watchers. Any goroutine.
type Hub struct{ s *Store }

// Register makes a watcher of a key range. A change committed after Register
// wakes it; one committed before is seen by every View opened after Register.
func (h *Hub) Register(key, end []byte) *Watcher { panic("under construction") }

// Watcher is told of changes to its range.
type Watcher struct {
	// C receives a value when the range was touched since the last Take.
	C <-chan struct{}
}

// Revision is the latest revision that touched the range, 0 when none has
// since Register.
func (w *Watcher) Revision() kv.Revision { panic("under construction") }

// Take returns the revisions that touched the range since the last Take,
// ascending, appended to dst. When there were more than are remembered, all is
// false and revs holds the first and the last: read what lies between with one
// Changes call. When all is true, one Changes(r, r, …) call for each suffices.
func (w *Watcher) Take(dst []kv.Revision) (revs []kv.Revision, all bool) { panic("under construction") }

// Close ends the registration.
func (w *Watcher) Close() { panic("under construction") }
