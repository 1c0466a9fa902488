//go:build unix && !linux

package vfs

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// datasync is a full sync: on macOS os.File.Sync is F_FULLFSYNC, the only one
// that reaches the disk.
func datasync(f *os.File) error { return f.Sync() }

func allocate(*os.File, int64, int64) error { return unix.ENOSYS }

func exchange(string, string) error { return errors.ErrUnsupported }
