package concord

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/concord-kv/concord/internal/backup"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// Backup writes a backup of everything this member has applied, from a view:
// reads and writes go on meanwhile. It is made after a read index, so that it
// has all that was acknowledged before the call. A file that got it may be
// restored by 'concord backup restore' only if Backup returned nil.
func (n *Node) Backup(ctx context.Context, w io.Writer) error {
	c, began, counted := n.begin(ctx, observe.OpSnapshot), time.Now(), &counter{w: w}
	err := n.backup(ctx, counted)
	if c != nil {
		c.event.Bytes = counted.n
		n.end(ctx, c, err)
	}
	if f := n.figures.events.hub.Load().Backup; f != nil {
		f(observe.Backup{Bytes: counted.n, Revision: int64(n.machine.Status().Revision), Duration: time.Since(began), Err: err})
	}
	return err
}

// counter counts what is written.
type counter struct {
	w io.Writer
	n int64
}

// Write implements io.Writer.
func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

func (n *Node) backup(ctx context.Context, w io.Writer) error {
	if err := n.authorize(ctx, kv.TakeBackup); err != nil {
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
