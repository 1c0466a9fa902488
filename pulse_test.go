package concord

import (
	"slices"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// TestPulse feeds half an hour.
func TestPulse(t *testing.T) {
	var p pulse
	var writes kv.DurationCounter
	if p.upTime(time.Now()) != 0 || len(p.marks(time.Now())) != 0 {
		t.Error("a pulse that has not begun has something to tell")
	}
	start := time.Now()
	now := start
	for i := range 18_000 { // an entry and a write of 1 ms each step; before the last two minutes 8 s
		now = start.Add(time.Duration(i) * fineEvery)
		took := time.Millisecond
		if i < 18_000-1200 {
			took = 8 * time.Second
		}
		writes.Add(took)
		p.note(moment{kv.Index(i), now}, &writes)
	}
	if up := p.upTime(now); up != now.Sub(start) {
		t.Errorf("up for %v", up)
	}
	marks := p.marks(now)
	if !slices.IsSortedFunc(marks, func(a, b mark) int { return int(b.Ago - a.Ago) }) {
		t.Error("marks are not in order")
	}
	for _, c := range []struct {
		lag  kv.Index
		want time.Duration // at most one step more than true
		step time.Duration
	}{{0, 0, 0}, {1, 0, fineEvery}, {20, 2 * time.Second, fineEvery}, {600, time.Minute, coarseEvery}, {5000, 500 * time.Second, coarseEvery}, {17_000, 10 * time.Minute, coarseEvery}} {
		if got := behind(marks, 17_999-c.lag); got > c.want || got < c.want-c.step {
			t.Errorf("%d entries behind: %v, want %v", c.lag, got, c.want)
		}
	}
	recent := p.recentWrites(&writes, minuteOfWrites)
	n := uint64(0)
	for _, c := range recent.Counts {
		n += c
	}
	if n < 500 || n > 700 || recent.Quantile(0.99) > time.Millisecond {
		t.Errorf("the last minute: %+v", recent)
	}
	recent = p.recentWrites(&writes, nowOfWrites)
	if n := recent.Count(); n < 100 || n > 200 {
		t.Errorf("%d writes in the last two steps", n)
	}
	all := testing.AllocsPerRun(100, func() {
		now = now.Add(coarseEvery)
		p.note(moment{1, now}, &writes)
	})
	if all != 0 {
		t.Errorf("%v allocations a note", all)
	}
}

func TestPulseOfAYoungMember(t *testing.T) {
	var p pulse
	var writes kv.DurationCounter
	now := time.Now()
	for range 30 { // three seconds
		writes.Add(time.Millisecond)
		p.note(moment{1, now}, &writes)
		now = now.Add(fineEvery)
	}
	if d := p.recentWrites(&writes, minuteOfWrites); d.Counts[kv.DurationCell(time.Millisecond)] != 30 {
		t.Errorf("%+v", d)
	}
}
