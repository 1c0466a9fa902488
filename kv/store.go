package kv

import (
	"context"
	"iter"
	"time"
)

// Store is what Concord offers, embedded or over the network. All methods may
// be called concurrently.
//
// A nil error means that a majority of the members holds the change on disk. An
// error that wraps [ErrUnavailable], and a context's error, mean that it may or
// may not have happened; after every other error it did not happen.
//
// Requests and the byte slices in them must not be changed until the call
// returns; results belong to the caller.
type Store interface {
	KV
	Watcher
	Leaser
}

// KV reads and changes keys.
type KV interface {
	// Range returns the keys of r at r.Revision, or at the latest when that is
	// 0. It returns [ErrCompacted] when the revision is no longer kept and
	// [ErrFutureRevision] when it is not there yet.
	Range(ctx context.Context, r Range) (RangeResult, error)
	// Txn compares, then runs the operations of the branch that the
	// comparisons select, all at one revision and all or none.
	Txn(ctx context.Context, t Txn) (TxnResult, error)
	// Compact forgets the history below rev: reads below it answer
	// [ErrCompacted] from then on; reads at rev and above are unharmed. It
	// returns [ErrCompacted] when rev is compacted already and
	// [ErrFutureRevision] when it is above the current revision.
	Compact(ctx context.Context, rev Revision) (Header, error)
}

// Watcher follows changes.
type Watcher interface {
	// Watch yields the changes in w's range in revision order, each revision
	// whole and once, until ctx ends, the consumer stops or an error is
	// yielded, which is the last thing yielded.
	//
	// The first batch is empty: every later change than its Revision will be
	// seen. That is the store's revision, or, for a start before it, the one
	// before w.Start. Further empty batches are progress marks. No mark is
	// ahead of the store's revision, also when w.Start is.
	Watch(ctx context.Context, w WatchRequest) iter.Seq2[WatchBatch, error]
}

// Leaser keeps leases: deadlines that delete the keys attached to them unless
// they are renewed.
type Leaser interface {
	// Grant makes a lease. It returns [ErrLeaseExists] when g.ID is taken.
	Grant(ctx context.Context, g Grant) (LeaseResult, error)
	// KeepAlive sets the lease's deadline to a full TTL from now. It returns
	// [ErrLeaseNotFound] when the lease has expired or never was.
	KeepAlive(ctx context.Context, id LeaseID) (LeaseResult, error)
	// Revoke ends the lease and deletes its keys, in key order at one
	// revision. It returns [ErrLeaseNotFound] when there is no such lease.
	Revoke(ctx context.Context, id LeaseID) (Header, error)
	// TimeToLive tells what is left of a lease and, when keys is set, which
	// keys are attached to it, in order. It returns [ErrLeaseNotFound] when
	// there is no such lease. It is a linearizable read.
	TimeToLive(ctx context.Context, id LeaseID, keys bool) (LeaseResult, error)
	// Leases lists the leases that have not expired, by id. It is a
	// linearizable read.
	Leases(ctx context.Context) (LeasesResult, error)
}

// Grant asks for a lease.
type Grant struct {
	// ID is the wanted id; 0 lets the store choose one.
	ID LeaseID
	// TTL is how long the lease lives after the grant and after each renewal,
	// from 1 ms to [MaxTTL].
	TTL time.Duration
}

// LeaseResult describes one lease.
type LeaseResult struct {
	Header
	ID LeaseID
	// TTL is the lease's full length, as granted.
	TTL time.Duration
	// Left is what remained of it when the answer was made.
	Left time.Duration
	// Keys are the attached keys in order, where they were asked for.
	Keys [][]byte
}

// LeasesResult lists leases.
type LeasesResult struct {
	Header
	IDs []LeaseID
}

// WatchRequest says what to follow.
type WatchRequest struct {
	// Key and End select keys as in [Range].
	Key, End []byte
	// Start is the first revision wanted; 0 means what comes after now. A
	// revision in the future is waited for; one below the compacted revision
	// ends the watch with a [CompactedError]. So does a compaction that
	// overtakes changes in the range that were not yielded yet; where nothing
	// changed in the range, the watch goes on.
	Start Revision
	// PrevKV asks for the key as it stood before each change.
	PrevKV bool
	// NoPut and NoDelete drop events of that kind.
	NoPut, NoDelete bool
	// Progress is how long the watch stays silent before it yields an empty
	// batch; 0 means for ever.
	Progress time.Duration
	// ProgressRequests, when not nil, asks with each value for an empty batch
	// as soon as everything up to the current revision was yielded.
	ProgressRequests <-chan struct{}
}

// WatchBatch holds the changes of one revision in the watched range, in the
// order in which the transaction made them; what one operation, lease or expiry
// deletes stands in key order. Without events it is a progress mark:
// everything up to and including Revision was yielded.
type WatchBatch struct {
	Revision Revision
	Events   []Event
}

// EventType tells puts from deletes.
type EventType uint8

// The types of events.
const (
	PutEvent EventType = iota
	DeleteEvent
)

// String gives PUT or DELETE, as etcdctl prints them.
func (t EventType) String() string {
	if t == DeleteEvent {
		return "DELETE"
	}
	return "PUT"
}

// Event is one change of one key.
type Event struct {
	Type EventType
	// KV is the key after the change; for a delete it has Key and ModRevision
	// only.
	KV KeyValue
	// Prev is the key before the change, where it was asked for, existed and
	// can still be read (the revision before the change is not compacted);
	// else nil.
	Prev *KeyValue
}
