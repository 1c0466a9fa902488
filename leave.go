package concord

import (
	"context"
	"errors"
	"fmt"

	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// Leave implements [kv.Overseer]. [Node.Err] is nil afterwards; Close is still to
// be called.
func (n *Node) Leave(ctx context.Context) error {
	if err := n.Authorize(ctx, kv.ManageCluster); err != nil {
		return err
	}
	n.closing.left.Store(true) // being removed is no failure from now on
	// Not to be found any more, it was removed by a try of which the answer was
	// lost.
	if err := kv.Retire(ctx, n, n.id); err != nil && !errors.Is(err, kv.ErrMemberNotFound) {
		n.closing.left.Store(false)
		return err
	}
	n.log.Info("left the cluster", "id", n.id, "cluster", n.machine.Cluster())
	n.stop.loops()
	<-n.done
	if err := n.remember(func(f *memberfile.File) { f.Left = true }); err != nil {
		return fmt.Errorf("the member has left and ended, but its directory does not say so: %w", err)
	}
	return nil
}
