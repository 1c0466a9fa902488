package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func (c *cluster) change(n *node, want error, context_ string, members ...MemberChange) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for {
		got, err := n.r.ProposeConfChange(ctx, ConfChange{Members: members, Context: []byte(context_)})
		if errors.Is(err, ErrChangePending) && want == nil || errors.Is(err, ErrNotReady) && want == nil {
			<-time.After(10 * time.Millisecond) // the one before is still settling
			continue
		}
		if !errors.Is(err, want) {
			c.t.Fatalf("change %v on %d: %v, want %v", members, n.id, err, want)
		}
		if err == nil && got != context_ {
			c.t.Fatalf("change %v on %d: %v", members, n.id, got)
		}
		return
	}
}

// TestMembership grows a cluster from one to three and replaces a member.
func TestMembership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{})
		defer c.stop()
		first := c.nodes[1]
		for i := range 20 {
			c.propose(first, fmt.Sprint(i))
		}
		for id := uint64(2); id <= 3; id++ {
			c.change(first, nil, fmt.Sprint("add ", id), MemberChange{AddLearner, id})
			n := c.add(id)
			n.start(t)
			// Reads on a learner.
			if err := n.r.ReadIndex(context.Background()); err != nil && !errors.Is(err, ErrNoLeader) {
				t.Fatal(err)
			}
			c.change(first, nil, fmt.Sprint("promote ", id), MemberChange{AddVoter, id})
		}
		c.until("three voters", func() bool { return len(c.nodes[3].r.Status().Voters) == 3 })
		// By way of a follower, all at once: in goes 4, out goes 2.
		c.change(c.nodes[3], nil, "add 4", MemberChange{AddLearner, 4})
		c.add(4).start(t)
		c.change(c.nodes[3], nil, "swap", MemberChange{AddVoter, 4}, MemberChange{RemoveMember, 2})
		want := []uint64{1, 3, 4}
		for _, id := range want {
			c.until("new configuration", func() bool { return slices.Equal(c.nodes[id].r.Status().Voters, want) })
		}
		if err := c.nodes[2].stop(); err != nil {
			t.Fatal(err)
		}
		c.propose(c.nodes[4], "last")
		for _, id := range want {
			m := c.nodes[id].m.(*machine)
			c.until("the last command", func() bool { return m.seen("last") == 1 })
			if got := fmt.Sprint(m.state.Members); got != "[add 2 promote 2 add 3 promote 3 add 4 swap]" {
				t.Errorf("member %d applied changes %s", id, got)
			}
		}
		c.change(first, nil, "address") // no members: only the context
		// The leader may remove itself.
		lead := c.leader()
		c.change(lead, nil, "bye", MemberChange{RemoveMember, lead.id})
		if err := lead.stop(); err != nil {
			t.Fatal(err)
		}
		c.propose(c.leader(), "after bye")
	})
}

func TestMembershipRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		lead := c.leader()
		c.propose(lead, "x")
		for _, n := range []*node{lead, c.nodes[lead.id%3+1]} {
			c.change(n, ErrInvalidChange, "none left", MemberChange{RemoveMember, 1}, MemberChange{RemoveMember, 2}, MemberChange{RemoveMember, 3})
			c.change(n, ErrInvalidChange, "no id", MemberChange{AddVoter, 0})
		}
		// The machine says no on every member, and nothing changes.
		if _, err := lead.r.ProposeConfChange(context.Background(), ConfChange{Members: []MemberChange{{AddLearner, 9}}, Context: []byte("refuse")}); err != nil {
			t.Fatal(err)
		}
		c.propose(lead, "y")
		if s := lead.r.Status(); len(s.Learners) != 0 || len(s.Voters) != 3 {
			t.Errorf("configuration %v, %v after a refused change", s.Voters, s.Learners)
		}
		// A learner that is not there cannot be promoted.
		c.change(lead, nil, "add 9", MemberChange{AddLearner, 9})
		if _, err := lead.r.ProposeConfChange(context.Background(), ConfChange{Members: []MemberChange{{AddVoter, 9}}}); !errors.Is(err, ErrNotReady) {
			t.Errorf("promotion of an absent learner: %v", err)
		}
		c.checkSame([]string{"x", "y"})
	})
}

// TestSnapshots: a follower that was away for long gets a snapshot, the log
// stays bounded, and restarts replay from snapshots.
func TestSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{SnapshotBytes: 4 << 10, CacheBytes: 1 << 10, LogBytes: 1 << 10})
		defer c.stop()
		lead := c.leader()
		away := c.nodes[lead.id%3+1]
		if err := away.stop(); err != nil {
			t.Fatal(err)
		}
		var all []string
		for i := range 2000 {
			all = append(all, fmt.Sprint("command-", i))
			c.propose(lead, all[i])
		}
		c.until("truncation", func() bool { return lead.log.FirstIndex() > 1000 })
		if s := lead.r.Status(); s.LastIndex-s.FirstIndex > 1000 {
			t.Errorf("the log has entries %d to %d", s.FirstIndex, s.LastIndex)
		}
		if n := len(lead.snaps.List()); n > 2 {
			t.Errorf("%d snapshots are kept", n)
		}
		away.m = newMachine()
		away.start(t)
		c.checkSame(all)
		if away.log.FirstIndex() < 1000 {
			t.Errorf("the follower's log starts at %d", away.log.FirstIndex())
		}
		for range 3 {
			for _, n := range c.nodes {
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
				n.m = newMachine()
				n.start(t)
				all = append(all, fmt.Sprint("more-", len(all)))
				c.propose(n, all[len(all)-1])
			}
		}
		c.checkSame(all)
		meta, err := lead.r.Snapshot(context.Background())
		if err != nil || meta.Index == 0 || meta.Index != lead.snaps.List()[0].Index {
			t.Errorf("snapshot on demand: %+v, %v", meta, err)
		}
	})
}

// TestDamagedSnapshot: the older one takes its place.
func TestDamagedSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{})
		defer c.stop()
		n := c.nodes[1]
		c.propose(n, "a")
		for _, cmd := range []string{"b", "c"} {
			if _, err := n.r.Snapshot(context.Background()); err != nil {
				t.Fatal(err)
			}
			c.propose(n, cmd)
		}
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		n.snaps.data[n.snaps.List()[0].Index] = []byte("damage")
		n.m = newMachine()
		n.start(t)
		if err := n.r.ReadIndex(context.Background()); err != nil {
			t.Fatal(err)
		}
		c.checkSame([]string{"a", "b", "c"})
	})
}
