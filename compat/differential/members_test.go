package differential

import (
	"context"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// withMember makes a call that is about the first member.
func withMember(do func(context.Context, pb.ClusterClient, *pb.Member) error) call {
	return func(ctx context.Context, c *grpc.ClientConn) answer {
		client := pb.NewClusterClient(c)
		list, err := client.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		if err != nil {
			return answer{nil, err}
		}
		return answer{nil, do(ctx, client, list.Members[0])}
	}
}

// TestMemberErrors asks for changes of members that are refused.
func TestMemberErrors(t *testing.T) {
	p := newPair(t, 3) // one member of Concord alone has no address for others
	for _, s := range []situation{
		{"promotion of a voter", rpctypes.ErrGRPCMemberNotLearner, withMember(func(ctx context.Context, c pb.ClusterClient, m *pb.Member) error {
			_, err := c.MemberPromote(ctx, &pb.MemberPromoteRequest{ID: m.ID})
			return err
		})},
		{"address that is taken", rpctypes.ErrGRPCPeerURLExist, withMember(func(ctx context.Context, c pb.ClusterClient, m *pb.Member) error {
			_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: m.PeerURLs})
			return err
		})},
		{"learner at an address that is taken", rpctypes.ErrGRPCPeerURLExist, withMember(func(ctx context.Context, c pb.ClusterClient, m *pb.Member) error {
			_, err := c.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: m.PeerURLs, IsLearner: true})
			return err
		})},
	} {
		t.Run(s.name, func(t *testing.T) {
			etcd, concord := p.both(s.do)
			if !equal(answer{err: etcd.err}, answer{err: s.want}) || !equal(etcd, concord) {
				t.Errorf("wanted %v\n   etcd: %v\nconcord: %v", s.want, etcd, concord)
			}
		})
	}
}
