package concord

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// eventually asks until ok, for a minute.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in a minute: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func overviewOf(t *testing.T, n *Node) kv.Overview {
	t.Helper()
	o, err := n.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestOverview asks each of three members, then those that are left.
func TestOverview(t *testing.T) {
	c := newTestCluster(t, 3)
	c.openAll()
	for range 50 {
		if _, err := c.nodes[0].Put(t.Context(), "a", "1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range c.nodes {
		eventually(t, "all answer, and are measured", func() bool {
			o := overviewOf(t, n)
			if len(o.Members) != 3 || o.Asked != n.id || o.Cluster != n.machine.Cluster() || o.Health().Summary != "3 of 3 voters, survives 1 failure" {
				return false
			}
			leads := 0
			for j, m := range o.Members {
				r := m.Report
				if r == nil || m.Name != c.name(j) || r.Status.Member != m.ID || r.Version != Version || r.UpTime <= 0 || r.LogWrite <= 0 ||
					r.Resident <= 0 || r.DiskFree <= 0 || len(r.Peers) != 2 || r.Revision != 51 || !m.Connected || m.Silent != 0 || m.Lag != 0 {
					return false
				}
				if m.ID == o.Leader {
					leads++
				} else if m.RoundTrip <= 0 {
					return false
				}
			}
			return leads == 1
		})
	}
	c.close(2)
	eventually(t, "one is missed", func() bool {
		o := overviewOf(t, c.nodes[0])
		gone := o.Members[2]
		return gone.Report == nil && gone.Err != "" && gone.Silent > 0 && !gone.Connected && o.Leader != 0 && o.Leader != gone.ID &&
			strings.HasPrefix(o.Health().Summary, "2 of 3 voters, survives 0 failures: n3 ")
	})
	if err := kv.Retire(t.Context(), c.nodes[0], c.nodes[1].id); kv.CodeOf(err) != kv.FailedPrecondition || !strings.Contains(err.Error(), "1 of 2 voters would answer") {
		t.Errorf("a member that is needed was let go: %v", err)
	}
	c.close(1)
	eventually(t, "there is no majority", func() bool {
		return strings.HasPrefix(func() string { o := overviewOf(t, c.nodes[0]); h := o.Health(); return h.Summary }(), "no majority: 1 of 3 voters answers and 2 are needed: n2 ")
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.nodes[0].Overview(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	n := c.nodes[0]
	c.close(0)
	if _, err := n.Overview(t.Context()); !errors.Is(err, kv.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestOverviewOfOne(t *testing.T) {
	n := open(t, t.TempDir())
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := overviewOf(t, n)
	if len(o.Members) != 1 || o.Members[0].Report == nil || o.Leader != n.id || o.Health().Summary != "1 of 1 voters, survives 0 failures" {
		t.Errorf("%+v", o)
	}
	if err := n.Leave(t.Context()); kv.CodeOf(err) != kv.FailedPrecondition || kv.NextStep(err) == "" {
		t.Errorf("the only member left: %v", err)
	}
	if _, err := n.Put(t.Context(), "a", "1"); err != nil {
		t.Errorf("after it was refused to leave: %v", err)
	}
}

func TestAssemble(t *testing.T) {
	members := []kv.Member{{ID: 1, Name: "n2"}, {ID: 2, Name: "n1"}, {ID: 3}, {ID: 4, Name: "n0"}}
	report := func(s kv.Status, peers ...kv.PeerReport) heard {
		return heard{figures: &memberFigures{
			Report: kv.Report{Status: s, Peers: peers},
			Marks:  []mark{{10, 30 * time.Second}, {20, 3 * time.Second}, {30, 0}},
		}}
	}
	o := assemble(members, []heard{
		report(kv.Status{Member: 1, Leader: 9, Term: 4, Applied: 15, Committed: 15}, kv.PeerReport{Member: 4, Silent: 5 * time.Second}), // of an old term
		report(kv.Status{Member: 2, Leader: 2, Term: 5, Applied: 30, Committed: 30}, kv.PeerReport{Member: 1, Connected: true, RoundTrip: 7}, kv.PeerReport{Member: 4, Silent: 4 * time.Second}, kv.PeerReport{Member: 3, Connected: true}),
		{err: net.ErrClosed},
		{err: net.ErrClosed},
	})
	var names []string
	for _, m := range o.Members {
		names = append(names, m.Label())
	}
	if got := strings.Join(names, " "); got != "3 n0 n1 n2" || o.Leader != 2 || o.Term != 5 {
		t.Fatalf("%s, leader %v, term %d", got, o.Leader, o.Term)
	}
	unnamed, gone, leader, behind := o.Members[0], o.Members[1], o.Members[2], o.Members[3]
	if !unnamed.Connected || unnamed.Report != nil || unnamed.Err == "" {
		t.Errorf("%+v", unnamed)
	}
	if gone.Connected || gone.Silent != 4*time.Second {
		t.Errorf("%+v", gone)
	}
	if !leader.Connected || leader.Lag != 0 || leader.RoundTrip != 0 {
		t.Errorf("%+v", leader)
	}
	if behind.Lag != 15 || behind.Behind != 3*time.Second || behind.RoundTrip != 7 {
		t.Errorf("%+v", behind)
	}
	if o := assemble(members, make([]heard, 4)); o.Leader != 0 || o.Members[0].Report != nil {
		t.Errorf("%+v", o)
	}
}

// TestLeave has the leader leave, then one of the two others.
func TestLeave(t *testing.T) {
	c := newTestCluster(t, 3)
	c.openAll()
	var leader *Node
	eventually(t, "somebody leads", func() bool {
		for _, n := range c.nodes {
			if s := n.Status(); s.Role == kv.LeaderRole && s.Leader == n.id {
				leader = n
			}
		}
		return leader != nil
	})
	eventually(t, "the leader may leave", func() bool {
		err := leader.Leave(t.Context())
		if err != nil {
			t.Log(err)
		}
		return err == nil
	})
	select {
	case <-leader.Done():
	default:
		t.Error("it runs on")
	}
	if err := leader.Err(); err != nil {
		t.Errorf("it left with %v", err)
	}
	i := slices.Index(c.nodes, leader)
	c.close(i)
	if _, err := Open(t.Context(), c.dirs[i], c.options(i)...); !errors.Is(err, ErrRemoved) {
		t.Errorf("it was opened again: %v", err)
	}
	for _, n := range c.nodes {
		if n == nil {
			continue
		}
		if _, err := n.Put(t.Context(), "a", "1"); err != nil {
			t.Error(err)
		}
		eventually(t, "two are left", func() bool {
			o := overviewOf(t, n)
			return o.Health().Summary == "2 of 2 voters, survives 0 failures"
		})
	}
}

// TestFollow sees a leader move and a member go, in the end at least.
func TestFollow(t *testing.T) {
	c := newTestCluster(t, 3)
	c.openAll()
	n := c.nodes[0]
	var mu sync.Mutex
	var seen []kv.View
	var ended sync.WaitGroup
	ended.Go(func() {
		for v := range n.Follow(t.Context()) {
			mu.Lock()
			seen = append(seen, v)
			mu.Unlock()
		}
	})
	last := func() kv.View {
		mu.Lock()
		defer mu.Unlock()
		if len(seen) == 0 {
			return kv.View{}
		}
		return seen[len(seen)-1]
	}
	eventually(t, "names are known", func() bool { v := last(); return v.Leader != 0 && len(v.Members) == 3 && v.Members[0].Name != "" })
	from := last().Leader
	to := kv.MemberID(0)
	for _, m := range last().Members {
		if m.ID != from && m.ID != n.id {
			to = m.ID
		}
	}
	eventually(t, "leadership is moved", func() bool { return n.MoveLeader(t.Context(), to) == nil })
	eventually(t, "the move is seen", func() bool { return last().Leader == to })
	for v := range n.Follow(t.Context()) { // the first is there at once
		if len(v.Members) != 3 {
			t.Errorf("%+v", v)
		}
		break
	}
	for _, m := range last().Members {
		if m.ID != n.id && m.ID != to {
			eventually(t, "a member is removed", func() bool { return n.RemoveMember(t.Context(), m.ID) == nil })
		}
	}
	eventually(t, "the removal is seen", func() bool { return len(last().Members) == 2 })
	c.close(0)
	ended.Wait()
	mu.Lock()
	defer mu.Unlock()
	for i := 1; i < len(seen); i++ {
		if sameView(&seen[i-1], &seen[i]) {
			t.Errorf("%+v was seen twice", seen[i])
		}
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	n := open(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range n.Follow(ctx) {
		cancel()
	}
	if err := n.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestAutopilot sets it on one member and asks another, about a cluster of two.
func TestAutopilot(t *testing.T) {
	c := newTestCluster(t, 2)
	c.openAll()
	a, err := c.nodes[0].Autopilot(t.Context())
	if err != nil || !a.Enabled || a.Voters != 3 || a.DeadAfter != 5*time.Minute {
		t.Fatalf("%+v, %v", a, err)
	}
	for _, bad := range []kv.Autopilot{{Voters: 2}, {Voters: -1}, {Voters: 3, DeadAfter: time.Millisecond}} {
		if err := c.nodes[0].SetAutopilot(t.Context(), bad); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	want := kv.Autopilot{Enabled: false, Voters: 5, DeadAfter: time.Minute}
	if err := c.nodes[0].SetAutopilot(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		eventually(t, "it is set, and judged by the leader", func() bool {
			a, err := n.Autopilot(t.Context())
			return err == nil && a.Autopilot == want && a.Leader == n.Status().Leader && a.Leader != 0 &&
				len(a.Judgement) > 0 && strings.Contains(a.Judgement[0], "the autopilot is off")
		})
	}
	if err := c.nodes[1].SetAutopilot(t.Context(), kv.Autopilot{Enabled: true, Voters: 5, DeadAfter: time.Minute}); err != nil {
		t.Error(err)
	}
	c.close(1)
	eventually(t, "nobody judges without a majority", func() bool {
		a, err := c.nodes[0].Autopilot(t.Context())
		return err == nil && a.Leader == 0 && len(a.Judgement) == 0 && a.Voters == 5
	})
}
