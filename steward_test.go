package concord

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/loopback"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// votersAre waits until these members vote, all running ones know it, and no
// other identity of theirs is left.
func (c *testCluster) votersAre(want ...int) {
	c.t.Helper()
	var ids []uint64
	for _, i := range want {
		ids = append(ids, uint64(c.nodes[i].id))
	}
	slices.Sort(ids)
	c.waitFor(func() error {
		for _, n := range c.nodes {
			if n == nil {
				continue
			}
			s := n.replica.Status()
			voters := slices.Sorted(slices.Values(s.Voters))
			if members := n.machine.Members(); !slices.Equal(voters, ids) || len(members) != len(s.Voters)+len(s.Learners) {
				return fmt.Errorf("voters %x, want %x; members %+v; judged %+v", voters, ids, members, n.judgement())
			}
		}
		return nil
	})
}

// later adds a member that the others are not told of; it joins.
func (c *testCluster) later() int {
	c.t.Helper()
	addr, release, err := loopback.Reserve()
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(release)
	i := len(c.nodes)
	c.peers = maps.Clone(c.peers)
	c.peers[c.name(i)] = addr
	c.dirs, c.nodes = append(c.dirs, c.t.TempDir()+"/data"), append(c.nodes, nil)
	c.open(i, Rejoin())
	return i
}

// learns waits until a member is a learner that has all there is.
func (c *testCluster) learns(i int) {
	c.t.Helper()
	c.waitFor(func() error {
		if s := c.nodes[i].Status(); s.Role != kv.LearnerRole || s.Applied == 0 || s.Applied < s.Committed {
			return fmt.Errorf("member %s is %v, has applied %d of %d", c.name(i), s.Role, s.Applied, s.Committed)
		}
		return nil
	})
}

func (c *testCluster) set(i int, change func(*Settings)) {
	c.t.Helper()
	s := c.nodes[i].Settings()
	change(&s)
	if err := c.nodes[i].SetSettings(c.t.Context(), s); err != nil {
		c.t.Fatal(err)
	}
}

func quick() Option { return Timing(20*time.Millisecond, 400*time.Millisecond) }

// A member whose disk was lost has its vote back without a command, whoever it
// was, and again and again.
func TestLostDiskComesBack(t *testing.T) {
	c := newTestCluster(t, 3, quick())
	c.openAll()
	for i := range 3 {
		key := fmt.Sprint("k", i)
		if _, err := c.nodes[i].Put(t.Context(), key, "1"); err != nil {
			t.Fatal(err)
		}
		old := c.nodes[i].id
		c.close(i)
		if err := os.RemoveAll(c.dirs[i]); err != nil {
			t.Fatal(err)
		}
		c.open(i)
		c.votersAre(0, 1, 2)
		if c.nodes[i].id == old {
			t.Errorf("%s kept its identity without its data", c.name(i))
		}
		if k, err := c.nodes[i].Get(t.Context(), key, kv.Strong); err != nil || string(k.Value) != "1" {
			t.Errorf("%s reads %q, %v", c.name(i), k.Value, err)
		}
	}
}

// A cluster grows from one member to three at once, and to five when it is told
// to.
func TestGrows(t *testing.T) {
	c := newTestCluster(t, 1, quick())
	c.openAll()
	c.later()
	c.learns(1)
	c.waitFor(func() error {
		if r := c.nodes[0].judgement(); len(r.Judgement) != 1 || !strings.Contains(r.Judgement[0], "with one more") {
			return fmt.Errorf("judged %+v", r)
		}
		return nil
	})
	c.votersAre(0)
	c.later()
	c.votersAre(0, 1, 2)
	c.later()
	c.later()
	c.learns(3)
	c.learns(4)
	c.votersAre(0, 1, 2)
	c.set(3, func(s *Settings) { s.Voters = 5 })
	c.votersAre(0, 1, 2, 3, 4)
	for i := range c.nodes {
		if _, err := c.nodes[i].Put(t.Context(), "k", "v"); err != nil {
			t.Errorf("a write on %s: %v", c.name(i), err)
		}
	}
}

// A learner takes the place of a voter that has been dead for long.
func TestDeadMemberIsReplaced(t *testing.T) {
	c := newTestCluster(t, 3, quick())
	c.openAll()
	c.later()
	c.learns(3)
	c.votersAre(0, 1, 2)
	c.set(0, func(s *Settings) { s.DeadAfter = time.Second })
	c.close(1)
	c.votersAre(0, 2, 3)
}

// While the autopilot is off, nothing happens by itself.
func TestAutopilotOff(t *testing.T) {
	c := newTestCluster(t, 3, quick())
	c.openAll()
	c.set(0, func(s *Settings) { s.Autopilot, s.DeadAfter = false, time.Second })
	c.close(1)
	if err := os.RemoveAll(c.dirs[1]); err != nil {
		t.Fatal(err)
	}
	c.open(1)
	c.learns(1)
	c.waitFor(func() error {
		for _, i := range []int{0, 2} {
			if r := c.nodes[i].judgement(); len(r.Judgement) == 2 && strings.Contains(r.Judgement[1], "takes the vote of") {
				return nil
			}
		}
		return fmt.Errorf("judged %+v and %+v", c.nodes[0].judgement(), c.nodes[2].judgement())
	})
	c.learns(1)
	// By hand it takes the vote of its old identity, too.
	c.waitFor(func() error { // a leader that is new may not know yet how far it has come
		if err := c.nodes[2].PromoteMember(t.Context(), c.nodes[1].id); kv.CodeOf(err) == kv.FailedPrecondition {
			return err
		} else if err != nil {
			t.Fatal(err)
		}
		return nil
	})
	c.votersAre(0, 1, 2)
}

func TestAutopilotSettings(t *testing.T) {
	n := open(t, t.TempDir())
	want := Settings{Retention: 10 * time.Minute, HistoryBytes: 256 << 20, Autopilot: true, DeadAfter: 5 * time.Minute}
	if got := n.Settings(); got != want {
		t.Errorf("by default %+v", got)
	}
	for _, bad := range []Settings{{Voters: 2}, {Voters: -1}, {Voters: machine.MaxVoters + 2}, {DeadAfter: time.Millisecond}, {DeadAfter: -time.Second}} {
		if err := n.SetSettings(t.Context(), bad); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	want.Voters, want.Autopilot, want.DeadAfter = 7, false, 0
	if err := n.SetSettings(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	want.DeadAfter = 5 * time.Minute
	if got := n.Settings(); got != want {
		t.Errorf("settings %+v, want %+v", got, want)
	}
}

// The cluster uses what all of its members understand, from when the last one
// has been updated; an older program does not come back then.
func TestRollingUpgrade(t *testing.T) {
	c := newTestCluster(t, 3, quick(), withLevel(1))
	c.openAll()
	level := func(want uint32) {
		t.Helper()
		c.waitFor(func() error {
			for i, n := range c.nodes {
				if got := n.machine.Level(); got != want {
					return fmt.Errorf("%s has level %d, want %d", c.name(i), got, want)
				}
			}
			return nil
		})
	}
	for i := range c.nodes {
		level(1)
		c.close(i)
		c.open(i, withLevel(2))
		c.waitFor(func() error { // told, and heard by the first
			for _, m := range c.nodes[0].machine.Members() {
				if m.ID == c.nodes[i].id && m.Level == 2 && m.Version == Version {
					return nil
				}
			}
			return fmt.Errorf("members %+v", c.nodes[0].machine.Members())
		})
	}
	level(2)
	if _, err := c.nodes[1].headerCommand(t.Context(), func(dst []byte) []byte { return append(dst, 250, 0) }); !errors.Is(err, kv.ErrUnsupported) {
		t.Errorf("a command that not all understand: %v", err)
	}
	c.close(2)
	n, err := Open(t.Context(), c.dirs[2], c.options(2, withLevel(1))...)
	if err == nil { // the snapshot that it starts from is older than the level
		<-n.Done()
		err = errors.Join(n.Err(), n.Close())
	}
	var e *machine.LevelError
	if !errors.As(err, &e) || e.Cluster != 2 || e.Program != 1 {
		t.Errorf("an older program starts: %v", err)
	}
	if err := os.RemoveAll(c.dirs[2]); err != nil {
		t.Fatal(err)
	}
	n, err = Open(t.Context(), c.dirs[2], c.options(2, withLevel(1), Rejoin())...)
	if err == nil {
		err = n.Close()
		t.Error("an older program joins")
	}
	if !strings.Contains(fmt.Sprint(err), "the cluster has level 2") {
		t.Errorf("an older program joins: %v", err)
	}
	c.open(2, withLevel(2))
	c.votersAre(0, 1, 2)
}
