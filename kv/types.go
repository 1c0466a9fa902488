package kv

import (
	"fmt"
	"time"
)

type (
	// Revision is a position in the history of the key space. A fresh store is
	// at revision 1; every transaction that changes something adds exactly one.
	// Zero means "the latest" where a request asks for one.
	Revision int64

	// Index is a position in the replicated log. Every entry has one, also
	// those that change no key.
	Index uint64

	// Term is an election period of Raft. There is at most one leader a term.
	Term uint64

	// MemberID names a member of a cluster. It is random, made once, and never
	// used again after the member was removed; an address is not an identity.
	MemberID uint64

	// ClusterID names a cluster for ever. A data directory belongs to one.
	ClusterID uint64

	// LeaseID names a lease. Zero means "no lease".
	LeaseID int64

	// Time is cluster time in milliseconds: it starts near zero with the
	// cluster, only grows, and stands still while there is no leader. It is
	// no wall clock. Leases and per-key TTLs are deadlines in it.
	Time int64
)

// String gives the id as etcdctl prints it, in hexadecimal.
func (id MemberID) String() string { return fmt.Sprintf("%x", uint64(id)) }

// String gives the id as etcdctl prints it, in hexadecimal.
func (id ClusterID) String() string { return fmt.Sprintf("%x", uint64(id)) }

// String gives the id as etcdctl prints it, in hexadecimal.
func (id LeaseID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// Add returns t moved on by d, rounded up to whole milliseconds, so that a
// deadline never comes early.
func (t Time) Add(d time.Duration) Time {
	return t + Time((d+time.Millisecond-1)/time.Millisecond)
}

// Sub returns the duration from u to t.
func (t Time) Sub(u Time) time.Duration { return time.Duration(t-u) * time.Millisecond }

// KeyValue is a key as it stands at some revision.
type KeyValue struct {
	// Key is never empty.
	Key []byte
	// Value is nil when it was not asked for.
	Value []byte
	// CreateRevision is the revision of the put that made the key exist.
	CreateRevision Revision
	// ModRevision is the revision of the last change to the key.
	ModRevision Revision
	// Version counts the puts since the key was created; the first is 1.
	Version int64
	// Lease is the lease the key is attached to, or zero.
	Lease LeaseID
	// Expires is the cluster time after which the key is deleted, or zero
	// when the last put gave no TTL. [Header.Time] is the time to compare to.
	Expires Time
}

// Header stands on every result.
type Header struct {
	// Revision is the store's revision when the answer was made (for a range
	// at an older revision still the current one).
	Revision Revision
	// Time is the cluster time of the last entry applied to that state.
	Time Time
}

// ReadLevel says how fresh a read must be.
type ReadLevel uint8

const (
	// Strong reads are linearizable: a majority confirms, at the time of the
	// read, that nothing newer was acknowledged. The default.
	Strong ReadLevel = iota
	// Leader reads are served by the leader under its lease without a round
	// trip. They are linearizable while the members' clock rates agree within
	// the bound that the cluster setting states; where leader reads are not
	// switched on they are served as Strong.
	Leader
	// Eventual reads are served from what the asked member has applied. They
	// may be stale; they never go backwards on one member while it runs.
	Eventual
)

var readLevelNames = [...]string{"strong", "leader", "eventual"}

// String gives the level's name: strong, leader or eventual.
func (l ReadLevel) String() string {
	if int(l) < len(readLevelNames) {
		return readLevelNames[l]
	}
	return fmt.Sprintf("ReadLevel(%d)", uint8(l))
}

// ParseReadLevel is the inverse of [ReadLevel.String].
func ParseReadLevel(s string) (ReadLevel, error) {
	for i, name := range readLevelNames {
		if s == name {
			return ReadLevel(i), nil
		}
	}
	return 0, Errorf(InvalidArgument, "read level %q is unknown; use strong, leader or eventual", s)
}
