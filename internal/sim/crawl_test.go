package sim

import (
	"strings"
	"testing"
	"time"
)

// quick has networks and disks that are quick against an election timeout.
func quick(m *mix) {
	manyLeaderReads(m)
	m.net.slow, m.disk.slow, m.limits.snapshotBytes = 0, 0, 64<<20
	m.load.weights[actPut] = 3
}

// TestSlowDisks simulates clusters in which the leader's disk becomes slow, again
// and again: leadership leaves it, once.
func TestSlowDisks(t *testing.T) {
	for seed := *flagStart; seed < *flagStart+2; seed++ {
		var told strings.Builder
		res := Run(Options{Seed: seed, Nodes: 3, Chaos: 30 * time.Second, Calm: 8 * time.Second, Bug: &Bug{Mix: quick}, Faults: []string{"crawl"}, Trace: &told})
		report(t, res)
		crawls := strings.Count(told.String(), "disk crawls until")
		if crawls == 0 || res.Elections > crawls+2 {
			t.Errorf("seed %d: %d times the leader's disk was slow, and %d leaders were elected", seed, crawls, res.Elections)
		}
	}
}
