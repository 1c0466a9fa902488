package restapi

import (
	"time"

	"github.com/concord-kv/concord/kv"
)

// Status is the answer of GET /v1/cluster/status.
type Status struct {
	Cluster string   `json:"cluster_id"`
	Asked   string   `json:"asked"`
	Leader  string   `json:"leader"` // empty without one
	Term    uint64   `json:"term"`
	Health  Health   `json:"health"`
	Alarms  []Alarm  `json:"alarms"`
	Members []Figure `json:"members"`
}

// Health is what a Status means.
type Health struct {
	Summary  string   `json:"summary"`
	Next     string   `json:"next"`
	Notes    []string `json:"notes"`
	Voters   int      `json:"voters"`
	VotersUp int      `json:"voters_up"`
	// Survives is -1 while there is no leader.
	Survives int  `json:"survives"`
	Serving  bool `json:"serving"`
}

// Alarm is an alarm that is raised.
type Alarm struct {
	Member string `json:"member"`
	Type   string `json:"type"`
}

// Member is one member in the list.
type Member struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Learner     bool     `json:"learner"`
	PeerAddrs   []string `json:"peer_addrs"`
	ClientAddrs []string `json:"client_addrs"`
}

// Figure is one member in a Status.
type Figure struct {
	Member
	// Answered tells that Said is there; else Error says why it is not, and
	// SilentMillis since when nobody has heard of the member.
	Answered     bool   `json:"answered"`
	Error        string `json:"error,omitempty"`
	SilentMillis int64  `json:"silent_ms"`
	Connected    bool   `json:"connected"`
	// The lag is behind the leader, the round trip from it; 0 where it is not
	// known.
	LagEntries      uint64 `json:"lag_entries"`
	LagMillis       int64  `json:"lag_ms"`
	RoundTripMicros int64  `json:"round_trip_us"`
	*Said           `json:",omitempty"`
}

// Said is what a member says of itself.
type Said struct {
	Role      string `json:"role"`
	Term      uint64 `json:"term"`
	Committed uint64 `json:"committed_index"`
	Applied   uint64 `json:"applied_index"`
	Revision  int64  `json:"revision"`
	// Hash is that of the state at the applied index.
	Hash    string `json:"hash"`
	Version string `json:"version"`
	Up      int64  `json:"up_ms"`
	Disk    Disk   `json:"disk"`
	Memory  Memory `json:"memory"`
	Load    Load   `json:"load"`
	// Wrong is what keeps it from being well, by its own account.
	Wrong []Condition `json:"wrong"`
}

// Disk is that of a member's data directory.
type Disk struct {
	WriteP99Micros int64 `json:"log_write_p99_us"`
	// FreeBytes is -1 where it is not known.
	FreeBytes int64 `json:"free_bytes"`
	Full      bool  `json:"full"`
	Stalled   bool  `json:"stalled"`
}

// Memory is a member's.
type Memory struct {
	// StateBytes are those of keys, values and history.
	StateBytes int64 `json:"state_bytes"`
	// ResidentBytes are the process's; -1 where they are not known.
	ResidentBytes int64 `json:"resident_bytes"`
	// LimitBytes is the memory limit, 0 where there is none, and UsedBytes
	// what counts against it.
	LimitBytes int64 `json:"limit_bytes"`
	UsedBytes  int64 `json:"used_bytes"`
	// Full tells that writes that make the state larger are refused.
	Full bool `json:"full"`
}

// Members is the answer of GET /v1/cluster/members.
type Members struct {
	Members []Member `json:"members"`
}

// Changed is the answer to a change of one member.
type Changed struct {
	Member Member `json:"member"`
}

// Autopilot is the answer of GET and PUT /v1/cluster/autopilot.
type Autopilot struct {
	Enabled         bool     `json:"enabled"`
	Voters          int      `json:"voters"`
	DeadAfterMillis int64    `json:"dead_after_ms"`
	Leader          string   `json:"leader"`
	Judgement       []string `json:"judgement"`
}

// AutopilotChange is the request of PUT /v1/cluster/autopilot; what is null or
// missing stays.
type AutopilotChange struct {
	Enabled         *bool  `json:"enabled,omitempty"`
	Voters          *int   `json:"voters,omitempty"`
	DeadAfterMillis *int64 `json:"dead_after_ms,omitempty"`
}

// Place is the request of POST /v1/cluster/add.
type Place struct {
	Name      string   `json:"name,omitempty"`
	PeerAddrs []string `json:"peer_addrs"`
}

// Which is the request of the other POSTs: a member by its name or id.
type Which struct {
	Member string `json:"member"`
}

func fromMember(m *kv.Member) Member {
	return Member{
		ID: m.ID.String(), Name: m.Name, Learner: m.Learner,
		PeerAddrs: append([]string{}, m.PeerAddrs...), ClientAddrs: append([]string{}, m.ClientAddrs...),
	}
}

// fromID is empty for no member.
func fromID(id kv.MemberID) string {
	if id == 0 {
		return ""
	}
	return id.String()
}

func fromOverview(o *kv.Overview) Status {
	h := o.Health()
	s := Status{
		Cluster: o.Cluster.String(), Asked: o.Asked.String(), Leader: fromID(o.Leader), Term: uint64(o.Term),
		Health: Health{
			Summary: h.Summary, Next: h.Next, Notes: append([]string{}, h.Notes...),
			Voters: h.Voters, VotersUp: h.Up, Survives: h.Survives, Serving: h.Serving(),
		},
		Alarms: []Alarm{}, Members: []Figure{},
	}
	for _, a := range o.Alarms {
		s.Alarms = append(s.Alarms, Alarm{a.Member.String(), a.Type.String()})
	}
	for i := range o.Members {
		s.Members = append(s.Members, fromFigure(&o.Members[i]))
	}
	return s
}

func fromFigure(m *kv.MemberOverview) Figure {
	f := Figure{
		Member: fromMember(&m.Member), Answered: m.Report != nil, Error: m.Err, SilentMillis: m.Silent.Milliseconds(), Connected: m.Connected,
		LagEntries: uint64(m.Lag), LagMillis: m.Behind.Milliseconds(), RoundTripMicros: m.RoundTrip.Microseconds(),
	}
	if r := m.Report; r != nil {
		f.Said = &Said{
			Role: r.Role.String(), Term: uint64(r.Term), Committed: uint64(r.Committed), Applied: uint64(r.Applied),
			Revision: int64(r.Revision), Hash: hex(r.Hash), Version: r.Version, Up: r.UpTime.Milliseconds(),
			Disk:   Disk{WriteP99Micros: r.LogWrite.Microseconds(), FreeBytes: r.DiskFree, Full: r.DiskFull, Stalled: r.DiskStalled},
			Memory: Memory{StateBytes: r.MemoryBytes, ResidentBytes: r.Resident, LimitBytes: r.MemoryLimit, UsedBytes: r.MemoryUsed, Full: r.MemoryFull},
			Load:   fromReport(r), Wrong: fromConditions(r.Wrong),
		}
	}
	return f
}

func fromAutopilot(a *kv.AutopilotStatus) Autopilot {
	return Autopilot{
		Enabled: a.Enabled, Voters: a.Voters, DeadAfterMillis: a.DeadAfter.Milliseconds(),
		Leader: fromID(a.Leader), Judgement: append([]string{}, a.Judgement...),
	}
}

// apply changes what c names.
func (c *AutopilotChange) apply(a *kv.Autopilot) {
	if c.Enabled != nil {
		a.Enabled = *c.Enabled
	}
	if c.Voters != nil {
		a.Voters = *c.Voters
	}
	if c.DeadAfterMillis != nil {
		a.DeadAfter = time.Duration(*c.DeadAfterMillis) * time.Millisecond
	}
}
