package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/internal/etcdfile"
	"github.com/concord-kv/concord/kv"
)

// HashKV hashes the history up to a revision as etcd does, so that a store that
// was moved can be compared: see [etcdfile.Hash]. It asks this member alone. All
// members answer alike at one revision and one compacted revision.
func (s *maintenanceServer) HashKV(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	source, ok := s.cluster.(Imager)
	if !ok {
		return nil, rpctypes.ErrGRPCNotCapable
	}
	img := source.Image()
	defer img.Close()
	rev := kv.Revision(r.Revision)
	if rev == 0 {
		rev = img.Revision
	}
	switch {
	case rev < img.Compacted, rev < 0:
		return nil, rpctypes.ErrGRPCCompacted
	case rev > img.Revision:
		return nil, rpctypes.ErrGRPCFutureRev
	}
	sum, err := etcdfile.Hash(&img, rev)
	if err != nil {
		return nil, toStatus(err)
	}
	compacted := int64(img.Compacted)
	if compacted == 0 {
		compacted = -1 // etcd's word for never
	}
	return &pb.HashKVResponse{
		Header: s.header(img.Header, extensions{}),
		Hash:   sum, HashRevision: int64(rev), CompactRevision: compacted,
	}, nil
}
