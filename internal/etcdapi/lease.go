package etcdapi

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// maxTTL is the longest TTL of a lease in seconds, etcd's MaxLeaseTTL.
const maxTTL = 9_000_000_000

// maxRenewals is how many renewals of one stream are under way together; each
// waits for a majority, so one after another would be slow for a client with
// many leases.
const maxRenewals = 64

// leaseServer is the service etcdserverpb.Lease.
type leaseServer struct {
	*API
	pb.UnsafeLeaseServer
}

// LeaseGrant makes a lease.
func (s *leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	g := kv.Grant{ID: kv.LeaseID(r.ID)}
	switch {
	case x.has1001:
		g.TTL = x.ttl()
	case r.TTL > maxTTL:
		return nil, rpctypes.ErrGRPCLeaseTTLTooLarge
	default:
		g.TTL = max(time.Duration(max(r.TTL, 0))*time.Second, s.opts.MinLeaseTTL)
	}
	res, err := s.store.Grant(ctx, g)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.LeaseGrantResponse{Header: s.header(res.Header, x), ID: int64(res.ID), TTL: seconds(res.TTL)}
	if x.wanted {
		setUnknown(resp, leaseFields(&res))
	}
	return resp, nil
}

// LeaseRevoke ends a lease.
func (s *leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	h, err := s.store.Revoke(ctx, kv.LeaseID(r.ID))
	if err != nil {
		return nil, toStatus(err)
	}
	return &pb.LeaseRevokeResponse{Header: s.header(h, x)}, nil
}

// LeaseTimeToLive tells what is left of a lease: a TTL of -1 for one that is
// not there.
func (s *leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	res, err := s.store.TimeToLive(ctx, kv.LeaseID(r.ID), r.Keys)
	if errors.Is(err, kv.ErrLeaseNotFound) {
		return &pb.LeaseTimeToLiveResponse{Header: s.header(s.now(), x), ID: r.ID, TTL: -1}, nil
	}
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.LeaseTimeToLiveResponse{
		Header: s.header(res.Header, x), ID: r.ID, Keys: res.Keys,
		TTL: int64(res.Left / time.Second), GrantedTTL: seconds(res.TTL),
	}
	if x.wanted {
		setUnknown(resp, leaseFields(&res))
	}
	return resp, nil
}

// LeaseLeases lists the leases.
func (s *leaseServer) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	if err := s.checkLeader(ctx); err != nil {
		return nil, err
	}
	res, err := s.store.Leases(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.LeaseLeasesResponse{Header: s.header(res.Header, x), Leases: make([]*pb.LeaseStatus, len(res.IDs))}
	for i, id := range res.IDs {
		resp.Leases[i] = &pb.LeaseStatus{ID: int64(id)}
	}
	return resp, nil
}

// LeaseKeepAlive renews leases as they are named on the stream; each answer
// names its lease, and they may overtake each other.
func (s *leaseServer) LeaseKeepAlive(stream pb.Lease_LeaseKeepAliveServer) error {
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.stopped, func() { cancel(rpctypes.ErrGRPCStopped) })()
	if requiresLeader(ctx) {
		defer s.leader.watch(cancel)()
	}
	go s.renewals(ctx, cancel, stream)
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// renewals renews until ctx ends, and ends it: with io.EOF when the client has
// no more, or when a renewal fails for another reason than that there is no such
// lease.
func (s *leaseServer) renewals(ctx context.Context, cancel context.CancelCauseFunc, stream pb.Lease_LeaseKeepAliveServer) {
	var (
		sending sync.Mutex
		running sync.WaitGroup
		slots   = make(chan struct{}, maxRenewals)
	)
	for {
		r, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				running.Wait()
			}
			cancel(err)
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		running.Go(func() {
			defer func() { <-slots }()
			resp, err := s.renew(ctx, r)
			if err == nil {
				sending.Lock()
				defer sending.Unlock()
				err = stream.Send(resp)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
}

// renew answers a TTL of 0 for a lease that is not there.
func (s *leaseServer) renew(ctx context.Context, r *pb.LeaseKeepAliveRequest) (*pb.LeaseKeepAliveResponse, error) {
	x, err := extensionsOf(r)
	if err != nil {
		return nil, err
	}
	res, err := s.store.KeepAlive(ctx, kv.LeaseID(r.ID))
	if errors.Is(err, kv.ErrLeaseNotFound) {
		return &pb.LeaseKeepAliveResponse{Header: s.header(s.now(), x), ID: r.ID}, nil
	}
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.LeaseKeepAliveResponse{Header: s.header(res.Header, x), ID: r.ID, TTL: seconds(res.TTL)}
	if x.wanted {
		setUnknown(resp, leaseFields(&res))
	}
	return resp, nil
}

// seconds rounds up: a TTL of a part of a second must not look like none.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

func leaseFields(r *kv.LeaseResult) []byte {
	b := appendVarint(nil, fieldTTL, uint64(r.TTL/time.Millisecond))
	return appendVarint(b, fieldLeft, uint64(max(r.Left, 0)/time.Millisecond))
}
