package etcdapi

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/concord-kv/concord/kv"
)

// maintenanceServer is the service etcdserverpb.Maintenance.
type maintenanceServer struct {
	*API
	pb.UnimplementedMaintenanceServer
}

// Status tells what this member knows of itself.
func (s *maintenanceServer) Status(_ context.Context, r *pb.StatusRequest) (*pb.StatusResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	st := s.cluster.Status()
	resp := &pb.StatusResponse{
		Header:           s.header(kv.Header{Revision: st.Revision, Time: st.Time}, x),
		Version:          Version,
		StorageVersion:   minorVersion(),
		Leader:           uint64(st.Leader),
		RaftIndex:        uint64(st.Committed),
		RaftAppliedIndex: uint64(st.Applied),
		RaftTerm:         uint64(st.Term),
		DbSize:           st.MemoryBytes,
		DbSizeInUse:      storeSize(&st),
		DbSizeQuota:      s.opts.Quota,
		IsLearner:        st.Role == kv.LearnerRole,
		DowngradeInfo:    downgradeInfo(s.cluster),
	}
	if st.Leader == 0 {
		resp.Errors = append(resp.Errors, "etcdserver: no leader") // etcd's text
	}
	resp.Errors = append(resp.Errors, alarmTexts(s.cluster)...)
	if x.wanted {
		setUnknown(resp, statusFields(&st))
	}
	return resp, nil
}

// minorVersion is the version that the API and its files have, without the
// patch: what etcd calls its cluster and storage version.
func minorVersion() string { return Version[:strings.LastIndexByte(Version, '.')] + ".0" }

func statusFields(st *kv.Status) []byte {
	b := protowire.AppendTag(nil, fieldStatusVersion, protowire.BytesType)
	b = protowire.AppendString(b, st.Version)
	b = appendVarint(b, fieldStatusRole, uint64(st.Role))
	b = appendVarint(b, fieldStatusCompact, uint64(st.CompactRevision))
	b = appendVarint(b, fieldStatusHash, st.Hash)
	return appendVarint(b, fieldStatusKeys, uint64(st.Keys))
}

// Defragment does nothing, at once: free space is given back all the time.
func (s *maintenanceServer) Defragment(context.Context, *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	s.opts.Logger.Info("defragmentation was asked for; there is nothing to do, free space is given back all the time")
	return &pb.DefragmentResponse{}, nil
}

// Hash folds the running state hash, which is equal on all members at one
// applied index.
func (s *maintenanceServer) Hash(context.Context, *pb.HashRequest) (*pb.HashResponse, error) {
	st := s.cluster.Status()
	h := kv.Header{Revision: st.Revision, Time: st.Time}
	return &pb.HashResponse{Header: s.header(h, extensions{}), Hash: uint32(st.Hash ^ st.Hash>>32)}, nil
}

// MoveLeader hands leadership over; only the leader does it. Clients that know
// Concord's extensions may leave the choice to it with a target of 0.
func (s *maintenanceServer) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if s.cluster.Status().Role != kv.LeaderRole {
		return nil, rpctypes.ErrGRPCNotLeader
	}
	if x.wanted && r.TargetID == 0 {
		return &pb.MoveLeaderResponse{}, toStatus(s.cluster.MoveLeader(ctx, 0))
	}
	members, err := s.cluster.Members(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	for i := range members {
		if m := &members[i]; uint64(m.ID) == r.TargetID && !m.Learner {
			if err := s.cluster.MoveLeader(ctx, m.ID); err != nil {
				return nil, toStatus(err)
			}
			return &pb.MoveLeaderResponse{}, nil
		}
	}
	return nil, rpctypes.ErrGRPCBadLeaderTransferee
}
