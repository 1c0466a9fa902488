package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

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

// Survey finds out what Salvage would do with dir, and changes nothing, but for a
// directory that a Salvage before it has made and not named: that gets its name.
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
// It may be repeated when it was cut off, by a crash too. Where the file system
// can exchange two names there is a directory at every moment, the old one or
// the whole new one; elsewhere [CutOff] knows the moment at which there is none.
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

// building is the name of an empty file in a directory that Salvage builds, from
// its first moment until it has the name of the old one. It tells the two apart:
// a directory named DIR.aside-N is what Salvage may delete when it has the file,
// and what nobody may delete when it has not.
const building = "BUILDING"

// CutOff returns an error when dir is not there, or empty, because [Restore] or
// [Salvage] was cut off before what they had made got its name. A member that
// started there would begin from nothing.
func CutOff(fsys vfs.FS, dir string) error {
	if names, err := fsys.ReadDir(dir); len(names) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil // it is in use, or cannot be, which is told elsewhere
	}
	dir = filepath.Clean(dir)
	found, command := complete(fsys, dir), "concord cluster recover "+dir+" --yes"
	if _, err := memberfile.Load(fsys, dir+".tmp"); found == "" && err == nil {
		found, command = dir+".tmp", "concord backup restore"
	}
	if found == "" {
		return nil
	}
	return kv.Errorf(kv.FailedPrecondition, "%s was to become %s, and that was cut off; repeat '%s', or remove it to start from nothing", found, dir, command)
}

// complete returns a directory that Salvage has built for dir, whole but still
// without its name; empty if there is none.
func complete(fsys vfs.FS, dir string) string {
	for i := 1; ; i++ {
		aside := asideName(dir, i)
		names, err := fsys.ReadDir(aside)
		if err != nil {
			return ""
		}
		if !slices.Contains(names, building) {
			continue
		}
		if _, err := memberfile.Load(fsys, aside); err == nil { // it is written last
			return aside
		}
	}
}

// resume gives dir its name when a crash came before that.
func (s *salvage) resume() error {
	_, err := s.fs.ReadDir(s.dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	build := complete(s.fs, s.dir)
	if build == "" {
		return err
	}
	if err := s.fs.Rename(build, s.dir); err != nil {
		return err
	}
	return s.settled()
}

// read gives s.m what can be read. It works on an overlay, so that nothing
// changes.
func (s *salvage) read() (err error) {
	o := newOverlay(s.fs)
	defer func() { err = errors.Join(err, o.close()) }()
	var damaged *memberfile.CorruptError
	if s.done.Member, err = memberOf(o, s.dir); errors.As(err, &damaged) {
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
	if err := s.unmark(); err != nil {
		return err
	}
	build, err := s.place()
	if err != nil {
		return err
	}
	if s.done.Status, err = found(s.fs, build, s.m, s.done.Plan); err != nil {
		return errors.Join(err, removeBuild(s.fs, build))
	}
	// Nobody may start it before its name is durable.
	unlock, err := s.fs.Lock(filepath.Join(build, "LOCK"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock.Close()) }()
	if err := s.fs.SyncDir(build); err != nil {
		return err
	}
	if err := s.swap(build); err != nil {
		return err
	}
	return s.settled()
}

// place makes the directory in which the new one is built: the first that has no
// name yet, or that was begun before.
func (s *salvage) place() (string, error) {
	for i := 1; ; i++ {
		build := asideName(s.dir, i)
		names, err := s.fs.ReadDir(build)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if len(names) > 0 && !slices.Contains(names, building) {
			continue
		}
		if err := errors.Join(removeBuild(s.fs, build), s.fs.MkdirAll(build)); err != nil {
			return "", err
		}
		f, err := s.fs.OpenFile(filepath.Join(build, building), os.O_RDWR|os.O_CREATE)
		if err != nil {
			return "", err
		}
		return build, errors.Join(f.Close(), s.fs.SyncDir(build))
	}
}

// removeBuild removes a directory that was begun, if it is there, the file that
// says so last, and no other directory.
func removeBuild(fsys vfs.FS, build string) error {
	names, err := fsys.ReadDir(build)
	if errors.Is(err, fs.ErrNotExist) || len(names) > 0 && !slices.Contains(names, building) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == building {
			continue
		}
		if err := removeAll(fsys, filepath.Join(build, name)); err != nil {
			return err
		}
	}
	return removeAll(fsys, build)
}

// swap gives build and the old directory each other's name.
func (s *salvage) swap(build string) error {
	err := vfs.Exchange(s.fs, build, s.dir)
	if err == nil {
		s.done.Aside = build
		return nil
	}
	if !errors.Is(err, errors.ErrUnsupported) {
		if errors.Is(err, syscall.EBUSY) {
			err = fmt.Errorf("%w; it is a mount point: move its files into a directory inside, and recover that", err)
		}
		return errors.Join(err, removeBuild(s.fs, build))
	}
	aside, err := SetAside(s.fs, s.dir)
	if err != nil {
		return errors.Join(err, removeBuild(s.fs, build))
	}
	if err := s.fs.Rename(build, s.dir); err != nil {
		return errors.Join(err, s.fs.Rename(aside, s.dir))
	}
	s.done.Aside = aside
	return nil
}

// settled makes the names durable, and ends the building.
func (s *salvage) settled() error {
	if err := s.fs.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	return s.unmark()
}

// unmark makes sure that dir is not taken for one that is being built, as it
// would be after a crash at the end of a recovery.
func (s *salvage) unmark() error {
	err := s.fs.Remove(filepath.Join(s.dir, building))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, s.fs.SyncDir(s.dir))
}

func asideName(dir string, i int) string { return fmt.Sprintf("%s.aside-%d", dir, i) }

// SetAside renames a data directory that may not be used again, to the first
// name that is free, and returns that. Nothing is deleted.
func SetAside(fsys vfs.FS, dir string) (string, error) {
	for i := 1; ; i++ {
		aside := asideName(dir, i)
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
