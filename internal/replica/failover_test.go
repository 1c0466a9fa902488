package replica

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// load keeps proposing on all running members until stop is called, which
// returns the longest time in which nothing succeeded, and what did.
func (c *cluster) load(callers int) (stop func() (time.Duration, []string)) {
	c.loads++
	name := fmt.Sprint("load-", c.loads)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var mu sync.Mutex
	last, gap, acked := time.Now(), time.Duration(0), []string(nil)
	for i := range callers {
		wg.Go(func() {
			for k := 0; ctx.Err() == nil; k++ {
				n := c.net.get(0, uint64((i+k)%len(c.nodes)+1))
				if n == nil {
					<-time.After(time.Millisecond)
					continue
				}
				cmd := fmt.Sprintf("%s-%d-%d", name, i, k)
				within, done := context.WithTimeout(ctx, 10*time.Second)
				_, err := n.r.Propose(within, []byte(cmd))
				done()
				if err == nil {
					mu.Lock()
					gap, last = max(gap, time.Since(last)), time.Now()
					acked = append(acked, cmd)
					mu.Unlock()
				}
				<-time.After(5 * time.Millisecond)
			}
		})
	}
	return func() (time.Duration, []string) {
		cancel() // again is no harm
		wg.Wait()
		return max(gap, time.Since(last)), acked
	}
}

// checkSame waits until all running members have the same state, in which
// nothing ran twice and nothing acknowledged is missing.
func (c *cluster) checkSame(acked []string) {
	c.t.Helper()
	c.leader()
	var machines []*machine
	for id := range c.nodes {
		if n := c.net.get(0, id); n != nil {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
			if err := n.r.ReadIndex(ctx); err != nil {
				c.t.Fatalf("read on member %d: %v", id, err)
			}
			cancel()
			machines = append(machines, n.m.(*machine))
		}
	}
	c.until("agreement", func() bool {
		i, h := machines[0].Hash()
		return !slices.ContainsFunc(machines, func(m *machine) bool { j, g := m.Hash(); return i != j || h != g })
	})
	for _, m := range machines {
		for cmd, n := range m.state.Seen {
			if n != 1 {
				c.t.Errorf("%q ran %d times", cmd, n)
			}
		}
		lost := slices.DeleteFunc(slices.Clone(acked), func(cmd string) bool { return m.seen(cmd) == 1 })
		if len(lost) > 0 {
			c.t.Errorf("%d commands were acknowledged and are lost, such as %q", len(lost), lost[0])
		}
	}
}

// TestFailOver kills the leader again and again. A killed process closes its
// connections, so the others need not wait for an election timeout.
func TestFailOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		var outages []time.Duration
		var all []string
		for range 15 {
			lead := c.leader()
			stop := c.load(6)
			<-time.After(300 * time.Millisecond)
			if err := lead.stop(); err != nil {
				t.Fatal(err)
			}
			<-time.After(2 * time.Second)
			gap, acked := stop()
			outages = append(outages, gap)
			all = append(all, acked...)
			lead.m = newMachine()
			lead.start(t)
		}
		c.checkSame(all)
		slices.Sort(outages)
		t.Logf("outages: median %v, worst %v", outages[len(outages)/2], outages[len(outages)-1])
		if outages[len(outages)/2] > 300*time.Millisecond || outages[len(outages)-1] > 1200*time.Millisecond {
			t.Errorf("outages are too long: %v", outages)
		}
	})
}

// TestCutOff cuts the leader off without closing its connections.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		var outages []time.Duration
		var all []string
		for range 20 {
			lead := c.leader()
			for id := range c.nodes {
				c.net.set(lead.id, id, id != lead.id)
			}
			began := time.Now()
			other := c.nodes[lead.id%3+1]
			cmd := fmt.Sprint("cut-", len(all))
			c.propose(other, cmd)
			outages = append(outages, time.Since(began))
			all = append(all, cmd)
			for id := range c.nodes {
				c.net.set(lead.id, id, false)
			}
			c.until("return of the old leader", func() bool { return lead.r.Status().Leader == other.r.Status().Leader })
		}
		c.checkSame(all)
		slices.Sort(outages)
		t.Logf("outages: median %v, worst %v", outages[len(outages)/2], outages[len(outages)-1])
		if outages[len(outages)/2] > 1500*time.Millisecond || outages[len(outages)-1] > 2500*time.Millisecond {
			t.Errorf("outages are too long: %v", outages)
		}
	})
}

// TestNoMajority: calls wait, then fail for certain, and work again after.
func TestNoMajority(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{NoLeaderTimeout: 3 * time.Second})
		defer c.stop()
		lead := c.leader()
		c.propose(lead, "before")
		var others []*node
		for id, n := range c.nodes {
			if id != lead.id {
				others = append(others, n)
				if err := n.stop(); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.until("loss of leadership", func() bool { return lead.r.Status().Leader == 0 })
		began := time.Now()
		if _, err := lead.r.Propose(context.Background(), []byte("lost")); !errors.Is(err, ErrNoLeader) || errors.Is(err, ErrUnknown) {
			t.Errorf("proposal without a majority: %v", err)
		}
		if err := lead.r.ReadIndex(context.Background()); !errors.Is(err, ErrNoLeader) {
			t.Errorf("read without a majority: %v", err)
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("took %v", took)
		}
		for _, n := range others {
			n.m = newMachine()
			n.start(t)
		}
		c.leader()
		c.propose(lead, "after")
		if m := lead.m.(*machine); m.seen("lost") != 0 {
			t.Error("a command that failed for certain ran")
		}
	})
}

func TestTransfer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		stop := c.load(4)
		defer stop()
		for i := range 6 {
			lead := c.leader()
			to := lead.id%3 + 1
			if i%2 == 1 {
				to = 0
			}
			asked := lead
			if i > 2 { // a follower passes it on
				asked = c.nodes[lead.id%3+1]
			}
			c.until("agreement on the leader", func() bool {
				return asked.r.Status().Leader == lead.id && asked.r.Status().Term == lead.r.Status().Term
			})
			if err := asked.r.TransferLeader(context.Background(), to); err != nil {
				t.Fatal(err)
			}
			if got := c.leader(); got == lead || to != 0 && got.id != to {
				t.Errorf("leader is %d after a transfer from %d to %d", got.id, lead.id, to)
			}
		}
		gap, acked := stop()
		if gap > 500*time.Millisecond {
			t.Errorf("transfers cost %v", gap)
		}
		c.checkSame(acked)
	})
}

func TestProposeLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		lead := c.leader()
		c.until("leadership", func() bool { return lead.r.Leadership().Term != 0 })
		term := lead.r.Leadership().Term
		if got, err := lead.r.ProposeLocal(context.Background(), term, []byte("mine")); err != nil || got != "mine" {
			t.Errorf("as leader: %v, %v", got, err)
		}
		if _, err := lead.r.ProposeLocal(context.Background(), term-1, []byte("old")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("for an earlier term: %v", err)
		}
		other := c.nodes[lead.id%3+1]
		if _, err := other.r.ProposeLocal(context.Background(), term, []byte("theirs")); !errors.Is(err, ErrNotLeader) {
			t.Errorf("as follower: %v", err)
		}
		// Decided by a leader that is cut off: it must not run later.
		for id := range c.nodes {
			c.net.set(lead.id, id, id != lead.id)
		}
		late := make(chan error, 1)
		go func() {
			_, err := lead.r.ProposeLocal(context.Background(), term, []byte("late"))
			late <- err
		}()
		c.propose(other, "meanwhile")
		for id := range c.nodes {
			c.net.set(lead.id, id, false)
		}
		if err := <-late; !errors.Is(err, ErrNotLeader) {
			t.Errorf("a decision of a deposed leader: %v", err)
		}
		c.checkSame([]string{"mine", "meanwhile"})
		if lead.m.(*machine).seen("late") != 0 {
			t.Error("a decision of a deposed leader ran")
		}
	})
}
