package sim

import (
	"bytes"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// sameKV compares keys; nil and empty values are the same.
func sameKV(a, b kv.KeyValue) bool {
	return bytes.Equal(a.Key, b.Key) && bytes.Equal(a.Value, b.Value) &&
		a.CreateRevision == b.CreateRevision && a.ModRevision == b.ModRevision &&
		a.Version == b.Version && a.Lease == b.Lease && a.Expires == b.Expires
}

func sameKVs(a, b []kv.KeyValue) bool { return slices.EqualFunc(a, b, sameKV) }

// sameTxn compares results; the headers of nested ones are not looked at.
func sameTxn(a, b *kv.TxnResult) bool {
	return a.Header == b.Header && sameBranch(a, b)
}

func sameBranch(a, b *kv.TxnResult) bool {
	return a.Succeeded == b.Succeeded && slices.EqualFunc(a.Ops, b.Ops, sameOp)
}

func sameOp(a, b kv.OpResult) bool {
	if a.Kind != b.Kind || a.Deleted != b.Deleted || !sameKVs(a.Prev, b.Prev) {
		return false
	}
	if (a.Range == nil) != (b.Range == nil) || (a.Txn == nil) != (b.Txn == nil) {
		return false
	}
	if a.Range != nil && (a.Range.Count != b.Range.Count || a.Range.More != b.Range.More || !sameKVs(a.Range.KVs, b.Range.KVs)) {
		return false
	}
	return a.Txn == nil || sameBranch(a.Txn, b.Txn)
}
