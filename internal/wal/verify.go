package wal

import (
	"errors"
	"os"

	"github.com/concord-kv/concord/internal/vfs"
)

// Report is what Verify found.
type Report struct {
	Segments    []SegmentInfo
	First, Last uint64
	State       State
	Mark        Mark
	// Torn tells that the last write was cut by a crash; Open repairs that.
	Torn bool
}

// SegmentInfo describes one segment file.
type SegmentInfo struct {
	File string
	// Size is the file's length, Used how much of it is log, in bytes.
	Size, Used int64
	// First and Last are the indexes of the entries in it, replaced ones
	// included; both 0 when it has none.
	First, Last uint64
}

// Verify reads the whole log in dir without changing anything. The report
// holds what was found up to the first damage, which is the error.
func Verify(fs vfs.FS, dir string) (Report, error) {
	f, err := scanDir(fs, dir, os.O_RDONLY)
	r := Report{First: f.index.first(), Last: f.index.last, State: f.index.state, Mark: f.index.mark, Torn: f.torn}
	for _, s := range f.segs {
		info := SegmentInfo{File: s.path, Size: s.size, First: s.low, Last: s.high}
		if used := s.used.Load(); used > 1 {
			info.Used = used * sectorSize
		}
		r.Segments = append(r.Segments, info)
	}
	return r, errors.Join(err, f.close())
}
