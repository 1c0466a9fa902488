package replica

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/concord-kv/concord/internal/wal"
)

// lateMachine takes its time to apply.
type lateMachine struct{ *machine }

func (m lateMachine) Apply(at Position, commands [][]byte, results []any) {
	<-time.After(5 * time.Millisecond)
	m.machine.Apply(at, commands, results)
}

// TestTimesOfAProposal: a slow disk shows in Logged, a slow machine in Applied.
func TestTimesOfAProposal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1, Options{})
		defer c.stop()
		n := c.nodes[1]
		n.stop()
		n.m = lateMachine{newMachine()}
		n.start(t)
		c.propose(n, "first")
		n.r.SetTimed(true)
		n.log.(*memLog).setHook(func() error { <-time.After(20 * time.Millisecond); return nil })
		began := time.Now()
		<-time.After(time.Millisecond)
		timing := Timing{Start: began}
		if _, err := n.r.ProposeTimed(context.Background(), []byte("x"), &timing); err != nil {
			t.Fatal(err)
		}
		const ms = time.Millisecond
		want := Timing{Start: began, Queued: ms, Logged: 21 * ms, Committed: 21 * ms, Applied: 26 * ms}
		if timing != want {
			t.Errorf("got %+v, want %+v", timing, want)
		}
		n.r.SetTimed(false)
		timing = Timing{Start: began}
		if _, err := n.r.ProposeTimed(context.Background(), []byte("y"), &timing); err != nil {
			t.Fatal(err)
		}
		if timing != (Timing{Start: began}) {
			t.Errorf("while nobody takes the time: %+v", timing)
		}
	})
}

// TestTimesOnEveryMember: a slow disk of the leader's and a slow machine of the
// follower's show in the follower's times.
func TestTimesOnEveryMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3, Options{})
		defer c.stop()
		leader := c.leader()
		for _, n := range c.nodes {
			n.r.SetTimed(true)
			n.log.(*memLog).setHook(func() error { <-time.After(10 * time.Millisecond); return nil })
		}
		for _, n := range c.nodes {
			timing := Timing{Start: time.Now()}
			if _, err := n.r.ProposeTimed(context.Background(), []byte("x"), &timing); err != nil {
				t.Fatal(err)
			}
			if timing.Queued <= 0 || timing.Logged < timing.Queued || timing.Committed < timing.Logged || timing.Applied < timing.Committed {
				t.Errorf("member %d, of leader %d: %+v", n.id, leader.id, timing)
			}
			if timing.Logged < 10*time.Millisecond {
				t.Errorf("member %d has logged it after %v, and its disk takes 10ms", n.id, timing.Logged)
			}
		}
	})
}

func TestDurable(t *testing.T) {
	var d durable
	if _, at := d.since(1); !at.IsZero() {
		t.Errorf("before the first write: %v", at)
	}
	began := time.Now()
	at := func(i int) time.Time { return began.Add(time.Duration(i) * time.Second) }
	for i := 1; i <= 2*durableKept; i++ {
		w := logWork{given: at(i - 1)}
		w.write.Batch.Entries = []wal.Entry{{Index: uint64(10 * i)}}
		d.add([]logWork{w, {given: at(i)}}, at(i))
	}
	for _, test := range []struct {
		index uint64
		want  time.Time
	}{
		{20*durableKept + 1, time.Time{}},
		{20 * durableKept, at(2 * durableKept)},
		{20*durableKept - 9, at(2 * durableKept)},
		{20*durableKept - 10, at(2*durableKept - 1)},
		{10*durableKept + 11, at(durableKept + 2)},
		{10*durableKept + 10, time.Time{}}, // perhaps in a write that is forgotten
		{1, time.Time{}},
	} {
		given, got := d.since(test.index)
		if !test.want.IsZero() && !given.Equal(test.want.Add(-time.Second)) {
			t.Errorf("entry %d was given out at %v", test.index, given.Sub(began))
		}
		if !got.Equal(test.want) {
			t.Errorf("entry %d became durable at %v, want %v", test.index, got.Sub(began), test.want.Sub(began))
		}
	}
}
