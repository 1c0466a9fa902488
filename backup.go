package concord

import (
	"context"
	"fmt"
	"io"

	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/kv"
)

// Backup writes a backup of everything this member has applied, from a view:
// reads and writes go on meanwhile. It is made after a read index, so that it
// has all that was acknowledged before the call. A file that got it may be
// restored by 'concord backup restore' only if Backup returned nil.
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	if err := n.Authorize(ctx, kv.TakeBackup); err != nil {
		return err
	}
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return err
	}
	if _, err := backup.Create(ctx, w, source{n}); err != nil {
		return fmt.Errorf("write backup: %w", mapError(err))
	}
	return nil
}

// source is what a backup is taken from.
type source struct{ node *Node }

// Snapshot implements backup.Source.
func (s source) Snapshot(ctx context.Context) (snap.Meta, error) {
	return s.node.replica.Snapshot(ctx)
}

// SendTo implements backup.Source.
func (s source) SendTo(index uint64, w io.Writer) error { return s.node.disk.snaps.SendTo(index, w) }
