package restapi

import (
	"math"

	"github.com/concord-kv/concord/kv"
)

// Load is what a member has counted since it started, by which two looks at it
// tell rates, and what waits in it now.
type Load struct {
	// ProcessorMillis is -1 where it is not known.
	ProcessorMillis int64  `json:"processor_ms_total"`
	LeaderChanges   uint64 `json:"leader_changes_total"`
	// Puts and Deletes are of keys in this member's state, whoever asked.
	Puts    uint64 `json:"puts_total"`
	Deletes uint64 `json:"deletes_total"`
	Keys    int64  `json:"keys"`
	Leases  int64  `json:"leases"`
	Watches int64  `json:"watches"`
	// WatchLag is by how many revisions the last watch is behind.
	WatchLag int64 `json:"watch_lag"`
	// Waiting are calls that wait to be agreed on, Queued bytes that wait to
	// be sent to other members, Under the calls and streams under way.
	Waiting     int64 `json:"waiting_calls"`
	Queued      int64 `json:"peer_queue_bytes"`
	Under       int64 `json:"calls_under_way"`
	Connections int64 `json:"connections"`
	LogWrites   Times `json:"log_writes"`
	Reads       Calls `json:"reads"`
	Writes      Calls `json:"writes"`
}

// Calls are calls of clients of this member that have ended.
type Calls struct {
	Failed uint64 `json:"failed_total"`
	Times
}

// Times tell how long something took: how often, and in all.
type Times struct {
	Count     uint64 `json:"count_total"`
	SumMicros int64  `json:"sum_us_total"`
	// Cells are in order; those with a count of 0 are left out.
	Cells []Cell `json:"cells"`
}

// Cell counts what took at most UpTo seconds, and more than the bound before
// that; 0 is without a bound.
type Cell struct {
	UpTo  float64 `json:"up_to_s"`
	Count uint64  `json:"count_total"`
}

func fromDurations(d *kv.Durations) Times {
	t := Times{Count: d.Count(), SumMicros: d.Sum.Microseconds(), Cells: []Cell{}}
	for i, n := range d.Counts {
		if n == 0 {
			continue
		}
		c := Cell{kv.DurationBound(i), n}
		if math.IsInf(c.UpTo, 1) {
			c.UpTo = 0
		}
		t.Cells = append(t.Cells, c)
	}
	return t
}

// Durations are the cells as they were counted. Bounds that no cell has are left
// out.
func (t *Times) Durations() (d kv.Durations) {
	next := 0
	for _, c := range t.Cells {
		if c.UpTo == 0 {
			c.UpTo = math.Inf(1)
		}
		for next < len(d.Counts)-1 && kv.DurationBound(next) < c.UpTo {
			next++
		}
		if kv.DurationBound(next) == c.UpTo {
			d.Counts[next] += c.Count
		}
	}
	return d
}

func fromCalls(c *kv.CallFigures) Calls { return Calls{c.Failed, fromDurations(&c.Took)} }

func fromReport(r *kv.Report) Load {
	f, s := &r.Figures, &r.Served
	l := Load{
		ProcessorMillis: r.Processor.Milliseconds(), LeaderChanges: f.LeaderChanges,
		Puts: f.State.Puts, Deletes: f.State.Deletes, Keys: r.Keys, Leases: f.Leases.Live,
		Watches: f.Watches.Open, WatchLag: f.Watches.Lag,
		Waiting: f.Proposals.Waiting, Under: s.Under, Connections: s.Connections,
		LogWrites: fromDurations(&f.Log.Writes), Reads: fromCalls(&s.Reads), Writes: fromCalls(&s.Writes),
	}
	if r.Processor < 0 {
		l.ProcessorMillis = -1
	}
	for i := range f.Peers {
		l.Queued += f.Peers[i].Queued
	}
	return l
}

// Condition is something that is not as it should be in a member.
type Condition struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
	Next   string `json:"next"`
	// Minor does not keep the member from serving.
	Minor bool `json:"minor"`
}

func fromConditions(all []kv.Condition) []Condition {
	out := []Condition{}
	for _, c := range all {
		out = append(out, Condition(c))
	}
	return out
}
