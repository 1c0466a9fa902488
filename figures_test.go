package concord

import (
	"runtime"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

func TestDurations(t *testing.T) {
	var d durations
	bounds := []struct {
		took time.Duration
		slot int
	}{
		{0, 0}, {1, 0}, {kv.ShortestBound, 0}, {kv.ShortestBound + 1, 1}, {2 * kv.ShortestBound, 1},
		{time.Millisecond, 4}, {8192 * time.Millisecond, 17}, {8192*time.Millisecond + 1, 18}, {time.Hour, 18}, {-1, 0},
	}
	var want kv.Durations
	for _, b := range bounds {
		d.add(b.took)
		want.Counts[b.slot]++
		want.Sum += b.took
	}
	if got := d.load(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestFigures compares what a member counts with what it did.
func TestFigures(t *testing.T) {
	n, err := Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := n.Figures()
	for range 5 {
		if _, err := n.Put(t.Context(), "a", "1"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := n.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	f := n.Figures()
	// Callers are answered before their entry is counted as applied.
	for end := time.Now().Add(time.Minute); f.AppliedEntries-before.AppliedEntries < 6 && time.Now().Before(end); f = n.Figures() {
		runtime.Gosched()
	}
	writes := uint64(0)
	for _, count := range f.LogWrites.Counts {
		writes += count
	}
	if f.Puts-before.Puts != 5 || f.Deletes-before.Deletes != 1 || f.LeaderChanges != 1 ||
		f.LogEntries-before.LogEntries < 6 || f.AppliedEntries-before.AppliedEntries < 6 ||
		writes == 0 || f.LogWrites.Sum <= 0 || f.SnapshotErrors+f.BadMessages != 0 {
		t.Errorf("before %+v, after %+v", before, f)
	}
}
