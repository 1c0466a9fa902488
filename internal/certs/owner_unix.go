//go:build unix

package certs

import (
	"io/fs"
	"syscall"
)

// ownedByRoot tells whether a file belongs to the machine, not to one user.
func ownedByRoot(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}
