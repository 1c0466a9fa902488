package main

import (
	"context"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/server"
)

// limitSettings bound what callers together and alone may ask of a member.
type limitSettings struct {
	Memory string `set:"memory-limit" usage:"memory that this member may take: a share of what its cgroup or the machine has, as 75%, or bytes, as 4GiB; when it is reached writes that make the state larger are refused; off for none"`

	memory int64 // Memory in bytes; 0 is none
}

// leastMemory is the smallest memory limit.
const leastMemory = 64 << 20

// check tells what is wrong, and finds out how much memory the limit is.
func (l *limitSettings) check() error {
	return l.checkMemory(os.DirFS("/"))
}

// checkMemory reads the memory limit. root is the root of the file system.
func (l *limitSettings) checkMemory(root fs.FS) error {
	l.memory = 0
	if l.Memory == "off" || l.Memory == "0" || l.Memory == "" {
		return nil
	}
	if share, ok := strings.CutSuffix(l.Memory, "%"); ok {
		percent, err := strconv.ParseFloat(share, 64)
		if err != nil || !(percent > 0 && percent <= 100) {
			return usagef("--memory-limit %s is no share; use 1%% to 100%%", l.Memory)
		}
		if all := machineMemory(root); all > 0 {
			l.memory = max(int64(float64(all)*percent/100), leastMemory)
		}
		return nil
	}
	var bytes byteSize
	if err := bytes.Set(l.Memory); err != nil {
		return usagef("--memory-limit %q is no amount of memory; write it as 75%%, 4GiB or off", l.Memory)
	}
	if bytes < leastMemory {
		return usagef("--memory-limit %s is out of range; use %s or more, or off", bytes, byteSize(leastMemory))
	}
	l.memory = int64(bytes)
	return nil
}

// inFlightShare of the memory limit may be taken by large requests under way, or
// what two of the largest take where that is more.
const inFlightShare = 8

// apply sets the server's part.
func (l *limitSettings) apply(cfg *server.Config) {
	if l.memory > 0 {
		cfg.Clients.InFlightBytes = min(512<<20, max(l.memory/inFlightShare, 2*cfg.Limits.RequestBytes))
	}
}

// tend has the heap keep to the memory limit for as long as node runs, and
// returns what ends that.
func (l *limitSettings) tend(node *concord.Node) (end func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tendHeap(ctx, l.memory, func() int64 { return node.Status().MemoryBytes })
	}()
	return func() {
		cancel()
		<-done
	}
}
