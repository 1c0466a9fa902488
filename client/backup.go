package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord/kv"
)

// backupFormat asks for Concord's own format; see api/extensions.md.
const backupFormat = 1

// Backup writes a backup of the member in use to w while that goes on serving.
// What w got is a backup only if the error is nil. It is not bounded by
// Config.Timeout. An etcd server cannot do it: [kv.ErrUnsupported].
func (c *Client) Backup(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Also finds a member that answers, so that the stream begins there.
	if _, err := call(ctx, c, always, c.askKind); err != nil {
		return err
	}
	if serverKind(c.server.Load()) != concordServer {
		return kv.Errorf(kv.Unsupported, "the server is etcd; take its snapshot with etcdctl: %w", kv.ErrUnsupported)
	}
	req := new(pb.SnapshotRequest)
	setUnknown(req, appendVarint(wanted(), fieldTTL, backupFormat))
	e := c.endpoints[c.current.Load()]
	stream, err := pb.NewMaintenanceClient(e.conn.Load()).Snapshot(ctx, req)
	if err != nil {
		return fromStatus(err)
	}
	for {
		part, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fromStatus(err)
		}
		if _, err := w.Write(part.Blob); err != nil {
			return fmt.Errorf("write backup: %w", err)
		}
	}
}
