package kv

import (
	"fmt"
	"time"
)

// Txn is a transaction: when every comparison holds, Success runs, else
// Failure. All comparisons, those of nested transactions too, see the state
// before the transaction; operations see the effects of earlier ones. Whatever
// changes, changes at one revision, or nothing does.
//
// A key may be put once on a path through the transaction and must not also lie
// in a range deleted there; else [ErrDuplicateKey].
type Txn struct {
	Compare []Compare
	Success []Op
	Failure []Op
	// ID makes a retry safe: a transaction with an id that the store has seen
	// is not run again, its first result is returned. The zero ID means: do
	// not remember. Ranges inside are answered with the remembered result.
	ID RequestID
}

// RequestID identifies one request of one client for safe retries. The store
// remembers the results of a client's last 64 sequence numbers, for five minutes
// of cluster time. A number 64 or more below the client's highest is refused,
// whether it ran or not; see [ErrRequestTooOld].
type RequestID struct {
	// Client is a random id, made once per client process.
	Client [16]byte
	// Seq grows by one with each new request of that client, from 1.
	Seq uint64
}

// IsZero reports whether id asks for no memory of the request.
func (id RequestID) IsZero() bool { return id.Seq == 0 }

// CompareTarget is the part of a key that is compared.
type CompareTarget uint8

// The compare targets. A key that does not exist compares as version 0, create
// revision 0, mod revision 0 and lease 0; comparing its value always fails.
const (
	CompareVersion CompareTarget = iota
	CompareCreate
	CompareMod
	CompareValue
	CompareLease
)

// Relation is how the key's part must stand to the given one.
type Relation uint8

// The relations.
const (
	Equal Relation = iota
	Greater
	Less
	NotEqual
)

// Compare is one condition of a transaction. With End, every key in the range
// must satisfy it; a range without keys compares as a key that does not exist
// (as in etcd, server/etcdserver/txn/txn.go, applyCompare).
type Compare struct {
	Key, End []byte
	Target   CompareTarget
	Relation Relation
	// Number is compared for version, revisions and lease.
	Number int64
	// Value is compared for CompareValue.
	Value []byte
}

// OpKind is the kind of an operation.
type OpKind uint8

// The kinds of operations. The zero kind is invalid.
const (
	OpPut OpKind = iota + 1
	OpDelete
	OpRange
	OpTxn
)

// Op is one operation of a transaction: which fields count depends on Kind.
type Op struct {
	Kind OpKind
	// Key of a put; Key and End of a delete, as in [Range].
	Key, End []byte
	// Value, Lease and TTL are what a put writes. A TTL of 0 means none: a
	// put clears the TTL of an earlier one. See [MaxTTL].
	Value []byte
	Lease LeaseID
	TTL   time.Duration
	// PrevKV asks for what a put or delete replaced.
	PrevKV bool
	// IgnoreValue and IgnoreLease keep the current value or lease; the key
	// must exist, else [ErrKeyNotFound].
	IgnoreValue, IgnoreLease bool
	// Range is what an OpRange reads. Its Level has no effect.
	Range *Range
	// Txn is a nested transaction; its ID has no effect.
	Txn *Txn
}

// TxnResult answers a [Txn].
type TxnResult struct {
	Header
	// Succeeded tells which branch ran.
	Succeeded bool
	// Ops holds a result for each operation of that branch, in order.
	Ops []OpResult
}

// OpResult answers one operation: which fields count depends on Kind.
type OpResult struct {
	Kind OpKind
	// Deleted counts the keys that a delete removed.
	Deleted int64
	// Prev holds what was replaced, where it was asked for.
	Prev []KeyValue
	// Range answers an OpRange, Txn an OpTxn. The revision in the header of a
	// range is the one it saw: with the transaction's own changes before it,
	// the revision of the transaction. A nested transaction has the header of
	// the outermost one.
	Range *RangeResult
	Txn   *TxnResult
}

// ReadOnly reports whether no branch of t can change anything.
func (t *Txn) ReadOnly() bool { return readOnly(t.Success) && readOnly(t.Failure) }

func readOnly(ops []Op) bool {
	for i := range ops {
		switch ops[i].Kind {
		case OpRange:
		case OpTxn:
			if ops[i].Txn != nil && !ops[i].Txn.ReadOnly() {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// String gives the kind's name.
func (k OpKind) String() string {
	switch k {
	case OpPut:
		return "put"
	case OpDelete:
		return "delete"
	case OpRange:
		return "range"
	case OpTxn:
		return "txn"
	}
	return fmt.Sprintf("OpKind(%d)", uint8(k))
}
