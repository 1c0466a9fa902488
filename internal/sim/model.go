package sim

import (
	"bytes"
	"slices"
	"sort"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// version is a key as one revision left it; deleted when gone.
type version struct {
	kv      kv.KeyValue
	deleted bool
}

// change is one event of a revision.
type change struct {
	key string
	version
}

// modelLease is a lease as the model knows it.
type modelLease struct {
	ttl        time.Duration
	deadline   kv.Time
	generation uint64
	since      int64 // virtual time at which its holder last asked for it
}

// remembered is the result of a request with an id.
type remembered struct {
	seq    uint64
	result *kv.TxnResult
}

// retries are what is remembered of one client, by sequence number, and the
// highest number forgotten: 64 below the highest that ran.
type retries struct {
	results []remembered
	floor   uint64
}

// model is the store as the documentation of package kv describes it, written
// to be obvious: it keeps everything for ever and scans. It is fed with the
// committed commands once, and every answer of every member is held against it.
type model struct {
	rev, compacted kv.Revision
	now            kv.Time
	live           map[string]kv.KeyValue
	history        map[string][]version // by key, oldest first
	changes        [][]change           // by revision
	times          []kv.Time            // by revision: when it was made
	leases         map[kv.LeaseID]*modelLease
	uploads        map[machine.UploadID]map[int64]int64 // the pieces by offset: their lengths
	retries        map[[16]byte]*retries
	access         *auth.Tables // held to a naive model of their own in package auth
	tokens         map[kv.TokenID]*modelToken
}

func newModel() *model {
	return &model{
		rev: 1, live: map[string]kv.KeyValue{}, history: map[string][]version{},
		changes: make([][]change, 2), times: make([]kv.Time, 2),
		leases: map[kv.LeaseID]*modelLease{}, uploads: map[machine.UploadID]map[int64]int64{}, retries: map[[16]byte]*retries{},
		access: auth.New(), tokens: map[kv.TokenID]*modelToken{},
	}
}

// draft is a transaction under way: what it changed so far, in order.
type draft struct {
	m       *model
	rev     kv.Revision // of its changes
	touched map[string]version
	changes []change
}

func (d *draft) get(key string) (kv.KeyValue, bool) {
	if v, ok := d.touched[key]; ok {
		return v.kv, !v.deleted
	}
	k, ok := d.m.live[key]
	return k, ok
}

func (d *draft) set(key string, v version) {
	d.touched[key] = v
	d.changes = append(d.changes, change{key, v})
}

// keys lists the keys of a range that exist, in order.
func (d *draft) keys(key, end []byte) []string {
	var out []string
	for k := range d.m.live {
		if _, ok := d.touched[k]; !ok && kv.InRange([]byte(k), key, end) {
			out = append(out, k)
		}
	}
	for k, v := range d.touched {
		if !v.deleted && kv.InRange([]byte(k), key, end) {
			out = append(out, k)
		}
	}
	sort.Strings(out)
	return out
}

// txn runs a transaction and says what it must answer; whole tells whether its
// staged values are there.
func (m *model) txn(t *kv.Txn, whole bool) (*kv.TxnResult, error) {
	if t.ID.IsZero() {
		return m.runTxn(t, whole)
	}
	past := m.retries[t.ID.Client]
	if past == nil {
		past = &retries{}
		m.retries[t.ID.Client] = past
	}
	for _, r := range past.results {
		if r.seq == t.ID.Seq {
			return r.result, nil
		}
	}
	if t.ID.Seq <= past.floor {
		return nil, kv.ErrRequestTooOld
	}
	res, err := m.runTxn(t, whole)
	if err != nil {
		return nil, err // it did nothing, and may do something next time
	}
	past.results = append(past.results, remembered{t.ID.Seq, res})
	slices.SortFunc(past.results, func(a, b remembered) int { return cmp(int64(a.seq), int64(b.seq)) })
	if highest := past.results[len(past.results)-1].seq; highest > 64 {
		past.floor = max(past.floor, highest-64)
	}
	past.results = slices.DeleteFunc(past.results, func(r remembered) bool { return r.seq <= past.floor })
	return res, nil
}

func (m *model) runTxn(t *kv.Txn, whole bool) (*kv.TxnResult, error) {
	if !whole {
		return nil, machine.ErrUploadLost
	}
	d := &draft{m: m, rev: m.rev + 1, touched: map[string]version{}}
	res, err := d.run(t)
	if err != nil {
		return nil, err
	}
	m.commit(d.changes)
	res.stamp(m)
	return &res.TxnResult, nil
}

// commit makes changes the next revision, unless there are none.
func (m *model) commit(changes []change) {
	if len(changes) == 0 {
		return
	}
	m.rev++
	m.changes = append(m.changes, changes)
	m.times = append(m.times, m.now)
	for _, c := range changes {
		m.history[c.key] = append(m.history[c.key], c.version)
		if c.deleted {
			delete(m.live, c.key)
		} else {
			m.live[c.key] = c.kv
		}
	}
}

// modelResult is a result whose headers are filled in at the end.
type modelResult struct{ kv.TxnResult }

func (r *modelResult) stamp(m *model) { r.Header = kv.Header{Revision: m.rev, Time: m.now} }

func (d *draft) run(t *kv.Txn) (*modelResult, error) {
	holds := d.compares(t.Compare)
	return d.branch(t, holds)
}

func (d *draft) branch(t *kv.Txn, holds bool) (*modelResult, error) {
	res := &modelResult{kv.TxnResult{Succeeded: holds}}
	ops := t.Failure
	if holds {
		ops = t.Success
	}
	for i := range ops {
		r, err := d.op(&ops[i])
		if err != nil {
			return nil, err
		}
		res.Ops = append(res.Ops, r)
	}
	return res, nil
}

func (d *draft) op(op *kv.Op) (kv.OpResult, error) {
	res := kv.OpResult{Kind: op.Kind}
	switch op.Kind {
	case kv.OpPut:
		return res, d.put(op, &res)
	case kv.OpDelete:
		for _, k := range d.keys(op.Key, op.End) {
			old, _ := d.get(k)
			if op.PrevKV {
				res.Prev = append(res.Prev, old)
			}
			res.Deleted++
			d.set(k, version{kv.KeyValue{Key: old.Key, ModRevision: d.rev}, true})
		}
	case kv.OpRange:
		r := kv.RangeResult{}
		keys := d.keys(op.Range.Key, op.Range.End)
		r.Count = int64(len(keys))
		for i, k := range keys {
			if op.Range.Limit > 0 && int64(i) >= op.Range.Limit {
				r.More = true
				break
			}
			item, _ := d.get(k)
			r.KVs = append(r.KVs, item)
		}
		res.Range = &r
	case kv.OpTxn:
		r, err := d.run(op.Txn)
		if err != nil {
			return res, err
		}
		res.Txn = &r.TxnResult
	}
	return res, nil
}

func (d *draft) put(op *kv.Op, res *kv.OpResult) error {
	old, exists := d.get(string(op.Key))
	next := kv.KeyValue{Key: op.Key, Value: op.Value, CreateRevision: d.rev, ModRevision: d.rev, Version: 1, Lease: op.Lease}
	if exists {
		next.CreateRevision, next.Version = old.CreateRevision, old.Version+1
		if op.PrevKV {
			res.Prev = []kv.KeyValue{old}
		}
	}
	if op.TTL > 0 {
		next.Expires = d.m.now.Add(op.TTL)
	}
	if op.Lease != 0 && d.m.leases[op.Lease] == nil {
		return kv.ErrLeaseNotFound
	}
	d.set(string(op.Key), version{next, false})
	return nil
}

// compares evaluates the conditions against the state before the transaction.
func (d *draft) compares(conditions []kv.Compare) bool {
	for i := range conditions {
		c := &conditions[i]
		if len(c.End) == 0 {
			item := d.m.live[string(c.Key)]
			if !compare(c, item) {
				return false
			}
			continue
		}
		found := false
		for k, item := range d.m.live {
			if kv.InRange([]byte(k), c.Key, c.End) {
				found = true
				if !compare(c, item) {
					return false
				}
			}
		}
		if !found && !compare(c, kv.KeyValue{}) {
			return false
		}
	}
	return true
}

func compare(c *kv.Compare, item kv.KeyValue) bool {
	var got int64
	switch c.Target {
	case kv.CompareVersion:
		got = item.Version
	case kv.CompareCreate:
		got = int64(item.CreateRevision)
	case kv.CompareMod:
		got = int64(item.ModRevision)
	case kv.CompareLease:
		got = int64(item.Lease)
	case kv.CompareValue:
		return item.Key != nil && relation(c.Relation, bytes.Compare(item.Value, c.Value))
	}
	return relation(c.Relation, cmp(got, c.Number))
}

func cmp(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func relation(r kv.Relation, order int) bool {
	switch r {
	case kv.Equal:
		return order == 0
	case kv.Greater:
		return order > 0
	case kv.Less:
		return order < 0
	}
	return order != 0
}

// at gives a key as it stood at a revision.
func (m *model) at(key string, rev kv.Revision) (kv.KeyValue, bool) {
	h := m.history[key]
	i := sort.Search(len(h), func(i int) bool { return h[i].kv.ModRevision > rev })
	if i == 0 || h[i-1].deleted {
		return kv.KeyValue{}, false
	}
	return h[i-1].kv, true
}

// rangeAt gives the keys of a range as they stood at a revision.
func (m *model) rangeAt(key, end []byte, rev kv.Revision) []kv.KeyValue {
	var out []kv.KeyValue
	for k := range m.history {
		if item, ok := m.at(k, rev); ok && kv.InRange([]byte(k), key, end) {
			out = append(out, item)
		}
	}
	sort.Slice(out, func(i, j int) bool { return bytes.Compare(out[i].Key, out[j].Key) < 0 })
	return out
}

// remove deletes keys at one revision, in order, as an expiry or revoke does.
func (m *model) remove(keys []string) {
	sort.Strings(keys)
	var changes []change
	for _, k := range keys {
		if item, ok := m.live[k]; ok {
			changes = append(changes, change{k, version{kv.KeyValue{Key: item.Key, ModRevision: m.rev + 1}, true}})
		}
	}
	m.commit(changes)
}

// attached lists the keys of a lease.
func (m *model) attached(id kv.LeaseID) []string {
	var keys []string
	for k, item := range m.live {
		if item.Lease == id {
			keys = append(keys, k)
		}
	}
	sort.Strings(keys)
	return keys
}
