package concord

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// resident is the memory of this process in bytes; -1 where the system does not
// tell it as Linux does.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return -1
	}
	var size, pages int64
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		return -1
	}
	return pages * int64(os.Getpagesize())
}

// processorTime is what this process has used of the machine's processors; -1
// where that is not known.
func processorTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return -1
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// diskFree is what this process may still write to the file system of dir, in
// bytes; -1 where that is not known.
func diskFree(dir string) int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return -1
	}
	return int64(s.Bavail) * int64(s.Bsize)
}
