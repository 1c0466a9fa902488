package backup

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

// Plan says what cluster a backup becomes. The zero Plan is a new cluster of one
// new member.
type Plan struct {
	// Cluster is the new cluster's id; 0 chooses a random one.
	Cluster kv.ClusterID
	// Members are the new cluster's members. To start it with several, call
	// Restore for each with equal Cluster and Members. Ids must be new; with
	// one member, id 0 chooses a random one, and none means a member "n1".
	Members []kv.Member
	// Self is the index in Members of the one whose directory this is.
	Self int
	// Bump is how far above the backup's the new cluster's first revision is, so
	// that it is above all that the old cluster has given out since: what
	// clients remember of it never lies in the future, and reads and watches
	// from an old revision are told that it is compacted, so that they start
	// anew. 0 goes on from the backup's revision and keeps its history: right
	// only when nothing was written after it.
	Bump kv.Revision
}

// DefaultBump is more revisions than a busy cluster makes in weeks, at 1,000
// writes a second for example in eleven days; etcd's documentation advises the
// same number.
const DefaultBump kv.Revision = 1_000_000_000

// Restored says what Restore made.
type Restored struct {
	Plan
	// From is what the backup was of.
	From snap.Meta
	// Status is the new cluster's at its start.
	Status kv.Status
}

// Restore builds the data directory dir of a new cluster from a backup. Keys,
// leases and settings are those of the backup. Revisions go on p.Bump above the
// backup's, and cluster time goes on from it: leases and TTLs keep what was left
// of them. What was written after the backup was made is not there.
//
// dir must not exist or be empty. It is built as dir.tmp, made durable, and
// then gets its name: after an error, or a crash, there is no dir, or it is
// complete.
func Restore(dir string, backup io.Reader, p Plan) (Restored, error) {
	return restore(vfs.OS(), dir, backup, p)
}

func restore(fsys vfs.FS, dir string, backup io.Reader, p Plan) (Restored, error) {
	dir = filepath.Clean(dir)
	p, err := p.complete()
	if err == nil {
		err = vacant(fsys, dir)
	}
	if err != nil {
		return Restored{}, fmt.Errorf("restore backup: %w", err)
	}
	temp := dir + ".tmp"
	var done Restored
	if err = removeAll(fsys, temp); err == nil {
		done, err = build(fsys, temp, backup, p)
	}
	if err == nil {
		err = settle(fsys, temp, dir)
	}
	if err != nil {
		return Restored{}, fmt.Errorf("restore backup: %w", errors.Join(err, removeAll(fsys, temp)))
	}
	return done, nil
}

func (p Plan) complete() (Plan, error) {
	if len(p.Members) == 0 {
		p.Members = []kv.Member{{Name: "n1"}}
	}
	p.Members = slices.Clone(p.Members)
	if len(p.Members) == 1 && p.Members[0].ID == 0 {
		p.Members[0].ID = kv.MemberID(random())
	}
	if p.Cluster == 0 && len(p.Members) > 1 {
		return p, errors.New("several members need one cluster id, given to each of them")
	}
	if p.Cluster == 0 {
		p.Cluster = kv.ClusterID(random())
	}
	if p.Bump < 0 || p.Bump > 1<<40 {
		return p, fmt.Errorf("a bump of %d revisions is out of range; use 0 to %d", p.Bump, int64(1)<<40)
	}
	if p.Self < 0 || p.Self >= len(p.Members) {
		return p, fmt.Errorf("there are %d members, and this is none of them", len(p.Members))
	}
	return p, nil
}

func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails
	return max(binary.LittleEndian.Uint64(b[:]), 1)
}

// vacant makes sure that there is nothing in dir.
func vacant(fsys vfs.FS, dir string) error {
	names, err := fsys.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(names) > 0:
		return kv.Errorf(kv.FailedPrecondition, "%s is not empty; give a directory that does not exist yet", dir)
	}
	return nil
}

// build makes a whole data directory.
func build(fsys vfs.FS, dir string, backup io.Reader, p Plan) (Restored, error) {
	m := machine.New(machine.Options{})
	defer m.Close()
	from, err := load(fsys, filepath.Join(dir, "backup"), backup, m)
	if err != nil {
		return Restored{}, err
	}
	status, err := found(fsys, dir, m, p)
	return Restored{Plan: p, From: from, Status: status}, err
}

// found makes the state of m that of a new cluster, and dir the whole data
// directory of its member.
func found(fsys vfs.FS, dir string, m *machine.Machine, p Plan) (kv.Status, error) {
	if p.Bump > 0 {
		m.Raise(m.Status().Revision + p.Bump)
	}
	m.Bootstrap(p.Cluster, p.Members)
	voters := make([]uint64, len(p.Members))
	for i, member := range p.Members {
		voters[i] = uint64(member.ID)
	}
	meta, err := replica.FirstSnapshot(uint64(p.Cluster), voters)
	if err != nil {
		return kv.Status{}, err
	}
	status := m.Status()
	meta.Time, meta.Hash = int64(status.Time), status.Hash
	snaps, err := snap.Open(fsys, filepath.Join(dir, "snap"), snap.Options{})
	if err != nil {
		return kv.Status{}, err
	}
	write, release := m.Snapshot()
	defer release()
	if _, err := snaps.Create(meta, write); err != nil {
		return kv.Status{}, err
	}
	// One batch is all that is written.
	log, err := wal.Open(fsys, filepath.Join(dir, "wal"), wal.Options{Synchronous: true, SegmentSize: 1 << 20, Reserve: -1})
	if err != nil {
		return kv.Status{}, err
	}
	if err := errors.Join(log.Append(replica.FirstBatch()), log.Close()); err != nil {
		return kv.Status{}, err
	}
	self := p.Members[p.Self]
	err = memberfile.Save(fsys, dir, memberfile.File{ID: uint64(self.ID), Name: self.Name, Cluster: uint64(p.Cluster)})
	return status, err
}

// load gives m the state in a backup, which it keeps in dir meanwhile.
func load(fsys vfs.FS, dir string, backup io.Reader, m *machine.Machine) (snap.Meta, error) {
	store, err := snap.Open(fsys, dir, snap.Options{})
	if err != nil {
		return snap.Meta{}, err
	}
	meta, err := store.Receive(backup)
	if err != nil {
		return meta, err
	}
	if n, err := io.ReadFull(backup, make([]byte, 1)); n > 0 || err != io.EOF {
		return meta, fmt.Errorf("the backup goes on behind its end: %w", errors.Join(err, snap.ErrFormat))
	}
	r, err := store.Open(meta.Index)
	if err != nil {
		return meta, err
	}
	if err := errors.Join(m.Restore(r), r.Close()); err != nil {
		return meta, err
	}
	if err := sameState(meta, m); err != nil {
		return meta, err
	}
	return meta, removeAll(fsys, dir)
}

// sameState makes sure that a state is the one that its snapshot names.
func sameState(meta snap.Meta, m *machine.Machine) error {
	if index, hash := m.Hash(); index != meta.Index || hash != meta.Hash {
		return fmt.Errorf("the state has index %d and hash %x, its snapshot names index %d and hash %x: %w", index, hash, meta.Index, meta.Hash, kv.ErrCorrupt)
	}
	return nil
}

// settle gives the directory its name.
func settle(fsys vfs.FS, temp, dir string) error {
	if err := fsys.SyncDir(temp); err != nil {
		return err
	}
	if err := fsys.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace the empty directory: %w; if it is a mount point, give a directory inside it", err)
	}
	if err := fsys.Rename(temp, dir); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(dir))
}

// removeAll removes a tree, if it is there.
func removeAll(fsys vfs.FS, path string) error {
	err := fsys.Remove(path)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	names, lerr := fsys.ReadDir(path)
	if lerr != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(fsys, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return fsys.Remove(path)
}
