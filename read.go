package concord

import (
	"context"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// barrier returns when this member's state is fresh enough for a read at level.
func (n *Node) barrier(ctx context.Context, level kv.ReadLevel) error {
	if err := n.mayServe(); err != nil {
		return err // not even what the state was at the end
	}
	switch {
	case level == kv.Eventual:
		return nil
	case level == kv.Leader && n.replica.LeaderRead():
		return nil
	}
	return mapError(n.replica.ReadIndex(ctx))
}

// Range implements [kv.KV].
func (n *Node) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	c := n.begin(ctx, observe.OpRange)
	res, err := n.readRange(ctx, &r)
	if c != nil {
		c.read(&r, len(res.KVs), res.Revision)
		n.end(ctx, c, err)
	}
	return res, err
}

func (n *Node) readRange(ctx context.Context, r *kv.Range) (kv.RangeResult, error) {
	if err := n.cfg.limits.CheckRange(r); err != nil {
		return kv.RangeResult{}, err
	}
	if err := n.barrier(ctx, r.Level); err != nil {
		return kv.RangeResult{}, err
	}
	view := n.machine.ViewAs(n.caller(ctx))
	defer view.Close()
	return view.Range(r)
}

// Get reads one key at the given level. It returns [kv.ErrKeyNotFound] when
// there is none.
func (n *Node) Get(ctx context.Context, key string, level kv.ReadLevel) (kv.KeyValue, error) {
	if kv.CallerOf(ctx) != nil {
		return kv.Get(ctx, n, key, level)
	}
	c := n.begin(ctx, observe.OpGet)
	found, err := n.get(ctx, key, level)
	if c != nil {
		c.event.Level, c.event.Bytes = level.String(), int64(len(key))
		if err == nil {
			c.event.Keys = 1
		}
		n.end(ctx, c, err)
	}
	return found, err
}

// get is Get for those who may read everything.
func (n *Node) get(ctx context.Context, key string, level kv.ReadLevel) (kv.KeyValue, error) {
	if err := n.cfg.limits.CheckRange(&kv.Range{Key: []byte(key), Level: level}); err != nil {
		return kv.KeyValue{}, err
	}
	if err := n.barrier(ctx, level); err != nil {
		return kv.KeyValue{}, err
	}
	found, ok := n.machine.Get([]byte(key))
	if !ok {
		return kv.KeyValue{}, kv.ErrKeyNotFound
	}
	return found, nil
}

// readTxn serves a transaction that can change nothing: it is a read.
func (n *Node) readTxn(ctx context.Context, t *kv.Txn) (kv.TxnResult, error) {
	if err := n.barrier(ctx, txnLevel(t)); err != nil {
		return kv.TxnResult{}, err
	}
	view := n.machine.ViewAs(n.caller(ctx))
	defer view.Close()
	return view.Txn(t)
}

// txnLevel is Eventual when there are ranges and all are, whatever is compared,
// as etcd has it; else Strong.
func txnLevel(t *kv.Txn) kv.ReadLevel {
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		for i := range ops {
			switch {
			case ops[i].Kind == kv.OpRange && ops[i].Range.Level != kv.Eventual:
				return kv.Strong
			case ops[i].Kind == kv.OpTxn && txnLevel(ops[i].Txn) != kv.Eventual:
				return kv.Strong
			}
		}
	}
	if len(t.Success)+len(t.Failure) == 0 {
		return kv.Strong
	}
	return kv.Eventual
}

// strongView is a view that a linearizable read may use; the caller closes it.
func (n *Node) strongView(ctx context.Context) (machine.View, error) {
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return machine.View{}, err
	}
	return n.machine.ViewAs(n.caller(ctx)), nil
}
