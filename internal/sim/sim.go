package sim

import (
	"crypto/rand"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// world is a run: the cluster, what harms it, who uses it and who watches.
type world struct {
	options Options
	opt     mix
	faults  []fault

	loop  loop
	net   network
	trace trace
	nodes []*node

	// Streams of chance: faults, workload, and the nodes' own latencies.
	chaos, load, rnd chance

	truth
	people  people
	tally   tally
	tending tending

	// healed is set when the faults end, closing when nobody asks any more.
	healed, closing bool
}

// truth is what is known of the cluster from outside.
type truth struct {
	ledger  *ledger
	model   *model
	history *history
	// acked is the newest state that any client was told of.
	acked floor
	// modelled is the index of the last entry that the model has applied.
	modelled uint64
	// conf is the newest configuration that any member has, since the entry
	// confAt.
	conf   *raftpb.ConfState
	confAt uint64
}

// tally counts what shows that a run was worth something.
type tally struct {
	starts, elections, acked, reads, snapshots, installs, watched, expired, refused, churned, ended, tended, cut int
}

// Run simulates a cluster as o says. It replaces crypto/rand.Reader while it
// runs, because etcd's Raft draws its election timeouts there: only one Run at
// a time in a process.
func Run(o Options) (res Result) {
	w := newWorld(o)
	saved := rand.Reader
	rand.Reader = newEntropy(o.Seed)
	defer func() { rand.Reader = saved }()
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(violation)
			if !ok {
				panic(fmt.Sprintf("seed %d at %v: %v", o.Seed, time.Duration(w.loop.now), r))
			}
			res = w.result()
			res.Err, res.At = v, time.Duration(w.loop.now)
			w.tell("VIOLATION %v", v)
		}
		w.release()
	}()
	w.run()
	return w.result()
}

func newWorld(o Options) *world {
	if o.Chaos == 0 {
		o.Chaos = 45 * time.Second
	}
	if o.Calm == 0 {
		o.Calm = 15 * time.Second
	}
	swarm := newChance(o.Seed, "swarm")
	w := &world{
		options: o, opt: drawMix(&o, swarm), faults: mixFaults(swarm, o.Faults),
		trace: trace{out: o.Trace},
		chaos: newChance(o.Seed, "chaos"),
		load:  newChance(o.Seed, "load"),
		rnd:   newChance(o.Seed, "latency"),
		truth: truth{ledger: newLedger(), model: newModel(), history: newHistory(150)},
	}
	w.opt.drawTending(&o)
	if bug := w.bug(); bug.Mix != nil {
		bug.Mix(&w.opt)
	}
	w.mixTending()
	w.people.commands = map[string]*command{}
	w.net = network{loop: &w.loop, rnd: newChance(o.Seed, "network"), opt: w.opt.net, deliver: w.deliver, down: w.peerDown}
	return w
}

// run is the whole life of the cluster: founding, chaos, healing, calm.
func (w *world) run() {
	w.tell("%s", w.summary())
	w.found()
	w.scheduleFaults()
	w.startPeople()
	w.loop.run(int64(w.options.Chaos))
	w.heal()
	end := w.options.Chaos + w.options.Calm
	w.loop.run(int64(end - w.quiet()))
	w.checkTended()
	w.closing = true
	w.loop.run(int64(end))
	w.finish()
}

// quiet is how long at the end nobody asks for anything, so that all members
// may come to the same state.
func (w *world) quiet() time.Duration {
	return 3*w.opt.election + 200*w.opt.apply + 100*w.opt.net.latency
}

// heal ends all harm: what follows must make progress.
func (w *world) heal() {
	w.tell("all heals")
	w.healed, w.net.healed = true, true
	w.tending.joinUntil = w.loop.now + 10*int64(w.opt.election)
	for from := range w.nodes {
		for to := range w.nodes {
			w.net.heal(from, to)
		}
	}
	for _, n := range w.nodes {
		n.disk.heal(w.loop.now)
		n.resume()
		if !n.up() {
			n.start()
		}
	}
	w.requireProgress()
}

func (w *world) summary() string {
	return fmt.Sprintf("seed %d: %v faults: %s", w.options.Seed, &w.opt, describeFaults(w.faults))
}

func (w *world) result() Result {
	return Result{
		Seed: w.options.Seed, Hash: w.trace.hash, Events: w.loop.count, Virtual: time.Duration(w.loop.now),
		Committed: int(w.ledger.last()), Acked: w.tally.acked, Starts: w.tally.starts, Elections: w.tally.elections,
		Checked: w.people.checked, Summary: w.summary(), Tally: fmt.Sprintf("%+v %+v", w.tally, w.net.stats),
	}
}

func (w *world) tell(format string, args ...any) {
	if w.trace.on() {
		w.trace.tell(w.loop.now, format, args...)
	}
}

// bug is the one planted; without one it does nothing.
func (w *world) bug() *Bug {
	if w.options.Bug == nil {
		return &Bug{}
	}
	return w.options.Bug
}

// leader is the node that leads the highest term, or nil.
func (w *world) leader() *node {
	var best *node
	for _, n := range w.nodes {
		if n.up() && n.leads() && (best == nil || n.state.Term > best.state.Term) {
			best = n
		}
	}
	return best
}
