package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/concord-kv/concord/internal/replica"
)

// fault is one kind of harm. The zero interval means that this run has none.
type fault struct {
	name     string
	interval time.Duration // mean time between two
	do       func(*world)
}

// mixFaults draws which faults a run has and how often: a third of the kinds
// are off, the rest come every half a second to every minute. With names, only
// those come, and often.
func mixFaults(rnd chance, names []string) []fault {
	kinds := []fault{
		{name: "kill", do: (*world).faultKill},
		{name: "power", do: (*world).faultPower},
		{name: "power-in-write", do: (*world).faultPowerInWrite},
		{name: "blackout", do: (*world).faultBlackout},
		{name: "pause", do: (*world).faultPause},
		{name: "isolate", do: (*world).faultIsolate},
		{name: "split", do: (*world).faultSplit},
		{name: "one-way", do: (*world).faultOneWay},
		{name: "reset", do: (*world).faultReset},
		{name: "stall", do: (*world).faultStall},
		{name: "disk-error", do: (*world).faultDiskError},
		{name: "disk-full", do: (*world).faultDiskFull},
		{name: "flip", do: (*world).faultFlip},
		{name: "transfer", do: (*world).faultTransfer},
		{name: "snapshot", do: (*world).faultSnapshot},
		{name: "churn", do: (*world).faultChurn},
	}
	if slices.Contains(names, "crawl") { // only when it is asked for
		kinds = append(kinds, fault{name: "crawl", do: (*world).faultCrawl})
	}
	var out []fault
	for _, f := range kinds {
		f.interval = rnd.spread(500*time.Millisecond, time.Minute)
		if f.name == "blackout" || f.name == "flip" {
			f.interval *= 4
		}
		on := rnd.is(2.0 / 3)
		if len(names) > 0 {
			on = slices.Contains(names, f.name)
			f.interval = min(f.interval, 5*time.Second)
		}
		if on {
			out = append(out, f)
		}
	}
	return out
}

func describeFaults(faults []fault) string {
	var parts []string
	for _, f := range faults {
		parts = append(parts, f.name+"/"+f.interval.Round(100*time.Millisecond).String())
	}
	return strings.Join(parts, " ")
}

// scheduleFaults lets each fault come by itself until the healing.
func (w *world) scheduleFaults() {
	for i := range w.faults {
		f := &w.faults[i]
		var next func()
		next = func() {
			if w.healed {
				return
			}
			f.do(w)
			w.loop.after(w.chaos.exp(f.interval), next)
		}
		w.loop.after(w.chaos.exp(f.interval), next)
	}
}

// victim picks a node: any, or the leader every other time, since faults there
// matter most.
func (w *world) victim() *node {
	if w.chaos.is(0.5) {
		if n := w.leader(); n != nil {
			return n
		}
	}
	return w.nodes[w.chaos.IntN(len(w.nodes))]
}

// downtime is how long harm lasts: mostly short, sometimes many elections.
func (w *world) downtime() time.Duration {
	return w.chaos.spread(w.opt.election/20, 10*w.opt.election)
}

func (w *world) faultKill() {
	if n := w.victim(); n.up() {
		n.crash(crashKill)
		w.restartLater(n)
	}
}

func (w *world) faultPower() {
	if n := w.victim(); n.up() {
		n.crash(crashPower)
		w.restartLater(n)
	}
}

// faultPowerInWrite cuts the power at one of the next operations on the disk.
func (w *world) faultPowerInWrite() {
	if n := w.victim(); n.up() {
		n.disk.armPower(1 + w.chaos.IntN(12))
	}
}

// faultBlackout takes the power from all at once.
func (w *world) faultBlackout() {
	for _, n := range w.nodes {
		if n.up() {
			n.crash(crashPower)
			w.restartLater(n)
		}
	}
}

func (w *world) restartLater(n *node) {
	w.loop.after(w.downtime(), func() { n.start() })
}

func (w *world) faultPause() {
	n := w.victim()
	if !n.up() || n.paused {
		return
	}
	n.pause()
	life := n.life
	w.loop.after(w.downtime(), func() {
		if n.life == life {
			n.resume()
		}
	})
}

func (w *world) cutMode() cutMode { return pick(w.chaos, cutLose, cutHold) }

// faultIsolate cuts one node off from all others.
func (w *world) faultIsolate() {
	alone := w.victim()
	w.cutBetween(func(from, to *node) bool { return from == alone || to == alone })
}

// faultSplit cuts the nodes into two halves.
func (w *world) faultSplit() {
	var side [maxNodes]bool
	for i := range w.nodes {
		side[i] = w.chaos.is(0.5)
	}
	w.cutBetween(func(from, to *node) bool { return side[from.slot] != side[to.slot] })
}

// faultOneWay cuts what one node sends or what it receives, to or from all
// others or one of them.
func (w *world) faultOneWay() {
	n, sends, one := w.victim(), w.chaos.is(0.5), w.chaos.is(0.5)
	other := w.nodes[w.chaos.IntN(len(w.nodes))]
	w.cutBetween(func(from, to *node) bool {
		if !sends {
			from, to = to, from
		}
		return from == n && (!one || to == other)
	})
}

func (w *world) cutBetween(cut func(from, to *node) bool) { w.cutFor(w.downtime(), cut) }

func (w *world) cutFor(long time.Duration, cut func(from, to *node) bool) {
	mode := w.cutMode()
	var pairs [][2]int
	for _, from := range w.nodes {
		for _, to := range w.nodes {
			if from != to && cut(from, to) && w.net.cuts[from.slot][to.slot] == cutNone {
				w.net.cut(from.slot, to.slot, mode)
				pairs = append(pairs, [2]int{from.slot, to.slot})
			}
		}
	}
	w.tell("cut %v", pairs)
	w.loop.after(long, func() {
		w.tell("heal %v", pairs)
		for _, p := range pairs {
			w.net.heal(p[0], p[1])
		}
	})
}

func (w *world) faultReset() {
	a, b := w.victim(), w.nodes[w.chaos.IntN(len(w.nodes))]
	if a != b && a.up() && b.up() {
		w.tell("reset %s-%s", a, b)
		w.net.reset(a.slot, b.slot)
	}
}

// faultStall makes one disk slow or hang for a while.
func (w *world) faultStall() {
	n := w.victim()
	n.disk.stalled = max(n.disk.stalled, w.loop.now+int64(w.downtime()))
	w.tell("%s: disk stalls until %v", n, time.Duration(n.disk.stalled))
}

// faultCrawl makes the leader's disk, and only that, slow for long. The
// leader must have gone by the time that it has certainly found out, which takes
// it some writes, and ten election timeouts after it was elected.
func (w *world) faultCrawl() {
	n := w.leader()
	if n == nil || slices.ContainsFunc(w.nodes, func(n *node) bool { return n.disk.crawls > w.loop.now }) {
		return
	}
	n.disk.crawls = w.loop.now + 40*int64(w.opt.election)
	w.tell("%s: disk crawls until %v", n, time.Duration(n.disk.crawls))
	w.loop.after(35*w.opt.election, func() {
		if n.leads() && n.disk.crawls > w.loop.now {
			violate("%s leads, and its disk has been slow for %v", n, 35*w.opt.election)
		}
	})
}

// faultDiskError makes one of the next operations on the disk fail once: the
// member must end, and must not have trusted what it could not write.
func (w *world) faultDiskError() {
	if n := w.victim(); n.up() {
		n.disk.armError(1+w.chaos.IntN(12), errIO)
	}
}

// faultDiskFull leaves a disk without free blocks for a while.
func (w *world) faultDiskFull() {
	n := w.victim()
	n.disk.fill(w.loop.now + int64(w.downtime()))
	w.tell("%s: disk is full until %v", n, time.Duration(n.disk.full))
}

// faultFlip inverts a bit on the disk of one node, which then must not serve
// wrong data nor start without a word. A minority only is ever damaged: nobody
// could help the rest.
func (w *world) faultFlip() {
	lost := 0
	for _, n := range w.nodes {
		if n.gone || n.disk.damaged {
			lost++
		}
	}
	n := w.victim()
	if w.opt.tend.on && !w.mayLose(n) || n.disk.damaged || 2*(lost+1) >= len(w.conf.GetVoters()) {
		return
	}
	if n.up() {
		n.crash(crashKill)
		w.restartLater(n)
	}
	if where, ok := n.disk.flip(pick(w.chaos, "wal", "wal", "snap"), w.chaos); ok {
		n.disk.damaged = true
		w.tell("%s: a bit flips in %s", n, where)
	}
}

func (w *world) faultTransfer() {
	if n := w.leader(); n != nil && !n.paused {
		to := uint64(0)
		if w.chaos.is(0.5) {
			to = w.nodes[w.chaos.IntN(len(w.nodes))].id
		}
		w.tell("%s is to hand over to %x", n, to)
		n.proc.step(replica.Input{Kind: replica.InputTransfer, Peer: to})
	}
}

func (w *world) faultSnapshot() {
	if n := w.victim(); n.up() && !n.paused {
		n.proc.step(replica.Input{Kind: replica.InputTakeSnapshot})
	}
}
