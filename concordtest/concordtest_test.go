package concordtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
)

func put(t *testing.T, db *concord.Node, key, value string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, err := db.Put(ctx, key, value)
		if err == nil {
			return
		}
		// On a busy machine there may be an election at any time.
		if kv.CodeOf(err) != kv.Unavailable || ctx.Err() != nil {
			t.Fatalf("put %s by %s: %v", key, db.Name(), err)
		}
	}
}

// keep puts a key that ends by time.
func keep(t *testing.T, db *concord.Node, key string, end kv.PutOption) {
	t.Helper()
	if _, err := db.Put(t.Context(), key, "x", end); err != nil {
		t.Fatal(err)
	}
}

// has checks what a strong read by a member finds; "" is no key.
func has(t *testing.T, db *concord.Node, key, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	got, err := db.Get(ctx, key, kv.Strong)
	if want == "" && errors.Is(err, kv.ErrKeyNotFound) {
		return
	}
	if err != nil || string(got.Value) != want {
		t.Errorf("%s reads %s as %q, not %q: %v", db.Name(), key, got.Value, want, err)
	}
}

// everyone checks that all members agree on a key.
func (c *Cluster) everyone(t *testing.T, key, want string) {
	t.Helper()
	for _, node := range c.running() {
		has(t, node, key, want)
	}
}

// eventually waits for a condition of the test's own.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(look) {
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s", what)
		}
	}
}

// Most tests run in a bubble, where a busy machine makes no elections.

// TestStart: clusters of any size, several at once, each member serving reads and
// writes, without having anything in common.
func TestStart(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 3} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			c := Start(t, n)
			if l := c.Leader(); l < 0 || l >= n || c.Node(l).Status().Role != kv.LeaderRole {
				t.Errorf("member %d leads", l)
			}
			for i := range n {
				if got, want := c.Node(i).Name(), fmt.Sprintf("n%d", i+1); got != want {
					t.Errorf("member %d is named %s", i, got)
				}
				has(t, c.Node(i), "key", "") // of another cluster
			}
			for i := range n {
				put(t, c.Node(i), fmt.Sprint(i), "x")
				c.everyone(t, fmt.Sprint(i), "x")
			}
			put(t, c.Node(0), "key", "x")
		})
	}
}

// TestOptions: members get the caller's options, of which TLS goes through the
// network in memory, and those that cannot be are refused.
func TestOptions(t *testing.T) {
	c := Start(t, 3, concord.Limits(kv.Limits{KeyBytes: 3}), concord.Secret(concord.NewSecret()), concord.Timing(10*time.Millisecond, time.Second))
	put(t, c.Node(0), "abc", "x")
	if _, err := c.Node(1).Put(t.Context(), "abcd", "x"); kv.CodeOf(err) != kv.InvalidArgument {
		t.Error("a key beyond the limit was taken")
	}
	if got := c.Node(2).PeerScheme(); got != "https" {
		t.Errorf("members speak %s", got)
	}
	c.Kill(c.Leader())
	c.everyone(t, "abc", "x")
}

// TestKill: whatever was acknowledged is there after leaders were killed, one
// after the other, and after all were at once.
func TestKill(t *testing.T) {
	c := Start(t, 3)
	var mu sync.Mutex
	var acked []string
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	for w := range 4 {
		group.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("%d/%d", w, i)
				try, cancel := context.WithTimeout(ctx, time.Second)
				if _, err := c.Node(i%3).Put(try, key, "x"); err == nil {
					mu.Lock()
					acked = append(acked, key)
					mu.Unlock()
				}
				cancel()
			}
		})
	}
	more := func() {
		t.Helper()
		mu.Lock()
		before := len(acked)
		mu.Unlock()
		eventually(t, "writes", func() bool { mu.Lock(); defer mu.Unlock(); return len(acked) > before+20 })
	}
	for range 3 {
		more()
		i := c.Leader()
		db := c.Node(i)
		c.Kill(i)
		c.Kill(i) // does nothing
		if _, err := db.Get(t.Context(), "x", kv.Eventual); !errors.Is(err, kv.ErrClosed) {
			t.Errorf("a call of a member that was killed: %v", err)
		}
		more()
		c.Restart(i)
		c.WaitReady()
	}
	more()
	for i := range 3 {
		c.Kill(i)
	}
	stop()
	group.Wait()
	for i := range 3 {
		c.Restart(i)
	}
	c.WaitReady()
	for _, key := range acked {
		has(t, c.Node(c.Leader()), key, "x")
	}
	t.Logf("%d writes were acknowledged", len(acked))
}

// TestMinority: a leader that is cut off cannot acknowledge anything, the others
// go on without it, and all agree when the cut is healed.
func TestMinority(t *testing.T) { synctest.Test(t, testMinority) }

func testMinority(t *testing.T) {
	c := Start(t, 3)
	put(t, c.Node(0), "key", "before")
	old := c.Leader()
	c.Partition([]int{old})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	_, err := c.Node(old).Put(ctx, "unknown", "x") // while it believes that it leads
	cancel()
	if !errors.Is(err, kv.ErrUnavailable) {
		t.Errorf("a write by a leader that is cut off: %v", err)
	}
	lost := ""
	eventually(t, "the one that is cut off to say that nothing was done", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		lost += "x"
		_, err = c.Node(old).Put(ctx, lost, "x")
		return errors.Is(err, kv.ErrNoLeader)
	})
	next := c.Leader()
	if next == old {
		t.Fatalf("member %d leads, and is cut off", next)
	}
	put(t, c.Node(next), "key", "after")
	if got, err := c.Node(old).Get(t.Context(), "key", kv.Eventual); err != nil || string(got.Value) != "before" {
		t.Errorf("the one that is cut off reads %q: %v", got.Value, err)
	}
	c.Heal()
	c.WaitReady()
	c.everyone(t, "key", "after")
	c.everyone(t, lost, "")
}

// TestGroups: five members in two groups, of which one has a majority, and then
// in others.
func TestGroups(t *testing.T) { synctest.Test(t, testGroups) }

func testGroups(t *testing.T) {
	c := Start(t, 5)
	for i, groups := range [][][]int{{{0, 1}, {2, 3, 4}}, {{3, 4}}, {{1}, {4}}} {
		c.Partition(groups...)
		leader := c.Leader()
		for _, away := range groups[0] {
			if leader == away {
				t.Errorf("member %d leads, which is in the smaller of the groups %v", leader, groups)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			if _, err := c.Node(away).Get(ctx, "key", kv.Strong); kv.CodeOf(err) != kv.Unavailable {
				t.Errorf("a strong read by member %d of the smaller of the groups %v: %v", away, groups, err)
			}
			cancel()
		}
		c.WaitReady(leader)
		put(t, c.Node(leader), fmt.Sprint(i), "x")
	}
	c.Heal()
	c.WaitReady()
	for i := range 3 {
		c.everyone(t, fmt.Sprint(i), "x")
	}
}

// TestAdvance: leases and keys end when cluster time has come there, no sooner,
// and nothing else does.
func TestAdvance(t *testing.T) { synctest.Test(t, testAdvance) }

func testAdvance(t *testing.T) {
	c := Start(t, 3)
	db := c.Node(1)
	lease, err := db.Grant(t.Context(), kv.Grant{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	keep(t, db, "lease", kv.WithLease(lease.ID))
	keep(t, db, "ttl", kv.WithTTL(2*time.Hour))
	term := c.Node(c.Leader()).Status().Term
	c.Advance(50 * time.Minute)
	c.everyone(t, "lease", "x")
	c.Advance(10 * time.Minute)
	c.everyone(t, "lease", "")
	c.everyone(t, "ttl", "x")
	if _, err := db.KeepAlive(t.Context(), lease.ID); !errors.Is(err, kv.ErrLeaseNotFound) {
		t.Errorf("a lease that has ended is renewed: %v", err)
	}
	if s := c.Node(c.Leader()).Status(); s.Term != term {
		t.Errorf("time moved the term from %d to %d", term, s.Term)
	}
	c.Advance(0)
	c.Advance(time.Hour)
	c.everyone(t, "ttl", "")
}

// TestAdvanceAndLose: time that has passed under one leader has passed under the
// next, and a renewal counts from then.
func TestAdvanceAndLose(t *testing.T) { synctest.Test(t, testAdvanceAndLose) }

func testAdvanceAndLose(t *testing.T) {
	c := Start(t, 3)
	db := c.Node(c.Leader())
	var leases [2]kv.LeaseResult
	for i := range leases {
		var err error
		if leases[i], err = db.Grant(t.Context(), kv.Grant{TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		keep(t, db, fmt.Sprint(i), kv.WithLease(leases[i].ID))
	}
	c.Advance(50 * time.Minute)
	if _, err := db.KeepAlive(t.Context(), leases[1].ID); err != nil {
		t.Fatal(err)
	}
	old := c.Leader()
	c.Kill(old)
	c.everyone(t, "0", "x")
	c.Advance(10 * time.Minute)
	c.everyone(t, "0", "")
	c.everyone(t, "1", "x")
	c.Restart(old)
	c.Partition([]int{c.Leader()})
	c.Advance(time.Hour)
	c.Heal()
	c.WaitReady()
	c.everyone(t, "1", "")
}

// TestWipe: a member that has lost its disk comes back as another one, with the
// data and the vote of the old; of all but one, in turn.
func TestWipe(t *testing.T) { synctest.Test(t, testWipe) }

func testWipe(t *testing.T) {
	c := Start(t, 3)
	put(t, c.Node(0), "key", "x")
	for i := range 2 {
		old := c.Node(i).Status().Member
		if i == 0 {
			c.Kill(i)
		}
		c.Wipe(i)
		c.Restart(i)
		c.WaitReady()
		if got := c.Node(i).Status().Member; got == old {
			t.Errorf("member %d has its old identity", i)
		}
		has(t, c.Node(i), "key", "x")
	}
	members, err := c.Node(2).Members(t.Context())
	if err != nil || len(members) != 3 {
		t.Fatalf("%d members: %v", len(members), err)
	}
	c.Kill(2)
	c.everyone(t, "key", "x")
}

// TestAdd: further members serve, and get votes when they are wanted.
func TestAdd(t *testing.T) { synctest.Test(t, testAdd) }

func testAdd(t *testing.T) {
	c := Start(t, 1)
	put(t, c.Node(0), "key", "x")
	for want := 1; want <= 2; want++ {
		if got := c.Add(); got != want {
			t.Errorf("member %d was added", got)
		}
	}
	c.WaitReady()
	c.everyone(t, "key", "x")
	eventually(t, "three voters", func() bool {
		members, err := c.Node(2).Members(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		voters := 0
		for _, m := range members {
			if !m.Learner {
				voters++
			}
		}
		return voters == 3
	})
	c.WaitReady()
	c.Kill(c.Leader())
	c.everyone(t, "key", "x")
}

// TestRestart: a member that runs is restarted as people do it.
func TestRestart(t *testing.T) {
	c := Start(t, 3)
	put(t, c.Node(0), "key", "x")
	for i := range 3 {
		before := c.Node(i)
		c.Restart(i)
		c.WaitReady()
		if c.Node(i) == before || before.Err() != nil {
			t.Errorf("member %d is the same, or ended with %v", i, before.Err())
		}
	}
	c.everyone(t, "key", "x")
}

// TestAlone: a single member keeps its data, and without a disk it begins anew.
func TestAlone(t *testing.T) {
	c := Start(t, 1)
	put(t, c.Node(0), "key", "x")
	c.Kill(0)
	c.Restart(0)
	c.WaitReady()
	c.everyone(t, "key", "x")
	c.Wipe(0)
	c.Restart(0)
	c.WaitReady()
	c.everyone(t, "key", "")
}

// TestBubble: in a bubble of synctest time is that of the bubble.
func TestBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Start(t, 3, concord.Timing(100*time.Millisecond, 2*time.Second))
		keep(t, c.Node(0), "key", kv.WithTTL(10*time.Second))
		began := time.Now()
		old := c.Leader()
		c.Partition([]int{old})
		if c.Leader() == old {
			t.Errorf("member %d leads, and is cut off", old)
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("it took %v to find out that the leader is gone", took)
		}
		c.Heal()
		c.WaitReady()
		<-time.After(10 * time.Second)
		eventually(t, "the key to end", func() bool {
			_, err := c.Node(0).Get(t.Context(), "key", kv.Strong)
			return errors.Is(err, kv.ErrKeyNotFound)
		})
		c.everyone(t, "key", "")
	})
}
