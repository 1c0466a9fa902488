package kvtest

import (
	"context"
	"fmt"

	"github.com/concord-kv/concord/kv"
)

// answer is a result as text, or the error's.
func answer(text func() string, err error) string {
	if err != nil {
		return renderError(err)
	}
	return text()
}

func txnStep(t kv.Txn) step {
	return step{"txn " + renderTxn(&t), func(ctx context.Context, s kv.Store) string {
		res, err := s.Txn(ctx, t)
		return answer(func() string { return renderTxnResult(&res) }, err)
	}}
}

func rangeStep(r kv.Range) step {
	return step{"range " + renderRange(&r), func(ctx context.Context, s kv.Store) string {
		res, err := s.Range(ctx, r)
		return answer(func() string { return renderRangeResult(&res) }, err)
	}}
}

func compactStep(rev kv.Revision) step {
	return step{fmt.Sprintf("compact %d", rev), func(ctx context.Context, s kv.Store) string {
		res, err := s.Compact(ctx, rev)
		return answer(func() string { return fmt.Sprintf("rev=%d", res.Revision) }, err)
	}}
}

// leaseStep is one of the calls of kv.Leaser on the lease id.
func leaseStep(n int, id kv.LeaseID) step {
	calls := []step{
		{"grant", func(ctx context.Context, s kv.Store) string {
			res, err := s.Grant(ctx, kv.Grant{ID: id, TTL: longTTL})
			return answer(func() string { return renderLease(res) }, err)
		}},
		{"keep alive", func(ctx context.Context, s kv.Store) string {
			res, err := s.KeepAlive(ctx, id)
			return answer(func() string { return renderLease(res) }, err)
		}},
		{"revoke", func(ctx context.Context, s kv.Store) string {
			res, err := s.Revoke(ctx, id)
			return answer(func() string { return fmt.Sprintf("rev=%d", res.Revision) }, err)
		}},
		{"time to live", func(ctx context.Context, s kv.Store) string {
			res, err := s.TimeToLive(ctx, id, true)
			return answer(func() string { return renderLease(res) }, err)
		}},
		{"leases", func(ctx context.Context, s kv.Store) string {
			res, err := s.Leases(ctx)
			return answer(func() string { return fmt.Sprintf("rev=%d %v", res.Revision, res.IDs) }, err)
		}},
	}
	if n >= len(calls) {
		n = 0 // leases are worth nothing without grants
	}
	s := calls[n]
	s.name = fmt.Sprintf("%s of lease %d", s.name, id)
	return s
}
