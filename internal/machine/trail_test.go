package machine

import (
	"bytes"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// Hashes are known for the last entries, and at steps for longer; what is not
// known is never taken for something else.
func TestTrail(t *testing.T) {
	var tr trail
	const last = trailKept*trailStep + 1000
	if _, ok := tr.at(0); ok {
		t.Error("an empty trail knows entry 0")
	}
	for i := kv.Index(1); i <= last; i++ {
		tr.note(i, runningHash(i)<<8|1)
	}
	for i := kv.Index(0); i <= last+trailKept; i++ {
		fine := i > last-trailKept && i <= last
		coarse := i%trailStep == 0 && i+trailKept*trailStep > last/trailStep*trailStep && i <= last
		hash, ok := tr.at(i)
		if ok != (fine || coarse) || ok && hash != runningHash(i)<<8|1 {
			t.Fatalf("entry %d: %x, %v; in the last %v, at a step %v", i, hash, ok, fine, coarse)
		}
	}
}

// A state that was replaced by a snapshot forgets what it was before.
func TestHashAtAfterRestore(t *testing.T) {
	m, other := New(Options{}), New(Options{})
	defer m.Close()
	defer other.Close()
	for _, x := range []*Machine{m, other} {
		x.Bootstrap(1, []kv.Member{{ID: 1}})
	}
	for i := uint64(2); i <= 40; i++ {
		m.Apply(Position{Index: i, Term: 1}, nil, nil)
	}
	var snapshot bytes.Buffer
	write, release := m.Snapshot()
	defer release()
	if err := write(&snapshot); err != nil {
		t.Fatal(err)
	}
	for i := uint64(2); i <= 20; i++ {
		other.Apply(Position{Index: i, Term: 1, Now: int64(i)}, nil, nil)
	}
	if err := other.Restore(&snapshot); err != nil {
		t.Fatal(err)
	}
	if _, ok := other.HashAt(10); ok {
		t.Error("it has the hash of a state that is gone")
	}
	want, _ := m.HashAt(40)
	if got, ok := other.HashAt(40); !ok || got != want {
		t.Errorf("hash at the snapshot %x, %v; want %x", got, ok, want)
	}
}
