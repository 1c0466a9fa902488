package client

import (
	"context"
	"errors"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/concord-kv/concord/kv"
)

// Status asks the member behind endpoint, one of those of [Config], what it
// knows. An empty endpoint means the one in use. It is not tried elsewhere.
func (c *Client) Status(ctx context.Context, endpoint string) (kv.Status, error) {
	e := c.endpoints[c.current.Load()]
	if endpoint != "" {
		e = nil
		for _, known := range c.endpoints {
			if known.address == endpoint {
				e = known
			}
		}
	}
	if e == nil {
		return kv.Status{}, kv.Errorf(kv.InvalidArgument, "endpoint %q is not one of the client's", endpoint)
	}
	ctx, cancel := c.bound(ctx)
	defer cancel()
	return c.status(ctx, e)
}

func (c *Client) status(ctx context.Context, e *endpoint) (kv.Status, error) {
	req := new(pb.StatusRequest)
	setUnknown(req, wanted())
	r, _, err := once(ctx, e, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.StatusResponse, error) {
		return pb.NewMaintenanceClient(conn).Status(ctx, req, opts...)
	})
	if err != nil {
		return kv.Status{}, err
	}
	h := c.header(r.Header)
	st := kv.Status{
		Cluster: kv.ClusterID(r.Header.GetClusterId()), Member: kv.MemberID(r.Header.GetMemberId()),
		Leader: kv.MemberID(r.Leader), Term: kv.Term(r.RaftTerm),
		Committed: kv.Index(r.RaftIndex), Applied: kv.Index(r.RaftAppliedIndex),
		Revision: h.Revision, Time: h.Time,
		LiveBytes: r.DbSizeInUse, MemoryBytes: r.DbSize, Version: r.Version,
	}
	number := func(num protowire.Number) uint64 { n, _ := field(r, num); return n }
	if serverKind(c.server.Load()) == concordServer {
		st.Version = string(content(r, fieldStatusVersion))
		st.Role = kv.Role(number(fieldStatusRole))
		st.CompactRevision = kv.Revision(number(fieldStatusCompact))
		st.Hash = number(fieldStatusHash)
		st.Keys = int64(number(fieldStatusKeys))
		return st, nil
	}
	switch {
	case r.IsLearner:
		st.Role = kv.LearnerRole
	case st.Leader == st.Member:
		st.Role = kv.LeaderRole
	}
	return st, nil
}

// Members lists the members, by id, from a linearizable read.
func (c *Client) Members(ctx context.Context) ([]kv.Member, error) {
	req := &pb.MemberListRequest{Linearizable: true}
	resp, err := call(ctx, c, always, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.MemberListResponse, error) {
		return pb.NewClusterClient(conn).MemberList(ctx, req, opts...)
	})
	if err != nil {
		return nil, err
	}
	out := make([]kv.Member, len(resp.Members))
	for i, m := range resp.Members {
		out[i] = toMember(m)
	}
	return out, nil
}

// AddMember adds a member by its peer addresses. Its id is the cluster's to
// choose, and its name and client addresses come from itself.
func (c *Client) AddMember(ctx context.Context, m kv.Member) (kv.Member, error) {
	if m.ID != 0 {
		return kv.Member{}, kv.Errorf(kv.Unsupported, "the id of a member cannot be chosen over the network: %w", kv.ErrUnsupported)
	}
	req := &pb.MemberAddRequest{PeerURLs: toURLs(m.PeerAddrs), IsLearner: m.Learner}
	resp, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.MemberAddResponse, error) {
		return pb.NewClusterClient(conn).MemberAdd(ctx, req, opts...)
	})
	if err != nil {
		return kv.Member{}, err
	}
	return toMember(resp.Member), nil
}

// PromoteMember makes a learner that has caught up a voter.
func (c *Client) PromoteMember(ctx context.Context, id kv.MemberID) error {
	req := &pb.MemberPromoteRequest{ID: uint64(id)}
	_, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.MemberPromoteResponse, error) {
		return pb.NewClusterClient(conn).MemberPromote(ctx, req, opts...)
	})
	return err
}

// RemoveMember removes a member for ever.
func (c *Client) RemoveMember(ctx context.Context, id kv.MemberID) error {
	req := &pb.MemberRemoveRequest{ID: uint64(id)}
	_, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.MemberRemoveResponse, error) {
		return pb.NewClusterClient(conn).MemberRemove(ctx, req, opts...)
	})
	return err
}

// UpdateMember replaces the peer addresses of m.ID.
func (c *Client) UpdateMember(ctx context.Context, m kv.Member) error {
	req := &pb.MemberUpdateRequest{ID: uint64(m.ID), PeerURLs: toURLs(m.PeerAddrs)}
	_, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.MemberUpdateResponse, error) {
		return pb.NewClusterClient(conn).MemberUpdate(ctx, req, opts...)
	})
	return err
}

// MoveLeader hands leadership to a member, or, when to is 0, to the one that has
// caught up most. One of the client's endpoints must be the leader's.
func (c *Client) MoveLeader(ctx context.Context, to kv.MemberID) error {
	if to == 0 {
		if err := c.needConcord(ctx, "moving leadership without a target"); err != nil {
			return err
		}
	}
	req := &pb.MoveLeaderRequest{TargetID: uint64(to)}
	setUnknown(req, wanted())
	ctx, cancel := c.bound(ctx)
	defer cancel()
	var last error
	for _, e := range c.endpoints {
		_, _, err := once(ctx, e, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.MoveLeaderResponse, error) {
			return pb.NewMaintenanceClient(conn).MoveLeader(ctx, req, opts...)
		})
		if err == nil {
			return nil
		}
		if last == nil || !errors.Is(err, kv.ErrNotLeader) {
			last = err
		}
	}
	return last
}

func toMember(m *pb.Member) kv.Member {
	return kv.Member{
		ID: kv.MemberID(m.ID), Name: m.Name, Learner: m.IsLearner,
		PeerAddrs: toAddrs(m.PeerURLs), ClientAddrs: toAddrs(m.ClientURLs),
	}
}

// toAddrs leaves the scheme out where it says nothing.
func toAddrs(urls []string) []string {
	addrs := make([]string, len(urls))
	for i, u := range urls {
		u = strings.TrimPrefix(u, "http://")
		addrs[i] = strings.TrimPrefix(u, "https://")
	}
	return addrs
}

func toURLs(addrs []string) []string {
	urls := make([]string, len(addrs))
	for i, a := range addrs {
		if !strings.Contains(a, "://") {
			a = "http://" + a
		}
		urls[i] = a
	}
	return urls
}
