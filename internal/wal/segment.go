package wal

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/concord-kv/concord/internal/vfs"
)

// segment is one file of the log.
type segment struct {
	head header
	path string
	file vfs.File
	size int64 // of the file, in bytes; whole sectors

	// Owned by the goroutine that appends, or recovery.
	lastPoint int64 // payload position of the last point, -1 before the first
	// Set by recovery for the report: indexes of the entries in the file.
	low, high uint64

	// used is the number of sectors in use, the header included.
	used atomic.Int64
	// refs counts the log itself and each reader; the last one closes the file.
	refs atomic.Int32
}

func newSegment(head header, path string, file vfs.File, size int64) *segment {
	s := &segment{head: head, path: path, file: file, size: size / sectorSize * sectorSize, lastPoint: -1}
	s.used.Store(1)
	s.refs.Store(1)
	return s
}

// sectors is the number of sectors that the file has room for.
func (s *segment) sectors() int64 { return s.size / sectorSize }

func (s *segment) note(low, high uint64) {
	if s.low == 0 || low < s.low {
		s.low = low
	}
	s.high = max(s.high, high)
}

// release gives up one reference and tells whether it was the last.
func (s *segment) release() (last bool, err error) {
	if s.refs.Add(-1) != 0 {
		return false, nil
	}
	return true, s.file.Close()
}

// openSegment opens an existing file and reads its header.
func openSegment(fs vfs.FS, path string, flag int) (_ *segment, err error) {
	f, err := fs.OpenFile(path, flag)
	if err != nil {
		return nil, fmt.Errorf("open log segment: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("open log segment: %w", err)
	}
	if size > maxSegment {
		return nil, &CorruptError{File: path, Reason: "the file is longer than any segment"}
	}
	win := window{file: f, path: path, buf: make([]byte, sectorSize)}
	sector, err := win.sector(0)
	if err != nil {
		return nil, err
	}
	head, err := decodeHeader(sector, path)
	if err != nil {
		return nil, err
	}
	return newSegment(head, path, f, size), nil
}
