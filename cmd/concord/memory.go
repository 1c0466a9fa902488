package main

import (
	"context"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// garbageBeforeCollection is how much a server allocates at least before the
// collector runs. State lies outside the Go heap, so that the heap is small, and
// by its own rule the collector would run many times a second: a put through
// gRPC costs a third more CPU so.
const garbageBeforeCollection = 8 << 20

// spareCollections makes the heap look larger by memory that is never touched,
// and so never resident: the collector's pace is a share of the heap. It returns
// what undoes it.
func spareCollections() func() {
	ballast := make([]byte, garbageBeforeCollection)
	return func() { runtime.KeepAlive(ballast) }
}

const (
	// heapEvery is how often the heap gets what the state leaves of the memory
	// limit, and leastHeapShare of the limit is what it has in any case: with
	// less the collector would do nothing else than run.
	heapEvery      = time.Second
	leastHeapShare = 8
	// heapStep is by which share of the limit that must have changed: each
	// change stops the program for a moment.
	heapStep = 64
)

// tendHeap has the collector work harder the less of the memory limit the state
// leaves, until ctx ends. An operator's GOMEMLIMIT has precedence.
func tendHeap(ctx context.Context, limit int64, state func() int64) {
	if limit <= 0 || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	tick := time.NewTicker(heapEvery)
	defer tick.Stop()
	for last := int64(math.MaxInt64); ; {
		heap := heapShare(limit, state())
		if change := last - heap; max(change, -change) >= limit/heapStep {
			debug.SetMemoryLimit(heap)
			last = heap
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// heapShare is what the heap may take of a limit; the ballast takes nothing.
func heapShare(limit, state int64) int64 {
	return max(limit-state, limit/leastHeapShare) + garbageBeforeCollection
}

// machineMemory is how much memory this process may take at most: the least of
// its cgroups' limits (version 2 or 1, with those above it) and the machine's
// memory; 0 where nothing says. root is the root of the file system.
func machineMemory(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	note := func(name string) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return
		}
		// Version 1 says "none" as a number near 2^63, version 2 as "max".
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
			least = min(least, n)
		}
	}
	// Source: cgroups(7), "/proc/pid/cgroup"; kernel, Documentation/admin-guide/
	// cgroup-v2.rst "Memory Interface Files" and cgroup-v1/memory.rst.
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // without one there are no groups
	for line := range strings.Lines(string(groups)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		base, files := "sys/fs/cgroup", []string{"memory.max", "memory.high"}
		if controllers != "" {
			if !strings.Contains(","+controllers+",", ",memory,") {
				continue
			}
			base, files = "sys/fs/cgroup/memory", []string{"memory.limit_in_bytes"}
		}
		// In a container the path may be that of the host, and not be there;
		// then the mount's own files are its.
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			for _, file := range files {
				note(path.Join(base, dir, file))
			}
			if dir == "/" {
				break
			}
		}
	}
	if total := totalMemory(root); total > 0 {
		least = min(least, total)
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// totalMemory is the machine's, by Linux; 0 where nothing says.
func totalMemory(root fs.FS) int64 {
	text, _ := fs.ReadFile(root, "proc/meminfo") // there is none on other systems
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == "MemTotal:" {
			if n, err := strconv.ParseInt(fields[1], 10, 53); err == nil {
				return n << 10
			}
		}
	}
	return 0
}
