package concord

import (
	"context"
	"errors"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// Grant implements [kv.Leaser].
func (n *Node) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	if err := n.cfg.limits.CheckGrant(&g); err != nil {
		return kv.LeaseResult{}, err
	}
	if m := n.figures.memory; m.room.Load() <= grantSize {
		if err := m.refusal(grantSize); err != nil {
			return kv.LeaseResult{}, err
		}
	}
	chosen := g.ID == 0
	for {
		if chosen {
			g.ID = kv.LeaseID(max(1, randomID()>>1))
		}
		res, err := n.leaseCommand(ctx, func(dst []byte) []byte { return machine.EncodeGrant(dst, g.ID, g.TTL) })
		if chosen && errors.Is(err, kv.ErrLeaseExists) {
			continue
		}
		return res, err
	}
}

// KeepAlive implements [kv.Leaser].
func (n *Node) KeepAlive(ctx context.Context, id kv.LeaseID) (kv.LeaseResult, error) {
	return n.leaseCommand(ctx, func(dst []byte) []byte { return machine.EncodeKeepAlive(dst, id) })
}

func (n *Node) leaseCommand(ctx context.Context, encode func([]byte) []byte) (kv.LeaseResult, error) {
	result, err := n.propose(ctx, encode)
	if err != nil {
		return kv.LeaseResult{}, err
	}
	if r, ok := result.(*kv.LeaseResult); ok {
		return *r, nil
	}
	return kv.LeaseResult{}, unexpected(result)
}

// Revoke implements [kv.Leaser].
func (n *Node) Revoke(ctx context.Context, id kv.LeaseID) (kv.Header, error) {
	return n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeRevoke(dst, id) })
}

// TimeToLive implements [kv.Leaser].
func (n *Node) TimeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	view, err := n.strongView(ctx)
	if err != nil {
		return kv.LeaseResult{}, err
	}
	defer view.Close()
	return view.TimeToLive(id, keys)
}

// Leases implements [kv.Leaser].
func (n *Node) Leases(ctx context.Context) (kv.LeasesResult, error) {
	view, err := n.strongView(ctx)
	if err != nil {
		return kv.LeasesResult{}, err
	}
	defer view.Close()
	return view.Leases()
}
