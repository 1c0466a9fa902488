package kv

import (
	"context"
	"iter"
	"time"
)

// Overseer is what a [Cluster] may offer besides: a look at all members at once,
// and what people decide about the membership as a whole.
type Overseer interface {
	// Overview asks all members how they are, at once and for a second at
	// most, and puts together what it hears. It needs no majority: who does
	// not answer stands in it as such. It fails only for who may not ask, and
	// when ctx ends.
	Overview(ctx context.Context) (Overview, error)
	// Follow yields the membership and leadership as this member knows them:
	// at once, and after each change, until ctx or the member ends or the
	// consumer stops. A consumer that is slow gets the latest view and misses
	// those between; the member never waits for it.
	Follow(ctx context.Context) iter.Seq[View]
	// Leave takes this member out of its cluster for good and ends it:
	// leadership moves away first, and the data directory says that the member
	// left. It refuses, and changes nothing, where the others would have no
	// majority; see [Overview.MayRemove]. Once it has returned nil, the member
	// has ended.
	Leave(ctx context.Context) error
}

// View is who belongs to a cluster and who leads it, as one member knows it.
type View struct {
	// Leader is 0 while none is known.
	Leader MemberID
	Term   Term
	// Role is the member's own.
	Role Role
	// Members are ordered by id.
	Members []Member
}

// Autopilot says how a cluster looks after its membership by itself. It is
// replicated.
type Autopilot struct {
	// Enabled lets the leader promote, replace and remove members.
	Enabled bool
	// Voters is how many members should vote, an odd number.
	Voters int
	// DeadAfter is how long a member may be silent before another takes its
	// place.
	DeadAfter time.Duration
}

// AutopilotStatus is an [Autopilot] and how it sees the cluster now.
type AutopilotStatus struct {
	Autopilot
	// Leader is who judges; 0 when nobody does, and then the rest is empty.
	Leader MemberID
	// Judgement says for people what will be done next and why, or what keeps
	// it from being done. It is empty where all is as it should be.
	Judgement []string
}

// Pilot is what a [Cluster] that looks after its membership offers besides.
type Pilot interface {
	// Autopilot asks the leader for its judgement, and answers without one
	// where there is no leader.
	Autopilot(ctx context.Context) (AutopilotStatus, error)
	// SetAutopilot replaces the settings. It returns an error of the code
	// [InvalidArgument] for those that cannot be.
	SetAutopilot(ctx context.Context, a Autopilot) error
}

// Overview is what a member found out about all members of its cluster.
type Overview struct {
	Cluster ClusterID
	// Asked is the member that asked the others.
	Asked MemberID
	// Leader is whom the newest term among the answers names; 0 when none.
	Leader MemberID
	Term   Term
	// Members are those that Asked has in its list, by name and id.
	Members []MemberOverview
	Alarms  []Alarm
}

// MemberOverview is one member in an [Overview].
type MemberOverview struct {
	Member
	// Report is what it answered; nil when it did not, and then Err says why.
	Report *Report
	Err    string
	// Connected tells that the leader has a connection to it, or is it.
	Connected bool
	// Silent is how long no member that answered has heard of it; 0 when it
	// answered, and when none knows.
	Silent time.Duration
	// RoundTrip is the last time that a message from the leader and its answer
	// took; 0 for the leader and where it is not known.
	RoundTrip time.Duration
	// Lag counts the entries that the leader has committed and this member has
	// not applied, and Behind is for how long the leader has had the first of
	// them. Both are 0 for a member that is up to date, and while there is no
	// leader. Members are not asked at the very same moment, so under load a
	// small lag is none.
	Lag    Index
	Behind time.Duration
}

// Up tells that the member takes part: it answered, or the leader hears it.
func (m *MemberOverview) Up() bool { return m.Report != nil || m.Connected }

// Label is the member's name, or its id where it has none.
func (m *MemberOverview) Label() string {
	if m.Name != "" {
		return m.Name
	}
	return m.ID.String()
}

// Report is what a member says of itself.
type Report struct {
	Status
	// UpTime is how long the member has been running.
	UpTime time.Duration
	// LogWrite is what 99 of 100 writes of the log took at most until they
	// were durable, in the last minute; 0 when there were none.
	LogWrite time.Duration
	// Resident is the memory of its process, DiskFree what its data directory
	// may grow by, in bytes. Less than 0 means that it is not known.
	Resident, DiskFree int64
	// DiskFull refuses puts; DiskStalled is a write that has not ended for an
	// election timeout.
	DiskFull, DiskStalled bool
	// MemoryLimit is its memory limit, 0 where it has none, and MemoryUsed
	// what counts against it, in bytes. MemoryFull refuses, on all members,
	// writes that make the state larger.
	MemoryLimit, MemoryUsed int64
	MemoryFull              bool
	// Processor is the processor time that its process has used; less than 0
	// where that is not known.
	Processor time.Duration
	// Peers is what it knows of the other members.
	Peers []PeerReport
	// Wrong are its conditions that have a reason.
	Wrong []Condition
	// Figures are what it counts, and Served what the server before it does.
	Figures Figures
	Served  ServedFigures
}

// PeerReport is what one member knows of its connection to another.
type PeerReport struct {
	Member    MemberID
	Connected bool
	// RoundTrip is the last one measured; 0 when there was none.
	RoundTrip time.Duration
	// Silent is since when nothing was heard of it, or since when this member
	// has been running where that is less.
	Silent time.Duration
}
