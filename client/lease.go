package client

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/kv"
)

// Grant implements [kv.Leaser]. An id that is left to the store is chosen here,
// so that a grant whose answer is lost is found again.
func (c *Client) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	if err := c.cfg.Limits.CheckGrant(&g); err != nil {
		return kv.LeaseResult{}, err
	}
	if g.TTL%time.Second != 0 {
		if err := c.needConcord(ctx, "a lease TTL of parts of a second"); err != nil {
			return kv.LeaseResult{}, err
		}
	}
	if g.ID != 0 {
		return c.grant(ctx, g)
	}
	for {
		var random [8]byte
		_, _ = rand.Read(random[:]) // never fails: crypto/rand
		g.ID = kv.LeaseID(binary.LittleEndian.Uint64(random[:])>>1 | 1)
		res, err := c.grant(ctx, g)
		switch {
		case errors.Is(err, kv.ErrLeaseExists):
		case errors.Is(err, kv.ErrUnavailable) && ctx.Err() == nil:
			// Nobody else has this id: if it is there, it is ours.
			if found, ferr := c.TimeToLive(ctx, g.ID, false); ferr == nil {
				return found, nil
			}
			return res, err
		default:
			return res, err
		}
	}
}

func (c *Client) grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	req := &pb.LeaseGrantRequest{ID: int64(g.ID), TTL: int64((g.TTL + time.Second - 1) / time.Second)}
	setUnknown(req, appendVarint(wanted(), fieldTTL, milliseconds(g.TTL)))
	resp, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
		return pb.NewLeaseClient(conn).LeaseGrant(ctx, req, opts...)
	})
	if err != nil {
		return kv.LeaseResult{}, err
	}
	res := c.lease(resp.Header, resp, resp.TTL, resp.TTL)
	res.ID = kv.LeaseID(resp.ID)
	return res, nil
}

// lease reads an answer about a lease: in milliseconds where the server gives
// them, else in seconds.
func (c *Client) lease(h *pb.ResponseHeader, m protoreflect.ProtoMessage, ttl, left int64) kv.LeaseResult {
	res := kv.LeaseResult{
		Header: c.header(h),
		TTL:    time.Duration(ttl) * time.Second, Left: time.Duration(left) * time.Second,
	}
	if ms, ok := field(m, fieldTTL); ok {
		res.TTL = time.Duration(ms) * time.Millisecond
	}
	if ms, ok := field(m, fieldLeft); ok {
		res.Left = time.Duration(ms) * time.Millisecond
	}
	return res
}

// KeepAlive implements [kv.Leaser].
func (c *Client) KeepAlive(ctx context.Context, id kv.LeaseID) (kv.LeaseResult, error) {
	req := &pb.LeaseKeepAliveRequest{ID: int64(id)}
	setUnknown(req, wanted())
	resp, err := call(ctx, c, always, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.LeaseKeepAliveResponse, error) {
		stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx, opts...)
		if err != nil {
			return nil, err
		}
		if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		if err := stream.CloseSend(); err != nil {
			return nil, err
		}
		resp, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		_, err = stream.Recv() // the end, which frees the stream
		if errors.Is(err, io.EOF) {
			err = nil
		}
		return resp, err
	})
	if err != nil {
		return kv.LeaseResult{}, err
	}
	res := c.lease(resp.Header, resp, resp.TTL, resp.TTL)
	res.ID = id
	if _, renewed := field(resp, fieldTTL); !renewed && resp.TTL <= 0 {
		return kv.LeaseResult{}, kv.ErrLeaseNotFound
	}
	return res, nil
}

// Revoke implements [kv.Leaser].
func (c *Client) Revoke(ctx context.Context, id kv.LeaseID) (kv.Header, error) {
	req := &pb.LeaseRevokeRequest{ID: int64(id)}
	setUnknown(req, wanted())
	resp, err := call(ctx, c, never, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.LeaseRevokeResponse, error) {
		return pb.NewLeaseClient(conn).LeaseRevoke(ctx, req, opts...)
	})
	if err != nil {
		return kv.Header{}, err
	}
	return c.header(resp.Header), nil
}

// TimeToLive implements [kv.Leaser].
func (c *Client) TimeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	req := &pb.LeaseTimeToLiveRequest{ID: int64(id), Keys: keys}
	setUnknown(req, wanted())
	resp, err := call(ctx, c, always, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.LeaseTimeToLiveResponse, error) {
		return pb.NewLeaseClient(conn).LeaseTimeToLive(ctx, req, opts...)
	})
	if err != nil {
		return kv.LeaseResult{}, err
	}
	if resp.TTL < 0 {
		return kv.LeaseResult{}, kv.ErrLeaseNotFound
	}
	res := c.lease(resp.Header, resp, resp.GrantedTTL, resp.TTL)
	res.ID, res.Keys = id, resp.Keys
	return res, nil
}

// Leases implements [kv.Leaser].
func (c *Client) Leases(ctx context.Context) (kv.LeasesResult, error) {
	req := new(pb.LeaseLeasesRequest)
	setUnknown(req, wanted())
	resp, err := call(ctx, c, always, func(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) (*pb.LeaseLeasesResponse, error) {
		return pb.NewLeaseClient(conn).LeaseLeases(ctx, req, opts...)
	})
	if err != nil {
		return kv.LeasesResult{}, err
	}
	res := kv.LeasesResult{Header: c.header(resp.Header)}
	for _, l := range resp.Leases {
		res.IDs = append(res.IDs, kv.LeaseID(l.ID))
	}
	return res, nil
}
