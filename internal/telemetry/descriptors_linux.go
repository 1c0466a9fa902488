package telemetry

import (
	"os"

	"golang.org/x/sys/unix"
)

// descriptors tells how many file descriptors are open, and how many may be; 0
// where that is not known.
func descriptors() (used, limit float64) {
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		used = float64(len(open) - 1) // one is of the directory itself
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &l) == nil {
		limit = float64(l.Cur)
	}
	return used, limit
}
