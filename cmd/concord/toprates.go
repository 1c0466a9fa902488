package main

import (
	"cmp"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

// topView is what 'concord top' shows: a cluster between two looks at it.
type topView struct {
	Time time.Time `json:"time"`
	// Interval is between the looks; rates are 0 where it is.
	IntervalMillis int64          `json:"interval_ms"`
	Cluster        string         `json:"cluster_id"`
	Term           uint64         `json:"term"`
	Health         restapi.Health `json:"health"`
	// WriteRate and ReadRate are those of all members.
	WriteRate float64     `json:"writes_per_s"`
	ReadRate  float64     `json:"reads_per_s"`
	Revision  int64       `json:"revision"`
	Keys      int64       `json:"keys"`
	Members   []topMember `json:"members"`
}

// topMember is a line: calls of clients of that member, and how it is.
type topMember struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
	// Answered is false for a member that is silent; all that follows but
	// SilentMillis is 0 then.
	Answered     bool    `json:"answered"`
	SilentMillis int64   `json:"silent_ms"`
	WriteRate    float64 `json:"writes_per_s"`
	ReadRate     float64 `json:"reads_per_s"`
	FailRate     float64 `json:"failed_per_s"`
	// The times are of the calls and log writes of the interval.
	Write topTimes `json:"write"`
	Read  topTimes `json:"read"`
	Log   topTimes `json:"log_write"`
	topLevels
}

// topLevels is how much of something a member has now.
type topLevels struct {
	LagEntries    uint64  `json:"lag_entries"`
	LagMillis     int64   `json:"lag_ms"`
	Waiting       int64   `json:"waiting_calls"`
	Queued        int64   `json:"peer_queue_bytes"`
	Connections   int64   `json:"connections"`
	Watches       int64   `json:"watches"`
	WatchLag      int64   `json:"watch_lag"`
	Processor     float64 `json:"processor"` // 1 is one processor
	Resident      int64   `json:"resident_bytes"`
	DiskFree      int64   `json:"disk_free_bytes"`
	LeaderChanges uint64  `json:"leader_changes_total"`
	UpMillis      int64   `json:"up_ms"`
	// Wrong are the names of conditions that are not as they should be.
	Wrong []string `json:"wrong"`
}

// topTimes are quantiles; 0 where nothing was timed.
type topTimes struct {
	P50 int64 `json:"p50_us"`
	P99 int64 `json:"p99_us"`
}

func timesOf(d *kv.Durations) topTimes {
	return topTimes{d.Quantile(0.5).Microseconds(), d.Quantile(0.99).Microseconds()}
}

// look is an answer of a member, and when it came.
type look struct {
	status restapi.Status
	at     time.Time
}

// between is what happened from one look to the next. before may be the zero
// value; then there are no rates.
func between(before, now *look) topView {
	s := &now.status
	v := topView{Time: now.at, Cluster: s.Cluster, Term: s.Term, Health: s.Health, Members: []topMember{}}
	passed := time.Duration(0)
	if !before.at.IsZero() {
		passed = now.at.Sub(before.at)
	}
	v.IntervalMillis = passed.Milliseconds()
	for i := range s.Members {
		m := &s.Members[i]
		old := (*restapi.Said)(nil)
		for j := range before.status.Members {
			if o := &before.status.Members[j]; o.ID == m.ID && o.Answered && m.Answered && o.Said.Up <= m.Said.Up {
				old = o.Said // else it was started anew
			}
		}
		line := memberBetween(m, old, passed)
		v.WriteRate += line.WriteRate
		v.ReadRate += line.ReadRate
		if m.Answered && m.Revision >= v.Revision {
			v.Revision, v.Keys = m.Revision, m.Load.Keys
		}
		v.Members = append(v.Members, line)
	}
	return v
}

// memberBetween is one line; old is nil where there was no look before.
func memberBetween(m *restapi.Figure, old *restapi.Said, passed time.Duration) topMember {
	out := topMember{ID: m.ID, Name: cmp.Or(m.Name, m.ID), Role: "voter", Answered: m.Answered, SilentMillis: m.SilentMillis}
	if m.Learner {
		out.Role = "learner"
	}
	out.Wrong = []string{}
	if !m.Answered || m.Said == nil {
		out.Answered = false
		return out
	}
	l := &m.Load
	out.Role = m.Said.Role
	out.topLevels = topLevels{
		LagEntries: m.LagEntries, LagMillis: m.LagMillis, Waiting: l.Waiting, Queued: l.Queued,
		Connections: l.Connections, Watches: l.Watches, WatchLag: l.WatchLag,
		Resident: m.Memory.ResidentBytes, DiskFree: m.Disk.FreeBytes,
		LeaderChanges: l.LeaderChanges, UpMillis: m.Up, Wrong: out.Wrong,
	}
	for _, c := range m.Wrong {
		out.Wrong = append(out.Wrong, c.Name)
	}
	if old == nil || passed <= 0 {
		return out
	}
	b := &old.Load
	// Both members' own clocks and ours may differ, and answers take their
	// time: what passed is what the member says.
	if own := time.Duration(m.Up-old.Up) * time.Millisecond; own > 0 {
		passed = own
	}
	per := func(now, before uint64) float64 { return float64(now-min(before, now)) / passed.Seconds() }
	out.WriteRate, out.ReadRate = per(l.Writes.Count, b.Writes.Count), per(l.Reads.Count, b.Reads.Count)
	out.FailRate = per(l.Writes.Failed+l.Reads.Failed, b.Writes.Failed+b.Reads.Failed)
	out.Write, out.Read, out.Log = quantiles(&l.Writes.Times, &b.Writes.Times), quantiles(&l.Reads.Times, &b.Reads.Times), quantiles(&l.LogWrites, &b.LogWrites)
	if l.ProcessorMillis >= 0 && b.ProcessorMillis >= 0 {
		out.Processor = float64(l.ProcessorMillis-b.ProcessorMillis) / 1000 / passed.Seconds()
	}
	return out
}

// quantiles are those of what came between.
func quantiles(now, before *restapi.Times) topTimes {
	n, b := now.Durations(), before.Durations()
	d := n.Since(&b)
	return timesOf(&d)
}

// topOrder is how lines are sorted, by name first, and then what is largest.
type topOrder struct {
	name string
	by   func(*topMember) float64
}

var topOrders = []topOrder{
	{"name", nil},
	{"writes", func(m *topMember) float64 { return m.WriteRate }},
	{"reads", func(m *topMember) float64 { return m.ReadRate }},
	{"latency", func(m *topMember) float64 { return float64(max(m.Write.P99, m.Read.P99)) }},
	{"log", func(m *topMember) float64 { return float64(m.Log.P99) }},
	{"lag", func(m *topMember) float64 { return float64(m.LagEntries) }},
	{"cpu", func(m *topMember) float64 { return m.Processor }},
	{"memory", func(m *topMember) float64 { return float64(m.Resident) }},
}

func (o topOrder) sort(all []topMember) {
	slices.SortStableFunc(all, func(a, b topMember) int {
		if o.by != nil {
			if c := cmp.Compare(o.by(&b), o.by(&a)); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}
