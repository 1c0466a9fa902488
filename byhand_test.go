package concord

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// TestReserved: a member that was added for its address starts under the id that
// it got, also when it was interrupted, and not a second time from nothing.
func TestReserved(t *testing.T) {
	for name, learner := range map[string]bool{"voter": false, "learner": true} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t, 2, ByHand())
			late := c.peers["n2"]
			c.peers = map[string]string{"n1": c.peers["n1"]}
			c.open(0)
			c.peers = map[string]string{"n1": c.peers["n1"], "n2": late}
			if err := c.tryOpen(1, Reserved()); kv.CodeOf(err) != kv.FailedPrecondition || !strings.Contains(err.Error(), "no member was added") {
				t.Fatalf("without a place: %v", err)
			}
			added, err := c.nodes[0].AddMember(t.Context(), kv.Member{PeerAddrs: []string{late}, Learner: learner})
			if err != nil {
				t.Fatal(err)
			}
			c.open(1, Reserved())
			if got := c.nodes[1].Status(); got.Member != added.ID || (got.Role == kv.LearnerRole) != learner {
				t.Errorf("started as %+v, added as %v", got, added.ID)
			}
			if _, err := c.nodes[1].Put(t.Context(), "a", "1"); err != nil {
				t.Fatal(err)
			}
			c.close(1)
			c.open(1, Reserved()) // it has data
			if learner {
				// The leader may not know yet how far it has come.
				c.waitFor(func() error { return c.nodes[0].PromoteMember(t.Context(), added.ID) })
			}
			c.waitFor(func() error { // it gives itself the name
				for _, m := range c.nodes[0].machine.Members() {
					if m.Name == "" {
						return fmt.Errorf("member %v has no name", m.ID)
					}
				}
				return nil
			})
			c.close(1)
			c.dirs[1] += "-lost"
			if err := c.tryOpen(1, Reserved()); kv.CodeOf(err) != kv.FailedPrecondition || !strings.Contains(err.Error(), "already been bootstrapped") {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func (c *testCluster) tryOpen(i int, more ...Option) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Minute)
	defer cancel()
	n, err := Open(ctx, c.dirs[i], c.options(i, more...)...)
	if err == nil {
		c.nodes[i] = n
	}
	return err
}

// TestByHand: nobody becomes a member by coming back without data.
func TestByHand(t *testing.T) {
	c := newTestCluster(t, 3, ByHand(), Group("red"))
	c.openAll()
	c.close(2)
	c.dirs[2] += "-lost"
	if err := c.tryOpen(2); kv.CodeOf(err) != kv.FailedPrecondition || !strings.Contains(err.Error(), "already founded") {
		t.Errorf("came back without data: %v", err)
	}
}

// TestAutoCompaction: the modes of etcd instead of the settings.
func TestAutoCompaction(t *testing.T) {
	n, err := Open(t.Context(), t.TempDir(), AutoCompaction(Compaction{Age: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for n.Status().CompactRevision == 0 {
		if _, err := n.Put(t.Context(), "a", "1"); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("not compacted")
		}
	}
	for how, want := range map[Compaction]kv.Revision{{Age: time.Hour}: 7, {Revisions: 3}: n.Status().Revision - 3, {Revisions: 1 << 40}: 0} {
		if got := (keeping{n.machine, how}).RevisionAt(1 << 60); how.Revisions > 0 && got != want {
			t.Errorf("%+v keeps from %d, want %d", how, got, want)
		}
	}
	n.cfg.hands.compaction = new(Compaction)
	if n.compacting(leader{n}) != nil {
		t.Error("compacts though it is off")
	}
}

// TestReservedNeedsOthers: nobody could be asked.
func TestReservedNeedsOthers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = Open(t.Context(), t.TempDir(), Reserved(), PeerListener(l), Peers("", map[string]string{"n1": l.Addr().String()}))
	if kv.CodeOf(err) != kv.InvalidArgument {
		t.Error(err)
	}
}

// TestEndsWhenRemoved: at once, or when it comes back.
func TestEndsWhenRemoved(t *testing.T) {
	c := newTestCluster(t, 4, ByHand())
	c.openAll()
	c.close(3)
	for _, i := range []int{3, 2} { // the one that is down first, which endangers nobody
		var id kv.MemberID
		for _, m := range c.nodes[0].machine.Members() {
			if m.Name == c.name(i) {
				id = m.ID
			}
		}
		if err := c.nodes[0].RemoveMember(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	c.start(3)
	for _, i := range []int{2, 3} {
		select {
		case <-c.nodes[i].Done():
			if err := c.nodes[i].Err(); !errors.Is(err, errRemoved) {
				t.Errorf("%s ended with %v", c.name(i), err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("%s goes on", c.name(i))
		}
	}
	if _, err := c.nodes[0].Put(t.Context(), "a", "1"); err != nil {
		t.Error(err)
	}
}
