package etcdapi

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/kv"
)

// Errors of the services Lock and Election, with etcd's texts. Etcd sends them,
// and errors of the store that these calls meet, with the code Unknown.
var (
	errSessionExpired = status.Error(codes.Unknown, "mutex: session is expired")
	errNotElected     = status.Error(codes.Unknown, "election: not leader")
	errNobodyElected  = status.Error(codes.Unknown, "election: no leader")
	errNoLeaderKey    = status.Error(codes.Unknown, `"leader" field must be provided`)
	errGone           = errors.New("the caller's key is gone")
)

const (
	// sessionTTL is the TTL of the lease that a call without one gets, as in
	// etcd's client/v3/concurrency/session.go.
	sessionTTL = 60 * time.Second
	// releaseTimeout bounds how long a call that was given up tries to delete
	// its key; the lease does so else.
	releaseTimeout = 5 * time.Second
)

// lockServer is the service v3lockpb.Lock: what etcd's client/v3/concurrency
// does, by its keys, so that both can share a lock. The owner of a lock is the
// key of its prefix with the lowest create revision.
type lockServer struct{ *API }

// lock makes the caller's key and waits until no older one is left.
func (s lockServer) lock(ctx context.Context, r, resp lockpb.Message) error {
	lease, err := s.session(ctx, r.Int64("lease"))
	if err != nil {
		return err
	}
	c, err := s.enter(ctx, r.Bytes("name"), kv.Op{Lease: lease})
	if err != nil {
		return err
	}
	if !c.oldest {
		if c.at, err = s.await(ctx, &c); errors.Is(err, errGone) {
			return errSessionExpired
		} else if err != nil {
			return err
		}
	}
	resp.With("key", c.key).With("header", s.header(c.at, extensions{}).ProtoReflect())
	return nil
}

// unlock deletes a key.
func (s lockServer) unlock(ctx context.Context, r, resp lockpb.Message) error {
	res, err := kv.Delete(ctx, s.store, r.Bytes("key"))
	if err != nil {
		return err
	}
	resp.With("header", s.header(res.Header, extensions{}).ProtoReflect())
	return nil
}

// session returns the lease to use: the given one, or a new one for 0.
func (a *API) session(ctx context.Context, lease int64) (kv.LeaseID, error) {
	if lease != 0 {
		return kv.LeaseID(lease), nil
	}
	res, err := a.store.Grant(ctx, kv.Grant{TTL: sessionTTL})
	return res.ID, err
}

// candidate is a key in the queue of a lock or election.
type candidate struct {
	prefix, key []byte
	created     kv.Revision
	// oldest: the key owns the lock or leads.
	oldest bool
	// at is when it was found or made, and old its value when it was there
	// already, else nil.
	at  kv.Header
	old *kv.KeyValue
}

// candidateKey returns the prefix of a lock or election and the key of a lease
// in it, as etcd's clients write them.
func candidateKey(name []byte, lease kv.LeaseID) (prefix, key []byte) {
	prefix = append(append(make([]byte, 0, len(name)+1), name...), '/')
	return prefix, fmt.Appendf(nil, "%s%x", prefix, int64(lease))
}

// enter puts the key of put.Lease, with put.Value, unless it is there already.
func (a *API) enter(ctx context.Context, name []byte, put kv.Op) (candidate, error) {
	var c candidate
	c.prefix, c.key = candidateKey(name, put.Lease)
	put.Kind, put.Key = kv.OpPut, c.key
	mine, owner := kv.Range{Key: c.key}, firstOf(c.prefix)
	res, err := a.store.Txn(ctx, kv.Txn{
		Compare: []kv.Compare{{Key: c.key, Target: kv.CompareCreate}},
		Success: []kv.Op{put, {Kind: kv.OpRange, Range: &owner}},
		Failure: []kv.Op{{Kind: kv.OpRange, Range: &mine}, {Kind: kv.OpRange, Range: &owner}},
	})
	if err != nil {
		return c, err
	}
	c.at, c.created = res.Header, res.Header.Revision
	if !res.Succeeded {
		c.old = &res.Ops[0].Range.KVs[0]
		c.created = c.old.CreateRevision
	}
	c.oldest = res.Ops[1].Range.KVs[0].CreateRevision == c.created
	return c, nil
}

// firstOf selects the oldest key of a prefix.
func firstOf(prefix []byte) kv.Range {
	return kv.Range{
		Key: prefix, End: kv.Prefix(prefix), Limit: 1,
		Sort: kv.Sort{By: kv.SortByCreate, Order: kv.Ascending},
	}
}

// await waits until the queue has no older key than c's, and returns errGone
// when c's is not there any more then. When the wait fails it deletes c's key.
func (a *API) await(ctx context.Context, c *candidate) (kv.Header, error) {
	err := a.awaitOlder(ctx, c.prefix, c.created)
	var res kv.RangeResult
	if err == nil {
		res, err = a.store.Range(ctx, kv.Range{Key: c.key})
	}
	if err != nil {
		a.release(ctx, c)
		return kv.Header{}, err
	}
	if len(res.KVs) == 0 || res.KVs[0].CreateRevision != c.created {
		return kv.Header{}, errGone
	}
	return res.Header, nil
}

// awaitOlder waits until prefix has no key that was created before rev. It waits
// for the youngest of them, so that a deletion wakes one caller and not all.
func (a *API) awaitOlder(ctx context.Context, prefix []byte, rev kv.Revision) error {
	for {
		res, err := a.store.Range(ctx, kv.Range{
			Key: prefix, End: kv.Prefix(prefix), MaxCreate: rev - 1, Limit: 1, KeysOnly: true,
			Sort: kv.Sort{By: kv.SortByCreate, Order: kv.Descending},
		})
		if err != nil || len(res.KVs) == 0 {
			return err
		}
		_, err = a.next(ctx, kv.WatchRequest{Key: res.KVs[0].Key, Start: res.Header.Revision + 1, NoPut: true})
		// History that was compacted meanwhile is no loss: look again.
		if err != nil && !errors.Is(err, kv.ErrCompacted) {
			return err
		}
	}
}

// next waits for the first event of a watch.
func (a *API) next(ctx context.Context, w kv.WatchRequest) (kv.KeyValue, error) {
	for batch, err := range a.store.Watch(ctx, w) {
		if err != nil {
			return kv.KeyValue{}, err
		}
		if len(batch.Events) > 0 {
			return batch.Events[0].KV, nil
		}
	}
	return kv.KeyValue{}, context.Cause(ctx)
}

// release deletes c's key though the call's context has ended.
func (a *API) release(ctx context.Context, c *candidate) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_, _ = a.resign(ctx, c.key, c.created) // the lease deletes the key when this fails
}

// resign deletes key if it is still the one that was created at rev.
func (a *API) resign(ctx context.Context, key []byte, rev kv.Revision) (kv.TxnResult, error) {
	return a.store.Txn(ctx, kv.Txn{
		Compare: []kv.Compare{{Key: key, Target: kv.CompareCreate, Number: int64(rev)}},
		Success: []kv.Op{{Kind: kv.OpDelete, Key: key}},
	})
}

// sessionStatus turns what a call of Lock or Election failed with into etcd's
// status for it: etcd passes errors of its own client on, which gRPC does not
// know, as texts. What a client should try elsewhere keeps its code here.
func sessionStatus(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, ctx.Err()) {
		err = cause
	}
	st, ok := status.FromError(toStatus(err))
	if !ok || st.Code() == codes.Unavailable {
		return toStatus(err)
	}
	return status.Error(codes.Unknown, st.Message())
}
