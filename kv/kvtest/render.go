package kvtest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/concord-kv/concord/kv"
)

// What follows writes requests and results as text, for messages and to compare
// two stores field by field. Times are left out: clocks differ.

func renderKey(k kv.KeyValue) string {
	s := fmt.Sprintf("%q=%q create=%d mod=%d version=%d", k.Key, shorten(k.Value), k.CreateRevision, k.ModRevision, k.Version)
	if k.Lease != 0 {
		s += fmt.Sprintf(" lease=%d", k.Lease)
	}
	if k.Expires != 0 {
		s += " expires"
	}
	return s
}

func shorten(value []byte) string {
	if len(value) > 64 {
		return fmt.Sprintf("%s…(%d bytes)", value[:32], len(value))
	}
	return string(value)
}

func renderKeys(keys []kv.KeyValue) string {
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, "[%s]", renderKey(k))
	}
	return b.String()
}

func renderRangeResult(r *kv.RangeResult) string {
	return fmt.Sprintf("rev=%d count=%d more=%v %s", r.Revision, r.Count, r.More, renderKeys(r.KVs))
}

func renderTxnResult(t *kv.TxnResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "rev=%d succeeded=%v", t.Revision, t.Succeeded)
	for _, op := range t.Ops {
		fmt.Fprintf(&b, " %v{", op.Kind)
		switch op.Kind {
		case kv.OpPut:
			b.WriteString(renderKeys(op.Prev))
		case kv.OpDelete:
			fmt.Fprintf(&b, "deleted=%d %s", op.Deleted, renderKeys(op.Prev))
		case kv.OpRange:
			b.WriteString(renderRangeResult(op.Range))
		case kv.OpTxn:
			b.WriteString(renderTxnResult(op.Txn))
		}
		b.WriteString("}")
	}
	return b.String()
}

func renderBatch(batch kv.WatchBatch) string {
	var b strings.Builder
	fmt.Fprintf(&b, "rev=%d", batch.Revision)
	for _, ev := range batch.Events {
		fmt.Fprintf(&b, " %v{%s", ev.Type, renderKey(ev.KV))
		if ev.Prev != nil {
			fmt.Fprintf(&b, " was %s", renderKey(*ev.Prev))
		}
		b.WriteString("}")
	}
	return b.String()
}

func renderLease(l kv.LeaseResult) string {
	return fmt.Sprintf("rev=%d lease=%d ttl=%v keys=%q", l.Revision, l.ID, l.TTL, l.Keys)
}

// renderError names an error by its code and the first of kv's errors that it
// matches.
func renderError(err error) string {
	named := []*kv.Error{
		kv.ErrEmptyKey, kv.ErrKeyTooLarge, kv.ErrRequestTooLarge, kv.ErrTooManyOps,
		kv.ErrDuplicateKey, kv.ErrKeyNotFound, kv.ErrValueProvided, kv.ErrLeaseProvided,
		kv.ErrInvalidSort, kv.ErrInvalidTTL, kv.ErrTTLTooLarge, kv.ErrCompacted,
		kv.ErrFutureRevision, kv.ErrLeaseNotFound, kv.ErrLeaseExists, kv.ErrRequestTooOld,
	}
	for _, want := range named {
		if errors.Is(err, want) {
			return fmt.Sprintf("error (%v): %s", kv.CodeOf(err), want.Message)
		}
	}
	return fmt.Sprintf("error (%v): unnamed: %v", kv.CodeOf(err), err)
}

func renderRange(r *kv.Range) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%q,%q)", r.Key, r.End)
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"rev", int64(r.Revision)}, {"limit", r.Limit},
		{"by", int64(r.Sort.By)}, {"order", int64(r.Sort.Order)},
		{"minmod", int64(r.MinMod)}, {"maxmod", int64(r.MaxMod)},
		{"mincreate", int64(r.MinCreate)}, {"maxcreate", int64(r.MaxCreate)},
	} {
		if f.value != 0 {
			fmt.Fprintf(&b, " %s=%d", f.name, f.value)
		}
	}
	if r.KeysOnly {
		b.WriteString(" keys-only")
	}
	if r.CountOnly {
		b.WriteString(" count-only")
	}
	return b.String()
}

func renderTxn(t *kv.Txn) string {
	var b strings.Builder
	if !t.ID.IsZero() {
		fmt.Fprintf(&b, "id=%x/%d ", t.ID.Client[:2], t.ID.Seq)
	}
	b.WriteString("if")
	for _, c := range t.Compare {
		fmt.Fprintf(&b, " ([%q,%q) target %d relation %d to %d %q)", c.Key, c.End, c.Target, c.Relation, c.Number, shorten(c.Value))
	}
	fmt.Fprintf(&b, " then%s else%s", renderOps(t.Success), renderOps(t.Failure))
	return b.String()
}

func renderOps(ops []kv.Op) string {
	var b strings.Builder
	for i := range ops {
		op := &ops[i]
		fmt.Fprintf(&b, " %v", op.Kind)
		switch op.Kind {
		case kv.OpPut:
			fmt.Fprintf(&b, "(%q=%q lease=%d ttl=%v prev=%v ignore=%v,%v)", op.Key, shorten(op.Value), op.Lease, op.TTL, op.PrevKV, op.IgnoreValue, op.IgnoreLease)
		case kv.OpDelete:
			fmt.Fprintf(&b, "([%q,%q) prev=%v)", op.Key, op.End, op.PrevKV)
		case kv.OpRange:
			fmt.Fprintf(&b, "(%s)", renderRange(op.Range))
		case kv.OpTxn:
			fmt.Fprintf(&b, "(%s)", renderTxn(op.Txn))
		}
	}
	return b.String()
}
