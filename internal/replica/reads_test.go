package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestReadIndex: a write that was acknowledged anywhere is seen by a read
// anywhere that begins after, also while leaders come and go.
func TestReadIndex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		c.leader()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		var reads atomic.Int64
		for i := range 4 {
			wg.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					<-time.After(2 * time.Millisecond)
					writer, reader := c.nodes[uint64((i+k)%3+1)], c.nodes[uint64((i+k/3)%3+1)]
					cmd := fmt.Sprint(i, "-", k)
					if _, err := writer.r.Propose(ctx, []byte(cmd)); err != nil {
						continue
					}
					if err := reader.r.ReadIndex(ctx); err != nil {
						continue
					}
					if reader.m.(*machine).seen(cmd) != 1 {
						t.Errorf("member %d does not see %s", reader.id, cmd)
					}
					reads.Add(1)
				}
			})
		}
		for range 5 {
			lead := c.leader()
			for id := range c.nodes {
				c.net.set(lead.id, id, id != lead.id)
			}
			<-time.After(3 * time.Second)
			for id := range c.nodes {
				c.net.set(lead.id, id, false)
			}
			<-time.After(time.Second)
		}
		cancel()
		wg.Wait()
		if reads.Load() < 100 {
			t.Errorf("only %d reads", reads.Load())
		}
	})
}

// TestReadLease: with the lease a leader answers by itself, but not for longer
// than nobody else can lead.
func TestReadLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for round := range 10 {
			c := newCluster(t, 3, Options{ReadLease: true})
			lead := c.leader()
			c.until("a lease", lead.r.LeaderRead)
			other := c.nodes[lead.id%3+1]
			switch round % 3 {
			case 0: // cut off
				for id := range c.nodes {
					c.net.set(lead.id, id, id != lead.id)
				}
			case 1: // the connection breaks on both sides, but the leader lives
				for id, n := range c.nodes {
					if n != lead {
						c.net.set(lead.id, id, true)
						n.r.PeerDown(lead.id)
						lead.r.PeerDown(id)
					}
				}
			case 2:
				go func() {
					for errors.Is(lead.r.TransferLeader(context.Background(), other.id), ErrNotMoved) {
						continue
					}
				}()
			}
			for other.r.Status().Leader == lead.id || other.r.Status().Leader == 0 {
				<-time.After(time.Millisecond)
			}
			if lead.r.LeaderRead() {
				t.Errorf("round %d: two members may read as leaders", round)
			}
			c.propose(other, "new")
			if lead.r.LeaderRead() {
				t.Errorf("round %d: the old leader may read", round)
			}
			c.stop()
		}
	})
}

// TestReadLeaseOff: it has to be switched on, on a majority.
func TestReadLeaseOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		lead := c.leader()
		c.propose(lead, "x")
		<-time.After(3 * time.Second)
		if lead.r.LeaderRead() {
			t.Error("a lease that nobody asked for")
		}
	})
}

// TestReadLeaseRestart: who acknowledged a lease and restarts still keeps it.
func TestReadLeaseRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 10 {
			c := newCluster(t, 3, Options{ReadLease: true})
			lead := c.leader()
			c.until("a lease", lead.r.LeaderRead)
			for id, n := range c.nodes {
				c.net.set(lead.id, id, id != lead.id)
				if n != lead {
					if err := n.stop(); err != nil {
						t.Fatal(err)
					}
					n.m = newMachine()
					n.start(t)
				}
			}
			other := c.nodes[lead.id%3+1]
			for l := other.r.Status().Leader; l == lead.id || l == 0; l = other.r.Status().Leader {
				<-time.After(time.Millisecond)
			}
			if lead.r.LeaderRead() {
				t.Error("two members may read as leaders")
			}
			c.stop()
		}
	})
}

func TestWaitApplied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{})
		defer c.stop()
		n := c.nodes[1]
		c.propose(n, "x")
		at := n.r.Status().Applied
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := n.r.WaitApplied(ctx, at+1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("wait for the future: %v", err)
		}
		done := make(chan error)
		go func() { done <- n.r.WaitApplied(context.Background(), at+1) }()
		synctest.Wait()
		c.propose(n, "y")
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
