package etcdapi

import (
	"bufio"
	"context"
	"crypto/sha256"
	"io"
	"os"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/internal/etcdfile"
	"github.com/concord-kv/concord/kv"
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

// The sizes of a stream's messages: of a backup, and etcd's of a snapshot.
const (
	backupChunk   = 256 << 10
	snapshotChunk = 32 << 10
)

// Imager is what a [kv.Cluster] may offer besides, for what needs all of the
// state at one moment: snapshots in etcd's format, and hashes.
type Imager interface {
	// Image is that of this member alone; it is closed soon.
	Image() kv.Image
}

// Snapshot streams the state of this member as the database file of an etcd, and
// its SHA-256 at the end, as etcd does; to clients that ask for it, a backup in
// Concord's format.
func (s *maintenanceServer) Snapshot(r *pb.SnapshotRequest, stream pb.Maintenance_SnapshotServer) error {
	x, err := extensionsOf(r)
	if err != nil {
		return err
	}
	if x.wanted && x.n1001 == backupFormat {
		return s.backup(stream)
	}
	source, ok := s.cluster.(Imager)
	if !ok {
		return rpctypes.ErrGRPCNotCapable
	}
	f, err := s.etcdFile(source)
	if err != nil {
		return toStatus(err)
	}
	defer f.Close() // which also removes it
	return toStatus(sendFile(stream, f))
}

func (s *maintenanceServer) backup(stream pb.Maintenance_SnapshotServer) error {
	source, ok := s.cluster.(Backuper)
	if !ok {
		return rpctypes.ErrGRPCNotCapable
	}
	w := bufio.NewWriterSize(blobWriter{stream}, backupChunk)
	if err := source.Backup(stream.Context(), w); err != nil {
		return toStatus(err)
	}
	return toStatus(w.Flush())
}

// etcdFile makes the file; the image is not held while it is sent.
func (s *maintenanceServer) etcdFile(source Imager) (*os.File, error) {
	img := source.Image()
	defer img.Close()
	for i := range img.Members {
		m := &img.Members[i]
		m.PeerAddrs = fromAddrs(m.PeerAddrs, s.opts.PeerScheme)
		m.ClientAddrs = fromAddrs(m.ClientAddrs, s.opts.ClientScheme)
	}
	return etcdfile.Write(&img, etcdfile.Options{Version: Version})
}

// sendFile sends f in etcd's portions, and then its checksum.
func sendFile(stream pb.Maintenance_SnapshotServer, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	sum, buf := sha256.New(), make([]byte, snapshotChunk)
	resp := &pb.SnapshotResponse{Version: minorVersion()}
	for left := info.Size(); left > 0; {
		n, err := io.ReadFull(f, buf[:min(left, snapshotChunk)])
		if err != nil {
			return err
		}
		left -= int64(n)
		sum.Write(buf[:n])
		resp.Blob, resp.RemainingBytes = buf[:n], uint64(left)
		if err := stream.Send(resp); err != nil {
			return err
		}
	}
	resp.Blob = sum.Sum(nil)
	return stream.Send(resp)
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
