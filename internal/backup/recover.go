package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

// Recovered says what Recover made.
type Recovered struct {
	Member memberfile.File
	// Removed are the members that are no more.
	Removed []kv.Member
	// Uncommitted is how many entries at the end of the log this member did
	// not know to be committed. They count now.
	Uncommitted uint64
	// Status is the state at the new start.
	Status kv.Status
}

// Recover makes the member in dir, which does not run, a cluster of its own,
// for when the majority is lost for good. It keeps everything in its log, also
// what it does not know to be committed: any of it may have been acknowledged.
// Keys, history, leases, settings and the ids of cluster and member stay; all
// other members are removed, and can only come back as new ones. What only the
// lost members had is lost.
//
// The others must never run again on their data: together they might be a
// majority that knows nothing of this. Recover may be repeated, after a crash
// too; before its one decisive write nothing has changed.
func Recover(dir string) (Recovered, error) { return recoverFrom(vfs.OS(), dir) }

// Started reports whether there is a member in dir that belongs to a cluster.
func Started(dir string) (bool, error) {
	f, err := memberfile.Load(vfs.OS(), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return f.Cluster != 0, err
}

func recoverFrom(fsys vfs.FS, dir string) (done Recovered, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("recover the member in %s: %w", dir, err)
		}
	}()
	unlock, err := lock(fsys, dir)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if done.Member, err = memberfile.Load(fsys, dir); err != nil {
		return done, err
	}
	if done.Member.Cluster == 0 {
		return done, errors.New("it belongs to no cluster yet; start it without recovery")
	}
	// One mark is all that is written.
	log, err := wal.Open(fsys, filepath.Join(dir, "wal"), wal.Options{Synchronous: true, SegmentSize: 1 << 20, Reserve: -1})
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	r := recovery{fs: fsys, dir: dir, log: log, done: &done}
	if err := r.finish(); err != nil { // one that was cut off
		return done, err
	}
	return done, r.run()
}

// recovery is the work on one directory. The new snapshot waits in aside until
// the log has been reset to it: before, a start must not find it, and after, it
// is all there is.
type recovery struct {
	fs   vfs.FS
	dir  string
	log  *wal.Log
	done *Recovered
}

func (r *recovery) aside() string { return filepath.Join(r.dir, "recover") }

// finish copies a snapshot that the log was reset to where it belongs, and
// removes any other.
func (r *recovery) finish() error {
	_, err := r.fs.ReadDir(r.aside())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	store, err := snap.Open(r.fs, r.aside(), snap.Options{})
	if err != nil {
		return err
	}
	mark := r.log.Mark()
	for _, m := range store.List() {
		if m.Index != mark.Index || m.Term != mark.Term || r.log.LastIndex() < m.Index {
			continue
		}
		if err := r.bring(store, m.Index); err != nil {
			return err
		}
	}
	if err := removeAll(r.fs, r.aside()); err != nil {
		return err
	}
	return r.fs.SyncDir(r.dir)
}

// bring copies a snapshot to where a start looks for it.
func (r *recovery) bring(from *snap.Store, index uint64) error {
	snaps, err := snap.Open(r.fs, filepath.Join(r.dir, "snap"), snap.Options{})
	if err != nil {
		return err
	}
	out, in := io.Pipe()
	sent := make(chan error, 1)
	go func() {
		err := from.SendTo(index, in)
		in.CloseWithError(err)
		sent <- err
	}()
	_, err = snaps.Receive(out)
	out.CloseWithError(err)
	return errors.Join(err, <-sent)
}

func (r *recovery) run() error {
	m := machine.New(machine.Options{})
	defer m.Close()
	now, err := r.replay(m)
	if err != nil {
		return err
	}
	last, state := r.log.LastIndex(), r.log.State()
	if last > state.Commit {
		r.done.Uncommitted = last - state.Commit
	}
	term, err := r.log.Term(last)
	if err != nil {
		return err
	}
	at := wal.Mark{Index: last + 1, Term: max(term, state.Term) + 1}
	if err := r.stayAlone(m, machine.Position{Index: at.Index, Term: at.Term, Now: now}); err != nil {
		return err
	}
	meta, err := replica.FirstSnapshot(r.done.Member.Cluster, []uint64{r.done.Member.ID})
	if err != nil {
		return err
	}
	r.done.Status = m.Status()
	meta.Index, meta.Term, meta.Time, meta.Hash = at.Index, at.Term, int64(r.done.Status.Time), r.done.Status.Hash
	store, err := snap.Open(r.fs, r.aside(), snap.Options{})
	if err != nil {
		return err
	}
	write, release := m.Snapshot()
	defer release()
	if _, err := store.Create(meta, write); err != nil {
		return err
	}
	if err := r.fs.SyncDir(r.dir); err != nil {
		return err
	}
	// The decision.
	if err := r.log.Append(wal.Batch{State: wal.State{Term: at.Term, Commit: at.Index}, Mark: at, Reset: true}); err != nil {
		return err
	}
	return r.finish()
}

// replay gives m the newest good snapshot and the whole log behind it, and
// returns the cluster time of the last entry.
func (r *recovery) replay(m *machine.Machine) (now int64, err error) {
	snaps, err := snap.Open(r.fs, filepath.Join(r.dir, "snap"), snap.Options{})
	if err != nil {
		return 0, err
	}
	var failed error
	for _, meta := range snaps.List() {
		if meta.Index+1 < r.log.FirstIndex() || meta.Index > r.log.LastIndex() {
			continue
		}
		if err := loadFrom(snaps, meta, m); err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if err := replay(m, meta, r.log, r.log.LastIndex()); err != nil {
			return 0, fmt.Errorf("replay the log on snapshot %d: %w", meta.Index, err)
		}
		return int64(m.Status().Time), nil
	}
	return 0, fmt.Errorf("the log has entries %d to %d, and no good snapshot that they follow on: %w", r.log.FirstIndex(), r.log.LastIndex(), errors.Join(failed, kv.ErrCorrupt))
}

// stayAlone removes all members but this one, and gives it a vote.
func (r *recovery) stayAlone(m *machine.Machine, at machine.Position) error {
	self := kv.MemberID(r.done.Member.ID)
	var changes, first []machine.MemberChange
	found := false
	for _, member := range m.Members() {
		switch {
		case member.ID != self:
			r.done.Removed = append(r.done.Removed, member)
			changes = append(changes, machine.MemberChange{Op: machine.RemoveMember, Member: kv.Member{ID: member.ID}})
			continue
		case member.Learner:
			first = []machine.MemberChange{{Op: machine.PromoteMember, Member: kv.Member{ID: self}}}
		}
		found = true
	}
	if !found {
		return kv.Errorf(kv.FailedPrecondition, "member %v is not in its own member list: it was removed, or has got no data yet; recover another one", self)
	}
	if err, failed := m.ApplyMembers(at, machine.EncodeMembers(nil, append(first, changes...)...)).(error); failed {
		return err
	}
	return nil
}
