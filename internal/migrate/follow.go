package migrate

import (
	"context"
	"errors"

	"github.com/concord-kv/concord/kv"
)

// Follow makes every change that a running source makes after the copy, each
// revision whole where the target's limits allow it, until ctx ends; then it
// returns nil. Told is called after each revision.
func (c *Copying) Follow(ctx context.Context, told func()) error {
	source, running := c.plan.From.(*live)
	if !running {
		return kv.Errorf(kv.InvalidArgument, "a file does not change; only a running source can be followed")
	}
	err := c.leases.during(ctx, func(ctx context.Context) error {
		watch := kv.WatchRequest{Key: c.key, End: c.end, Start: c.sum.Revision + 1}
		for batch, err := range source.Watch(ctx, watch) {
			if err != nil {
				return err
			}
			if err := c.follow(ctx, &batch); err != nil {
				return err
			}
			told()
		}
		return ctx.Err()
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *Copying) follow(ctx context.Context, batch *kv.WatchBatch) error {
	ops := make([]kv.Op, 0, len(batch.Events))
	for i := range batch.Events {
		ev := &batch.Events[i]
		op := kv.Op{Kind: kv.OpDelete, Key: ev.KV.Key}
		if ev.Type == kv.PutEvent {
			lease, err := c.leases.use(ctx, ev.KV.Lease)
			if errors.Is(err, errEnded) {
				continue // the delete of the key is on its way
			}
			if err != nil {
				return err
			}
			op = kv.Op{Kind: kv.OpPut, Key: ev.KV.Key, Value: ev.KV.Value, Lease: lease}
		}
		ops = append(ops, op)
	}
	if err := c.apply(ctx, ops); err != nil {
		return err
	}
	c.sum.Changes += int64(len(ops))
	c.sum.Revision = max(c.sum.Revision, batch.Revision)
	return nil
}

// apply makes changes at once, or in parts when they are too many for that.
func (c *Copying) apply(ctx context.Context, ops []kv.Op) error {
	if len(ops) == 0 {
		return nil
	}
	err := c.commit(ctx, ops)
	if len(ops) < 2 || !errors.Is(err, kv.ErrTooManyOps) && !errors.Is(err, kv.ErrRequestTooLarge) {
		return err
	}
	half := len(ops) / 2
	if err := c.apply(ctx, ops[:half]); err != nil {
		return err
	}
	return c.apply(ctx, ops[half:])
}
