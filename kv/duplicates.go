package kv

import (
	"bytes"
	"slices"
)

// change is a key that a transaction puts, or a range that it deletes.
type change struct {
	// key is the key put, or the first of the range.
	key []byte
	// end is the first key behind a deleted range; nil means that there is
	// none. A put has no end.
	end    []byte
	delete bool
	// group tells the operations of one branch apart; the changes of a nested
	// transaction are of the group of its operation.
	group int
}

// checkDuplicates returns ErrDuplicateKey when a branch of t may change a key
// twice.
func checkDuplicates(t *Txn) error {
	for _, ops := range [...][]Op{t.Success, t.Failure} {
		if _, err := branchChanges(ops); err != nil {
			return err
		}
	}
	return nil
}

// branchChanges collects what ops may change and checks it. As in etcd
// (server/etcdserver/api/v3rpc/key.go, checkIntervals), what either branch of a
// nested transaction may change counts against the operations beside it, but
// not against its other branch. Unlike there, the order of operations makes no
// difference: etcd lets a nested transaction delete what an earlier one put.
func branchChanges(ops []Op) ([]change, error) {
	if len(ops) == 1 && ops[0].Kind == OpPut {
		return []change{{key: ops[0].Key}}, nil
	}
	var all []change
	for i := range ops {
		op := &ops[i]
		switch op.Kind {
		case OpPut:
			all = append(all, change{key: op.Key, group: i})
		case OpDelete:
			all = append(all, change{key: op.Key, end: endOf(op), delete: true, group: i})
		case OpTxn:
			for _, branch := range [...][]Op{op.Txn.Success, op.Txn.Failure} {
				inner, err := branchChanges(branch)
				if err != nil {
					return nil, err
				}
				for _, c := range inner {
					c.group = i
					all = append(all, c)
				}
			}
		}
	}
	if conflict(all) {
		return nil, ErrDuplicateKey
	}
	return all, nil
}

func endOf(op *Op) []byte {
	switch {
	case FromKey(op.End):
		return nil
	case len(op.End) == 0:
		return append(slices.Clip(op.Key), 0)
	}
	return op.End
}

// conflict reports whether a key is put by two groups, or put by one and
// deleted by another. It orders changes by key and sweeps over them once:
// quadratic work in the number of operations would be a way to stall a member.
func conflict(changes []change) bool {
	slices.SortFunc(changes, func(a, b change) int {
		if c := bytes.Compare(a.key, b.key); c != 0 || a.delete == b.delete {
			return c
		}
		if a.delete {
			return -1 // a delete of this very key is open when the put is met
		}
		return 1
	})
	var open reaches
	lastPut := -1
	for i := range changes {
		c := &changes[i]
		if c.delete {
			open.add(c)
			continue
		}
		if open.cover(c) {
			return true
		}
		if lastPut >= 0 && changes[lastPut].group != c.group && bytes.Equal(changes[lastPut].key, c.key) {
			return true
		}
		lastPut = i
	}
	return false
}

// reaches are, among the deletes met so far, the one that reaches farthest and
// the one that does so among those of other groups: whatever the group of a
// put, one of the two answers for all.
type reaches struct{ first, second *change }

func (r *reaches) add(c *change) {
	switch {
	case r.first == nil || c.group == r.first.group:
		r.first = farther(r.first, c)
	case farther(r.first, c) == c:
		r.first, r.second = c, r.first
	default:
		r.second = farther(r.second, c)
	}
}

func (r *reaches) cover(put *change) bool {
	c := r.first
	if c != nil && c.group == put.group {
		c = r.second
	}
	return c != nil && (c.end == nil || bytes.Compare(put.key, c.end) < 0)
}

// farther returns the delete that reaches farther, a when they reach equally
// far and b when a is nil.
func farther(a, b *change) *change {
	if a == nil || a.end != nil && (b.end == nil || bytes.Compare(b.end, a.end) > 0) {
		return b
	}
	return a
}
