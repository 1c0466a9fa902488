package kvtest

import (
	"bytes"
	"cmp"
	"context"
	"maps"

	"github.com/concord-kv/concord/kv"
)

// Txn implements [kv.KV].
func (m *Model) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	if err := ctx.Err(); err != nil {
		return kv.TxnResult{}, err
	}
	if _, err := m.limits.CheckTxn(&t); err != nil {
		return kv.TxnResult{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if t.ID.IsZero() || t.ReadOnly() {
		return m.run(&t)
	}
	return m.runOnce(&t)
}

// runOnce runs t unless its id was seen, in which case it gives the first
// result again.
func (m *Model) runOnce(t *kv.Txn) (kv.TxnResult, error) {
	client := m.clients[t.ID.Client]
	if client == nil {
		client = &modelClient{results: map[uint64]kv.TxnResult{}}
		m.clients[t.ID.Client] = client
	}
	client.last = m.now
	if res, ok := client.results[t.ID.Seq]; ok {
		return cloneResult(res), nil
	}
	if t.ID.Seq <= client.forgotten {
		return kv.TxnResult{}, kv.ErrRequestTooOld
	}
	res, err := m.run(t)
	if err != nil {
		return res, err
	}
	client.results[t.ID.Seq] = cloneResult(res)
	if t.ID.Seq > rememberedResults {
		client.forgotten = max(client.forgotten, t.ID.Seq-rememberedResults)
	}
	maps.DeleteFunc(client.results, func(seq uint64, _ kv.TxnResult) bool { return seq <= client.forgotten })
	return res, nil
}

func (m *Model) run(t *kv.Txn) (kv.TxnResult, error) {
	if err := m.checkPath(t); err != nil {
		return kv.TxnResult{}, err
	}
	tx := modelTxn{m: m, keys: maps.Clone(m.keys)}
	res := tx.run(t)
	m.commit(tx.events)
	setHeaders(&res, m.header())
	return res, nil
}

// setHeaders gives the transaction and those nested in it one header; ranges
// keep the revision that they saw.
func setHeaders(res *kv.TxnResult, h kv.Header) {
	res.Header = h
	for _, op := range res.Ops {
		if op.Txn != nil {
			setHeaders(op.Txn, h)
		}
	}
}

// branch returns the operations that t's comparisons select. They see the state
// before the outermost transaction, which is what m.keys is until the commit.
func (m *Model) branch(t *kv.Txn) (ops []kv.Op, succeeded bool) {
	for i := range t.Compare {
		if !m.holds(&t.Compare[i]) {
			return t.Failure, false
		}
	}
	return t.Success, true
}

func (m *Model) holds(c *kv.Compare) bool {
	found := selectKeys(m.keys, c.Key, c.End)
	if len(found) == 0 {
		// A key that does not exist has no value to compare, and zeros else.
		return c.Target != kv.CompareValue && related(cmp.Compare(0, c.Number), c.Relation)
	}
	for _, k := range found {
		if !related(compareTarget(k, c), c.Relation) {
			return false
		}
	}
	return true
}

func compareTarget(k kv.KeyValue, c *kv.Compare) int {
	switch c.Target {
	case kv.CompareVersion:
		return cmp.Compare(k.Version, c.Number)
	case kv.CompareCreate:
		return cmp.Compare(int64(k.CreateRevision), c.Number)
	case kv.CompareMod:
		return cmp.Compare(int64(k.ModRevision), c.Number)
	case kv.CompareLease:
		return cmp.Compare(int64(k.Lease), c.Number)
	default:
		return bytes.Compare(k.Value, c.Value)
	}
}

func related(order int, r kv.Relation) bool {
	switch r {
	case kv.Equal:
		return order == 0
	case kv.Greater:
		return order > 0
	case kv.Less:
		return order < 0
	default:
		return order != 0
	}
}

// checkPath finds the first operation that cannot run on the path that the
// comparisons select. Nothing has been changed yet: the duplicates rule makes
// the state before the transaction the right one to ask.
func (m *Model) checkPath(t *kv.Txn) error {
	ops, _ := m.branch(t)
	for i := range ops {
		op := &ops[i]
		var err error
		switch op.Kind {
		case kv.OpPut:
			err = m.checkPut(op)
		case kv.OpRange:
			err = m.checkRevision(op.Range.Revision)
		case kv.OpTxn:
			err = m.checkPath(op.Txn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *Model) checkPut(op *kv.Op) error {
	if _, ok := m.leases[op.Lease]; op.Lease != 0 && !ok {
		return kv.ErrLeaseNotFound
	}
	if _, ok := m.keys[string(op.Key)]; (op.IgnoreValue || op.IgnoreLease) && !ok {
		return kv.ErrKeyNotFound
	}
	return nil
}

// modelTxn is a transaction that runs on a copy of the keys.
type modelTxn struct {
	m      *Model
	keys   map[string]kv.KeyValue
	events []kv.Event
}

func (tx *modelTxn) run(t *kv.Txn) kv.TxnResult {
	ops, succeeded := tx.m.branch(t)
	res := kv.TxnResult{Succeeded: succeeded}
	for i := range ops {
		res.Ops = append(res.Ops, tx.runOp(&ops[i]))
	}
	return res
}

func (tx *modelTxn) runOp(op *kv.Op) kv.OpResult {
	res := kv.OpResult{Kind: op.Kind}
	switch op.Kind {
	case kv.OpPut:
		res.Prev = tx.put(op)
	case kv.OpDelete:
		res.Deleted, res.Prev = tx.delete(op)
	case kv.OpRange:
		seen := tx.m.revision
		if len(tx.events) > 0 {
			seen++
		}
		r := tx.m.rangeIn(tx.keys, seen, op.Range)
		res.Range = &r
	case kv.OpTxn:
		r := tx.run(op.Txn)
		res.Txn = &r
	}
	return res
}

func (tx *modelTxn) put(op *kv.Op) (prev []kv.KeyValue) {
	rev := tx.m.revision + 1
	old, existed := tx.keys[string(op.Key)]
	k := kv.KeyValue{
		Key: bytes.Clone(op.Key), Value: bytes.Clone(op.Value), Lease: op.Lease,
		CreateRevision: rev, ModRevision: rev, Version: 1,
	}
	if op.TTL > 0 {
		k.Expires = tx.m.now.Add(op.TTL)
	}
	ev := kv.Event{Type: kv.PutEvent}
	if existed {
		k.CreateRevision, k.Version = old.CreateRevision, old.Version+1
		if op.IgnoreValue {
			k.Value = old.Value
		}
		if op.IgnoreLease {
			k.Lease = old.Lease
		}
		ev.Prev = &old
	}
	ev.KV = k
	tx.change(ev)
	if op.PrevKV && existed {
		prev = append(prev, old.Clone())
	}
	return prev
}

func (tx *modelTxn) delete(op *kv.Op) (deleted int64, prev []kv.KeyValue) {
	for _, old := range selectKeys(tx.keys, op.Key, op.End) {
		tx.change(deletion(old, tx.m.revision+1))
		deleted++
		if op.PrevKV {
			prev = append(prev, old.Clone())
		}
	}
	return deleted, prev
}

func (tx *modelTxn) change(ev kv.Event) {
	tx.events = append(tx.events, ev)
	replay(tx.keys, ev)
}

// cloneResult makes a copy that shares no memory with res, so that what the
// store remembers cannot be changed by a caller.
func cloneResult(res kv.TxnResult) kv.TxnResult {
	ops := make([]kv.OpResult, len(res.Ops))
	for i, op := range res.Ops {
		op.Prev = cloneKeys(op.Prev)
		if op.Range != nil {
			r := *op.Range
			r.KVs = cloneKeys(r.KVs)
			op.Range = &r
		}
		if op.Txn != nil {
			t := cloneResult(*op.Txn)
			op.Txn = &t
		}
		ops[i] = op
	}
	res.Ops = ops
	return res
}

func cloneKeys(keys []kv.KeyValue) []kv.KeyValue {
	var out []kv.KeyValue
	for _, k := range keys {
		out = append(out, k.Clone())
	}
	return out
}
