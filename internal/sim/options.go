package sim

import (
	"fmt"
	"io"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Options say what to run. Only Seed is needed; the rest of the run follows
// from it.
type Options struct {
	// Seed decides everything.
	Seed uint64
	// Nodes is the number of founding members; 0 lets the seed choose 1, 3 or
	// 5.
	Nodes int
	// Chaos is how long faults last in virtual time, 0 means 45s; Calm how
	// long the healed cluster then runs, 0 means 15s.
	Chaos, Calm time.Duration
	// Trace, when not nil, receives a line for each thing that happens.
	Trace io.Writer
	// Bug, when not nil, is planted into every node: the tests of the tests.
	Bug *Bug
	// Faults names the only faults wanted; empty lets the seed choose.
	Faults []string
}

// Result is what a run was. A run that broke a promise has an error.
type Result struct {
	Seed uint64
	// Hash is over everything that happened: equal for equal options.
	Hash uint64
	// Events is how many events were run, Virtual the time simulated.
	Events  uint64
	Virtual time.Duration
	// At is the virtual time of the violation, if there was one.
	At time.Duration
	// Err is the violation found, or nil.
	Err error
	// Committed entries, requests that clients saw succeed, process starts,
	// elections, and operations that porcupine decided.
	Committed, Acked, Starts, Elections, Checked int
	// Tally counts more of what happened, for people.
	Tally string
	// Summary tells the mix that the seed drew.
	Summary string
}

// String tells the result in a line.
func (r Result) String() string {
	verdict := "ok"
	if r.Err != nil {
		verdict = fmt.Sprintf("FAIL at %v: %v", r.At, r.Err)
	}
	return fmt.Sprintf("seed %d hash %016x %v %d events, %d entries, %d acked, %d starts, %d elections: %s",
		r.Seed, r.Hash, r.Virtual, r.Events, r.Committed, r.Acked, r.Starts, r.Elections, verdict)
}

// mix is what one seed draws: the swarm.
type mix struct {
	nodes    int
	election time.Duration
	tick     time.Duration
	limits   limitMix
	disk     diskOptions
	net      netOptions
	apply    time.Duration // mean time to apply an entry
	skew     float64       // clocks run at 1 ± skew
	load     loadMix
	tend     tendMix
}

// limitMix are the limits of the replica that a run draws, often absurdly
// small ("buggify": Zhou et al., "FoundationDB: A Distributed Unbundled
// Transactional Key Value Store", SIGMOD 2021).
type limitMix struct {
	snapshotBytes int64 // log since the last snapshot that asks for the next
	logBytes      int64 // of the log kept behind a snapshot
	messageBytes  int   // of entries in one message
	entryBytes    int   // of an entry
	cacheBytes    int64 // of recent entries in memory
	segmentBytes  int64 // of the log
	leaderReads   bool
}

// loadMix is what clients do.
type loadMix struct {
	clients, keys int
	think         time.Duration
	watchers      int
	leases        int
	valueBytes    int
	timeout       time.Duration
	compact       time.Duration // mean time between compactions; 0: never
	rights        time.Duration // mean time between changes of users and roles; 0: never
	weights       [actions]int
	levels        []kv.ReadLevel
}

// drawMix lets the seed choose.
func drawMix(o *Options, rnd chance) mix {
	m := mix{nodes: o.Nodes}
	if m.nodes == 0 {
		m.nodes = pick(rnd, 1, 3, 3, 3, 3, 5)
	}
	m.election = pick(rnd, 300*time.Millisecond, time.Second)
	m.tick = m.election / 10
	m.skew = pick(rnd, 0, 0, 0.0001, 0.01, 0.05)
	m.apply = pick(rnd, 0, 10*time.Microsecond, 10*time.Microsecond, time.Millisecond, 5*time.Millisecond)
	m.net = netOptions{
		latency:   rnd.spread(20*time.Microsecond, m.election/20),
		floor:     20 * time.Microsecond,
		drop:      pick(rnd, 0, 0, 0.001, 0.01, 0.1),
		dup:       pick(rnd, 0, 0, 0.001, 0.05),
		slow:      pick(rnd, 0, 0, 0.001, 0.02),
		bandwidth: pick(rnd, 0, 1e6, 1e8),
		queue:     pick(rnd, 16, 256, 4096),
	}
	m.disk = diskOptions{
		write: rnd.spread(50*time.Microsecond, 5*time.Millisecond),
		slow:  pick(rnd, 0, 0, 0.001, 0.02),
	}
	m.limits = limitMix{
		snapshotBytes: pick[int64](rnd, 1<<10, 16<<10, 64<<10, 64<<20),
		logBytes:      pick[int64](rnd, 1, 500, 16<<10, 0),
		messageBytes:  pick(rnd, 64, 1024, 256<<10),
		entryBytes:    pick(rnd, 64, 1024, 1<<20),
		cacheBytes:    pick[int64](rnd, 1, 4096, 1<<20),
		segmentBytes:  pick[int64](rnd, 4<<10, 64<<10, 1<<20),
		leaderReads:   rnd.is(0.4),
	}
	m.load = drawLoad(rnd)
	if o.Seed%2 == 1 && o.Bug == nil {
		m.load.rights = m.election // often, so that many writes meet a change
	}
	return m
}

func drawLoad(rnd chance) loadMix {
	l := loadMix{
		clients:    pick(rnd, 2, 5, 10),
		keys:       pick(rnd, 2, 5, 20),
		think:      rnd.spread(5*time.Millisecond, 200*time.Millisecond),
		watchers:   pick(rnd, 0, 2, 5),
		leases:     pick(rnd, 0, 2, 5),
		valueBytes: pick(rnd, 0, 0, 100, 1000),
		timeout:    pick(rnd, 300*time.Millisecond, time.Second, 5*time.Second),
		compact:    pick(rnd, 0, time.Second, 10*time.Second),
		levels:     pick(rnd, []kv.ReadLevel{kv.Strong}, []kv.ReadLevel{kv.Strong, kv.Leader, kv.Eventual}, []kv.ReadLevel{kv.Leader}),
	}
	for i := range l.weights {
		l.weights[i] = pick(rnd, 0, 1, 1, 3)
	}
	l.weights[actGet] = max(l.weights[actGet], 2)
	l.weights[actPut] = max(l.weights[actPut], 2)
	return l
}

func (m *mix) String() string {
	return fmt.Sprintf("nodes=%d election=%v skew=%g apply=%v net=%+v disk=%+v limits=%+v load=%+v tend=%+v",
		m.nodes, m.election, m.skew, m.apply, m.net, m.disk, m.limits, m.load, m.tend)
}
