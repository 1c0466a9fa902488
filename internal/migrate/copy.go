package migrate

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/concord-kv/concord/kv"
)

// Plan says what is copied where.
type Plan struct {
	From Source
	To   kv.Store
	// Prefix selects keys; empty means all, and all leases, with or without
	// keys.
	Prefix []byte
	// Delete removes keys from the target that the source does not have.
	Delete bool
	// Progress gets a byte for each key that was looked at; default none.
	Progress io.Writer
}

// Summary tells what a copy has done.
type Summary struct {
	// Revision is the source's that the copy stands at.
	Revision kv.Revision
	// Keys counts those of the source: written because they were new or
	// different, unchanged, or orphans, which were written without the lease
	// that the source says they have but does not have itself.
	Keys, Written, Unchanged, Orphans int64
	// Deleted counts keys deleted from the target, Extra those that were left
	// there though the source does not have them.
	Deleted, Extra int64
	// Leases counts those of the source that are in use in the target, Granted
	// those of them that were new there.
	Leases, Granted int64
	// Changes counts the puts and deletes that were followed.
	Changes int64
}

// Copying is a copy under way. Its methods are for one goroutine.
type Copying struct {
	plan       Plan
	key, end   []byte
	leases     *leases
	batch      []kv.Op
	batchBytes int
	sum        Summary
}

// New prepares a copy.
func New(p Plan) *Copying {
	if p.Progress == nil {
		p.Progress = io.Discard
	}
	c := &Copying{plan: p, leases: newLeases(p.From, p.To), key: p.Prefix, end: kv.Prefix(p.Prefix)}
	if len(p.Prefix) == 0 {
		c.key, c.end = []byte{0}, []byte{0}
	}
	c.sum.Revision = p.From.Revision()
	return c
}

// Summary tells what was done up to now.
func (c *Copying) Summary() Summary {
	c.sum.Leases, c.sum.Granted = c.leases.counts()
	return c.sum
}

// Run copies what differs. After an error a new copy goes on from there. Leases
// of a running source are kept alive in the target until ctx ends or Run
// returns.
func (c *Copying) Run(ctx context.Context) error {
	if err := c.leases.load(ctx); err != nil {
		return err
	}
	return c.leases.during(ctx, func(ctx context.Context) error {
		if len(c.plan.Prefix) == 0 {
			if err := c.leases.grantAll(ctx); err != nil {
				return err
			}
		}
		if err := c.merge(ctx); err != nil {
			return err
		}
		return c.flush(ctx)
	})
}

// merge goes through both sides.
func (c *Copying) merge(ctx context.Context) error {
	from := newCursor(c.key, c.end, c.plan.From.Page)
	to := newCursor(c.key, c.end, func(ctx context.Context, r *kv.Range) ([]kv.KeyValue, bool, error) {
		res, err := c.plan.To.Range(ctx, *r)
		return res.KVs, res.More, err
	})
	for {
		s, err := from.peek(ctx)
		if err != nil {
			return err
		}
		t, err := to.peek(ctx)
		if err != nil {
			return err
		}
		order := 0
		switch {
		case s == nil && t == nil:
			return nil
		case s == nil:
			order = 1
		case t == nil:
			order = -1
		default:
			order = bytes.Compare(s.Key, t.Key)
		}
		if order > 0 {
			err = c.extra(ctx, t)
		} else {
			err = c.one(ctx, s, t, order == 0)
		}
		if err != nil {
			return err
		}
		if order <= 0 {
			from.pop()
		}
		if order >= 0 {
			to.pop()
		}
	}
}

// one copies one key of the source, where there is another one in the target or
// not.
func (c *Copying) one(ctx context.Context, s, t *kv.KeyValue, there bool) error {
	c.sum.Keys++
	_, _ = c.plan.Progress.Write([]byte{0}) // a display that is gone is no error of the copy
	lease, err := c.leases.use(ctx, s.Lease)
	switch {
	case errors.Is(err, errEnded): // and the key with it
		c.sum.Keys--
		if there {
			return c.extra(ctx, t)
		}
		return nil
	case err != nil:
		return err
	case lease != s.Lease:
		c.sum.Orphans++
	}
	if there && t.Lease == lease && t.Expires == 0 && bytes.Equal(s.Value, t.Value) {
		c.sum.Unchanged++
		return nil
	}
	c.sum.Written++
	return c.add(ctx, kv.Op{Kind: kv.OpPut, Key: s.Key, Value: s.Value, Lease: lease})
}

// extra is a key that the source does not have.
func (c *Copying) extra(ctx context.Context, t *kv.KeyValue) error {
	if !c.plan.Delete {
		c.sum.Extra++
		return nil
	}
	c.sum.Deleted++
	return c.add(ctx, kv.Op{Kind: kv.OpDelete, Key: t.Key})
}

// Bounds on a transaction, below the limits of every server.
const (
	batchOps   = 100
	batchBytes = 1 << 20
)

func (c *Copying) add(ctx context.Context, op kv.Op) error {
	size := len(op.Key) + len(op.Value)
	if len(c.batch) == batchOps || len(c.batch) > 0 && c.batchBytes+size > batchBytes {
		if err := c.flush(ctx); err != nil {
			return err
		}
	}
	c.batch = append(c.batch, op)
	c.batchBytes += size
	return nil
}

func (c *Copying) flush(ctx context.Context) error {
	if len(c.batch) == 0 {
		return nil
	}
	err := c.commit(ctx, c.batch)
	c.batch, c.batchBytes = c.batch[:0], 0
	return err
}

// commit makes changes. A lease that has ended in the target since it was last
// looked at is granted again.
func (c *Copying) commit(ctx context.Context, ops []kv.Op) error {
	_, err := c.plan.To.Txn(ctx, kv.Txn{Success: ops})
	if !errors.Is(err, kv.ErrLeaseNotFound) {
		return err
	}
	for i := range ops {
		if ops[i].Lease == 0 {
			continue
		}
		c.leases.forget(ops[i].Lease)
		if _, err := c.leases.use(ctx, ops[i].Lease); err != nil && !errors.Is(err, errEnded) {
			return err
		}
	}
	_, err = c.plan.To.Txn(ctx, kv.Txn{Success: ops})
	return err
}
