package kv

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"
)

// MaxTTL is the longest TTL of a lease or key: 9,000,000,000 s, etcd's bound
// for leases, is more than a time.Duration holds by 2.6 %, so it is the longest
// whole number of seconds that a Duration can say.
const MaxTTL = 9_223_372_036 * time.Second

// Limits bound what a request may ask. They are checked before the log, never
// in apply. A zero field means its default.
type Limits struct {
	// KeyBytes is the longest key; default 1,024, at most 65,536.
	KeyBytes int
	// RequestBytes bounds the keys and values of one request; default 64 MiB.
	RequestBytes int64
	// Ops bounds the comparisons and each branch of a transaction, nested
	// ones apart; default 10,000.
	Ops int
	// Depth bounds how deep transactions nest; default 16.
	Depth int
}

// WithDefaults returns l with zero fields replaced.
func (l Limits) WithDefaults() Limits {
	if l.KeyBytes == 0 {
		l.KeyBytes = 1024
	}
	if l.RequestBytes == 0 {
		l.RequestBytes = 64 << 20
	}
	if l.Ops == 0 {
		l.Ops = 10_000
	}
	if l.Depth == 0 {
		l.Depth = 16
	}
	return l
}

// CheckRange tells what is wrong with r, if anything.
func (l Limits) CheckRange(r *Range) error {
	if err := l.checkKeys(r.Key, r.End); err != nil {
		return err
	}
	if r.Sort.By > SortByValue || r.Sort.Order > Descending {
		return ErrInvalidSort
	}
	if r.Limit < 0 {
		return Errorf(InvalidArgument, "limit %d is negative; 0 means no limit", r.Limit)
	}
	if r.Level > Eventual {
		return Errorf(InvalidArgument, "read level %d is unknown", r.Level)
	}
	return nil
}

// CheckTxn tells what is wrong with t, if anything, and how many bytes of keys
// and values it carries.
func (l Limits) CheckTxn(t *Txn) (size int64, err error) {
	size, err = l.checkTxn(t, 1)
	if err != nil {
		return size, err
	}
	if size > l.RequestBytes {
		return size, Errorf(InvalidArgument, "request of %d bytes is too large; the limit is %d (max-request-bytes): %w", size, l.RequestBytes, ErrRequestTooLarge)
	}
	if len(t.Success)+len(t.Failure) > 1 || len(t.Success)+len(t.Failure) == 1 && hasTxn(t) {
		return size, checkDuplicates(t)
	}
	return size, nil
}

func hasTxn(t *Txn) bool {
	isTxn := func(op Op) bool { return op.Kind == OpTxn }
	return slices.ContainsFunc(t.Success, isTxn) || slices.ContainsFunc(t.Failure, isTxn)
}

func (l Limits) checkTxn(t *Txn, depth int) (size int64, err error) {
	if depth > l.Depth {
		return 0, Errorf(InvalidArgument, "transactions nest deeper than %d", l.Depth)
	}
	if most := max(len(t.Compare), len(t.Success), len(t.Failure)); most > l.Ops {
		return 0, Errorf(InvalidArgument, "%d comparisons or operations are more than the limit of %d (max-txn-ops): %w", most, l.Ops, ErrTooManyOps)
	}
	for i := range t.Compare {
		c := &t.Compare[i]
		if err := l.checkKeys(c.Key, c.End); err != nil {
			return 0, err
		}
		if c.Target > CompareLease || c.Relation > NotEqual {
			return 0, Errorf(InvalidArgument, "comparison %d has an unknown target or relation", i)
		}
		size += int64(len(c.Key) + len(c.End) + len(c.Value))
	}
	for _, ops := range [...][]Op{t.Success, t.Failure} {
		for i := range ops {
			n, err := l.checkOp(&ops[i], depth)
			if err != nil {
				return 0, err
			}
			size += n
		}
	}
	return size, nil
}

func (l Limits) checkOp(op *Op, depth int) (size int64, err error) {
	switch op.Kind {
	case OpPut:
		if err := l.checkKeys(op.Key, nil); err != nil {
			return 0, err
		}
		return int64(len(op.Key) + len(op.Value)), checkPut(op)
	case OpDelete:
		return int64(len(op.Key) + len(op.End)), l.checkKeys(op.Key, op.End)
	case OpRange:
		if op.Range == nil {
			return 0, Errorf(InvalidArgument, "a range operation has no range")
		}
		return int64(len(op.Range.Key) + len(op.Range.End)), l.CheckRange(op.Range)
	case OpTxn:
		if op.Txn == nil {
			return 0, Errorf(InvalidArgument, "a transaction operation has no transaction")
		}
		return l.checkTxn(op.Txn, depth+1)
	}
	return 0, Errorf(InvalidArgument, "operation kind %d is unknown", op.Kind)
}

func checkPut(op *Op) error {
	switch {
	case op.IgnoreValue && len(op.Value) > 0:
		return ErrValueProvided
	case op.IgnoreLease && op.Lease != 0:
		return ErrLeaseProvided
	case op.TTL < 0:
		return ErrInvalidTTL
	case op.TTL > MaxTTL:
		return ErrTTLTooLarge
	}
	return nil
}

// CheckWatch tells what is wrong with w, if anything. A negative Start is left
// to the store, which answers it as a compacted revision.
func (l Limits) CheckWatch(w *WatchRequest) error {
	if w.Progress < 0 {
		return Errorf(InvalidArgument, "progress interval %v is negative; 0 means never", w.Progress)
	}
	return l.checkKeys(w.Key, w.End)
}

// CheckGrant tells what is wrong with g, if anything.
func (l Limits) CheckGrant(g *Grant) error {
	switch {
	case g.ID < 0:
		return Errorf(InvalidArgument, "lease id %d is negative", int64(g.ID))
	case g.TTL < time.Millisecond:
		return Errorf(InvalidArgument, "lease TTL %v is too short; give at least 1ms: %w", g.TTL, ErrInvalidTTL)
	case g.TTL > MaxTTL:
		return ErrTTLTooLarge
	}
	return nil
}

func (l Limits) checkKeys(key, end []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	if n := max(len(key), len(end)); n > l.KeyBytes {
		return Errorf(InvalidArgument, "key of %d bytes is too large; the limit is %d (max-key-bytes): %w", n, l.KeyBytes, ErrKeyTooLarge)
	}
	return nil
}

// Clone returns a copy of kv that shares no memory with it.
func (kv KeyValue) Clone() KeyValue {
	kv.Key, kv.Value = bytes.Clone(kv.Key), bytes.Clone(kv.Value)
	return kv
}

func isTimeout(err error) bool  { return errors.Is(err, context.DeadlineExceeded) }
func isCanceled(err error) bool { return errors.Is(err, context.Canceled) }
