package concord

import (
	"context"
	"errors"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// Grant implements [kv.Leaser].
func (n *Node) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	if err := n.cfg.limits.CheckGrant(&g); err != nil {
		return kv.LeaseResult{}, err
	}
	if m := n.cfg.memory; m.room.Load() <= grantSize {
		if err := m.refusal(grantSize); err != nil {
			return kv.LeaseResult{}, err
		}
	}
	chosen := g.ID == 0
	for {
		if chosen {
			g.ID = kv.LeaseID(max(1, randomID()>>1))
		}
		res, err := n.leaseCommand(ctx, observe.OpLeaseGrant, func(dst []byte) []byte { return machine.EncodeGrant(dst, g.ID, g.TTL) })
		if chosen && errors.Is(err, kv.ErrLeaseExists) {
			continue
		}
		return res, err
	}
}

// KeepAlive implements [kv.Leaser].
func (n *Node) KeepAlive(ctx context.Context, id kv.LeaseID) (kv.LeaseResult, error) {
	return n.leaseCommand(ctx, observe.OpLeaseKeepAlive, func(dst []byte) []byte { return machine.EncodeKeepAlive(dst, id) })
}

func (n *Node) leaseCommand(ctx context.Context, op observe.Op, encode func([]byte) []byte) (res kv.LeaseResult, err error) {
	c := n.begin(ctx, op)
	result, err := n.proposeIn(ctx, c, encode)
	if r, ok := result.(*kv.LeaseResult); ok {
		res = *r
	} else if err == nil {
		err = unexpected(result)
	}
	if c != nil {
		c.event.Revision, c.event.HasTTL = int64(res.Revision), op == observe.OpLeaseGrant
		n.end(ctx, c, err)
	}
	return res, err
}

// Revoke implements [kv.Leaser].
func (n *Node) Revoke(ctx context.Context, id kv.LeaseID) (kv.Header, error) {
	return n.headerCall(ctx, observe.OpLeaseRevoke, func(dst []byte) []byte { return machine.EncodeRevoke(dst, id) })
}

// TimeToLive implements [kv.Leaser].
func (n *Node) TimeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	c := n.begin(ctx, observe.OpLeaseTTL)
	res, err := n.timeToLive(ctx, id, keys)
	if c != nil {
		c.strong(len(res.Keys), res.Revision)
		n.end(ctx, c, err)
	}
	return res, err
}

func (n *Node) timeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	view, err := n.strongView(ctx)
	if err != nil {
		return kv.LeaseResult{}, err
	}
	defer view.Close()
	return view.TimeToLive(id, keys)
}

// Leases implements [kv.Leaser].
func (n *Node) Leases(ctx context.Context) (kv.LeasesResult, error) {
	c := n.begin(ctx, observe.OpLeases)
	res, err := n.leases(ctx)
	if c != nil {
		c.strong(len(res.IDs), res.Revision)
		n.end(ctx, c, err)
	}
	return res, err
}

func (n *Node) leases(ctx context.Context) (kv.LeasesResult, error) {
	view, err := n.strongView(ctx)
	if err != nil {
		return kv.LeasesResult{}, err
	}
	defer view.Close()
	return view.Leases()
}
