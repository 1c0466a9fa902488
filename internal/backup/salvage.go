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

// Salvaged says what Survey found, and Salvage made.
type Salvaged struct {
	// Member is the member whose directory it was, as far as it is known.
	Member memberfile.File
	// Others are the members that were with it.
	Others []kv.Member
	// Damage is all that was found, the first first.
	Damage []error
	// Snapshot and Last are the index of the snapshot that the state was read
	// from, and of the last entry of the log that was applied to it.
	Snapshot, Last uint64
	// Status is the state that is kept.
	Status kv.Status
	// Aside is where the damaged directory went; empty after Survey.
	Aside string
	// Plan is the cluster that was made; zero after Survey.
	Plan Plan
}

// Survey finds out what Salvage would do with dir, and changes nothing.
func Survey(dir string) (Salvaged, error) {
	s := salvage{fs: vfs.OS(), dir: filepath.Clean(dir)}
	return s.do(func() error { return nil })
}

// Salvage makes a member out of what can be read in dir, the directory of a
// member that does not run and has nobody to get its data from: the newest good
// snapshot, and the log up to its first damage. What stood behind it is lost,
// acknowledged or not. As after [Restore], it is a new member of a new cluster,
// whose revisions are [DefaultBump] above. The old directory is set aside, not
// deleted.
//
// It may be repeated when it was cut off: then dir.tmp holds all of the new
// directory, or nothing that is needed.
func Salvage(dir string) (Salvaged, error) {
	s := salvage{fs: vfs.OS(), dir: filepath.Clean(dir)}
	return s.do(s.replace)
}

// salvage is the work on one directory.
type salvage struct {
	fs   vfs.FS
	dir  string
	m    *machine.Machine
	done Salvaged
}

// do reads the state, and gives it to then.
func (s *salvage) do(then func() error) (_ Salvaged, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("recover %s: %w", s.dir, err)
		}
	}()
	if err := s.resume(); err != nil {
		return s.done, err
	}
	unlock, err := lock(s.fs, s.dir)
	if err != nil {
		return s.done, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	s.m = machine.New(machine.Options{})
	defer s.m.Close()
	if err := s.read(); err != nil {
		return s.done, err
	}
	return s.done, then()
}

// resume gives dir its name when a crash came before that.
func (s *salvage) resume() error {
	if _, err := s.fs.ReadDir(s.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	temp := s.dir + ".tmp"
	if _, err := memberfile.Load(s.fs, temp); err != nil { // it is written last
		return fmt.Errorf("there is no such directory: %w", fs.ErrNotExist)
	}
	return settle(s.fs, temp, s.dir)
}

// read gives s.m what can be read. It works on an overlay, so that nothing
// changes.
func (s *salvage) read() (err error) {
	o := newOverlay(s.fs)
	defer func() { err = errors.Join(err, o.close()) }()
	var damaged *memberfile.CorruptError
	if s.done.Member, err = memberfile.Load(o, s.dir); errors.As(err, &damaged) {
		s.damage(err)
	} else if err != nil {
		return err
	}
	snaps, err := snap.Open(o, filepath.Join(s.dir, "snap"), snap.Options{})
	if err != nil {
		return err
	}
	for _, err := range snaps.Damaged() {
		s.damage(err)
	}
	dir := filepath.Join(s.dir, "wal")
	if _, err := o.ReadDir(dir); errors.Is(err, fs.ErrNotExist) {
		s.damage(fmt.Errorf("there is no log: %w", err))
		return s.load(snaps, nil)
	}
	damage, err := wal.Cut(o, dir)
	if err != nil {
		return err
	}
	if damage != nil {
		s.damage(damage)
	}
	log, err := wal.Open(o, dir, wal.Options{Synchronous: true, Reserve: -1})
	if err != nil {
		return err
	}
	return errors.Join(s.load(snaps, log), log.Close())
}

func (s *salvage) damage(err error) { s.done.Damage = append(s.done.Damage, err) }

// load takes the newest snapshot that is good, and the log if there is one that
// goes on from there.
func (s *salvage) load(snaps *snap.Store, log *wal.Log) error {
	for _, meta := range snaps.List() {
		if s.done.Member.Cluster != 0 && meta.Cluster != s.done.Member.Cluster {
			s.damage(fmt.Errorf("snapshot %d is of another cluster", meta.Index))
			continue
		}
		if err := loadFrom(snaps, meta, s.m); err != nil {
			s.damage(fmt.Errorf("snapshot %d: %w", meta.Index, err))
			continue
		}
		s.done.Snapshot, s.done.Last = meta.Index, meta.Index
		if log != nil && meta.Index+1 >= log.FirstIndex() && meta.Index < log.LastIndex() {
			s.done.Last = log.LastIndex()
			if err := replay(s.m, meta, log, s.done.Last); err != nil {
				return fmt.Errorf("replay the log on snapshot %d: %w", meta.Index, err)
			}
		}
		s.done.Status = s.m.Status()
		for _, member := range s.m.Members() {
			if uint64(member.ID) != s.done.Member.ID {
				s.done.Others = append(s.done.Others, member)
			}
		}
		return nil
	}
	return fmt.Errorf("there is no good snapshot to start from; restore a backup with 'concord backup restore': %w", errors.Join(append(s.done.Damage, kv.ErrCorrupt)...))
}

// replace builds the new directory, and then gives it the name of the old one.
func (s *salvage) replace() (err error) {
	name := s.done.Member.Name
	if name == "" {
		name = "n1"
	}
	if s.done.Plan, err = (Plan{Members: []kv.Member{{Name: name}}, Bump: DefaultBump}).complete(); err != nil {
		return err
	}
	temp := s.dir + ".tmp"
	if err := removeAll(s.fs, temp); err != nil {
		return err
	}
	if s.done.Status, err = found(s.fs, temp, s.m, s.done.Plan); err != nil {
		return errors.Join(err, removeAll(s.fs, temp))
	}
	if err := s.fs.SyncDir(temp); err != nil {
		return err
	}
	if s.done.Aside, err = SetAside(s.fs, s.dir); err != nil {
		return err
	}
	return settle(s.fs, temp, s.dir)
}

// SetAside renames a data directory that may not be used again, to the first
// name that is free, and returns that. Nothing is deleted.
func SetAside(fsys vfs.FS, dir string) (string, error) {
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.aside-%d", dir, i)
		if _, err := fsys.ReadDir(aside); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return "", err
			}
			continue
		}
		if err := fsys.Rename(dir, aside); err != nil {
			return "", fmt.Errorf("set the data directory aside: %w", err)
		}
		return aside, nil
	}
}
