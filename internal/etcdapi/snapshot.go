package etcdapi

import (
	"bufio"
	"context"
	"io"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// Backuper is what a [kv.Cluster] may offer besides, for backups in Concord's
// own format.
type Backuper interface {
	// Backup writes one to w. It is complete only if the error is nil.
	Backup(ctx context.Context, w io.Writer) error
}

// backupFormat is the value of field 1001 of a SnapshotRequest that asks for
// Concord's format.
const backupFormat = 1

// backupChunk is the size of a stream's messages.
const backupChunk = 256 << 10

// Snapshot streams a backup in Concord's format to clients that ask for it.
func (s *maintenanceServer) Snapshot(r *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	x, err := extensionsOf(r)
	if err != nil {
		return err
	}
	source, ok := s.cluster.(Backuper)
	if !ok || !x.wanted || x.n1001 != backupFormat {
		return rpctypes.ErrGRPCNotCapable
	}
	w := bufio.NewWriterSize(blobWriter{stream}, backupChunk)
	if err := source.Backup(stream.Context(), w); err != nil {
		return toStatus(err)
	}
	return toStatus(w.Flush())
}

// blobWriter sends what is written.
type blobWriter struct{ stream pb.Maintenance_SnapshotServer }

// Write implements io.Writer.
func (w blobWriter) Write(b []byte) (int, error) {
	if err := w.stream.Send(&pb.SnapshotResponse{Blob: b}); err != nil {
		return 0, err
	}
	return len(b), nil
}
