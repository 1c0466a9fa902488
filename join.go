package concord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// setAside makes room for a new data directory.
func setAside(cfg config) error {
	aside, err := backup.SetAside(cfg.fs, cfg.dir)
	if err == nil {
		cfg.logger.Warn("data directory set aside", "from", cfg.dir, "to", aside)
	}
	return err
}

// join makes this new member a learner of a cluster that the others have
// founded; it asks at addrs, too. It may be repeated.
func (n *Node) join(ctx context.Context, id memberfile.File, addrs ...string) (memberfile.File, error) {
	self := n.self()
	self.ID = kv.MemberID(id.ID)
	reply, err := n.askToJoin(ctx, self, addrs)
	if err != nil {
		return id, fmt.Errorf("join the cluster: %w", err)
	}
	id.Cluster, id.Founding = uint64(reply.Cluster), nil
	if err := memberfile.Save(n.cfg.fs, n.cfg.dir, id); err != nil {
		return id, err
	}
	n.transport.SetCluster(id.Cluster)
	n.circle.belong(id.Cluster)
	n.meet(reply.Members)
	n.log.Info("joined the cluster as a learner", "cluster", reply.Cluster, "members", len(reply.Members))
	return id, nil
}

// askToJoin asks the others in turn until one has let this one in.
func (n *Node) askToJoin(ctx context.Context, self kv.Member, addrs []string) (reply peerReply, err error) {
	for {
		for _, addr := range append(n.others(), addrs...) {
			reply, err = n.ask(ctx, addr, peerRequest{Join: &self})
			if err == nil || kv.CodeOf(err) == kv.Unsupported { // this program is too old
				return reply, err
			}
			n.log.Info("not let in yet", "by", addr, "error", err)
		}
		select {
		case <-ctx.Done():
			return reply, errors.Join(err, ctx.Err())
		case <-time.After(n.cfg.election):
		}
	}
}

// admit lets a new member in, as a learner. It takes the place that was reserved
// for its address, and that of a learner that had its name and address before it:
// both cannot listen there. A voter of that name and address stays until the new
// one can take its vote, see package steward.
func (n *Node) admit(ctx context.Context, m kv.Member) (peerReply, error) {
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return peerReply{}, err
	}
	m.Learner = true
	changes := []machine.MemberChange{{Op: machine.AddMember, Member: m}}
	for _, other := range n.machine.Members() {
		switch {
		case other.ID == m.ID:
			changes = nil // asked again after a lost answer
		case !n.sharesAddr(other, m):
		case other.Name == "", other.Name == m.Name && other.Learner:
			changes = append([]machine.MemberChange{{Op: machine.RemoveMember, Member: kv.Member{ID: other.ID}}}, changes...)
		}
	}
	if len(changes) > 0 {
		if err := n.change(ctx, changes...); err != nil {
			return peerReply{}, err
		}
	}
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return peerReply{}, err
	}
	return peerReply{Cluster: n.machine.Cluster(), Members: n.machine.Members()}, nil
}

func (n *Node) sharesAddr(a, b kv.Member) bool {
	return slices.ContainsFunc(a.PeerAddrs, func(addr string) bool { return slices.Contains(b.PeerAddrs, addr) })
}
