package machine

import (
	"slices"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
)

// View is the keys as they stood when it was made, history included. It is a
// small value, made in O(1), holds up nobody, and must be closed once. Leases,
// members and settings are read when they are asked for: they may be newer than
// the keys, never older.
type View struct {
	m    *Machine
	keys mvcc.View
	time kv.Time
	who  auth.Subject // who looks
}

// View returns the state that was applied last. Any goroutine.
func (m *Machine) View() View {
	// The time before the keys: what a reader then computes to be left of a
	// TTL may be too much by an entry, never a key dead before its time.
	now := kv.Time(m.clock.Load())
	m.swap.RLock()
	keys := m.store.View()
	m.swap.RUnlock()
	return View{m: m, keys: keys, time: now}
}

// Get reads one key at the latest revision. It is the fastest read there is.
func (m *Machine) Get(key []byte) (k kv.KeyValue, ok bool) {
	m.swap.RLock()
	k, ok = m.store.Get(key)
	m.swap.RUnlock()
	return k, ok
}

// Watch makes a watcher of changes to a range of keys, and returns a channel
// that is closed when the state was replaced by a snapshot: then the watcher
// sleeps for ever and has to be made anew. Its Close is the caller's.
func (m *Machine) Watch(key, end []byte) (w *mvcc.Watcher, replaced <-chan struct{}) {
	m.swap.RLock()
	defer m.swap.RUnlock()
	return m.store.Hub().Register(key, end), m.replaced
}

// Settled returns the revision up to which all watchers have been woken.
func (m *Machine) Settled() kv.Revision {
	m.swap.RLock()
	defer m.swap.RUnlock()
	return m.store.Hub().Settled()
}

// Close lets the view go.
func (v View) Close() { v.keys.Close() }

// Header describes the view.
func (v View) Header() kv.Header { return kv.Header{Revision: v.keys.Revision(), Time: v.time} }

// CompactRevision is the oldest revision that the view can be read at.
func (v View) CompactRevision() kv.Revision { return v.keys.CompactRevision() }

// Range answers r. Its errors are [kv.ErrFutureRevision] and
// [*kv.CompactedError].
func (v View) Range(r *kv.Range) (kv.RangeResult, error) {
	if err := v.MayRead(r.Key, r.End); err != nil {
		return kv.RangeResult{}, err
	}
	res, err := v.keys.Range(r)
	res.Time = v.time
	return res, err
}

// Changes yields the changes that w asks for, made at the revisions from up to
// to, see [mvcc.View.Changes].
func (v View) Changes(from, to kv.Revision, w *kv.WatchRequest, yield func(rev kv.Revision, ev kv.Event) bool) error {
	if err := v.MayWatch(w); err != nil {
		return err
	}
	return v.keys.Changes(from, to, w, yield)
}

// Txn answers a transaction that is [kv.Txn.ReadOnly]; any other gets an error.
func (v View) Txn(t *kv.Txn) (kv.TxnResult, error) {
	if !t.ReadOnly() {
		return kv.TxnResult{}, kv.Errorf(kv.InvalidArgument, "the transaction is not read only")
	}
	if err := v.Allow(t); err != nil {
		return kv.TxnResult{}, err
	}
	p := plan{reader: viewReader{v.keys}, revision: v.keys.Revision(), compacted: v.keys.CompactRevision()}
	if err := p.check(t); err != nil {
		return kv.TxnResult{}, err
	}
	result := kv.TxnResult{}
	x := execution{plan: &p, now: v.time}
	x.txn(t, &result)
	setHeaders(&result, v.Header())
	return result, nil
}

// viewReader lets a transaction read a view.
type viewReader struct{ mvcc.View }

func (r viewReader) Get(key []byte) (mvcc.Record, bool) {
	k, ok := r.View.Get(key, 0)
	return mvcc.Record{KeyValue: k}, ok
}

func (r viewReader) Ascend(key, end []byte, yield func(mvcc.Record) bool) {
	const some = 100 // keys copied at a time
	for {
		res, err := r.Range(&kv.Range{Key: key, End: end, Limit: some})
		if err != nil {
			return // not at the view's own revision
		}
		for _, k := range res.KVs {
			if !yield(mvcc.Record{KeyValue: k}) {
				return
			}
		}
		if !res.More {
			return
		}
		key = append(slices.Clone(res.KVs[len(res.KVs)-1].Key), 0)
	}
}

// TimeToLive tells what is left of a lease, and its keys where asked. It
// returns [kv.ErrLeaseNotFound].
func (v View) TimeToLive(id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	if err := v.who.Right(kv.AnyUser); err != nil {
		return kv.LeaseResult{}, err
	}
	m := v.m
	m.mu.Lock()
	leases, now := m.shared.leases, m.shared.published.now
	l, ok := leases.Get(id)
	h := kv.Header{Revision: m.store.Revision(), Time: now}
	if ok && keys {
		leases = leases.Copy() // so that a million keys do not hold up Apply
	}
	m.mu.Unlock()
	if !ok {
		return kv.LeaseResult{}, kv.ErrLeaseNotFound
	}
	res := kv.LeaseResult{Header: h, ID: id, TTL: l.Duration(), Left: l.Left(now)}
	if keys {
		if err := v.mayLeases(leases, id); err != nil {
			return kv.LeaseResult{}, err
		}
		for key := range leases.Keys(id) {
			res.Keys = append(res.Keys, slices.Clone(key))
		}
	}
	return res, nil
}

// Leases lists the leases by id.
func (v View) Leases() (kv.LeasesResult, error) {
	if err := v.who.Right(kv.AnyUser); err != nil {
		return kv.LeasesResult{}, err
	}
	m := v.m
	m.mu.Lock()
	leases := m.shared.leases.Copy()
	h := kv.Header{Revision: m.store.Revision(), Time: m.shared.published.now}
	m.mu.Unlock()
	res := kv.LeasesResult{Header: h, IDs: make([]kv.LeaseID, 0, leases.Len())}
	for l := range leases.All() {
		res.IDs = append(res.IDs, l.ID)
	}
	if err := v.mayLeases(leases, res.IDs...); err != nil {
		return kv.LeasesResult{}, err
	}
	return res, nil
}

// Members lists the members by id.
func (v View) Members() []kv.Member { return v.m.Members() }

// Settings returns the replicated settings.
func (v View) Settings() Settings { return v.m.Settings() }

// Cluster returns the id of the cluster, 0 before Bootstrap or Restore.
func (m *Machine) Cluster() kv.ClusterID { return m.config.Load().cluster }

// Settings returns the replicated settings as applied last. Any goroutine.
func (m *Machine) Settings() Settings { return m.config.Load().settings }

// Members lists the members by id, as applied last. Any goroutine.
func (m *Machine) Members() []kv.Member {
	c := m.config.Load()
	members := make([]kv.Member, len(c.members))
	for i := range c.members {
		members[i] = cloneMember(&c.members[i])
	}
	return members
}

// Removed reports whether a member with that id was removed: it must not be
// used again. Any goroutine.
func (m *Machine) Removed(id kv.MemberID) bool {
	_, removed := slices.BinarySearch(m.config.Load().removed, id)
	return removed
}
