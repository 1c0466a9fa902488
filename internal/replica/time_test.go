package replica

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestAdvanceTime: cluster time that was moved stays moved under the next leader,
// never falls, and moves no elections.
func TestAdvanceTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		n := c.leader()
		c.propose(n, "before")
		term := n.r.Status().Term
		for _, other := range c.nodes {
			other.r.AdvanceTime(time.Hour.Milliseconds())
		}
		n.r.AdvanceTime(time.Minute.Milliseconds()) // it is there already
		c.until("time moves", func() bool { return n.r.Leadership().Time >= time.Hour.Milliseconds() })
		c.propose(n, "after")
		if most := (time.Hour + time.Minute).Milliseconds(); n.r.Leadership().Time > most {
			t.Errorf("cluster time is %d", n.r.Leadership().Time)
		}
		<-time.After(time.Minute)
		if s := n.r.Status(); s.Term != term || s.Role != Leader {
			t.Errorf("%v in term %d, not the leader of %d", s.Role, s.Term, term)
		}
		if err := n.r.TransferLeader(context.Background(), 0); err != nil {
			t.Fatal(err)
		}
		next := c.leader()
		c.propose(next, "later")
		c.until("the next leader counts on", func() bool { return next.r.Leadership().Time >= time.Hour.Milliseconds() })
		if next == n {
			t.Error("leadership did not move")
		}
	})
}
