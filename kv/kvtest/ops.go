package kvtest

import (
	"errors"

	"github.com/concord-kv/concord/kv"
)

// Operations on the keys of a case's corner, short enough to read in a table.

func (e *env) opPut(name, value string) kv.Op {
	return kv.Op{Kind: kv.OpPut, Key: e.key(name), Value: []byte(value)}
}

func (e *env) opDelete(name string) kv.Op {
	return kv.Op{Kind: kv.OpDelete, Key: e.key(name)}
}

func (e *env) opDeleteSpan(from, to string) kv.Op {
	return kv.Op{Kind: kv.OpDelete, Key: e.key(from), End: e.key(to)}
}

func (e *env) opRange(r kv.Range) kv.Op { return kv.Op{Kind: kv.OpRange, Range: &r} }

func (e *env) opGet(name string) kv.Op { return e.opRange(kv.Range{Key: e.key(name)}) }

func (e *env) opTxn(t kv.Txn) kv.Op { return kv.Op{Kind: kv.OpTxn, Txn: &t} }

func success(ops ...kv.Op) kv.Txn { return kv.Txn{Success: ops} }

// exists is the comparison that holds when the key is there.
func (e *env) exists(name string) kv.Compare {
	return kv.Compare{Key: e.key(name), Target: kv.CompareVersion, Relation: kv.Greater}
}

func (e *env) valueIs(name, value string) kv.Compare {
	return kv.Compare{Key: e.key(name), Target: kv.CompareValue, Relation: kv.Equal, Value: []byte(value)}
}

// isError reports whether err matches want and carries its code.
func isError(err error, want *kv.Error) bool {
	return err != nil && errors.Is(err, want) && kv.CodeOf(err) == want.Code
}
