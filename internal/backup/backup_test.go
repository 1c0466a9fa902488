package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// first is a backup of a cluster that has nothing in it.
func first(t testing.TB) []byte {
	t.Helper()
	m := machine.New(machine.Options{})
	defer m.Close()
	m.Bootstrap(0xc1, []kv.Member{{ID: 7, Name: "old"}})
	meta, err := replica.FirstSnapshot(0xc1, []uint64{7})
	if err != nil {
		t.Fatal(err)
	}
	_, meta.Hash = m.Hash()
	write, release := m.Snapshot()
	defer release()
	var b bytes.Buffer
	if _, err := snap.Write(&b, meta, write); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// member is a member that runs on a directory, alone.
type member struct {
	*replica.Replica
	*snap.Store
	m    *machine.Machine
	stop func()
	// hashes are those that the state had, by index.
	hashes map[uint64]uint64
}

// Snapshot picks the one of the two.
func (m *member) Snapshot(ctx context.Context) (snap.Meta, error) { return m.Replica.Snapshot(ctx) }

type snapshots struct{ *snap.Store }

func (s snapshots) Open(i uint64) (io.ReadCloser, error) { return s.Store.Open(i) }

func start(t testing.TB, dir string) *member {
	t.Helper()
	id, err := memberfile.Load(vfs.OS(), dir)
	if err != nil {
		t.Fatal(err)
	}
	log, err := wal.Open(vfs.OS(), filepath.Join(dir, "wal"), wal.Options{SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	store, err := snap.Open(vfs.OS(), filepath.Join(dir, "snap"), snap.Options{})
	if err != nil {
		t.Fatal(err)
	}
	n := &member{Store: store, m: machine.New(machine.Options{}), hashes: map[uint64]uint64{}}
	n.Replica, err = replica.New(replica.Config{ID: id.ID, Cluster: id.Cluster, Machine: n.m, Log: log, Snapshots: snapshots{store}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := n.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("member ends: %v", err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		n.m.Close()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(n.stop)
	return n
}

// propose runs a command and remembers the hash after it.
func (n *member) propose(t testing.TB, cmd []byte) any {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	result, err := n.Propose(ctx, cmd)
	if err, failed := result.(error); failed {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	index, hash := n.m.Hash()
	n.hashes[index] = hash
	return result
}

func (n *member) put(t testing.TB, key, value string, lease kv.LeaseID) {
	t.Helper()
	n.propose(t, machine.EncodeTxn(nil, &kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: []byte(value), Lease: lease}}}))
}

func (n *member) get(t testing.TB, key string) kv.KeyValue {
	t.Helper()
	k, ok := n.m.Get([]byte(key))
	if !ok {
		t.Fatalf("%q is not there", key)
	}
	return k
}

// restored makes a directory of a new cluster of one from a backup.
func restored(t testing.TB, from []byte) (dir string, r Restored) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "data")
	r, err := Restore(dir, bytes.NewReader(from), Plan{})
	if err != nil {
		t.Fatal(err)
	}
	return dir, r
}

// busy is a directory of a member that did everything a log can hold, and its
// hashes.
func busy(t testing.TB) (string, map[uint64]uint64) {
	t.Helper()
	dir, _ := restored(t, first(t))
	n := start(t, dir)
	n.propose(t, machine.EncodeGrant(nil, 5, time.Hour))
	for i := range 50 {
		n.put(t, fmt.Sprint("key", i%20), strings.Repeat("v", 10*i), kv.LeaseID(5*(i%2)))
	}
	if _, err := n.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.propose(t, machine.EncodeCompact(nil, 20))
	change := machine.EncodeMembers(nil, machine.MemberChange{Op: machine.AddMember, Member: kv.Member{ID: 99, Name: "l", Learner: true}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if r, err := n.ProposeConfChange(ctx, replica.ConfChange{Members: []replica.MemberChange{{Kind: replica.AddLearner, ID: 99}}, Context: change}); err != nil {
		t.Fatal(r, err)
	}
	for i := range 50 {
		n.put(t, fmt.Sprint("key", i%30), fmt.Sprint("later ", i), 0)
	}
	n.stop()
	return dir, n.hashes
}

func TestBackupOfARunningMember(t *testing.T) {
	dir, _ := restored(t, first(t))
	n := start(t, dir)
	n.propose(t, machine.EncodeGrant(nil, 5, time.Hour))
	n.put(t, "a", "1", 5)
	n.put(t, "b", "2", 0)
	n.put(t, "a", "3", 5)
	path := filepath.Join(t.TempDir(), "backup.snap")
	m, err := Save(path, func(w io.Writer) error {
		_, err := Create(t.Context(), w, n)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	n.put(t, "a", "after the backup", 0)
	old := n.get(t, "b")
	if got, err := VerifyFile(path); err != nil || got.Index != m.Index || got.Hash != m.Hash {
		t.Errorf("verify: %+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Save(path, nil); !errors.Is(err, fs.ErrExist) {
		t.Errorf("saved over a backup: %v", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left, err := n.m.View().TimeToLive(5, true)
	if err != nil {
		t.Fatal(err)
	}
	dir2, r := restored(t, b)
	if r.Cluster == 0xc1 || r.Members[0].ID == 7 || r.Members[0].ID == 0 || r.From.Index != m.Index {
		t.Errorf("restored %+v", r)
	}
	n2 := start(t, dir2)
	n2.put(t, "c", "4", 0)
	if k := n2.get(t, "a"); string(k.Value) != "3" || k.Lease != 5 || k.Version != 2 {
		t.Errorf("a is %+v", k)
	}
	if k := n2.get(t, "b"); k.ModRevision != old.ModRevision || k.CreateRevision != old.CreateRevision {
		t.Errorf("b is %+v, was %+v", k, old)
	}
	if k := n2.get(t, "c"); k.ModRevision != r.Status.Revision+1 {
		t.Errorf("the next revision is %d after %d", k.ModRevision, r.Status.Revision)
	}
	got, err := n2.m.View().TimeToLive(5, true)
	if err != nil || got.Left > left.Left+time.Minute || got.Left < left.Left-time.Minute || len(got.Keys) != 1 {
		t.Errorf("the lease has %+v, had %+v, %v", got, left, err)
	}
	if members := n2.m.Members(); len(members) != 1 || members[0].ID != r.Members[0].ID {
		t.Errorf("members %+v", members)
	}
}

// TestBump: the new cluster's revisions are above all that the old one can have
// given out, its old ones are compacted, and it goes on through a restart.
func TestBump(t *testing.T) {
	dir, _ := restored(t, first(t))
	n := start(t, dir)
	n.put(t, "a", "1", 0)
	n.put(t, "a", "2", 0)
	var b bytes.Buffer
	if _, err := Create(t.Context(), &b, n); err != nil {
		t.Fatal(err)
	}
	rev := n.m.Status().Revision
	dir = filepath.Join(t.TempDir(), "data")
	if _, err := Restore(dir, bytes.NewReader(b.Bytes()), Plan{Bump: -1}); err == nil {
		t.Error("revisions went back")
	}
	r, err := Restore(dir, bytes.NewReader(b.Bytes()), Plan{Bump: DefaultBump})
	if err != nil || r.Status.Revision != rev+DefaultBump {
		t.Fatalf("%+v, %v", r, err)
	}
	for round := range kv.Revision(2) {
		n := start(t, dir)
		if k := n.get(t, "a"); k.ModRevision != rev && round == 0 {
			t.Errorf("a is %+v", k)
		}
		n.put(t, "a", "3", 0)
		if k := n.get(t, "a"); k.ModRevision != r.Status.Revision+round+1 {
			t.Errorf("a is %+v, the store was at %d", k, r.Status.Revision)
		}
		v := n.m.View()
		var compacted *kv.CompactedError
		_, err := v.Range(&kv.Range{Key: []byte("a"), Revision: rev})
		if !errors.As(err, &compacted) || compacted.Compacted != r.Status.Revision {
			t.Errorf("at the old revision: %v", err)
		}
		v.Close()
		n.stop()
		if _, err := Check(dir); err != nil {
			t.Error(err)
		}
	}
}

// TestEveryFlippedBitIsFound flips, cuts and adds in a backup.
func TestEveryFlippedBitIsFound(t *testing.T) {
	good := first(t)
	if _, err := Verify(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	for bit := range len(good) * 8 {
		bad := bytes.Clone(good)
		bad[bit/8] ^= 1 << (bit % 8)
		if m, err := Verify(bytes.NewReader(bad)); err == nil {
			t.Errorf("bit %d: verified as %+v", bit, m)
		}
	}
	for n := range good {
		if _, err := Verify(bytes.NewReader(good[:n])); err == nil {
			t.Errorf("verified the first %d bytes", n)
		}
	}
	if _, err := Verify(bytes.NewReader(append(bytes.Clone(good), 0))); err == nil {
		t.Error("verified with a byte behind the end")
	}
}

func TestRestoreIsAllOrNothing(t *testing.T) {
	good := first(t)
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	for name, bad := range map[string][]byte{
		"flipped": append(bytes.Clone(good[:60]), append([]byte{good[60] ^ 1}, good[61:]...)...),
		"cut":     good[:len(good)-1],
		"longer":  append(bytes.Clone(good), 0),
		"empty":   nil,
	} {
		if _, err := Restore(dir, bytes.NewReader(bad), Plan{}); err == nil {
			t.Errorf("%s: restored", name)
		}
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Fatalf("%s: left %v, %v", name, left, err)
		}
	}
	// A restore that was killed leaves dir.tmp.
	if err := os.MkdirAll(filepath.Join(dir+".tmp", "wal", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir+".tmp", "wal", "x", "y"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil { // an empty one is taken
		t.Fatal(err)
	}
	members := []kv.Member{{ID: 1, Name: "a"}, {ID: 2, Name: "b"}}
	if _, err := Restore(dir, bytes.NewReader(good), Plan{Cluster: 9, Members: members, Self: 1}); err != nil {
		t.Fatal(err)
	}
	if f, err := memberfile.Load(vfs.OS(), dir); err != nil || f.ID != 2 || f.Name != "b" || f.Cluster != 9 {
		t.Errorf("member file %+v, %v", f, err)
	}
	if left, _ := os.ReadDir(parent); len(left) != 1 {
		t.Errorf("left %v", left)
	}
	if _, err := Restore(dir, bytes.NewReader(good), Plan{}); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("restored over a directory: %v", err)
	}
	for _, p := range []Plan{{Members: members}, {Cluster: 1, Members: members, Self: 2}, {Cluster: 1, Members: []kv.Member{{ID: 1}, {ID: 1}}}} {
		if _, err := Restore(filepath.Join(parent, "other"), bytes.NewReader(good), p); err == nil {
			t.Errorf("restored %+v", p)
		}
	}
}

// TestRestoreFailsCleanly fails each operation of the file system in turn.
func TestRestoreFailsCleanly(t *testing.T) {
	good := first(t)
	for at := 1; ; at++ {
		n := 0
		fsys := failing{FS: vfs.OS(), fail: func() error {
			if n++; n == at {
				return errors.New("no more disk")
			}
			return nil
		}}
		dir := filepath.Join(t.TempDir(), "data")
		_, err := restore(fsys, dir, bytes.NewReader(good), Plan{})
		_, serr := os.Stat(dir)
		if n < at {
			if err != nil || serr != nil || at < 10 {
				t.Errorf("%d operations: %v, %v", n, err, serr)
			}
			return
		}
		// What is prepared ahead of need may fail unnoticed.
		if _, cerr := Check(dir); err == nil && serr != nil || serr == nil && cerr != nil {
			t.Errorf("operation %d failed: restore %v, directory %v, check %v", at, err, serr, cerr)
		}
	}
}

// failing fails operations on names.
type failing struct {
	vfs.FS
	fail func() error
}

func (f failing) OpenFile(name string, flag int) (vfs.File, error) {
	if err := f.fail(); err != nil {
		return nil, err
	}
	return f.FS.OpenFile(name, flag)
}

func (f failing) Rename(a, b string) error {
	return cmpErr(f.fail(), func() error { return f.FS.Rename(a, b) })
}
func (f failing) SyncDir(d string) error {
	return cmpErr(f.fail(), func() error { return f.FS.SyncDir(d) })
}
func (f failing) MkdirAll(d string) error {
	return cmpErr(f.fail(), func() error { return f.FS.MkdirAll(d) })
}

func cmpErr(err error, f func() error) error {
	if err != nil {
		return err
	}
	return f()
}

// fickle is a source whose snapshot is replaced while it is asked for.
type fickle struct {
	*member
	times int
}

func (f *fickle) SendTo(i uint64, w io.Writer) error {
	if f.times--; f.times >= 0 {
		return fmt.Errorf("%w: index %d", snap.ErrNotFound, i)
	}
	return f.member.SendTo(i, w)
}

func TestCreateWhenSnapshotsMove(t *testing.T) {
	dir, _ := restored(t, first(t))
	n := start(t, dir)
	n.put(t, "a", "1", 0)
	var b bytes.Buffer
	if _, err := Create(t.Context(), &b, &fickle{n, attempts - 1}); err != nil {
		t.Error(err)
	}
	if _, err := Verify(&b); err != nil {
		t.Error(err)
	}
	if _, err := Create(t.Context(), io.Discard, &fickle{n, attempts}); !errors.Is(err, snap.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Create(ctx, io.Discard, n); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// tree is all bytes of a directory.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestCheck(t *testing.T) {
	dir, hashes := busy(t)
	before := tree(t, dir)
	r, err := Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	if last := slices.Max(slices.Collect(maps.Keys(hashes))); uint64(r.Status.Applied)+5 < last || r.From < 40 {
		t.Errorf("replayed from %d to %d, the member had applied %d", r.From, r.Status.Applied, last)
	}
	if want, ok := hashes[uint64(r.Status.Applied)]; ok && want != r.Status.Hash || r.Status.Hash == 0 || r.Status.Revision < 50 {
		t.Errorf("hash %x, want %x: %+v", r.Status.Hash, want, r.Status)
	}
	if len(r.Snapshots) != 2 || r.Log.Last < uint64(r.Status.Applied) || r.Member.Cluster != uint64(r.Status.Cluster) {
		t.Errorf("report %+v", r)
	}
	if !maps.Equal(before, tree(t, dir)) {
		t.Error("the check changed the directory")
	}
}

func TestCheckFindsDamage(t *testing.T) {
	dir, _ := busy(t)
	whole := tree(t, dir)
	undo := func() {
		for path, b := range whole {
			if err := os.WriteFile(path, []byte(b), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	for path, b := range whole {
		at := len(b) / 2
		if strings.Contains(path, "wal") {
			at = 700 // the middle is zeros that were never used
		}
		if len(strings.Trim(b, "\x00")) < 1000 && strings.Contains(path, "wal") {
			continue // prepared or reserve
		}
		bad := []byte(b)
		bad[at] ^= 4
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Check(dir)
		var d *DamageError
		if !errors.As(err, &d) || !strings.Contains(err.Error(), filepath.Base(path)) || d.Next == "" {
			t.Errorf("%s: %v", path, err)
		}
		undo()
	}
	if _, err := Check(dir); err != nil {
		t.Errorf("whole again: %v", err)
	}
}

func TestCheckRefuses(t *testing.T) {
	if _, err := Check(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	dir := t.TempDir()
	if _, err := Check(dir); err == nil || !strings.Contains(err.Error(), "not a data directory") {
		t.Errorf("empty: %v", err)
	}
	if err := memberfile.Save(vfs.OS(), dir, memberfile.File{ID: 1}); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(dir); err != nil || r.Member.ID != 1 {
		t.Errorf("not founded yet: %+v, %v", r, err)
	}
	l, err := vfs.OS().Lock(filepath.Join(dir, "LOCK"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Check(dir); !errors.Is(err, vfs.ErrLocked) {
		t.Errorf("running: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	other, _ := restored(t, first(t))
	f, err := memberfile.Load(vfs.OS(), other)
	if err != nil {
		t.Fatal(err)
	}
	f.Cluster++
	if err := memberfile.Save(vfs.OS(), other, f); err != nil {
		t.Fatal(err)
	}
	var wrong *memberfile.ClusterError
	if _, err := Check(other); !errors.As(err, &wrong) {
		t.Errorf("another cluster's: %v", err)
	}
}

// TestCheckOfATornEnd: what a power cut leaves is no damage, and the check does
// not repair it.
func TestCheckOfATornEnd(t *testing.T) {
	dir, _ := busy(t)
	n := start(t, dir)
	n.put(t, "long", strings.Repeat("x", 10*vfs.SectorSize), 0)
	n.stop()
	r, err := Check(dir)
	if err != nil {
		t.Fatal(err)
	}
	last := r.Log.Segments[0]
	for _, s := range r.Log.Segments {
		if s.Last > last.Last {
			last = s
		}
	}
	f, err := os.OpenFile(last.File, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	// The last sector of the last batch never came to the disk.
	if _, err := f.WriteAt(make([]byte, vfs.SectorSize), last.Used-vfs.SectorSize); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	torn, err := Check(dir)
	if err != nil || !torn.Log.Torn || torn.Status.Applied+5 < r.Status.Applied || torn.Status.Applied > r.Status.Applied {
		t.Errorf("%v: %+v, was %+v", err, torn.Status, r.Status)
	}
	if !maps.Equal(before, tree(t, dir)) {
		t.Error("the check repaired it")
	}
}
