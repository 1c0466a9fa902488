package concordtest

import (
	"context"
	"time"
)

// Partition cuts the network into groups of members that cannot reach each
// other; those that no group names are one together. So
//
//	c.Partition([]int{c.Leader()})
//
// cuts off the leader, and c.Partition([]int{0, 1}, []int{2, 3, 4}) five members
// in two. Between groups all is silent, in both directions, on connections that
// stand too: members find out by waiting, as they do when a switch fails. Each
// call replaces the cuts before. The test itself reaches all members always.
func (c *Cluster) Partition(groups ...[]int) {
	c.t.Helper()
	sides := map[string]int{}
	for side, members := range groups {
		for _, i := range members {
			m := c.member(i)
			if sides[m.addr] != 0 {
				c.t.Fatalf("concordtest: member %d is in two groups of a partition", i)
			}
			sides[m.addr] = side + 1
		}
	}
	c.net.split(sides)
}

// Heal makes the network whole again. What was sent and waited arrives.
func (c *Cluster) Heal() { c.net.split(nil) }

// Kill ends member i as kill -9 and a power cut do at once: it closes nothing,
// hands nothing over, and its disk loses what was not synced, some of it or all.
// Others notice at once, as its connections end, unless they are cut off. Of one
// that does not run it does nothing.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	m := c.member(i)
	if !c.halt(m) {
		return
	}
	m.log.dead.Store(true)
	m.disk.out.Store(true)
	c.net.hangUp(m.addr)
	_ = m.lab.Member.Kill() // which finds that its disk is out
	m.disk.crash()
}

// Wipe takes the data of member i, which is killed first if it runs.
func (c *Cluster) Wipe(i int) {
	c.t.Helper()
	m := c.member(i)
	c.Kill(i)
	m.disk, m.empty = newDisk(), true
}

// Restart opens member i again, with what is on its disk. It does not wait until
// the member serves, which takes a majority: see [Cluster.WaitReady]. After
// [Cluster.Wipe] it comes back as a new member of its old name, and waits until
// the others, a majority of them, let it in; the autopilot then gives it the vote
// of the old one. A member that runs is closed first, as for a planned restart.
func (c *Cluster) Restart(i int) {
	c.t.Helper()
	m := c.member(i)
	if c.halt(m) {
		if err := m.node.Close(); err != nil {
			c.t.Fatalf("concordtest: close %s: %v", m.name, err)
		}
	}
	c.begin(m)
}

// Add starts a further member, and returns its number when the others have let
// it in, as a learner. It gets a vote when the cluster wants more voters, see
// Voters of concord.Settings.
func (c *Cluster) Add() int {
	c.t.Helper()
	i := c.recruit()
	c.begin(c.member(i))
	return i
}

// begin opens a member, or ends the test.
func (c *Cluster) begin(m *member) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.open(ctx, m); err != nil {
		c.t.Fatalf("concordtest: start %s: %v\n%s", m.name, err, c.describe())
	}
}

// Advance moves cluster time on by d, rounded up to milliseconds, and returns
// when leases and keys that end by then have ended, as strong reads see it. To
// members it is as if nothing had happened for d: nobody renewed a lease, however
// often it is tried, and nobody campaigned. It needs a leader with a majority;
// whoever leads later counts on from there. Contexts, timers of the program and
// the autopilot's patience are of this machine's time, which Advance does not
// move.
func (c *Cluster) Advance(d time.Duration) {
	c.t.Helper()
	if d < 0 {
		c.t.Fatalf("concordtest: cluster time does not go back, by %v", d)
	}
	until := int64(-1)
	c.await("cluster time to advance by "+d.String(), func(ctx context.Context) error {
		i, err := c.leader(ctx)
		if err != nil {
			return err
		}
		leader := c.member(i).lab.Member
		if until < 0 {
			now, leads := leader.ClusterTime()
			if !leads {
				return errNoLeader
			}
			until = now + (d + time.Millisecond - 1).Milliseconds()
		}
		return leader.AdvanceTo(ctx, until)
	})
}
