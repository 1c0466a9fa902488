package client

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/concord-kv/concord/kv"
)

// Range implements [kv.KV].
func (c *Client) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	if err := c.cfg.Limits.CheckRange(&r); err != nil {
		return kv.RangeResult{}, err
	}
	req := fromRange(&r)
	ext := wanted()
	if r.Level == kv.Leader {
		ext = appendVarint(ext, fieldLevel, uint64(r.Level)) // etcd reads it as strong, which is no less
	}
	setUnknown(req, ext)
	resp, err := call(ctx, c, always, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
		return pb.NewKVClient(conn).Range(ctx, req, opts...)
	})
	if err != nil {
		return kv.RangeResult{}, err
	}
	return toRange(&r, resp, c.header(resp.Header)), nil
}

// Txn implements [kv.KV]. Unless t has an id or the client gives none, it is
// given one, so that it can be tried again.
func (c *Client) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	if _, err := c.cfg.Limits.CheckTxn(&t); err != nil {
		return kv.TxnResult{}, err
	}
	if hasTTL(&t) {
		if err := c.needConcord(ctx, "a TTL on a key"); err != nil {
			return kv.TxnResult{}, err
		}
	}
	again := onConcord
	switch {
	case t.ReadOnly() && t.ID.IsZero():
		again = always
	case !t.ID.IsZero():
	case c.cfg.NoRequestIDs:
		again = never
	default:
		id, done := c.ids.take()
		defer done()
		t.ID = id
	}
	if len(t.Compare) == 0 && len(t.Success) == 1 {
		switch op := &t.Success[0]; op.Kind {
		case kv.OpPut:
			return c.put(ctx, op, t.ID, again)
		case kv.OpDelete:
			return c.delete(ctx, op, t.ID, again)
		}
	}
	req := fromTxn(&t)
	setUnknown(req, appendID(wanted(), t.ID))
	resp, err := call(ctx, c, again, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
		return pb.NewKVClient(conn).Txn(ctx, req, opts...)
	})
	if err != nil {
		return kv.TxnResult{}, err
	}
	return toTxn(&t, resp, c.header(resp.Header)), nil
}

// put and delete are transactions of one operation, which have calls of their
// own that cost less.

func (c *Client) put(ctx context.Context, op *kv.Op, id kv.RequestID, again repeat) (kv.TxnResult, error) {
	req := fromPut(op, appendID(wanted(), id))
	resp, err := call(ctx, c, again, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.PutResponse, error) {
		return pb.NewKVClient(conn).Put(ctx, req, opts...)
	})
	if err != nil {
		return kv.TxnResult{}, err
	}
	return kv.TxnResult{
		Header: c.header(resp.Header), Succeeded: true,
		Ops: []kv.OpResult{{Kind: kv.OpPut, Prev: prevOf(resp)}},
	}, nil
}

func (c *Client) delete(ctx context.Context, op *kv.Op, id kv.RequestID, again repeat) (kv.TxnResult, error) {
	req := fromDelete(op)
	setUnknown(req, appendID(wanted(), id))
	resp, err := call(ctx, c, again, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
		return pb.NewKVClient(conn).DeleteRange(ctx, req, opts...)
	})
	if err != nil {
		return kv.TxnResult{}, err
	}
	return kv.TxnResult{
		Header: c.header(resp.Header), Succeeded: true,
		Ops: []kv.OpResult{{Kind: kv.OpDelete, Deleted: resp.Deleted, Prev: toKVs(resp.PrevKvs)}},
	}, nil
}

func hasTTL(t *kv.Txn) bool {
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		for i := range ops {
			if op := &ops[i]; op.Kind == kv.OpPut && op.TTL > 0 || op.Kind == kv.OpTxn && hasTTL(op.Txn) {
				return true
			}
		}
	}
	return false
}

// Compact implements [kv.KV].
func (c *Client) Compact(ctx context.Context, rev kv.Revision) (kv.Header, error) {
	req := &pb.CompactionRequest{Revision: int64(rev)}
	setUnknown(req, wanted())
	resp, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.CompactionResponse, error) {
		return pb.NewKVClient(conn).Compact(ctx, req, opts...)
	})
	if err != nil {
		return kv.Header{}, err
	}
	return c.header(resp.Header), nil
}
