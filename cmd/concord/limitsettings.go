package main

import (
	"context"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/server"
)

// limitSettings bound what callers together and alone may ask of a member.
type limitSettings struct {
	Memory      string        `set:"memory-limit" usage:"memory that this member may take: a share of what its cgroup or the machine has, as 75%, or bytes, as 4GiB; when it is reached writes that make the state larger are refused; off for none"`
	Rate        string        `set:"rate-limit" usage:"requests a second of one user, token or, without one, address, with what may come at once behind a slash, as 1000/5000 (default no limit)"`
	Connections int           `set:"max-connections" usage:"client connections (default 20000)"`
	PerAddress  int           `set:"max-connections-per-address" usage:"client connections of one address (default three quarters of all)"`
	Streams     int           `set:"max-streams" usage:"streams of one user, token or address (default 100000)"`
	Watches     int           `set:"max-watches" usage:"watches of one user, token or address (default 1000000)"`
	SlowReader  time.Duration `set:"slow-reader" usage:"how long a client may leave what it was sent unread before its stream is ended (default 1m)"`

	memory int64 // Memory in bytes; 0 is none
	rate   float64
	burst  int
}

// leastMemory is the smallest memory limit.
const leastMemory = 64 << 20

// check tells what is wrong, and finds out how much memory the limit is.
func (l *limitSettings) check() error {
	for flag, n := range map[string]int{
		"--max-connections": l.Connections, "--max-connections-per-address": l.PerAddress,
		"--max-streams": l.Streams, "--max-watches": l.Watches,
	} {
		if n < 0 {
			return usagef("%s %d is out of range; use 1 or more, or leave it away", flag, n)
		}
	}
	if l.SlowReader != 0 && l.SlowReader < time.Second {
		return usagef("--slow-reader %v is out of range; use 1s or more", l.SlowReader)
	}
	if err := l.checkRate(); err != nil {
		return err
	}
	return l.checkMemory(os.DirFS("/"))
}

// checkRate reads RATE or RATE/BURST.
func (l *limitSettings) checkRate() error {
	l.rate, l.burst = 0, 0
	if l.Rate == "" || l.Rate == "0" || l.Rate == "off" {
		return nil
	}
	perSecond, atOnce, more := strings.Cut(l.Rate, "/")
	rate, err := strconv.ParseFloat(perSecond, 64)
	burst := max(1, int(rate))
	if more && err == nil {
		burst, err = strconv.Atoi(atOnce)
	}
	if err != nil || !(rate > 0 && rate <= 1e9) || burst < 1 || burst > 1e9 {
		return usagef("--rate-limit %q is no rate; write it as 1000, or 1000/5000 for 5000 at once, or off", l.Rate)
	}
	l.rate, l.burst = rate, burst
	return nil
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
	cfg.Connections = l.Connections
	cfg.Clients = server.ClientLimits{
		Rate: l.rate, Burst: l.burst, Streams: l.Streams, Watches: l.Watches,
		Connections: l.PerAddress, SlowReader: l.SlowReader,
	}
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
