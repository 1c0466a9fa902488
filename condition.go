package concord

import (
	"fmt"
	"time"

	"github.com/concord-kv/concord/kv"
)

var _ kv.Diagnosed = (*Node)(nil)

// Conditions implements [kv.Diagnosed].
func (n *Node) Conditions() []kv.Condition {
	now, s := time.Now(), n.replica.Status()
	return []kv.Condition{
		n.ledCondition(now),
		catchingUp(n.figures.pulse.marks(now), kv.Index(s.Applied), kv.Index(s.Commit)),
		{
			Name: "disk_writes", Reason: reasonIf(s.Stalled, "the disk has not finished a write for more than %v", n.cfg.election),
			Next: "see what holds up the disk of the data directory, or move the member to another one",
		},
		{
			Name: "disk_space", Minor: true, Reason: reasonIf(n.disk.log.NoSpace(), "the disk is full, and puts are refused"),
			Next: "free some of the disk of the data directory; deletes and compactions go on",
		},
		n.cfg.memory.condition(),
		slowWrites(n.figures.pulse.recentWrites(&n.figures.logWrites, nowOfWrites)),
	}
}

// A disk is slow where one write of the log in ten takes longer than slowWrite,
// and leastSlow or more do: one hiccup is none. A slow disk does few writes, a
// fast one many: over a longer time those from before would hide those of now.
// The alert ConcordDiskSlow has the same bound; etcd's own tuning guide asks for
// 10 ms.
const (
	slowWrite = 100 * time.Millisecond
	leastSlow = 5
)

// slowWrites is whether the disk is slow, by the writes of the log in the last
// 10 to 20 s.
func slowWrites(writes kv.Durations) kv.Condition {
	c := kv.Condition{Name: "disk_latency", Minor: true, Next: "give the data directory a disk of its own with fast fsync; every write waits for a majority of the disks"}
	slow := uint64(0)
	for _, n := range writes.Counts[kv.DurationCell(slowWrite)+1:] {
		slow += n
	}
	if p90 := writes.Quantile(0.9); slow >= leastSlow && p90 > slowWrite {
		c.Reason = fmt.Sprintf("the disk is slow: one write of the log in ten takes longer than %v", p90.Round(time.Millisecond))
	}
	return c
}

// reasonIf formats a reason where there is one.
func reasonIf(bad bool, format string, args ...any) string {
	if !bad {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

// ledCondition is whether this member knows a leader.
func (n *Node) ledCondition(now time.Time) kv.Condition {
	c := kv.Condition{Name: "leader", Next: "a majority of the voters must be up and reach each other; 'concord cluster status' shows who is missing"}
	s := n.replica.Status()
	if s.Leader != 0 {
		return c
	}
	c.Reason = "no leader is known"
	if d := n.figures.pulse.leaderless(now); d > 0 {
		c.Reason = "no leader for " + kv.About(d)
	}
	if n.transport == nil || len(s.Voters) < 2 {
		return c
	}
	others, connected := 0, 0
	for _, p := range n.transport.Peers() {
		others++
		if p.Connected {
			connected++
		}
	}
	c.Reason += fmt.Sprintf("; %d of %d other members are connected", connected, others)
	return c
}

// lateApply is for how long an entry may be known to be committed, and not
// applied, before the member counts as behind: reads wait that long.
const lateApply = time.Second

// catchingUp is whether a member has applied what it knows to be committed, by
// the marks of its own pulse.
func catchingUp(marks []mark, applied, committed kv.Index) kv.Condition {
	c := kv.Condition{Name: "caught_up", Next: "it catches up by itself; where it does not, look at its processor and disk"}
	if applied >= committed {
		return c
	}
	if late := behind(marks, applied); late > lateApply {
		c.Reason = fmt.Sprintf("catching up: %d entries behind, for %v", committed-applied, late.Round(100*time.Millisecond))
	}
	return c
}
