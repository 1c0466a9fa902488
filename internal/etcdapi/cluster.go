package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// clusterServer is the service etcdserverpb.Cluster.
type clusterServer struct {
	*API
	pb.UnsafeClusterServer
}

// MemberAdd adds a member by its peer URLs and lists all.
func (s *clusterServer) MemberAdd(ctx context.Context, r *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	addrs, err := toAddrs(r.PeerURLs)
	if err != nil {
		return nil, err
	}
	// They are listed before: a cluster of one that has got its second voter
	// has no majority until that has started.
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.mayAdd(ctx, all, r.IsLearner); err != nil {
		return nil, err
	}
	m, err := s.cluster.AddMember(ctx, kv.Member{PeerAddrs: addrs, Learner: r.IsLearner})
	if err != nil {
		return nil, memberStatus(err)
	}
	at, _ := slices.BinarySearchFunc(all, uint64(m.ID), func(m *pb.Member, id uint64) int { return cmp.Compare(m.ID, id) })
	all = slices.Insert(all, at, s.fromMember(&m))
	return &pb.MemberAddResponse{Header: s.unrevised(), Member: s.fromMember(&m), Members: all}, nil
}

// MemberRemove removes a member and lists the others.
func (s *clusterServer) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if _, err := s.member(ctx, kv.MemberID(r.ID)); err != nil {
		return nil, err // also while another change keeps this one from being tried
	}
	if err := s.mayRemove(ctx, r.ID); err != nil {
		return nil, err
	}
	if err := s.cluster.RemoveMember(ctx, kv.MemberID(r.ID)); err != nil {
		return nil, toStatus(err)
	}
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.MemberRemoveResponse{Header: s.unrevised(), Members: all}, nil
}

// MemberUpdate replaces a member's peer URLs.
func (s *clusterServer) MemberUpdate(ctx context.Context, r *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	m, err := s.member(ctx, kv.MemberID(r.ID))
	if err != nil {
		return nil, err
	}
	if m.PeerAddrs, err = toAddrs(r.PeerURLs); err != nil {
		return nil, err
	}
	if err := s.cluster.UpdateMember(ctx, m); err != nil {
		return nil, memberStatus(err)
	}
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.MemberUpdateResponse{Header: s.unrevised(), Members: all}, nil
}

// MemberPromote makes a learner a voter.
func (s *clusterServer) MemberPromote(ctx context.Context, r *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	if _, err := s.member(ctx, kv.MemberID(r.ID)); err != nil {
		return nil, err
	}
	if err := s.mayPromote(ctx, r.ID); err != nil {
		return nil, err
	}
	if err := s.cluster.PromoteMember(ctx, kv.MemberID(r.ID)); err != nil {
		return nil, toStatus(err)
	}
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.MemberPromoteResponse{Header: s.unrevised(), Members: all}, nil
}

// MemberList lists the members. It is linearizable whether or not the request
// says so: the list is short and seldom asked for.
func (s *clusterServer) MemberList(ctx context.Context, _ *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	all, err := s.members(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.MemberListResponse{Header: s.unrevised(), Members: all}, nil
}

// unrevised is a header without a revision, as etcd's answers about members have
// it.
func (s *clusterServer) unrevised() *pb.ResponseHeader { return s.header(kv.Header{}, extensions{}) }

func (s *clusterServer) member(ctx context.Context, id kv.MemberID) (kv.Member, error) {
	all, err := s.cluster.Members(ctx)
	if err != nil {
		return kv.Member{}, toStatus(err)
	}
	for i := range all {
		if all[i].ID == id {
			return all[i], nil
		}
	}
	return kv.Member{}, rpctypes.ErrGRPCMemberNotFound
}

func (s *clusterServer) members(ctx context.Context) ([]*pb.Member, error) {
	all, err := s.cluster.Members(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	out := make([]*pb.Member, len(all))
	for i := range all {
		out[i] = s.fromMember(&all[i])
	}
	return out, nil
}

func (s *clusterServer) fromMember(m *kv.Member) *pb.Member {
	return &pb.Member{
		ID: uint64(m.ID), Name: m.Name, IsLearner: m.Learner,
		PeerURLs:   fromAddrs(m.PeerAddrs, s.opts.PeerScheme),
		ClientURLs: fromAddrs(m.ClientAddrs, s.opts.ClientScheme),
	}
}

// memberStatus is for calls that name no new id, where only an address can
// exist already.
func memberStatus(err error) error {
	if errors.Is(err, kv.ErrMemberExists) {
		return rpctypes.ErrGRPCPeerURLExist
	}
	return toStatus(err)
}

// toAddrs takes URLs of peers and leaves host and port; those of unix sockets
// stay whole. What etcd takes for no URL of a peer is refused as etcd does.
func toAddrs(urls []string) ([]string, error) {
	if len(urls) == 0 {
		return nil, rpctypes.ErrGRPCMemberBadURLs
	}
	addrs := make([]string, len(urls))
	for i, text := range urls {
		u, err := url.Parse(strings.TrimSpace(text))
		switch {
		case err != nil:
			return nil, rpctypes.ErrGRPCMemberBadURLs
		case u.Scheme == "unix" || u.Scheme == "unixs":
			addrs[i] = u.String()
		case (u.Scheme == "http" || u.Scheme == "https") && u.Port() != "" && u.Path == "":
			addrs[i] = u.Host
		default:
			return nil, rpctypes.ErrGRPCMemberBadURLs
		}
	}
	return addrs, nil
}

func fromAddrs(addrs []string, scheme string) []string {
	urls := make([]string, len(addrs))
	for i, a := range addrs {
		if !strings.Contains(a, "://") {
			a = scheme + "://" + a
		}
		urls[i] = a
	}
	return urls
}
