package kv

import (
	"context"
	"time"
)

// Bytes is what keys and values may be given as.
type Bytes interface{ ~string | ~[]byte }

// PutOption changes what [Put] writes.
type PutOption func(*Op)

// WithLease attaches the key to a lease.
func WithLease(id LeaseID) PutOption { return func(op *Op) { op.Lease = id } }

// WithTTL deletes the key after d unless it is put again.
func WithTTL(d time.Duration) PutOption { return func(op *Op) { op.TTL = d } }

// WithPrev asks for what was replaced.
func WithPrev() PutOption { return func(op *Op) { op.PrevKV = true } }

// PutResult answers [Put].
type PutResult struct {
	Header
	// Prev is what was replaced, when it was asked for and existed.
	Prev *KeyValue
}

// Put writes one key, as a transaction of one operation.
func Put[K, V Bytes](ctx context.Context, s KV, key K, value V, opts ...PutOption) (PutResult, error) {
	ops := []Op{{Kind: OpPut, Key: []byte(key), Value: []byte(value)}} // the one allocation
	for _, opt := range opts {
		opt(&ops[0])
	}
	res, err := s.Txn(ctx, Txn{Success: ops})
	if err != nil {
		return PutResult{}, err
	}
	out := PutResult{Header: res.Header}
	if prev := res.Ops[0].Prev; len(prev) > 0 {
		out.Prev = &prev[0]
	}
	return out, nil
}

// Get reads one key at the given level. It returns [ErrKeyNotFound] when there
// is none.
func Get[K Bytes](ctx context.Context, s KV, key K, level ReadLevel) (KeyValue, error) {
	res, err := s.Range(ctx, Range{Key: []byte(key), Level: level})
	switch {
	case err != nil:
		return KeyValue{}, err
	case len(res.KVs) == 0:
		return KeyValue{}, ErrKeyNotFound
	}
	return res.KVs[0], nil
}

// DeleteResult answers [Delete] and [DeleteRange].
type DeleteResult struct {
	Header
	Deleted int64
	// Prev holds what was deleted, when it was asked for.
	Prev []KeyValue
}

// Delete removes one key. Deleting a key that is not there is no error.
func Delete[K Bytes](ctx context.Context, s KV, key K) (DeleteResult, error) {
	return DeleteRange(ctx, s, Op{Key: []byte(key)})
}

// DeleteRange removes the keys that op.Key and op.End select, as a transaction
// of one operation; of op's other fields only PrevKV counts.
func DeleteRange(ctx context.Context, s KV, op Op) (DeleteResult, error) {
	op.Kind = OpDelete
	res, err := s.Txn(ctx, Txn{Success: []Op{op}})
	if err != nil {
		return DeleteResult{}, err
	}
	return DeleteResult{Header: res.Header, Deleted: res.Ops[0].Deleted, Prev: res.Ops[0].Prev}, nil
}
