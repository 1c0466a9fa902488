package concord

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
)

// strayMachine is a state machine with a fault: it takes no notice of commands
// that have this in them.
type strayMachine struct {
	replica.Machine
	blind string
}

func (m strayMachine) Apply(at replica.Position, commands [][]byte, results []any) {
	var seen [][]byte
	var places []int
	for i, c := range commands {
		if !bytes.Contains(c, []byte(m.blind)) {
			seen, places = append(seen, c), append(places, i)
		}
	}
	var got []any
	if results != nil {
		got = make([]any, len(seen))
	}
	m.Machine.Apply(at, seen, got)
	for i, place := range places {
		if results != nil {
			results[place] = got[i]
		}
	}
	for i := range results {
		if results[i] == nil {
			results[i] = kv.ErrClosed // whatever a lost command gives
		}
	}
}

// blind makes a member's machine lose each command with that word.
func blind(word string) Option {
	return withStray(func(m replica.Machine) replica.Machine { return strayMachine{m, word} })
}

// openBlind opens a cluster in which the members of that index lose what has
// the word in it, each one its own.
func openBlind(t *testing.T, size int, words map[int]string) *testCluster {
	t.Helper()
	c := newTestCluster(t, size, Timing(20*time.Millisecond, 200*time.Millisecond))
	done := make(chan struct{}, size)
	for i := range size {
		go func() {
			defer func() { done <- struct{}{} }()
			if word := words[i]; word != "" {
				c.start(i, blind(word))
			} else {
				c.start(i)
			}
		}()
	}
	for range size {
		<-done
	}
	for i := range size {
		c.ready(i)
	}
	return c
}

func mustPut(t *testing.T, n *Node, key string) {
	t.Helper()
	if _, err := kv.Put(t.Context(), n, key, []byte("value")); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

// leading is the index of the leader.
func leading(c *testCluster) (leader int) {
	c.t.Helper()
	c.waitFor(func() error {
		id := c.nodes[0].Status().Leader
		leader = slices.IndexFunc(c.nodes, func(n *Node) bool { return n.id == id })
		if leader < 0 {
			return kv.ErrNoLeader
		}
		return nil
	})
	return leader
}

// isAside returns nil when a member is set aside, for the reason given.
func isAside(n *Node) error {
	if err := n.Ready(context.Background()); !errors.Is(err, kv.ErrSetAside) {
		return fmt.Errorf("ready: %v, want %v", err, kv.ErrSetAside)
	}
	return nil
}

// watchUntilEnd watches a key, and tells how that ended. It returns when the watch
// has begun.
func watchUntilEnd(t *testing.T, n *Node, key string) <-chan error {
	ended, started := make(chan error, 1), make(chan struct{})
	go func() {
		first := true
		for _, err := range n.Watch(t.Context(), kv.WatchRequest{Key: []byte(key)}) {
			if first {
				close(started)
				first = false
			}
			if err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}()
	<-started
	return ended
}

// checkServesNothing checks that a member that was set aside refuses whatever
// touches keys.
func checkServesNothing(t *testing.T, stray *Node) {
	t.Helper()
	for what, call := range map[string]func() error{
		"eventual read": func() error { _, err := stray.Get(t.Context(), "kept", kv.Eventual); return err },
		"strong read":   func() error { _, err := stray.Get(t.Context(), "kept", kv.Strong); return err },
		"put":           func() error { _, err := kv.Put(t.Context(), stray, "more", "value"); return err },
		"watch of history": func() error {
			for _, err := range stray.Watch(t.Context(), kv.WatchRequest{Key: []byte("kept"), Start: 1}) {
				return err
			}
			return nil
		},
		"backup": func() error { return stray.Backup(t.Context(), new(bytes.Buffer)) },
	} {
		if err := call(); !errors.Is(err, kv.ErrSetAside) {
			t.Errorf("%s: %v, want %v", what, err, kv.ErrSetAside)
		}
	}
}

// A follower whose state differs is found, named by an alarm, and serves nothing
// more; the others go on. It comes back as a new member.
func TestDivergentFollowerIsSetAside(t *testing.T) {
	c := openBlind(t, 3, map[int]string{2: "lost"})
	leader := leading(c)
	if leader == 2 {
		if err := c.nodes[2].MoveLeader(t.Context(), c.nodes[0].id); err != nil {
			t.Fatal(err)
		}
	}
	good, stray := c.nodes[0], c.nodes[2]

	ended := watchUntilEnd(t, stray, "lost")
	mustPut(t, good, "kept")
	mustPut(t, good, "lost")

	c.waitFor(func() error { return isAside(stray) })
	if err := <-ended; !errors.Is(err, kv.ErrSetAside) {
		t.Errorf("its watch ended with %v", err)
	}
	checkServesNothing(t, stray)
	mustPut(t, good, "on")
	if got, err := good.Get(t.Context(), "lost", kv.Strong); err != nil || string(got.Value) != "value" {
		t.Errorf("the others have %q, %v", got.Value, err)
	}
	want := kv.Alarm{Member: stray.id, Type: kv.AlarmDivergent}
	if got := good.Alarms(); !slices.Equal(got, []kv.Alarm{want}) {
		t.Errorf("alarms %v, want %v", got, want)
	}
	o, err := good.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(o.Health().Notes, "\n"); !strings.Contains(notes, "n3 differs") {
		t.Errorf("the overview says %q", notes)
	}

	// A restart alone does not bring it back. Joining again does.
	old := stray.id
	c.close(2)
	c.start(2, blind("lost"))
	c.waitFor(func() error { return isAside(c.nodes[2]) })
	c.close(2)
	c.open(2, Rejoin())
	if c.nodes[2].id == old {
		t.Error("the member kept its identity, and its directory")
	}
	mustPut(t, c.nodes[2], "again")
	c.waitFor(func() error {
		if a := c.nodes[0].Alarms(); len(a) > 0 {
			return fmt.Errorf("alarms %v stand", a)
		}
		return nil
	})
}

// A leader that is wrong hands over to one that is right.
func TestDivergentLeaderIsSetAside(t *testing.T) {
	c := openBlind(t, 3, map[int]string{1: "lost"})
	stray := c.nodes[1]
	if leading(c) != 1 {
		if err := c.nodes[leading(c)].MoveLeader(t.Context(), stray.id); err != nil {
			t.Fatal(err)
		}
	}
	mustPut(t, c.nodes[0], "lost")
	c.waitFor(func() error { return isAside(stray) })
	c.waitFor(func() error {
		if leader := c.nodes[0].Status().Leader; leader == stray.id || leader == 0 {
			return fmt.Errorf("%v leads", leader)
		}
		return nil
	})
	mustPut(t, c.nodes[0], "on")
	mustPut(t, c.nodes[2], "and on")
}

// Where no majority agrees, nobody can know what is right: writes are refused.
func TestNoMajorityAgrees(t *testing.T) {
	c := openBlind(t, 2, map[int]string{1: "lost"})
	mustPut(t, c.nodes[0], "kept")
	_, _ = kv.Put(t.Context(), c.nodes[0], "lost", "value") // whatever it gives where the leader lost it
	c.waitFor(func() error {
		_, err := kv.Put(t.Context(), c.nodes[0], "more", "value")
		if !errors.Is(err, kv.ErrCorrupt) {
			return fmt.Errorf("put: %v, want %v", err, kv.ErrCorrupt)
		}
		return nil
	})
	if got := c.nodes[0].Alarms(); !slices.Equal(got, []kv.Alarm{{Type: kv.AlarmCorrupt}}) {
		t.Errorf("alarms %v", got)
	}
}
