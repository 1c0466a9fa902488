package concord

import (
	"context"
	"iter"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Follow implements [kv.Overseer]. A caller who may not ask for the members gets
// nothing.
func (n *Node) Follow(ctx context.Context) iter.Seq[kv.View] {
	return func(yield func(kv.View) bool) {
		if n.Authorize(ctx, kv.AnyUser) != nil {
			return
		}
		var last *kv.View
		for {
			// What changes after this is seen by one of the channels.
			moved, changed := n.replica.Changed(), n.machine.Reconfigured()
			if v := n.view(); last == nil || !sameView(last, &v) {
				if !yield(v) {
					return
				}
				last = &v
			}
			select {
			case <-ctx.Done():
				return
			case <-n.done:
				return
			case <-moved:
			case <-changed:
			}
		}
	}
}

func (n *Node) view() kv.View {
	s := n.Status()
	return kv.View{Leader: s.Leader, Term: s.Term, Role: s.Role, Members: n.machine.Members()}
}

func sameView(a, b *kv.View) bool {
	return a.Leader == b.Leader && a.Term == b.Term && a.Role == b.Role &&
		slices.EqualFunc(a.Members, b.Members, func(a, b kv.Member) bool {
			return a.ID == b.ID && a.Name == b.Name && a.Learner == b.Learner &&
				slices.Equal(a.PeerAddrs, b.PeerAddrs) && slices.Equal(a.ClientAddrs, b.ClientAddrs)
		})
}
