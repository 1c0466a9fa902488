package kvtest

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Model is a [kv.Store] in memory that is as plain as it can be: it keeps every
// change ever made and answers by replaying them. Its cluster time stands still
// until [Model.Advance]. Use it where a program's own tests need a store, and
// as the reference that other stores are compared with.
//
// Its methods may be called concurrently.
type Model struct {
	limits kv.Limits

	mu sync.Mutex
	// history has a batch for each revision that changed something; the
	// events in it carry Prev.
	history   []kv.WatchBatch
	revision  kv.Revision
	compacted kv.Revision
	now       kv.Time
	keys      map[string]kv.KeyValue
	leases    map[kv.LeaseID]modelLease
	clients   map[[16]byte]*modelClient
	// changed is closed, and replaced, whenever a watcher has to look again.
	changed chan struct{}
}

type modelLease struct {
	ttl      time.Duration
	deadline kv.Time
}

// The store remembers this much of each client that names its requests; the
// figures are those of kv.RequestID.
const (
	rememberedResults = 64
	rememberedFor     = 5 * time.Minute
)

type modelClient struct {
	results map[uint64]kv.TxnResult
	// forgotten is the highest sequence number whose result was dropped.
	forgotten uint64
	last      kv.Time
}

var _ kv.Store = (*Model)(nil)

// NewModel returns an empty store at revision 1 and cluster time 0. Zero fields
// of limits mean their defaults.
func NewModel(limits kv.Limits) *Model {
	return &Model{
		limits:   limits.WithDefaults(),
		revision: 1,
		keys:     map[string]kv.KeyValue{},
		leases:   map[kv.LeaseID]modelLease{},
		clients:  map[[16]byte]*modelClient{},
		changed:  make(chan struct{}),
	}
}

// Advance moves cluster time on by d and expires what is due by then: first the
// leases, by deadline and id, at a revision each, then the keys with a TTL at
// one revision together.
func (m *Model) Advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
	for _, id := range m.dueLeases() {
		m.endLease(id)
	}
	var due []string
	for key, k := range m.keys {
		if k.Expires != 0 && k.Expires <= m.now {
			due = append(due, key)
		}
	}
	m.deleteKeys(due)
	for id, c := range m.clients {
		if m.now.Sub(c.last) > rememberedFor {
			delete(m.clients, id)
		}
	}
}

// Range implements [kv.KV]. The read level makes no difference: there is one
// copy.
func (m *Model) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	if err := ctx.Err(); err != nil {
		return kv.RangeResult{}, err
	}
	if err := m.limits.CheckRange(&r); err != nil {
		return kv.RangeResult{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.checkRevision(r.Revision); err != nil {
		return kv.RangeResult{}, err
	}
	return m.rangeIn(m.keys, m.revision, &r), nil
}

// Compact implements [kv.KV].
func (m *Model) Compact(ctx context.Context, rev kv.Revision) (kv.Header, error) {
	if err := ctx.Err(); err != nil {
		return kv.Header{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case rev <= m.compacted:
		return kv.Header{}, &kv.CompactedError{Compacted: m.compacted}
	case rev > m.revision:
		return kv.Header{}, kv.ErrFutureRevision
	}
	m.compacted = rev
	m.wake()
	return m.header(), nil
}

func (m *Model) header() kv.Header { return kv.Header{Revision: m.revision, Time: m.now} }

func (m *Model) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

func (m *Model) checkRevision(rev kv.Revision) error {
	switch {
	case rev == 0:
		return nil
	case rev > m.revision:
		return kv.ErrFutureRevision
	case rev < m.compacted:
		return &kv.CompactedError{Compacted: m.compacted}
	}
	return nil
}

// commit makes events the next revision. They carry what they replace in Prev
// and have ModRevision set.
func (m *Model) commit(events []kv.Event) {
	if len(events) == 0 {
		return
	}
	m.revision++
	m.history = append(m.history, kv.WatchBatch{Revision: m.revision, Events: events})
	for _, ev := range events {
		replay(m.keys, ev)
	}
	m.wake()
}

// deleteKeys removes keys at one revision, in key order.
func (m *Model) deleteKeys(keys []string) {
	slices.Sort(keys)
	var events []kv.Event
	for _, key := range keys {
		events = append(events, deletion(m.keys[key], m.revision+1))
	}
	m.commit(events)
}

// at rebuilds the keys as they stood at rev.
func (m *Model) at(rev kv.Revision) map[string]kv.KeyValue {
	keys := map[string]kv.KeyValue{}
	for _, batch := range m.history {
		if batch.Revision > rev {
			break
		}
		for _, ev := range batch.Events {
			replay(keys, ev)
		}
	}
	return keys
}

func replay(keys map[string]kv.KeyValue, ev kv.Event) {
	if ev.Type == kv.DeleteEvent {
		delete(keys, string(ev.KV.Key))
		return
	}
	keys[string(ev.KV.Key)] = ev.KV
}

func deletion(prev kv.KeyValue, rev kv.Revision) kv.Event {
	return kv.Event{Type: kv.DeleteEvent, KV: kv.KeyValue{Key: prev.Key, ModRevision: rev}, Prev: &prev}
}
