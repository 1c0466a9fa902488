package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/concord-kv/concord/internal/vfs"
)

// Cut ends the log in dir before its first damage, which it returns; nil when
// there is none. What stood behind is lost, acknowledged or not: Cut is for what
// nobody else has, and for a member that will never vote under its old id again.
// Segments that are missing before the first one leave nothing: then, and where
// not one write is whole, all files of the log are removed.
func Cut(fs vfs.FS, dir string) (first *CorruptError, err error) {
	for {
		f, err := scanDir(fs, dir, os.O_RDWR)
		var damage *CorruptError
		if !errors.As(err, &damage) {
			return first, errors.Join(err, f.close())
		}
		if first == nil {
			first = damage
		}
		if err := errors.Join(f.cut(damage), f.close()); err != nil {
			return first, fmt.Errorf("cut the log: %w", err)
		}
	}
}

// cut removes what stands behind the last whole write. Each call removes a file
// or shortens one to what can be read, so that calls come to an end.
func (f *found) cut(damage *CorruptError) error {
	numbers, err := f.list()
	if err != nil {
		return err
	}
	keep := uint64(0) // the last segment to stay
	bad, _ := parseName(filepath.Base(damage.File))
	switch {
	case f.active >= 0 && bad >= f.segs[0].head.number && f.segs[f.active].used.Load() > 1:
		seg := f.segs[f.active]
		keep = seg.head.number
		if err := seg.file.Truncate(seg.used.Load() * sectorSize); err != nil {
			return err
		}
		if err := seg.file.Sync(); err != nil {
			return err
		}
	case f.active < 0 && bad > numbers[0]:
		keep = bad - 1 // its header is damaged; those before were not read yet
	}
	for _, n := range numbers {
		if n > keep {
			if err := f.fs.Remove(segmentPath(f.dir, n)); err != nil {
				return err
			}
		}
	}
	return f.fs.SyncDir(f.dir)
}
