package sim

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/founding"
)

// FormationOptions say which formation of a cluster to run.
type FormationOptions struct {
	// Kind names one of [FormationKinds]; Seed decides all the rest.
	Kind string
	Seed uint64
	// Trace, when not nil, receives a line for each thing that happens.
	Trace io.Writer
	// Bug, when not nil, is planted into every process.
	Bug *FormationBug
}

// FormationBug is a fault of a founding process, planted to find out whether the
// checks notice it. It stands between the machine and its shell.
type FormationBug struct {
	Name string
	// Mix changes what the seed drew, so that the bug has a chance to show.
	Mix func(m *formationMix)
	// Forget tells of a record that is only said to be durable: a crash brings
	// the one before back.
	Forget func(old, rec *founding.Record) bool
	// Input sees what the process is about to hear, and may change it or the
	// process's machine.
	Input func(p *seeker, in *founding.Input)
}

// FormationResult is what a run was.
type FormationResult struct {
	Kind string
	Seed uint64
	// Hash is over all that happened: equal for equal options.
	Hash uint64
	// Err is the violation found, or nil; At is when.
	Err     error
	At      time.Duration
	Summary string
	// Clusters were founded, by so many Founders; Joined came later, Rivals
	// were reported, Blocked wait for a disk that is lost.
	Clusters, Founders, Joined, Rivals, Blocked int
	// Took is from when all was well until everyone had its place.
	Took   time.Duration
	Events uint64
}

// String tells the result in a line.
func (r FormationResult) String() string {
	verdict := "ok"
	if r.Err != nil {
		verdict = fmt.Sprintf("FAIL at %v: %v", r.At, r.Err)
	}
	return fmt.Sprintf("%s seed %d hash %016x %d events, %d clusters, %d founders, %d joined, %d rivals, %d blocked, took %v: %s",
		r.Kind, r.Seed, r.Hash, r.Events, r.Clusters, r.Founders, r.Joined, r.Rivals, r.Blocked, r.Took, verdict)
}

// formation is a run: processes without state, what harms them, and what is
// known of them from outside.
type formation struct {
	options FormationOptions
	mix     formationMix
	loop    loop
	trace   trace
	// Streams of chance: faults, and everything else.
	chaos, rnd chance

	seekers []*seeker
	cuts    [][]bool // from, to: nothing arrives
	healed  bool

	clusters   []*formed // in the order of founding
	identities int       // that were ever started
	rivals     map[[2]uint64]bool
}

// Form runs the formation of a cluster.
func Form(o FormationOptions) (res FormationResult) {
	f := &formation{options: o, trace: trace{out: o.Trace}, rivals: map[[2]uint64]bool{}}
	draw := newChance(o.Seed, "formation "+o.Kind)
	f.chaos, f.rnd = newChance(o.Seed, "formation chaos"), newChance(o.Seed, "formation latency")
	f.mix = drawFormation(o.Kind, o.Seed, draw)
	if o.Bug != nil && o.Bug.Mix != nil {
		o.Bug.Mix(&f.mix)
	}
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(violation)
			if !ok {
				panic(fmt.Sprintf("%s seed %d at %v: %v", o.Kind, o.Seed, time.Duration(f.loop.now), r))
			}
			res = f.result()
			res.Err, res.At = v, time.Duration(f.loop.now)
			f.tell("VIOLATION %v", v)
		}
	}()
	f.run()
	return f.result()
}

func (f *formation) run() {
	f.tell("%s", f.mix.String())
	for i := range f.mix.processes {
		f.seekers = append(f.seekers, f.newSeeker(i))
		f.cuts = append(f.cuts, make([]bool, f.mix.processes))
	}
	for i, p := range f.seekers {
		f.loop.after(f.mix.starts[i], func() { f.begin(p) })
		f.discover(p)
	}
	f.harm()
	f.loop.run(int64(f.mix.chaos))
	f.heal()
	began := f.loop.now
	for f.loop.now-began < int64(f.mix.last) && !f.settled() {
		f.loop.run(f.loop.now + int64(time.Second))
	}
	f.mix.took = time.Duration(f.loop.now - began)
	f.outcome()
}

// begin starts a process for the first time, unless it was started before.
func (f *formation) begin(p *seeker) {
	if !p.begun {
		p.begun = true
		p.start()
	}
}

// heal ends all harm, and everyone is there.
func (f *formation) heal() {
	f.tell("all heals")
	f.healed = true
	for i := range f.cuts {
		clear(f.cuts[i])
	}
	for _, p := range f.seekers {
		if !p.begun {
			continue // it is started when its time has come
		}
		if !p.up() {
			p.start()
		}
	}
}

// discover tells a process of others, one after the other, in any order.
func (f *formation) discover(p *seeker) {
	f.loop.after(f.rnd.exp(f.mix.discovery), func() {
		q := f.seekers[f.rnd.IntN(len(f.seekers))]
		if p.up() && q.up() && q != p && !f.cuts[q.slot][p.slot] {
			p.learn(q.addr)
		}
		f.discover(p)
	})
}

// harm schedules the faults.
func (f *formation) harm() {
	every := func(mean time.Duration, fn func(p *seeker)) {
		if mean == 0 {
			return
		}
		var again func()
		again = func() {
			if f.healed {
				return
			}
			fn(f.seekers[f.chaos.IntN(len(f.seekers))])
			f.loop.after(f.chaos.exp(mean), again)
		}
		f.loop.after(f.chaos.exp(mean), again)
	}
	every(f.mix.crash, func(p *seeker) {
		if p.up() {
			p.crash()
			f.loop.after(f.chaos.exp(f.mix.down), p.restart)
		}
	})
	every(f.mix.wipe, func(p *seeker) {
		if p.begun {
			f.loseDisk(p)
		}
	})
	every(f.mix.partition, func(*seeker) { f.partition() })
}

// loseDisk has a process lose its disk, and come back.
func (f *formation) loseDisk(p *seeker) {
	if f.mix.wipes > 0 && !f.healed {
		f.mix.wipes--
		p.wipe()
		f.loop.after(f.chaos.exp(f.mix.down), p.restart)
	}
}

// partition cuts the processes in two, one from the others, or one way only.
func (f *formation) partition() {
	side := make([]bool, len(f.seekers))
	lone, oneWay := f.chaos.is(0.3), f.chaos.is(0.3)
	who := f.chaos.IntN(len(side))
	for i := range side {
		side[i] = f.chaos.is(0.5)
		if lone {
			side[i] = i == who
		}
	}
	f.tell("partition %v, one way: %v", side, oneWay)
	for i := range f.cuts {
		for j := range f.cuts[i] {
			f.cuts[i][j] = side[i] != side[j] && (!oneWay || side[i])
		}
	}
	f.loop.after(f.chaos.exp(f.mix.partition), func() {
		for i := range f.cuts {
			clear(f.cuts[i])
		}
	})
}

// send delivers what one process sends to another, late, twice or never.
func (f *formation) send(from, to *seeker, deliver func()) {
	if !f.healed && f.rnd.is(f.mix.drop) {
		return
	}
	copies := 1
	if !f.healed && f.rnd.is(f.mix.dup) {
		copies = 2
	}
	for range copies {
		delay := 20*time.Microsecond + f.rnd.exp(f.mix.latency)
		if !f.healed && f.rnd.is(f.mix.slow) {
			delay *= 100
		}
		f.loop.after(delay, func() {
			if !f.cuts[from.slot][to.slot] {
				deliver()
			}
		})
	}
}

// at is the process that has an address now, or nil.
func (f *formation) at(addr string) *seeker {
	i := slices.IndexFunc(f.seekers, func(p *seeker) bool { return p.addr == addr })
	if i < 0 {
		return nil
	}
	return f.seekers[i]
}

func (f *formation) tell(format string, args ...any) {
	if f.trace.on() {
		f.trace.tell(f.loop.now, format, args...)
	}
}

func (f *formation) bug() *FormationBug {
	if f.options.Bug == nil {
		return &FormationBug{}
	}
	return f.options.Bug
}
