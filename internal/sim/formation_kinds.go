package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/founding"
)

// formationMix is what one seed draws of a kind.
type formationMix struct {
	processes int
	// expect is how many found the cluster; 0 means that all have a list.
	expect   int
	patience founding.Patience
	starts   []time.Duration
	// mistaken: not all were started alike. alone: a process may found the
	// cluster by itself, and only its patience keeps others from doing so.
	mistaken, alone bool
	// claims: a late process of a list takes the place that was kept for it,
	// and not one beside it.
	claims bool
	moves  bool
	traffic
	harms
	// last is how long a healed formation may take at most: a few times
	// everything that a process waits for by the clock. It took so long.
	last, took time.Duration
}

// traffic is the network and the disks of a run.
type traffic struct {
	interval, discovery, latency, fsync time.Duration
	drop, dup, slow                     float64
}

// harms are the mean times between faults; 0: never.
type harms struct {
	chaos                        time.Duration
	crash, down, wipe, partition time.Duration
	wipes                        int     // at most
	decided                      float64 // chance that a disk is lost that has just decided
}

func (m *formationMix) String() string {
	return fmt.Sprintf("processes=%d expect=%d patience=%+v starts=%v mistaken=%v claims=%v moves=%v traffic=%+v harms=%+v",
		m.processes, m.expect, m.patience, m.starts, m.mistaken, m.claims, m.moves, m.traffic, m.harms)
}

// settings are what a process is started with.
func (m *formationMix) settings(p *seeker) founding.Settings {
	s := founding.Settings{Group: "g", Name: p.name, ClientAddrs: []string{"c" + p.name}, Patience: m.patience}
	if m.expect > 0 {
		s.Expect, s.Addrs = m.expect, []string{p.addr}
		if m.mistaken && p.slot == 0 {
			s.Expect++
		}
		return s
	}
	s.Peers = map[string][]string{}
	for _, q := range p.f.seekers {
		if m.mistaken && p.slot < 3 && q.slot >= 3 {
			continue // a shorter list
		}
		s.Peers[q.name] = []string{q.addr}
	}
	return s
}

// one reports whether there can only be one cluster out of so many processes
// without state.
func (m *formationMix) one(identities int) bool {
	return m.expect == 0 && !m.mistaken || m.alone || 2*m.expect > identities
}

// formationKinds are what can be run.
var formationKinds = map[string]func(m *formationMix, seed uint64, rnd chance){
	"five":     kindFive,
	"ten":      kindTen,
	"three":    kindThree,
	"alone":    kindAlone,
	"list":     kindList,
	"wiped":    kindWiped,
	"relist":   kindRelist,
	"islands":  kindIslands,
	"late":     kindLate,
	"mistaken": kindMistaken,
}

// FormationKinds are the names of all kinds.
func FormationKinds() []string { return slices.Sorted(maps.Keys(formationKinds)) }

func drawFormation(kind string, seed uint64, rnd chance) formationMix {
	m := formationMix{
		last: 3 * time.Minute,
		traffic: traffic{
			interval: pick(rnd, 100*time.Millisecond, 300*time.Millisecond), discovery: rnd.spread(100*time.Millisecond, 3*time.Second),
			latency: rnd.spread(20*time.Microsecond, 200*time.Millisecond), fsync: rnd.spread(50*time.Microsecond, 100*time.Millisecond),
			drop: pick(rnd, 0, 0.01, 0.1, 0.3), dup: pick(rnd, 0, 0.01, 0.1), slow: pick(rnd, 0, 0.01, 0.1),
		},
		harms: harms{
			chaos: rnd.spread(time.Second, 15*time.Second), down: rnd.spread(10*time.Millisecond, 3*time.Second),
			crash: pick(rnd, 0, 100*time.Millisecond, time.Second), partition: pick(rnd, 0, 300*time.Millisecond, 2*time.Second),
		},
	}
	formationKinds[kind](&m, seed, rnd)
	return m
}

// startWithin draws when the processes are started.
func (m *formationMix) startWithin(rnd chance) {
	within := rnd.spread(10*time.Millisecond, m.chaos)
	for range m.processes {
		m.starts = append(m.starts, rnd.between(0, within))
	}
}

// kindFive is five processes, of which three found the cluster.
func kindFive(m *formationMix, _ uint64, rnd chance) {
	m.processes, m.expect, m.moves = 5, 3, rnd.is(0.3)
	m.startWithin(rnd)
}

// kindTen is ten processes with loss and delays.
func kindTen(m *formationMix, _ uint64, rnd chance) {
	m.processes, m.expect = 10, pick(rnd, 6, 6, 7, 10)
	m.drop, m.slow = pick(rnd, 0.01, 0.1, 0.3), pick(rnd, 0.01, 0.1)
	m.chaos = min(m.chaos, 5*time.Second)
	m.interval = 300 * time.Millisecond
	m.startWithin(rnd)
}

// kindThree is three processes in every order and with every delay of starts.
func kindThree(m *formationMix, seed uint64, rnd chance) {
	m.processes, m.expect = 3, 3
	if rnd.is(0.3) {
		m.expect = 0
		m.claims = rnd.is(0.5)
	}
	m.stagger(seed)
	if rnd.is(0.5) {
		m.crash, m.partition, m.drop = 0, 0, 0
	}
}

// stagger gives each seed one of all orders and delays of three starts.
func (m *formationMix) stagger(seed uint64) {
	delays := []time.Duration{0, 10 * time.Millisecond, 300 * time.Millisecond, time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 10 * time.Second}
	n := uint64(len(delays))
	second := delays[seed%n]
	third := second + delays[seed/n%n]
	order := [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}[seed/n/n%6]
	m.starts = make([]time.Duration, 3)
	for i, at := range []time.Duration{0, second, third} {
		m.starts[order[i]] = at
	}
}

// kindAlone is three processes of which each may found the cluster by itself,
// and finds the others in time, because nothing is broken.
func kindAlone(m *formationMix, seed uint64, rnd chance) {
	m.processes, m.expect, m.alone = 3, 1, true
	m.stagger(seed)
	m.crash, m.partition, m.slow, m.drop = 0, 0, 0, pick(rnd, 0, 0.01)
	m.latency = min(m.latency, 10*time.Millisecond)
	m.discovery = rnd.spread(time.Millisecond, 200*time.Millisecond)
}

// kindList is a list, of which a majority is enough.
func kindList(m *formationMix, _ uint64, rnd chance) {
	m.processes, m.claims = pick(rnd, 1, 2, 3, 4, 5), rnd.is(0.5)
	m.startWithin(rnd)
	for range rnd.IntN(m.processes) {
		m.starts[rnd.IntN(m.processes)] = rnd.between(0, 30*time.Second)
	}
}

// kindWiped is processes whose disks get lost, as many as can be told apart.
func kindWiped(m *formationMix, _ uint64, rnd chance) {
	m.expect = pick(rnd, 3, 4, 5)
	m.processes = m.expect + rnd.IntN(2)
	m.wipes = 2*m.expect - 1 - m.processes
	m.wipe, m.decided = rnd.spread(30*time.Millisecond, time.Second), pick(rnd, 0, 0.5)
	m.startWithin(rnd)
}

// kindRelist is a list of processes whose disks get lost.
func kindRelist(m *formationMix, seed uint64, rnd chance) {
	kindList(m, seed, rnd)
	m.processes = max(m.processes, 2)
	m.starts = nil
	m.startWithin(rnd)
	m.wipes, m.wipe = 1+rnd.IntN(5), rnd.spread(30*time.Millisecond, time.Second)
}

// kindIslands is more processes than can be told apart.
func kindIslands(m *formationMix, _ uint64, rnd chance) {
	m.expect = pick(rnd, 1, 2, 3)
	m.processes = 2*m.expect + rnd.IntN(3)
	m.crash = 0
	m.partition = time.Second
	m.patience.Lost = time.Second
	m.startWithin(rnd)
}

// kindLate is where proposals are given up all the time, and what was said
// before comes late.
func kindLate(m *formationMix, _ uint64, rnd chance) {
	m.processes, m.expect = 5, pick(rnd, 3, 4)
	m.patience = founding.Patience{Lost: 300 * time.Millisecond, Listen: -1}
	m.traffic = traffic{
		interval: 100 * time.Millisecond, discovery: 100 * time.Millisecond, latency: rnd.spread(3*time.Millisecond, 100*time.Millisecond),
		fsync: time.Millisecond, slow: 0.2, dup: 0.3,
	}
	m.harms = harms{chaos: 10 * time.Second, crash: 50 * time.Millisecond, down: 20 * time.Millisecond, partition: 200 * time.Millisecond}
	m.startWithin(rnd)
}

// kindMistaken is processes that people have not started alike.
func kindMistaken(m *formationMix, _ uint64, rnd chance) {
	m.mistaken, m.processes, m.last = true, 5, 30*time.Second
	m.discovery = min(m.discovery, 300*time.Millisecond) // all meet
	if rnd.is(0.5) {
		m.expect = 5
	}
	m.startWithin(rnd)
}
