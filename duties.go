package concord

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/concord-kv/concord/internal/lessor"
	"github.com/concord-kv/concord/kv"
)

// leader is what the leader's duties see of the replica.
type leader struct{ *Node }

// Leading implements the duties' Leader.
func (l leader) Leading() (term kv.Term, since time.Duration, leads bool) {
	s := l.replica.Leadership()
	return kv.Term(s.Term), s.Held, s.Term != 0
}

// ClusterTime implements the duties' Leader.
func (l leader) ClusterTime() kv.Time { return kv.Time(l.replica.Leadership().Time) }

// ProposeLocal implements the duties' Leader.
func (l leader) ProposeLocal(ctx context.Context, term kv.Term, command []byte) (any, error) {
	if err := l.machine.Proposable(command); err != nil {
		return nil, err
	}
	result, err := l.replica.ProposeLocal(ctx, uint64(term), command)
	if err != nil {
		return nil, mapError(err)
	}
	if err, ok := result.(error); ok {
		return nil, err
	}
	return result, nil
}

// duties are the loops that act while this member leads: they propose like any
// client. One besides watches its pulse.
func (n *Node) duties() []func(context.Context) error {
	l := leader{n}
	expire := lessor.New(lessor.Config{
		Leader: l, Deadlines: n.machine, Quiet: n.cfg.election, Logger: n.log,
	})
	loops := []func(context.Context) error{expire.Run, n.beat}
	if compact := n.compacting(l); compact != nil {
		loops = append(loops, compact)
	}
	return loops
}

// announce brings this member's name, addresses and version in the member list
// up to date, once it has a leader to tell. Then it ends.
func (n *Node) announce(ctx context.Context) error {
	var told sync.Once
	for ctx.Err() == nil {
		if n.Ready(ctx) != nil {
			select { // it may have been set aside
			case <-ctx.Done():
			case <-time.After(n.cfg.election):
			}
			continue
		}
		told.Do(func() {
			s := n.Status()
			n.log.Info("member serves", "name", n.cfg.name, "leader", s.Leader, "term", s.Term, "revision", s.Revision, "keys", s.Keys)
		})
		want := n.self()
		if n.announced(want) {
			return nil
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := n.UpdateMember(ctx, want)
		cancel()
		switch {
		case err == nil:
			return nil
		case kv.CodeOf(err) != kv.Unavailable:
			n.log.Warn("member list not updated", "error", err)
			return nil
		}
	}
	return nil
}

// self is how this member should stand in the member list: with the address
// that others use, which need not be the one that it listens on.
func (n *Node) self() kv.Member {
	m := kv.Member{ID: n.id, Name: n.cfg.name, ClientAddrs: n.cfg.clientAddrs, Version: Version, Level: n.cfg.level()}
	if addr := cmp.Or(n.cfg.peers[n.cfg.name], n.cfg.peerAddr); addr != "" {
		m.PeerAddrs = []string{addr}
	} else {
		m.PeerAddrs = n.cfg.group.advertise
	}
	return m
}

func (n *Node) announced(want kv.Member) bool {
	for _, m := range n.machine.Members() {
		if m.ID == want.ID {
			return m.Name == want.Name && m.Version == want.Version && m.Level == want.Level &&
				(len(want.PeerAddrs) == 0 || slices.Equal(m.PeerAddrs, want.PeerAddrs)) &&
				(len(want.ClientAddrs) == 0 || slices.Equal(m.ClientAddrs, want.ClientAddrs))
		}
	}
	return true // not a member any more
}
