package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slackTold is set in the process that [TestCoarsenTimers] starts.
const slackTold = "CONCORD_TEST_SLACK"

// TestCoarsenTimers: the process goes on with coarser timers as itself, and
// leaves alone a slack that somebody chose, and a process with one processor.
func TestCoarsenTimers(t *testing.T) {
	if os.Getenv(slackTold) != "" {
		coarsenTimers()
		slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
		fmt.Println("told", os.Getpid(), os.Args[0], os.Args[2], slack, err)
		return
	}
	runtime.LockOSThread() // a child inherits the slack of the thread that forks
	defer runtime.UnlockOSThread()
	before, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(before), 0, 0, 0); err != nil {
			t.Error(err)
		}
	}()
	const chosen = 77 * time.Microsecond
	for _, c := range []struct {
		given, want time.Duration
		processors  string
	}{{kernelSlack, memberSlack, "2"}, {kernelSlack, kernelSlack, "1"}, {chosen, chosen, "2"}} {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(c.given), 0, 0, 0); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], "-test.run=^TestCoarsenTimers$", "an argument")
		cmd.Args[0] = "a name"
		cmd.Env = append(os.Environ(), slackTold+"=1", "GOMAXPROCS="+c.processors)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if told := fmt.Sprintln("told", cmd.Process.Pid, "a name an argument", int(c.want), nil); !strings.Contains(string(out), told) {
			t.Errorf("with a slack of %v and %s processors the process said %q, not %q", c.given, c.processors, out, told)
		}
	}
}
