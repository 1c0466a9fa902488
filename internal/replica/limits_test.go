package replica

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
)

// TestOverload: what is too much is refused for certain, by count and by bytes.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{MaxWaiting: 10, MaxWaitingBytes: 1000, MaxCommandBytes: 500})
		defer c.stop()
		n := c.nodes[1]
		c.propose(n, "first")
		var hang atomic.Bool
		block := make(chan struct{})
		n.log.(*memLog).setHook(func() error {
			if hang.Load() {
				<-block
			}
			return nil
		})
		hang.Store(true)
		if _, err := n.r.Propose(context.Background(), make([]byte, 501)); !errors.Is(err, ErrTooLarge) {
			t.Errorf("too large: %v", err)
		}
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() { c.propose(n, fmt.Sprint(i)) })
		}
		synctest.Wait()
		if _, err := n.r.Propose(context.Background(), []byte("eleventh")); !errors.Is(err, ErrOverloaded) || errors.Is(err, ErrUnknown) {
			t.Errorf("eleventh call: %v", err)
		}
		hang.Store(false)
		close(block)
		wg.Wait()
		big := strings.Repeat("b", 400)
		synctest.Wait()
		block = make(chan struct{})
		hang.Store(true)
		for i := range 2 {
			wg.Go(func() { c.propose(n, fmt.Sprint(big, i)) })
		}
		synctest.Wait()
		if _, err := n.r.Propose(context.Background(), []byte(big)); !errors.Is(err, ErrOverloaded) {
			t.Errorf("too many bytes: %v", err)
		}
		hang.Store(false)
		close(block)
		wg.Wait()
		if n.r.calls.count != 0 || n.r.calls.bytes != 0 {
			t.Errorf("%d calls and %d bytes are still counted", n.r.calls.count, n.r.calls.bytes)
		}
	})
}

// TestCancel: callers leave at any moment; nobody gets another one's result, and
// what came too late is not done.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		c.leader()
		var wg sync.WaitGroup
		var left atomic.Int64
		var refused sync.Map // what cannot have run
		for i := range 200 {
			wg.Go(func() {
				for k := range 20 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration((i*7+k*13)%40)*time.Microsecond)
					cmd := fmt.Sprint(i, "-", k)
					got, err := c.nodes[uint64(i%3+1)].r.Propose(ctx, []byte(cmd))
					if err == nil && got != cmd {
						t.Errorf("%s got %v", cmd, got)
					} else if err != nil {
						left.Add(1)
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("%s got %v", cmd, err)
						}
						if !errors.Is(err, ErrUnknown) {
							refused.Store(cmd, true)
						}
					}
					cancel()
				}
			})
		}
		wg.Wait()
		if left.Load() == 0 {
			t.Error("nobody left")
		}
		late, cancel := context.WithDeadline(context.Background(), time.Now())
		defer cancel()
		for i := range 100 {
			cmd := fmt.Sprint("late ", i)
			refused.Store(cmd, true)
			if _, err := c.nodes[1].r.Propose(late, []byte(cmd)); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnknown) {
				t.Errorf("%s: %v", cmd, err)
			}
			if err := c.nodes[1].r.ReadIndex(late); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("late read: %v", err)
			}
		}
		c.propose(c.nodes[1], "last")
		c.checkSame([]string{"last"})
		refused.Range(func(cmd, _ any) bool {
			if c.nodes[1].m.(*machine).seen(cmd.(string)) != 0 {
				t.Errorf("%s was applied", cmd)
			}
			return true
		})
		for _, n := range c.nodes {
			c.until("all calls to end", func() bool { n.r.calls.mu.Lock(); defer n.r.calls.mu.Unlock(); return n.r.calls.count == 0 })
		}
	})
}

// TestEnds: what a member cannot survive ends it with that error, answers all
// calls and acknowledges nothing more.
func TestEnds(t *testing.T) {
	broken := errors.New("fsync: input/output error")
	for name, hit := range map[string]struct {
		harm func(n *node)
		want string
	}{
		"log":     {func(n *node) { n.log.(*memLog).setHook(func() error { return broken }) }, broken.Error()},
		"machine": {func(n *node) { n.m.(*machine).poison("poison") }, "unknown command"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 1, Options{})
				n := c.nodes[1]
				c.propose(n, "fine")
				hit.harm(n)
				_, err := n.r.Propose(context.Background(), []byte("poison"))
				if !errors.Is(err, ErrUnknown) {
					t.Errorf("the call under way got %v", err)
				}
				if err := <-n.ended; err == nil || !strings.Contains(err.Error(), hit.want) {
					t.Errorf("Run ended with %v", err)
				}
				if _, err := n.r.Propose(context.Background(), []byte("late")); !errors.Is(err, ErrClosed) || errors.Is(err, ErrUnknown) {
					t.Errorf("a call after the end got %v", err)
				}
				if err := n.r.ReadIndex(context.Background()); !errors.Is(err, ErrClosed) {
					t.Errorf("a read after the end got %v", err)
				}
				if _, err := n.r.Snapshot(context.Background()); !errors.Is(err, ErrClosed) {
					t.Errorf("a snapshot after the end got %v", err)
				}
				if err := n.r.WaitApplied(context.Background(), 1000); !errors.Is(err, ErrClosed) {
					t.Errorf("a wait after the end got %v", err)
				}
				n.ended <- nil
				if err := n.stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestFullDisk: the log has no space for a while. Nothing is lost, and the
// member serves again after.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{})
		defer c.stop()
		n := c.nodes[1]
		c.propose(n, "fine")
		var full atomic.Bool
		full.Store(true)
		n.log.(*memLog).setHook(func() error {
			if full.Load() {
				return fmt.Errorf("append: %w", wal.ErrNoSpace)
			}
			return nil
		})
		go func() {
			<-time.After(5 * time.Second)
			full.Store(false)
		}()
		c.propose(n, "patient")
		c.checkSame([]string{"fine", "patient"})
	})
}

// TestHungDisk: a leader whose disk hangs gives leadership away and takes no
// more proposals.
func TestHungDisk(t *testing.T) {
	for _, alone := range []bool{false, true} {
		t.Run(fmt.Sprint("others cannot take over=", alone), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, 3, Options{ReadLease: true})
				defer c.stop()
				lead := c.leader()
				c.propose(lead, "fine")
				block := make(chan struct{})
				for _, n := range c.nodes {
					if n == lead || alone {
						n.log.(*memLog).setHook(func() error { <-block; return nil })
					}
				}
				term := lead.r.Status().Term
				done := make(chan struct{})
				go func() { defer close(done); c.propose(lead, "slow") }()
				c.until("step down", func() bool { return lead.r.Status().Role != Leader })
				if lead.r.LeaderRead() || lead.r.Leadership().Term != 0 {
					t.Error("it still decides as a leader")
				}
				if s := lead.r.Status(); !s.Stalled || s.Term <= term {
					t.Errorf("state %+v", s)
				}
				if !alone {
					other := c.nodes[lead.id%3+1]
					c.propose(other, "elsewhere")
				}
				close(block)
				<-done
				c.checkSame([]string{"fine", "slow"})
			})
		})
	}
}

// TestWal runs members on the real log, in small segments, through restarts.
func TestWal(t *testing.T) {
	opt := Options{SnapshotBytes: 16 << 10, LogBytes: 1 << 10, CacheBytes: 1 << 10}
	c := &cluster{t: t, net: newNetwork(), nodes: map[uint64]*node{}, opt: opt}
	logs := map[uint64]*wal.Log{}
	defer func() {
		c.stop()
		for _, l := range logs {
			_ = l.Close()
		}
	}()
	dir := t.TempDir()
	open := func(n *node) {
		log, err := wal.Open(vfs.OS(), filepath.Join(dir, fmt.Sprint(n.id)), wal.Options{SegmentSize: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		n.log, logs[n.id] = log, log
	}
	for id := uint64(1); id <= 3; id++ {
		open(c.add(id))
		c.nodes[id].found(t, 1, 2, 3)
	}
	for _, n := range c.nodes {
		n.start(t)
	}
	c.leader()
	var all []string
	for round := range 3 {
		var wg sync.WaitGroup
		for i := range 600 {
			cmd := fmt.Sprint(round, "-", i, strings.Repeat("x", 100))
			all = append(all, cmd)
			wg.Go(func() { c.propose(c.nodes[uint64(i%3+1)], cmd) })
		}
		wg.Wait()
		for _, n := range c.nodes {
			if err := errors.Join(n.stop(), logs[n.id].Close()); err != nil {
				t.Fatal(err)
			}
			n.m = newMachine()
			open(n)
			n.start(t)
		}
	}
	c.checkSame(all)
	for _, n := range c.nodes {
		if len(n.snaps.List()) != 2 {
			t.Errorf("member %d keeps %d snapshots", n.id, len(n.snaps.List()))
		}
	}
}

// TestObserver: the funcs are called with what happened.
func TestObserver(t *testing.T) {
	var states, writes, applies atomic.Int64
	n := newCluster(t, 0, Options{}).add(1)
	n.found(t, 1)
	r, err := New(Config{ID: 1, Cluster: 7, Machine: n.m, Log: n.log, Snapshots: n.snaps, Observer: Observer{
		StateChanged:   func(State) { states.Add(1) },
		LogWritten:     func(int, time.Duration) { writes.Add(1) },
		EntriesApplied: func(int, time.Duration) { applies.Add(1) },
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	if _, err := r.Propose(context.Background(), []byte("x")); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if states.Load() == 0 || writes.Load() == 0 || applies.Load() == 0 {
		t.Errorf("%d states, %d writes, %d tasks were told", states.Load(), writes.Load(), applies.Load())
	}
	if err := r.Run(context.Background()); err == nil {
		t.Error("Run ran twice")
	}
}

// TestConfig: what cannot work is refused at the start.
func TestConfig(t *testing.T) {
	n := newCluster(t, 0, Options{}).add(1)
	n.found(t, 1)
	for name, cfg := range map[string]Config{
		"no id":           {},
		"short election":  {ID: 1, Options: Options{Heartbeat: time.Second, Election: time.Second}},
		"negative limit":  {ID: 1, Options: Options{MaxWaiting: -1}},
		"fewer in flight": {ID: 1, Options: Options{MaxInflightBytes: 1}},
		"coarse tick":     {ID: 1, Options: Options{Tick: time.Second}},
	} {
		cfg.Machine, cfg.Log, cfg.Snapshots = n.m, n.log, n.snaps
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := New(Config{ID: 1, Machine: n.m, Log: n.log, Snapshots: newMemSnaps()}); err == nil {
		t.Error("a log without its snapshot was accepted")
	}
	if _, err := FirstSnapshot(7, nil); err == nil {
		t.Error("a cluster without voters")
	}
}
