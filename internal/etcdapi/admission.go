package etcdapi

import (
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// smallRequest is the size below which requests are not counted: the number of
// streams bounds them.
const smallRequest = 64 << 10

// admission bounds the bytes of large requests under way.
type admission struct {
	max  int64
	held atomic.Int64
}

// enter admits a request of n bytes, or refuses it with etcd's "too many
// requests". What is admitted must leave.
func (a *admission) enter(n int) error {
	if n < smallRequest {
		return nil
	}
	if a.held.Add(int64(n)) > a.max {
		a.held.Add(-int64(n))
		return rpctypes.ErrGRPCRequestTooManyRequests
	}
	return nil
}

// leave ends what enter admitted with the same n.
func (a *admission) leave(n int) {
	if n >= smallRequest {
		a.held.Add(-int64(n))
	}
}
