package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

// Report is what Check found.
type Report struct {
	Member memberfile.File
	// Snapshots are those that can be listed, the newest first, with what is
	// wrong with each.
	Snapshots []SnapshotReport
	Log       wal.Report
	// From is the index of the snapshot that the log was replayed on.
	From uint64
	// Status is the state at the last entry that is known to be committed:
	// applied index, revision, hash, keys. Zero when there is none.
	Status kv.Status
	// Damage is all that is wrong, the first first.
	Damage []error
}

// SnapshotReport is what Check found of one snapshot.
type SnapshotReport struct {
	snap.Meta
	Err error
}

// DamageError tells what is wrong in a data directory and what to do.
type DamageError struct {
	Err error
	// Next is the next step, a sentence.
	Next string
}

// Error gives both.
func (e *DamageError) Error() string { return e.Err.Error() + "; " + e.Next }

// Unwrap returns what is wrong.
func (e *DamageError) Unwrap() error { return e.Err }

const (
	nextRejoin   = "if the cluster has other members, start this one with 'concord serve --rejoin' and its --peers: it gets its data from them; a member that is alone needs a backup: 'concord backup restore FILE --data-dir NEW-DIRECTORY'; 'concord cluster recover DIRECTORY' tells what can be kept without one"
	nextSnapshot = "the member starts without it, from another snapshot and the log; it writes a new one in time"
)

// Check reads everything in the data directory of a member that is not running,
// verifies it, replays the log on the newest good snapshot, and changes nothing.
// It returns the first damage, if there is any; the report has all that could be
// found out besides. It takes as much memory as the member does.
func Check(dir string) (r Report, err error) {
	fsys := vfs.OS()
	unlock, err := lock(fsys, dir)
	if err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	o := newOverlay(fsys)
	defer func() { err = errors.Join(err, o.close()) }()
	c := checker{fs: o, dir: dir, report: &r}
	if err := c.run(); err != nil {
		return r, fmt.Errorf("check %s: %w", dir, err)
	}
	if len(r.Damage) > 0 {
		return r, fmt.Errorf("check %s: %w", dir, r.Damage[0])
	}
	return r, nil
}

// lock makes sure that the member is not running. It makes no lock file: where
// there is none, nobody runs.
func lock(fsys vfs.FS, dir string) (func() error, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if name != "LOCK" {
			continue
		}
		l, err := fsys.Lock(filepath.Join(dir, name))
		if errors.Is(err, vfs.ErrLocked) {
			return nil, kv.Errorf(kv.FailedPrecondition, "the member is running: %w; stop it first, or check a backup with 'concord backup verify'", err)
		}
		if err != nil {
			return nil, err
		}
		return l.Close, nil
	}
	return func() error { return nil }, nil
}

// memberOf reads whose directory it is.
func memberOf(fsys vfs.FS, dir string) (memberfile.File, error) {
	f, err := memberfile.Load(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("there is no %s, so this is not a data directory; name that of a member: %w", memberfile.Name, fs.ErrNotExist)
	}
	return f, err
}

type checker struct {
	fs     *overlay
	dir    string
	report *Report
}

func (c *checker) damage(err error, next string) {
	c.report.Damage = append(c.report.Damage, &DamageError{Err: err, Next: next})
}

// run returns errors that are no damage.
func (c *checker) run() (err error) {
	r := c.report
	var damaged *memberfile.CorruptError
	var newer *memberfile.FormatError
	r.Member, err = memberOf(c.fs, c.dir)
	switch {
	case errors.As(err, &newer):
		return kv.Errorf(kv.FailedPrecondition, "%w", err)
	case errors.As(err, &damaged):
		c.damage(fmt.Errorf("%s is damaged: %s", damaged.File, damaged.Reason), nextRejoin)
	case err != nil:
		return err
	case r.Member.Cluster == 0:
		return nil // it has no log and no state yet
	}
	snaps, err := snap.Open(c.fs, filepath.Join(c.dir, "snap"), snap.Options{})
	if err != nil {
		return err
	}
	c.snapshots(snaps)
	return c.log(snaps)
}

func (c *checker) snapshots(snaps *snap.Store) {
	r := c.report
	for _, err := range snaps.Damaged() {
		c.damage(err, nextSnapshot)
	}
	for _, m := range snaps.List() {
		_, err := snaps.Verify(m.Index)
		if err == nil && r.Member.ID != 0 && m.Cluster != r.Member.Cluster {
			err = r.Member.CheckCluster(c.dir, fmt.Sprintf("snapshot %d", m.Index), m.Cluster)
		}
		if err != nil {
			c.damage(err, nextSnapshot)
		}
		r.Snapshots = append(r.Snapshots, SnapshotReport{Meta: m, Err: err})
	}
}

// log verifies the log and replays it.
func (c *checker) log(snaps *snap.Store) (err error) {
	dir := filepath.Join(c.dir, "wal")
	var corrupt *wal.CorruptError
	if c.report.Log, err = wal.Verify(c.fs, dir); errors.As(err, &corrupt) {
		c.damage(err, nextRejoin)
		return nil
	} else if err != nil {
		return err
	}
	log, err := wal.Open(c.fs, dir, wal.Options{Synchronous: true, Reserve: -1})
	if err != nil {
		return err
	}
	m := machine.New(machine.Options{})
	defer m.Close()
	for _, s := range c.report.Snapshots {
		if s.Err != nil || s.Index+1 < log.FirstIndex() || s.Index > log.LastIndex() {
			continue
		}
		if err := loadFrom(snaps, s.Meta, m); err != nil {
			c.damage(fmt.Errorf("snapshot %d: %w", s.Index, err), nextSnapshot)
			continue
		}
		c.report.From = s.Index
		if err := replay(m, s.Meta, log, max(log.State().Commit, s.Index)); err != nil {
			c.damage(fmt.Errorf("replay the log on snapshot %d: %w", s.Index, err), nextRejoin)
		}
		c.report.Status = m.Status()
		return log.Close()
	}
	c.damage(fmt.Errorf("the log has entries %d to %d, and no good snapshot that they follow on", log.FirstIndex(), log.LastIndex()), nextRejoin)
	return log.Close()
}

func loadFrom(snaps *snap.Store, meta snap.Meta, m *machine.Machine) error {
	r, err := snaps.Open(meta.Index)
	if err != nil {
		return err
	}
	if err := errors.Join(m.Restore(r), r.Close()); err != nil {
		return err
	}
	return sameState(meta, m)
}
