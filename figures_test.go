package concord

import (
	"runtime"
	"testing"
	"time"
)

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
	for end := time.Now().Add(time.Minute); f.Apply.Entries-before.Apply.Entries < 6 && time.Now().Before(end); f = n.Figures() {
		runtime.Gosched()
	}
	if f.State.Puts-before.State.Puts != 5 || f.State.Deletes-before.State.Deletes != 1 || f.LeaderChanges != 1 ||
		f.Log.Entries-before.Log.Entries < 6 || f.Apply.Entries-before.Apply.Entries < 6 ||
		f.Log.Writes.Count() == 0 || f.Log.Writes.Sum <= 0 || f.Snapshots.Errors+f.BadMessages != 0 {
		t.Errorf("before %+v, after %+v", before, f)
	}
	if f.State.Versions == 0 || f.State.Records == 0 || f.Log.Size <= 0 || f.Log.Last < 6 || f.Log.DiskFree <= 0 ||
		f.Members.Voters != 1 || f.Members.Reached != 1 || len(f.Peers) != 0 || f.UpTime <= 0 || f.Name != "n1" {
		t.Errorf("%+v", f)
	}
}
