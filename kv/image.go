package kv

import "iter"

// Image is everything that a store holds, history included, as it was at one
// moment. It is taken in O(1), holds up nobody and must be closed once; then it
// must not be used any more.
type Image struct {
	Header
	Cluster ClusterID
	// Index and Term say up to where the log was applied.
	Index Index
	Term  Term
	// Compacted is the oldest revision that can be read; 0 before the first
	// compaction.
	Compacted Revision
	Members   []Member
	// Removed are the ids that must never be used again.
	Removed []MemberID
	Alarms  []Alarm
	Auth    AuthImage
	// Downgrade is the version the cluster is being taken down to; empty when
	// it is not.
	Downgrade string
	// Leases yields the leases by id, with TTL and what is left of it.
	Leases iter.Seq[LeaseResult]
	// Versions yields what can be read at Compacted and above up to the
	// revision to (0: all), each version of each key once, in the order of
	// revisions and within one in that of the transaction, which sub counts
	// from 0. Of a revision below Compacted only what still holds at Compacted
	// is there, in key order. A key that was deleted is an event of type
	// [DeleteEvent] with Key and ModRevision. The slices are only good until
	// yield returns.
	Versions func(to Revision, yield func(sub int64, ev Event) bool) error
	// Range reads keys at Revision, or at a revision that can be read.
	Range func(r *Range) (RangeResult, error)
	// Scratch is a directory where large temporary files may be made; empty
	// means the system's.
	Scratch string
	// Close lets the image go.
	Close func()
}

// AuthImage is what a store knows of users and roles, tokens left out.
type AuthImage struct {
	Enabled  bool
	Revision uint64
	Users    []UserImage // by name
	Roles    []AuthRole  // by name
}

// UserImage is a user with the hash of the password, as [NewUser] has it.
type UserImage struct {
	User
	Hash string
}

// AlarmType says what an [Alarm] is about. The numbers are etcd's.
type AlarmType int32

// The types of alarms. AlarmAny stands for all types where alarms are asked for.
const (
	AlarmAny AlarmType = iota
	// AlarmNoSpace refuses what would add keys or leases.
	AlarmNoSpace
	// AlarmCorrupt refuses everything that touches keys or leases.
	AlarmCorrupt
	// AlarmDivergent is not etcd's, whose clients see it as AlarmCorrupt: the
	// state of the alarm's member is not that of a majority, and that member
	// alone does not serve.
	AlarmDivergent
)

// String gives the name as etcd prints it.
func (t AlarmType) String() string {
	names := [...]string{"NONE", "NOSPACE", "CORRUPT", "DIVERGENT"}
	if t >= 0 && int(t) < len(names) {
		return names[t]
	}
	return "UNKNOWN"
}

// Alarm is a condition that was raised for a member and holds for the whole
// cluster until it is cleared by hand.
type Alarm struct {
	Member MemberID
	Type   AlarmType
}
