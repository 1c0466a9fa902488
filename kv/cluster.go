package kv

import "context"

// Member is one process that takes part in a cluster.
type Member struct {
	ID MemberID
	// Name is for people; it is empty until the member has started.
	Name string
	// PeerAddrs are where other members reach it, ClientAddrs where clients do.
	PeerAddrs, ClientAddrs []string
	// Learner members receive the log and serve reads but do not vote.
	Learner bool
	// Version is the program's, x.y.z, and Level the generation of commands
	// and formats that it understands; both are empty until the member has
	// told them. Level 0 counts as 1.
	Version string
	Level   uint32
}

// Role is a member's part in Raft at the moment.
type Role uint8

// The roles.
const (
	Follower Role = iota
	PreCandidate
	Candidate
	LeaderRole
	LearnerRole
)

// String gives the role's name.
func (r Role) String() string {
	names := [...]string{"follower", "pre-candidate", "candidate", "leader", "learner"}
	if int(r) < len(names) {
		return names[r]
	}
	return "unknown"
}

// Status is what one member knows of itself and its cluster, without asking
// anybody.
type Status struct {
	Cluster ClusterID
	Member  MemberID
	// Leader is 0 when this member knows none.
	Leader MemberID
	Role   Role
	Term   Term
	// Committed and Applied are positions in the log; Applied follows.
	Committed, Applied Index
	Revision           Revision
	CompactRevision    Revision
	Time               Time
	// Hash is the running state hash at Applied; it is equal on all members
	// at one index.
	Hash uint64
	// Keys counts live keys. LiveBytes are their keys and values, HistoryBytes
	// what superseded versions and deletions take, MemoryBytes what both take
	// with all overhead.
	Keys, LiveBytes, HistoryBytes, MemoryBytes int64
	// Version is the member's program version, x.y.z.
	Version string
}

// Cluster is how a member is asked about and changed as a member. Changes need
// a majority.
type Cluster interface {
	// Status answers at once from what this member knows.
	Status() Status
	// Members lists the members, by id, from a linearizable read.
	Members(ctx context.Context) ([]Member, error)
	// AddMember adds a member by its peer addresses. m.ID 0 lets the cluster
	// choose; the result has the id.
	AddMember(ctx context.Context, m Member) (Member, error)
	// PromoteMember makes a learner that has caught up a voter.
	PromoteMember(ctx context.Context, id MemberID) error
	// RemoveMember removes a member for ever: its id is never used again.
	RemoveMember(ctx context.Context, id MemberID) error
	// UpdateMember replaces the addresses of m.ID.
	UpdateMember(ctx context.Context, m Member) error
	// MoveLeader hands leadership to the member with that id, or, when it is
	// 0, to the one that has caught up most.
	MoveLeader(ctx context.Context, to MemberID) error
}
