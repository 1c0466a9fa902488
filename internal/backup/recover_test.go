package backup

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

// doubtful is a busy directory whose log ends with an entry that the member does
// not know to be committed: it repeats the last put.
func doubtful(t testing.TB) string {
	t.Helper()
	dir, _ := busy(t)
	log, err := wal.Open(vfs.OS(), filepath.Join(dir, "wal"), wal.Options{SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	last, state := log.LastIndex(), log.State()
	entries, err := log.Entries(last, last+1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	entries[0].Index++
	state.Commit = last
	if err := errors.Join(log.Append(wal.Batch{Entries: entries, State: state}), log.Close()); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRecover(t *testing.T) {
	dir := doubtful(t)
	before, err := Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Recover(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Removed) != 1 || r.Removed[0].ID != 99 || r.Uncommitted != 1 || r.Member.Cluster != before.Member.Cluster {
		t.Errorf("recovered %+v", r)
	}
	if r.Status.Revision < before.Status.Revision || r.Status.Applied != before.Status.Applied+2 {
		t.Errorf("status %+v, was %+v", r.Status, before.Status)
	}
	if _, err := Check(dir); err != nil {
		t.Error(err)
	}
	n := start(t, dir)
	if got := n.m.Members(); len(got) != 1 || uint64(got[0].ID) != r.Member.ID || got[0].Learner {
		t.Errorf("members %+v", got)
	}
	if !n.m.Removed(99) {
		t.Error("the other may come back")
	}
	n.put(t, "after", "it", 0)
	if got := n.get(t, "key19"); string(got.Value) != "later 49" {
		t.Errorf("key19 is %q", got.Value)
	}
	n.stop()
	if again, err := Recover(dir); err != nil || len(again.Removed) != 0 {
		t.Errorf("again: %+v, %v", again, err)
	}
	n = start(t, dir)
	if got := n.get(t, "after"); string(got.Value) != "it" {
		t.Errorf("after is %q", got.Value)
	}
}

// TestRecoverLearner: whoever is left gets a vote; who is in no list does not.
func TestRecoverLearner(t *testing.T) {
	members := []kv.Member{{ID: 7, Name: "a"}, {ID: 8, Name: "b", Learner: true}}
	for self, ok := range map[uint64]bool{8: true, 9: false} {
		dir := filepath.Join(t.TempDir(), "data")
		plant(t, dir, self, members)
		r, err := Recover(dir)
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "not in its own member list") {
			t.Fatalf("member %d: %+v, %v", self, r, err)
		}
		if ok {
			start(t, dir).put(t, "a", "1", 0)
		}
	}
	empty := t.TempDir()
	if err := memberfile.Save(vfs.OS(), empty, memberfile.File{ID: 1}); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{empty, filepath.Join(empty, "none")} {
		if _, err := Recover(dir); err == nil {
			t.Errorf("recovered %s", dir)
		}
	}
}

// plant makes the directory of member self in a cluster of members.
func plant(t testing.TB, dir string, self uint64, members []kv.Member) {
	t.Helper()
	m := machine.New(machine.Options{})
	defer m.Close()
	m.Bootstrap(0xc1, members)
	meta, err := replica.FirstSnapshot(0xc1, []uint64{7})
	if err != nil {
		t.Fatal(err)
	}
	_, meta.Hash = m.Hash()
	snaps, err := snap.Open(vfs.OS(), filepath.Join(dir, "snap"), snap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	write, release := m.Snapshot()
	defer release()
	if _, err := snaps.Create(meta, write); err != nil {
		t.Fatal(err)
	}
	log, err := wal.Open(vfs.OS(), filepath.Join(dir, "wal"), wal.Options{SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Append(replica.FirstBatch()), log.Close()); err != nil {
		t.Fatal(err)
	}
	if err := memberfile.Save(vfs.OS(), dir, memberfile.File{ID: self, Name: "x", Cluster: 0xc1}); err != nil {
		t.Fatal(err)
	}
}

// TestRecoverIsCutOff cuts the power before one operation of the disk after the
// other: the member can be started as if nothing had happened, or recovery goes on.
func TestRecoverIsCutOff(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	plant(t, dir, 7, []kv.Member{{ID: 7, Name: "a"}, {ID: 8, Name: "b", Learner: true}})
	one := start(t, dir)
	one.put(t, "a", "1", 0)
	one.put(t, "b", "2", 0)
	last := one.Replica.Status().LastIndex
	one.stop()
	rng := rand.New(rand.NewPCG(1, 2))
	untouched, went := 0, 0
	for at := 1; ; at += 1 + rng.IntN(at/8+1) { // sparser, the longer it goes on
		disk := copied(t, dir)
		var n atomic.Int64 // reading and writing go on at the same time
		disk.Hook = func(vfs.Op) error {
			if n.Add(1) >= int64(at) {
				return errors.New("the power is gone")
			}
			return nil
		}
		_, err := recoverFrom(disk, "data")
		disk.Hook = nil
		if err == nil {
			break
		}
		disk.Crash(rng)
		log, err := wal.Open(disk, "data/wal", wal.Options{Synchronous: true, Reserve: -1})
		if err != nil {
			t.Fatalf("operation %d: %v", at, err)
		}
		reset := log.LastIndex() > last
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
		if names, _ := disk.ReadDir("data/snap"); !reset {
			untouched++
			if len(names) > 2 {
				t.Errorf("operation %d: a start finds the snapshots %v", at, names)
			}
		}
		r, err := recoverFrom(disk, "data")
		if err != nil || r.Status.Revision != 3 || r.Status.Keys != 2 {
			t.Fatalf("operation %d, again: %+v, %v", at, r.Status, err)
		}
		went++
	}
	t.Logf("%d times cut off, %d times before the decision", went, untouched)
	if untouched < 10 || went == untouched {
		t.Error("that is too few, or all on one side")
	}
}

// copied is dir on a disk in memory, as data.
func copied(t testing.TB, dir string) *vfs.Mem {
	t.Helper()
	disk := new(vfs.Mem)
	for _, sub := range []string{"", "wal", "snap"} {
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		if err := disk.MkdirAll(filepath.Join("data", sub)); err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, sub, e.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if err := disk.WriteFile(filepath.Join("data", sub, e.Name()), data); err != nil {
				t.Fatal(err)
			}
		}
	}
	return disk
}
