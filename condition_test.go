package concord

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// wrong are the reasons that a member has for not being well, by condition.
func wrong(n *Node) map[string]string {
	out := map[string]string{}
	for _, c := range n.Conditions() {
		if c.Reason != "" && c.Name != "disk_latency" { // which depends on what else this disk has to do
			out[c.Name] = c.Reason
		}
	}
	return out
}

// TestConditions asks a member of three, then the one that is left.
func TestConditions(t *testing.T) {
	c := newTestCluster(t, 3)
	c.openAll()
	var names []string
	for _, condition := range c.nodes[0].Conditions() {
		names = append(names, condition.Name)
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(condition.Name) || strings.HasSuffix(condition.Next, ".") {
			t.Errorf("%+v", condition)
		}
	}
	for _, want := range []string{"leader", "caught_up", "disk_writes", "disk_space", "memory", "disk_latency"} {
		if !strings.Contains(strings.Join(names, " "), want) {
			t.Errorf("no condition %s among %v", want, names)
		}
	}
	eventually(t, "all is well", func() bool { return len(wrong(c.nodes[0])) == 0 })
	c.close(1)
	c.close(2)
	lost := regexp.MustCompile(`^no leader for [0-9]+m?s; 0 of 2 other members are connected$`)
	eventually(t, "there is no leader", func() bool { return lost.MatchString(wrong(c.nodes[0])["leader"]) })
	c.start(1)
	eventually(t, "there is one again", func() bool { return len(wrong(c.nodes[0])) == 0 })
}

func TestLeaderless(t *testing.T) {
	var p pulse
	now := time.Now()
	if p.leaderless(now) != 0 {
		t.Error("before the first beat")
	}
	for i, known := range []bool{false, false, true, false, false} {
		p.led(known, now.Add(time.Duration(i)*time.Second))
	}
	if d := p.leaderless(now.Add(5 * time.Second)); d != 2*time.Second {
		t.Errorf("without a leader for %v", d)
	}
}

// TestSlowDisk judges writes of the log: a hiccup is no slow disk, nor are a few.
func TestSlowDisk(t *testing.T) {
	for _, c := range []struct {
		fast, slow int
		want       bool
	}{{0, 0, false}, {100, 0, false}, {99, 1, false}, {0, 4, false}, {0, 5, true}, {100, 5, false}, {80, 20, true}} {
		var writes kv.DurationCounter
		for range c.fast {
			writes.Add(time.Millisecond)
		}
		for range c.slow {
			writes.Add(400 * time.Millisecond)
		}
		got := slowWrites(writes.Load())
		if slow := strings.HasPrefix(got.Reason, "the disk is slow: one write of the log in ten takes longer than "); slow != c.want || !got.Minor {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

// TestBehindItself asks a member whose apply hangs back.
func TestBehindItself(t *testing.T) {
	marks := []mark{{10, 3 * time.Second}, {20, 2 * time.Second}, {30, time.Millisecond}}
	for _, c := range []struct {
		applied, committed kv.Index
		want               string
	}{
		{30, 30, ""}, {25, 30, ""}, {15, 30, "catching up: 15 entries behind, for 2s"}, {5, 30, "catching up: 25 entries behind, for 3s"},
	} {
		if got := catchingUp(marks, c.applied, c.committed).Reason; got != c.want {
			t.Errorf("%d of %d: %q", c.applied, c.committed, got)
		}
	}
}
