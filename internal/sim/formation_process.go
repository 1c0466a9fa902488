package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/concord-kv/concord/internal/founding"
)

// seeker is a place where a process runs that seeks its cluster: what
// founding.Founder and the member around it are in reality, in virtual time.
type seeker struct {
	f    *formation
	slot int
	name string
	addr string
	// set is what it was started with.
	set founding.Settings

	// disk is the durable record, prev the one before, which a planted bug may
	// bring back. saving is under way.
	disk, prev founding.Record
	saving     *founding.Record

	begun   bool
	life    int // counts the ends of its processes
	running *running
}

// running is a process.
type running struct {
	machine *founding.Machine
	since   int64
	busy    bool     // with its disk
	queue   []func() // what waits for that
	targets []*query
	// over is set when it has founded a cluster or was told of one.
	over, member bool
	told         error
}

// query is a target of questions.
type query struct {
	name, addr  string
	call        int // number of the question under way
	waits, kick bool
}

func (f *formation) newSeeker(slot int) *seeker {
	p := &seeker{f: f, slot: slot, name: fmt.Sprint("n", slot), addr: fmt.Sprintf("h%d:1", slot)}
	p.disk = founding.Record{ID: f.rnd.Uint64() | 1}
	p.prev = p.disk
	f.identities++
	return p
}

func (p *seeker) up() bool { return p.running != nil }

// String is the name and the identity.
func (p *seeker) String() string { return fmt.Sprintf("%s(%04x)", p.name, p.disk.ID&0xffff) }

// after runs fn in this life of the process, when its disk lets it.
func (p *seeker) after(d time.Duration, fn func()) {
	life := p.life
	p.f.loop.after(d, func() {
		if p.life == life {
			p.do(fn)
		}
	})
}

func (p *seeker) do(fn func()) {
	if r := p.running; r != nil && r.busy {
		r.queue = append(r.queue, fn)
	} else if r != nil {
		fn()
	}
}

// start starts the process on what is on its disk.
func (p *seeker) start() {
	p.set = p.f.mix.settings(p)
	m, err := founding.NewMachine(p.set, p.disk, p.f.rnd.Uint64)
	if err != nil {
		violate("%v cannot start: %v", p, err)
	}
	p.f.tell("%v starts at %s with %q", p, p.addr, p.disk.Phase)
	p.f.trace.mix(uint64(p.slot), uint64(p.f.loop.now), p.disk.Seq)
	p.running = &running{machine: m, since: p.f.loop.now}
	for _, q := range p.f.seekers {
		if _, listed := p.set.Peers[q.name]; listed && q != p {
			p.target(&query{name: q.name, addr: q.addr})
		}
	}
	if x := p.disk.Proposal; x != nil {
		for _, m := range x.Members {
			p.learn(m.PeerAddrs...)
		}
	}
	p.tick()
}

// tick lets time pass for the machine.
func (p *seeker) tick() {
	if r := p.running; !r.over {
		p.step(founding.Input{}, nil)
		p.after(p.f.mix.interval, p.tick)
	}
}

func (p *seeker) restart() {
	if !p.up() && p.begun {
		if p.f.mix.moves && p.f.chaos.is(0.3) {
			p.addr = fmt.Sprintf("h%d:%d", p.slot, p.life+1)
		}
		p.start()
	}
}

// crash ends the process. A record that was on its way to the disk may be there.
func (p *seeker) crash() {
	p.f.tell("%v crashes", p)
	rec := p.saving
	p.running, p.saving = nil, nil
	p.life++
	switch {
	case rec != nil && p.f.chaos.is(0.5):
		p.keep(*rec)
	case p.f.bug().Forget != nil && p.f.bug().Forget(&p.prev, &p.disk):
		p.disk = p.prev
	}
}

// wipe takes the disk: what comes back is somebody else.
func (p *seeker) wipe() {
	if p.up() {
		p.crash()
	}
	p.disk = founding.Record{ID: p.f.rnd.Uint64() | 1}
	p.prev = p.disk
	p.f.identities++
	p.f.tell("%s is wiped and is %v now", p.name, p)
}

// learn adds an address to ask.
func (p *seeker) learn(addrs ...string) {
	r := p.running
	if p.set.Peers != nil {
		return
	}
next:
	for _, addr := range addrs {
		for _, t := range r.targets {
			if t.addr == addr {
				continue next
			}
		}
		if addr != p.addr {
			p.target(&query{addr: addr})
		}
	}
}

func (p *seeker) target(t *query) {
	p.running.targets = append(p.running.targets, t)
	p.ask(t)
}

// ask asks a target now, and then again and again.
func (p *seeker) ask(t *query) {
	r := p.running
	if t.waits {
		t.kick = true
		return
	}
	if r.over && !r.member {
		return // it joins, and founds no more
	}
	if r.busy { // nothing is said before it is durable
		r.queue = append(r.queue, func() { p.ask(t) })
		return
	}
	t.call++
	t.waits, t.kick = true, false
	call, life := t.call, p.life
	question := p.machineStatus()
	p.after(2*time.Second, func() { p.answered(t, call, nil) })
	q := p.f.at(t.addr)
	if q == nil {
		return
	}
	p.f.send(p, q, func() {
		if q.addr != t.addr || !q.up() {
			return
		}
		q.do(func() {
			q.step(founding.Input{Heard: question}, func() {
				if question.Group == q.set.Group {
					q.learn(question.PeerAddrs...)
				}
				answer := q.machineStatus()
				p.f.send(q, p, func() {
					if p.life == life {
						p.do(func() { p.answered(t, call, answer) })
					}
				})
			})
		})
	})
}

func (p *seeker) machineStatus() *founding.Status { return p.running.machine.Status() }

// answered takes the answer of a target, or the news that there is none.
func (p *seeker) answered(t *query, call int, s *founding.Status) {
	if !t.waits || t.call != call {
		return
	}
	t.waits = false
	pause := p.f.mix.interval
	if p.running.over {
		pause = 10 * time.Second
	}
	p.after(pause/2+time.Duration(p.f.rnd.Int64N(int64(pause))), func() { p.askAgain(t, call) })
	if s != nil {
		p.step(founding.Input{Heard: s, Answer: true, Asked: t.name}, nil)
		if p.up() {
			p.learn(s.PeerAddrs...)
		}
	}
	if t.kick && p.up() && !p.running.busy {
		p.ask(t)
	}
}

func (p *seeker) askAgain(t *query, call int) {
	if t.call == call && !t.waits {
		p.ask(t)
	}
}

// step gives the machine an input and does what it wants done. then runs when
// everything is durable.
func (p *seeker) step(in founding.Input, then func()) {
	r, f := p.running, p.f
	in.Now = time.Duration(f.loop.now - r.since)
	if bug := f.bug(); bug.Input != nil && !r.over {
		bug.Input(p, &in)
	}
	var out founding.Output
	switch {
	case !r.over:
		out = r.machine.Step(in)
	case r.member:
		out.Rival = r.machine.Step(in).Rival
	}
	if out.Save == nil {
		p.finish(out, then)
		return
	}
	rec := *out.Save
	f.tell("%v writes %d: %q %s", p, rec.Seq, rec.Phase, describeProposal(rec.Proposal))
	r.busy, p.saving = true, &rec
	life := p.life
	f.loop.after(20*time.Microsecond+f.rnd.exp(f.mix.fsync), func() {
		if p.life != life {
			return
		}
		p.saving, r.busy = nil, false
		p.keep(rec)
		p.finish(out, then)
		for len(r.queue) > 0 && !r.busy && p.life == life {
			fn := r.queue[0]
			r.queue = r.queue[1:]
			fn()
		}
	})
}

// finish does what may be done once the record is durable.
func (p *seeker) finish(out founding.Output, then func()) {
	r := p.running
	if out.Rival != nil {
		p.f.met(p, out.Rival)
	}
	if !r.over && out.Founded != nil {
		r.over, r.member = true, true
	}
	if !r.over && out.Err != nil {
		r.over, r.told = true, out.Err
		p.f.tell("%v is told: %v", p, out.Err)
		p.after(p.f.rnd.exp(time.Second), p.join)
	}
	if then != nil {
		then()
	}
	if out.Ask {
		for _, t := range r.targets {
			p.ask(t)
		}
	}
}

// keep makes a record durable.
func (p *seeker) keep(rec founding.Record) {
	p.prev, p.disk = p.disk, rec
	p.f.trace.mix(uint64(p.slot), uint64(p.f.loop.now), rec.Seq, rec.ID)
	p.f.kept(p)
}

// join lets the process into the cluster that it was told of, if that can act:
// a majority of its voters is up and reaches the process and back. It takes the
// place that was kept for its name, or stands in its stead.
func (p *seeker) join() {
	r := p.running
	var told *founding.FoundedError
	if !errors.As(r.told, &told) {
		violate("%v fails: %v", p, r.told)
	}
	c := p.f.formedAs(told.Cluster)
	if c == nil {
		violate("%v is told of cluster %x, which nobody has founded", p, told.Cluster)
	}
	if !c.acts(p) {
		p.after(p.f.rnd.exp(time.Second), p.join)
		return
	}
	if id := c.offer(p); id != p.disk.ID { // that is on its disk before it is taken
		p.keep(founding.Record{ID: id})
		p.after(p.f.rnd.exp(p.f.mix.fsync), p.join)
		return
	}
	c.admit(p)
	p.f.tell("%v joins cluster %x", p, told.Cluster)
	p.keep(founding.MemberOf(c.id, p.disk.ID, p.name))
	m, err := founding.NewMachine(p.set, p.disk, p.f.rnd.Uint64)
	if err != nil {
		violate("%v cannot be a member: %v", p, err)
	}
	r.machine, r.member, r.told = m, true, nil
	p.step(founding.Input{}, nil)
	for _, t := range r.targets {
		p.ask(t)
	}
}
