package machine

import (
	"bytes"
	"cmp"

	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
)

// ErrUploadLost: a staged value is not there, or not whole. It was staged more
// than a minute before, or not all pieces were applied.
var ErrUploadLost = &kv.Error{Code: kv.Unavailable, Message: "the large value was not staged completely or took too long; nothing was done, try again"}

// runTxn runs a transaction, unless it has an id that was seen before.
func (m *Machine) runTxn(d *decoder, k kind, flags byte) any {
	t := &m.txn
	t.ID = d.request(flags)
	if k == kindUploadTxn {
		d.upload = m.uploads.take(d.uploadID())
	}
	d.branches(t, 1)
	defer forget(t)
	if d.end() != nil {
		return nil
	}
	if m.gate.who.Bound() {
		if err := m.mayTxn(t); err != nil {
			return err
		}
	}
	if !t.ID.IsZero() && !t.ReadOnly() {
		return m.runOnce(t, d.lost)
	}
	return m.runNew(t, d.lost)
}

// forget lets go of the command that t was decoded from.
func forget(t *kv.Txn) {
	clear(t.Compare)
	clear(t.Success)
	clear(t.Failure)
}

// runOnce gives the first result of t again, or runs it and remembers it. An
// error is not remembered: it changed nothing, so a retry may run.
func (m *Machine) runOnce(t *kv.Txn, lost bool) any {
	known, err := m.requests.find(t.ID, m.at.now)
	switch {
	case err != nil:
		return err
	case known != nil:
		return known
	}
	result := m.runNew(t, lost)
	if r, ok := result.(*kv.TxnResult); ok {
		m.requests.remember(t.ID, m.at.now, r, &m.at.hash)
	}
	return result
}

// runNew checks t whole, and then runs it.
func (m *Machine) runNew(t *kv.Txn, lost bool) any {
	if lost {
		return ErrUploadLost
	}
	if m.alarmed() {
		if err := m.refusal(grows(t)); err != nil {
			return err
		}
	}
	tx := m.store.Begin()
	p := plan{
		reader:    tx,
		revision:  m.store.Revision(),
		compacted: m.store.CompactRevision(),
		put:       m.checkPut,
		path:      m.path[:0],
	}
	err := p.check(t)
	m.path = p.path
	if err != nil {
		tx.Discard()
		return err
	}
	result := &kv.TxnResult{}
	x := execution{m: m, tx: tx, plan: &p, now: m.at.now}
	x.txn(t, result)
	if tx.Changed() {
		tx.Commit()
	} else {
		tx.Discard()
	}
	setHeaders(result, m.header())
	return result
}

// setHeaders gives t and the transactions in it one header; ranges keep theirs.
func setHeaders(t *kv.TxnResult, h kv.Header) {
	t.Header = h
	for i := range t.Ops {
		if nested := t.Ops[i].Txn; nested != nil {
			setHeaders(nested, h)
		}
	}
}

// reader is the state that a transaction sees: a *mvcc.Tx, or a view.
type reader interface {
	Get(key []byte) (mvcc.Record, bool)
	Ascend(key, end []byte, yield func(mvcc.Record) bool)
	Range(r *kv.Range) (kv.RangeResult, error)
}

// plan finds out what a transaction will do, and that it can, before anything
// is changed.
type plan struct {
	reader
	revision, compacted kv.Revision
	// put checks a put; it is nil where nothing may be put.
	put func(r reader, op *kv.Op) error
	// path says for the transaction and those nested in the branches taken,
	// in the order met, whether its comparisons hold.
	path []bool
}

// check decides which branches t takes and finds the first operation there that
// cannot be run.
func (p *plan) check(t *kv.Txn) error {
	ops, holds := t.Success, true
	for i := range t.Compare {
		if !p.holds(&t.Compare[i]) {
			ops, holds = t.Failure, false
			break
		}
	}
	p.path = append(p.path, holds)
	for i := range ops {
		var err error
		switch op := &ops[i]; op.Kind {
		case kv.OpPut:
			err = p.put(p.reader, op)
		case kv.OpDelete:
			if len(op.End) == 0 {
				err = checkKey(op.Key)
			}
		case kv.OpRange:
			err = p.checkRevision(op.Range.Revision)
		case kv.OpTxn:
			err = p.check(op.Txn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRevision asks the logical compaction revision, which is the same on all
// members, never what is still in memory.
func (p *plan) checkRevision(rev kv.Revision) error {
	switch {
	case rev > p.revision:
		return kv.ErrFutureRevision
	case rev > 0 && rev < p.compacted:
		return &kv.CompactedError{Compacted: p.compacted}
	}
	return nil
}

func (p *plan) holds(c *kv.Compare) bool {
	if len(c.End) == 0 {
		r, ok := p.Get(c.Key)
		return compare(c, &r, ok)
	}
	holds, found := true, false
	p.Ascend(c.Key, c.End, func(r mvcc.Record) bool {
		found = true
		holds = compare(c, &r, true)
		return holds
	})
	return found && holds || !found && compare(c, &mvcc.Record{}, false)
}

// compare tells whether c holds for r. A key that does not exist has zeros, and
// no value that could be compared (etcd, server/etcdserver/txn/txn.go,
// applyCompare).
func compare(c *kv.Compare, r *mvcc.Record, exists bool) bool {
	order := 0
	switch c.Target {
	case kv.CompareVersion:
		order = cmp.Compare(r.Version, c.Number)
	case kv.CompareCreate:
		order = cmp.Compare(int64(r.CreateRevision), c.Number)
	case kv.CompareMod:
		order = cmp.Compare(int64(r.ModRevision), c.Number)
	case kv.CompareLease:
		order = cmp.Compare(int64(r.Lease), c.Number)
	case kv.CompareValue:
		if !exists {
			return false
		}
		order = bytes.Compare(r.Value, c.Value)
	}
	switch c.Relation {
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

// execution runs the operations on the path that a plan found.
type execution struct {
	m    *Machine
	tx   *mvcc.Tx // nil where nothing is changed
	plan *plan
	now  kv.Time
	step int // in plan.path
}

func (x *execution) txn(t *kv.Txn, out *kv.TxnResult) {
	out.Succeeded = x.plan.path[x.step]
	x.step++
	ops := t.Failure
	if out.Succeeded {
		ops = t.Success
	}
	if len(ops) == 0 {
		return
	}
	out.Ops = make([]kv.OpResult, len(ops))
	for i := range ops {
		x.op(&ops[i], &out.Ops[i])
	}
}

func (x *execution) op(op *kv.Op, out *kv.OpResult) {
	out.Kind = op.Kind
	switch op.Kind {
	case kv.OpPut:
		prev := x.m.put(x.tx, op)
		if op.PrevKV && prev.Version != 0 {
			out.Prev = []kv.KeyValue{prev.Clone()}
		}
	case kv.OpDelete:
		x.delete(op, out)
	case kv.OpRange:
		// An error was ruled out by the plan.
		res, _ := x.plan.Range(op.Range)
		res.Time = x.now
		out.Range = &res
	case kv.OpTxn:
		out.Txn = &kv.TxnResult{}
		x.txn(op.Txn, out.Txn)
	}
}

func (x *execution) delete(op *kv.Op, out *kv.OpResult) {
	m := x.m
	m.doomed = append(m.doomed[:0], op.Key)
	if len(op.End) > 0 {
		m.doomed = m.doomed[:0]
		x.tx.Ascend(op.Key, op.End, func(r mvcc.Record) bool {
			m.doomed = append(m.doomed, r.Key)
			return true
		})
	}
	for _, key := range m.doomed {
		prev, existed := m.delete(x.tx, key)
		if !existed {
			continue
		}
		out.Deleted++
		if op.PrevKV {
			out.Prev = append(out.Prev, prev.Clone())
		}
	}
	clear(m.doomed)
}
