package telemetry

import (
	"bytes"
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// ticks is how many units of time the kernel counts a second for user space
// (USER_HZ): 100 on every architecture that Go knows.
const ticks = 100

// The fields of /proc/self/stat that are used, counted from behind the program's
// name (proc(5), where the one behind it is the third).
const (
	statUser    = 14 - 3
	statSystem  = 15 - 3
	statThreads = 20 - 3
	statStart   = 22 - 3
	statVirtual = 23 - 3
	statPages   = 24 - 3
)

// processFigures are what Linux knows of the process, under the names that
// Prometheus's clients give the same figures. What cannot be read is left out.
func processFigures(yield func(Figure)) {
	if stat, ok := readStat(); ok {
		level := func(name, help string, v float64) { yield(Figure{Name: name, Help: help, Kind: Level, Value: v}) }
		yield(Figure{
			Name: "process_cpu_seconds_total", Help: "Total user and system CPU time spent in seconds.",
			Value: (stat[statUser] + stat[statSystem]) / ticks,
		})
		level("go_threads", "Number of OS threads created.", stat[statThreads])
		level("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat[statVirtual])
		level("process_resident_memory_bytes", "Resident memory size in bytes.", stat[statPages]*float64(os.Getpagesize()))
		if boot, ok := bootTime(); ok {
			level("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", boot+stat[statStart]/ticks)
		}
	}
	if open, err := os.ReadDir("/proc/self/fd"); err == nil {
		used := float64(len(open) - 1) // one is of the directory itself
		yield(Figure{Name: "process_open_fds", Help: "Number of open file descriptors.", Kind: Level, Value: used})
		yield(Figure{Name: "os_fd_used", Help: "The number of used file descriptors.", Kind: Level, Value: used})
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil && limit.Cur < math.MaxInt64 {
		yield(Figure{Name: "process_max_fds", Help: "Maximum number of open file descriptors.", Kind: Level, Value: float64(limit.Cur)})
		yield(Figure{Name: "os_fd_limit", Help: "The file descriptor limit.", Kind: Level, Value: float64(limit.Cur)})
	}
}

// readStat reads the numbers of /proc/self/stat.
func readStat() (fields []float64, ok bool) {
	text, err := os.ReadFile("/proc/self/stat")
	_, text, ok = bytes.Cut(text, []byte(") "))
	if err != nil || !ok {
		return nil, false
	}
	for _, word := range bytes.Fields(text) {
		v, err := strconv.ParseFloat(string(word), 64)
		if err != nil {
			v = 0 // the state, a letter
		}
		fields = append(fields, v)
	}
	return fields, len(fields) > statPages
}

// bootTime is when the system started, in seconds of Unix time.
func bootTime() (seconds float64, ok bool) {
	text, err := os.ReadFile("/proc/stat")
	_, text, ok = bytes.Cut(text, []byte("\nbtime "))
	line, _, _ := bytes.Cut(text, []byte("\n"))
	if err != nil || !ok {
		return 0, false
	}
	seconds, err = strconv.ParseFloat(string(line), 64)
	return seconds, err == nil
}
