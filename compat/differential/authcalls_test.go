package differential

import (
	"bytes"
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// authCallOf is callOf for requests of the service Auth as well.
func authCallOf(req proto.Message) call {
	switch q := req.(type) {
	case *pb.AuthEnableRequest:
		return authCall(q, pb.AuthClient.AuthEnable)
	case *pb.AuthDisableRequest:
		return authCall(q, pb.AuthClient.AuthDisable)
	case *pb.AuthStatusRequest:
		return authCall(q, pb.AuthClient.AuthStatus)
	case *pb.AuthUserAddRequest:
		return authCall(q, pb.AuthClient.UserAdd)
	case *pb.AuthUserGetRequest:
		return authCall(q, pb.AuthClient.UserGet)
	case *pb.AuthUserListRequest:
		return authCall(q, pb.AuthClient.UserList)
	case *pb.AuthUserDeleteRequest:
		return authCall(q, pb.AuthClient.UserDelete)
	case *pb.AuthUserChangePasswordRequest:
		return authCall(q, pb.AuthClient.UserChangePassword)
	case *pb.AuthUserGrantRoleRequest:
		return authCall(q, pb.AuthClient.UserGrantRole)
	case *pb.AuthUserRevokeRoleRequest:
		return authCall(q, pb.AuthClient.UserRevokeRole)
	case *pb.AuthRoleAddRequest:
		return authCall(q, pb.AuthClient.RoleAdd)
	case *pb.AuthRoleGetRequest:
		return authCall(q, pb.AuthClient.RoleGet)
	case *pb.AuthRoleListRequest:
		return authCall(q, pb.AuthClient.RoleList)
	case *pb.AuthRoleDeleteRequest:
		return authCall(q, pb.AuthClient.RoleDelete)
	case *pb.AuthRoleGrantPermissionRequest:
		return authCall(q, pb.AuthClient.RoleGrantPermission)
	case *pb.AuthRoleRevokePermissionRequest:
		return authCall(q, pb.AuthClient.RoleRevokePermission)
	}
	return callOf(req)
}

func authCall[Q, R proto.Message](req Q, do func(pb.AuthClient, context.Context, Q, ...grpc.CallOption) (R, error)) call {
	return func(ctx context.Context, c *grpc.ClientConn) answer {
		resp, err := do(pb.NewAuthClient(c), ctx, req)
		return answer{resp, err}
	}
}

// withKeys takes away the ends that come before their keys, but for permissions:
// whether etcd allows a range without keys depends on the shape of its tree of
// permissions. Concord takes such a range for its key.
func withKeys(m proto.Message) {
	type ranged interface {
		GetKey() []byte
		GetRangeEnd() []byte
	}
	if r, ok := m.(ranged); ok {
		end := r.GetRangeEnd()
		if len(end) > 0 && string(end) != "\x00" && bytes.Compare(r.GetKey(), end) >= 0 {
			m.ProtoReflect().Clear(m.ProtoReflect().Descriptor().Fields().ByName("range_end"))
		}
	}
	if _, ok := m.(*pb.AuthRoleGrantPermissionRequest); ok {
		return
	}
	eachMessage(m.ProtoReflect(), func(inner protoreflect.Message) { withKeys(inner.Interface()) })
}

// onlyError leaves of an answer only what error it is.
func onlyError(do call) call {
	return func(ctx context.Context, c *grpc.ClientConn) answer {
		return answer{new(pb.DefragmentResponse), do(ctx, c).err}
	}
}

// maintain asks about the cluster, or for a change of it that fails.
func (r *authRunner) maintain() {
	cluster, maintenance := pb.NewClusterClient, pb.NewMaintenanceClient
	all := []situation{
		of("MemberList", nil, cluster, pb.ClusterClient.MemberList, &pb.MemberListRequest{Linearizable: r.chance(50)}),
		of("MemberRemove", nil, cluster, pb.ClusterClient.MemberRemove, &pb.MemberRemoveRequest{ID: 5}),
		of("MemberPromote", nil, cluster, pb.ClusterClient.MemberPromote, &pb.MemberPromoteRequest{ID: 5}),
		of("MemberUpdate", nil, cluster, pb.ClusterClient.MemberUpdate, &pb.MemberUpdateRequest{ID: 5, PeerURLs: []string{"http://localhost:1"}}),
		of("Status", nil, maintenance, pb.MaintenanceClient.Status, &pb.StatusRequest{}),
		of("Alarm", nil, maintenance, pb.MaintenanceClient.Alarm, &pb.AlarmRequest{}),
		of("Alarm", nil, maintenance, pb.MaintenanceClient.Alarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE}),
		of("Defragment", nil, maintenance, pb.MaintenanceClient.Defragment, &pb.DefragmentRequest{}),
		of("Hash", nil, maintenance, pb.MaintenanceClient.Hash, &pb.HashRequest{}),
		of("HashKV", nil, maintenance, pb.MaintenanceClient.HashKV, &pb.HashKVRequest{}),
		{"Snapshot", nil, snapshot},
	}
	if len(r.concord.Conns) == 1 { // others must be the leader
		all = append(all, of("MoveLeader", nil, maintenance, pb.MaintenanceClient.MoveLeader, &pb.MoveLeaderRequest{TargetID: 5}))
	}
	s := all[r.IntN(len(all))]
	r.call(r.somebody(), s.name, &pb.DefragmentRequest{}, onlyError(s.do))
}

// snapshot takes the first part of one.
func snapshot(ctx context.Context, c *grpc.ClientConn) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewMaintenanceClient(c).Snapshot(ctx, &pb.SnapshotRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	return answer{nil, err}
}

// watch creates two watches on one stream and compares what both say of them.
func (r *authRunner) watch() {
	var creates []*pb.WatchCreateRequest
	for range 2 {
		c := &pb.WatchCreateRequest{Key: r.key(), RangeEnd: r.end()}
		withKeys(c)
		if r.chance(20) {
			c.WatchId = 1 + r.Int64N(2)
		}
		creates = append(creates, c)
	}
	r.call(r.somebody(), "Watch", creates[0], func(ctx context.Context, c *grpc.ClientConn) answer {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		// Answers have the revision of the member that gives them: this brings
		// it up to date. Nobody needs a token for it.
		if _, err := pb.NewAuthClient(c).AuthStatus(metadata.NewOutgoingContext(ctx, nil), new(pb.AuthStatusRequest)); err != nil {
			return answer{nil, err}
		}
		stream, err := pb.NewWatchClient(c).Watch(ctx)
		if err != nil {
			return answer{nil, err}
		}
		said := new(pb.AuthUserListResponse) // holds lines
		for _, create := range creates {
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
				return answer{nil, err}
			}
			resp, err := stream.Recv()
			if err != nil {
				return answer{nil, err}
			}
			scrub(resp)
			said.Users = append(said.Users, prototext.MarshalOptions{}.Format(resp))
		}
		return answer{said, nil}
	})
}
