package observe

import "time"

// WatchKind is what happened to a watch.
type WatchKind uint8

// The kinds of [Watch].
const (
	WatchCreated WatchKind = iota + 1
	WatchCancelled
	// WatchDispatched: the watch was given events.
	WatchDispatched
	// WatchLagging: it has more to read than it is given at once.
	WatchLagging
)

var watchNames = [...]string{"", "watch.created", "watch.cancelled", "watch.dispatched", "watch.lagging"}

// Watch is about one watch that this member serves.
type Watch struct {
	Kind WatchKind
	// Streams counts the watches that are open now.
	Streams int
	// Events were given, up to Revision.
	Events   int
	Revision int64
	// Lag is by how many revisions the watch is behind the store.
	Lag int64
}

// Name implements [Event].
func (e Watch) Name() string { return nameOf(watchNames[:], e.Kind) }

// LeaseKind is what happened to a lease.
type LeaseKind uint8

// The kinds of [Lease].
const (
	LeaseGranted LeaseKind = iota + 1
	LeaseRenewed
	LeaseRevoked
	LeaseExpired
)

var leaseNames = [...]string{"", "lease.granted", "lease.renewed", "lease.revoked", "lease.expired"}

// Lease is about one lease, told by every member that applies the command.
type Lease struct {
	Kind LeaseKind
	ID   int64
	// TTL that was granted; 0 for a lease that ended.
	TTL time.Duration
	// Active counts the leases after the entry of the log that this was in.
	Active int
}

// Name implements [Event].
func (e Lease) Name() string { return nameOf(leaseNames[:], e.Kind) }

const expiryName = "ttl.cleanup"

// Expiry is the deletion of keys whose time to live was over.
type Expiry struct {
	// Keys counts those that were looked at: one that was written anew
	// meanwhile stays.
	Keys     int
	Revision int64
	// Duration of the entry of the log that this was in.
	Duration time.Duration
}

// Name implements [Event].
func (e Expiry) Name() string { return expiryName }

const compactionName = "compaction.applied"

// Compaction is history that was given up, by a call or by age. Its memory is
// given back in the background.
type Compaction struct {
	// Revision is the oldest at which the store can be read now.
	Revision int64
	// Revisions counts what was given up.
	Revisions int64
}

// Name implements [Event].
func (e Compaction) Name() string { return compactionName }

// AuthKind is how somebody fared.
type AuthKind uint8

// The kinds of [Auth].
const (
	LoggedIn AuthKind = iota + 1
	// LoginFailed: the name or the password was wrong.
	LoginFailed
	// Denied: a caller who is known lacks the right.
	Denied
	// UnknownCaller: the caller's token or certificate is of no use.
	UnknownCaller
)

var authNames = [...]string{"", "auth.login", "auth.login_failed", "auth.denied", "auth.unknown"}

// Auth is a decision on who may do what.
type Auth struct {
	Kind AuthKind
	// User is the name that was given; "" for nobody.
	User string
	// Op is what was asked for.
	Op Op
}

// Name implements [Event].
func (e Auth) Name() string { return nameOf(authNames[:], e.Kind) }

// LimitKind is which way a limit was crossed.
type LimitKind uint8

// The kinds of [Limit].
const (
	// LimitHit: something was refused, or a limit that stands for a while is
	// reached.
	LimitHit LimitKind = iota + 1
	// LimitCleared: a limit that stands for a while, such as that of memory,
	// refuses no longer.
	LimitCleared
)

var limitNames = [...]string{"", "limit.hit", "limit.cleared"}

// Limit is a limit that was hit.
type Limit struct {
	Kind LimitKind
	// Limit names it, as in "memory", "rate", "waiting" or "request size".
	Limit string
	// Who was refused: a user, token or address, "" for everybody.
	Who string
	// Value is what was reached, and Max what is allowed; 0 where that is not
	// one number.
	Value, Max int64
}

// Name implements [Event].
func (e Limit) Name() string { return nameOf(limitNames[:], e.Kind) }

const backupName = "backup.created"

// Backup is a copy of the store that was made and read by somebody.
type Backup struct {
	Bytes int64
	// Revision of the store when it was done.
	Revision int64
	Duration time.Duration
	// Err is why it is not whole.
	Err error
}

// Name implements [Event].
func (e Backup) Name() string { return backupName }
