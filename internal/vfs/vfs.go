// Package vfs is the file system that the disk packages see: [OS], the real
// one, and [Mem], a deterministic one in memory that can crash.
//
// The contract is what a POSIX file system promises and no more. Bytes are
// durable after File.Sync returns nil, names after SyncDir returns nil, and
// nothing before. A 512-byte sector is written whole or not at all. After a
// failed Sync nothing is known about the bytes written since the one before,
// and a later Sync that succeeds says nothing about them.
package vfs

import (
	"errors"
	"fmt"
	"io"
)

// SectorSize is the unit in which a disk writes whole or not at all, in bytes.
const SectorSize = 512

// FS is a file system. All methods may be called concurrently. Names use
// slashes. Errors match fs.ErrNotExist, fs.ErrExist, fs.ErrPermission, and the
// syscall errors ENOSPC and EIO.
type FS interface {
	// OpenFile opens a file with os.O_… flags. A new one gets mode 0600
	// whatever the umask. Its name is durable after SyncDir.
	OpenFile(name string, flag int) (File, error)
	// MkdirAll makes a directory and its parents, mode 0700 whatever the
	// umask, durably. Directories that exist are left as they are.
	MkdirAll(dir string) error
	// ReadDir returns the sorted names in dir.
	ReadDir(dir string) ([]string, error)
	// Rename replaces newpath atomically. It is durable after SyncDir.
	Rename(oldpath, newpath string) error
	// Remove removes a file or an empty directory. It is durable after
	// SyncDir; files that are open stay readable.
	Remove(name string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes the exclusive lock on the file name, which it makes if
	// needed, until the result is closed or the process ends. When another
	// holds it, the error is a *LockedError.
	Lock(name string) (io.Closer, error)
}

// Exchange swaps what two names of one file system stand for, in one step: at no
// time is either name missing. It is durable after SyncDir. Where fsys, or what
// is below it, cannot, the error matches errors.ErrUnsupported and nothing has
// changed.
func Exchange(fsys FS, a, b string) error {
	if e, ok := fsys.(interface{ Exchange(a, b string) error }); ok {
		return e.Exchange(a, b)
	}
	return errors.ErrUnsupported
}

// File is an open file. ReadAt and WriteAt may be called concurrently with
// each other and with Sync.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size is the length in bytes.
	Size() (int64, error)
	// Sync makes data and length durable (fdatasync).
	Sync() error
	// Truncate sets the length. New bytes are zero.
	Truncate(size int64) error
	// Allocate reserves blocks for [off, off+n), so that writing there cannot
	// meet a full disk, and extends the length if needed. Bytes never written
	// are zero. A full disk is ENOSPC now, not later.
	Allocate(off, n int64) error
}

// ErrLocked is matched by every *LockedError.
var ErrLocked = errors.New("locked by another process")

// LockedError says who holds a lock.
type LockedError struct {
	Name string
	// PID is the holder's process id, or 0 when it is not known.
	PID int
}

// Error names the file and, when known, the holder.
func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("%s is %v", e.Name, ErrLocked)
	}
	return fmt.Sprintf("%s is %v (pid %d)", e.Name, ErrLocked, e.PID)
}

// Is makes a LockedError match ErrLocked.
func (e *LockedError) Is(target error) bool { return target == ErrLocked }
