package main

import (
	"os"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// kernelSlack is how late Linux lets a timer of a process be whose parent
	// asked for nothing, see PR_SET_TIMERSLACK in prctl(2).
	kernelSlack = 50 * time.Microsecond
	// memberSlack is how late one may be in a member. The Go runtime's monitor
	// sleeps for 20 µs, again and again, while a goroutine is in a system call:
	// with the kernel's slack it took a fifth of a member's processor time under
	// puts, most of it for threads put to sleep and woken (docs/BENCHMARKS.md). The
	// shortest time that a member keeps is a tick of 20 ms.
	memberSlack = time.Millisecond
)

// coarsenTimers lets timers of this process be late by memberSlack. A thread
// inherits that from the one that made it and the monitor is there before main,
// so the program starts again in its place: same process, arguments, environment.
// Where the slack is not the kernel's own, or something fails, all stays as it is,
// and also with a single processor for goroutines: the monitor takes it from one
// that waits for the disk, which must not be late.
// To be called before anything is read or opened.
func coarsenTimers() {
	if runtime.GOMAXPROCS(0) == 1 {
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || slack != int(kernelSlack) {
		return
	}
	program, err := ownProgram()
	if err == nil && unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(memberSlack), 0, 0, 0) == nil {
		_ = unix.Exec(program, os.Args, os.Environ()) // returns only if it failed: then without
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(kernelSlack), 0, 0, 0)
	}
}

// ownProgram is this program's file, by the name that it was called by where that
// is known, so that tools like pgrep go on finding it by that.
func ownProgram() (string, error) {
	own, err := os.Executable()
	if err != nil {
		return "", err
	}
	if called, err := exec.LookPath(os.Args[0]); err == nil && sameFile(called, own) {
		return called, nil
	}
	return own, nil
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}
