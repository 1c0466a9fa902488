package etcdapi

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/concord-kv/concord/kv"
)

// These checks are etcd's, in its order, so that of several faults in a request
// the same one is reported. What they let pass the store checks again by its own
// limits. Source of the order: etcd 3.7, server/etcdserver/api/v3rpc/key.go.

func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	if uint32(r.SortOrder) > uint32(pb.RangeRequest_DESCEND) || uint32(r.SortTarget) > uint32(pb.RangeRequest_VALUE) {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

// tooLarge is etcd's status for a request of n bytes, with both sizes beside it
// for Concord's own clients.
func tooLarge(n int, limit int64) error {
	return toStatus(&kv.Error{
		Code:    kv.InvalidArgument,
		Message: fmt.Sprintf("request of %d bytes is too large; the limit is %d (max-request-bytes)", n, limit),
		Err:     kv.ErrRequestTooLarge,
	})
}

// checkTxn allows maxOps comparisons and operations a branch; a nested
// transaction has what its parent's longest list left over.
func checkTxn(r *pb.TxnRequest, maxOps int) error {
	most := max(len(r.Compare), len(r.Success), len(r.Failure))
	if most > maxOps {
		return toStatus(&kv.Error{
			Code:    kv.InvalidArgument,
			Message: fmt.Sprintf("%d comparisons or operations are more than the %d left of the limit (max-txn-ops)", most, max(0, maxOps)),
			Err:     kv.ErrTooManyOps,
		})
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [...][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if err := checkOp(op, maxOps-most); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkOp answers "key not found" to an operation that is empty, as etcd does.
func checkOp(op *pb.RequestOp, maxOps int) error {
	switch o := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(o.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(o.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		if len(o.RequestDeleteRange.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
		return nil
	case *pb.RequestOp_RequestTxn:
		return checkTxn(o.RequestTxn, maxOps)
	}
	return rpctypes.ErrGRPCKeyNotFound
}
