package sim

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/wal"
)

// node is one member over all its lives: its disk and identity stay, a process
// comes and goes.
type node struct {
	w    *world
	slot int    // in the network
	id   uint64 // in the cluster
	disk *disk
	rate float64 // of its clock
	base int64   // its clock at the start of the run

	life    uint64 // counts processes
	proc    *process
	gone    bool // will never start again: its disk is damaged or it was removed
	paused  bool
	backlog []func()

	// state is what the running process last published.
	state replica.State
	logs  shadow

	alias string // of a node that came back without its data: the name it had
	seen  sightings
}

// shadow is what a member's log must hold, kept beside it.
type shadow struct {
	// emitted are the terms that the core has written, by index, whether or
	// not the disk has them; written those that the disk has; acked is how far
	// the core was told so.
	emitted, written, acked terms
	// state is the hard state that was acknowledged last.
	state, writtenState replica.HardState
	commit              uint64 // highest ever reported by a process of this life
	conf                *raftpb.ConfState
}

// terms are the terms of a log's entries: those of first, first+1, ….
type terms struct {
	first uint64
	term  []uint64
}

func (t *terms) last() uint64 { return t.end() - 1 }

// end is the index behind the last.
func (t *terms) end() uint64 { return t.first + uint64(len(t.term)) }

func (t *terms) at(i uint64) (term uint64, ok bool) {
	if i < t.first || i >= t.end() {
		return 0, false
	}
	return t.term[i-t.first], true
}

// write does what a batch does to a log.
func (t *terms) write(b *replica.Batch) {
	if b.Reset {
		*t = terms{first: b.Mark.Index, term: append(t.term[:0], b.Mark.Term)}
	}
	if len(b.Entries) == 0 {
		return
	}
	from := b.Entries[0].Index
	if from < t.first || from > t.end() {
		violate("a write starts at index %d, but the log holds %d to %d", from, t.first, t.last())
	}
	t.term = t.term[:from-t.first]
	for i := range b.Entries {
		t.term = append(t.term, b.Entries[i].Term)
	}
}

func (t *terms) copyOf(o *terms) { t.first, t.term = o.first, append(t.term[:0], o.term...) }

// String gives the node's name in traces.
func (n *node) String() string { return fmt.Sprintf("n%d", n.slot+1) }

func (n *node) up() bool { return n.proc != nil }

func (n *node) leads() bool { return n.proc != nil && n.state.Role == replica.Leader }

// now is the node's own monotonic clock.
func (n *node) now() int64 { return n.base + int64(float64(n.w.loop.now)*n.rate) }

// do runs fn as something that happens to the present process: not if it has
// ended meanwhile, and later if it is paused.
func (n *node) do(life uint64, fn func()) {
	switch {
	case n.life != life || n.proc == nil:
	case n.paused:
		n.backlog = append(n.backlog, func() { n.do(life, fn) })
	default:
		fn()
		n.settle()
	}
}

// settle ends the process if the power of its disk failed or it met an error
// in what it just did.
func (n *node) settle() {
	switch p := n.proc; {
	case p == nil:
	case n.disk.dead:
		n.crash(crashPower)
		n.w.restartLater(n)
	case p.failed != nil:
		n.w.tell("%s ends: %v", n, p.failed)
		n.w.tally.ended++
		n.crash(crashKill)
		n.w.restartLater(n)
	}
}

// crashKind is how a process ends.
type crashKind uint8

const (
	crashKill  crashKind = iota // the kernel lives on: written data is safe
	crashPower                  // unsynced data is lost or torn
)

// crash ends the process at once.
func (n *node) crash(kind crashKind) {
	n.w.tell("%s crashes (%s)", n, [...]string{"killed", "power"}[kind])
	n.w.trace.mix(uint64(n.slot), 0xdead, uint64(kind))
	p := n.proc
	if kind == crashPower && p.writer.busy && !n.disk.dead && n.w.chaos.is(0.5) {
		n.disk.armPower(1 + n.w.chaos.IntN(4))
		_ = p.append() // the write under way gets so far
	}
	n.proc, n.backlog, n.paused = nil, nil, false
	n.state = replica.State{}
	n.life++
	p.abandon()
	n.disk.crash(kind, n.w.chaos)
	n.w.net.crashed(n.slot, kind == crashKill)
}

// start begins a new process on the node's disk.
func (n *node) start() {
	if n.up() || n.gone {
		return
	}
	n.life++
	n.seen.heard = nil
	n.w.tally.starts++
	n.disk.boot()
	if bug := n.w.bug(); bug.Boot != nil {
		bug.Boot(n)
	}
	p, err := newProcess(n)
	if err != nil {
		n.refused(err)
		return
	}
	n.proc = p
	n.checkRestart(p)
	n.w.tell("%s starts (life %d): term %d vote %x commit %d, log %d-%d, snapshot %d", n, n.life,
		n.logs.writtenState.Term, n.logs.writtenState.Vote, n.logs.writtenState.Commit, p.log.FirstIndex(), p.log.LastIndex(), p.restored)
	p.begin()
	n.settle()
}

// refused: the process did not come up. That is right if the disk is damaged
// or failing, and else a broken promise.
func (n *node) refused(err error) {
	n.w.tell("%s does not start: %v", n, err)
	switch {
	case n.disk.dead: // power went again while it started
		n.disk.crash(crashPower, n.w.chaos)
		n.w.restartLater(n)
	case n.disk.failed():
		n.disk.crash(crashKill, n.w.chaos)
		n.w.restartLater(n)
	case n.disk.damaged:
		n.gone = true
		if n.w.opt.tend.on {
			n.comeBack()
		}
	default:
		violate("%s refuses its own undamaged disk: %v", n, err)
	}
}

// checkRestart holds what the disk gives back against what was acknowledged.
func (n *node) checkRestart(p *process) {
	have, acked := p.log.State(), n.logs.state
	if have.Term < acked.Term || have.Commit < acked.Commit || have.Term == acked.Term && acked.Vote != 0 && have.Vote != acked.Vote {
		violate("%s forgot its hard state: acknowledged %+v, found %+v", n, acked, have)
	}
	var found terms
	found.read(p.log)
	for i := max(n.logs.acked.first, found.first); i < n.logs.acked.end(); i++ {
		want, _ := n.logs.acked.at(i)
		got, ok := found.at(i)
		// A write of a newer leader that replaced the entry may have survived
		// though it was not acknowledged, with an entry of any earlier term.
		if issued, wrote := n.logs.emitted.at(i); ok == wrote && got == issued {
			continue
		}
		if !ok || got < want {
			violate("%s lost entry %d of term %d, which its disk had acknowledged (log %d-%d)", n, i, want, found.first, found.last())
		}
		if got > want {
			break // a write that was not acknowledged replaced it and the rest
		}
	}
	n.logs.emitted.copyOf(&found)
	n.logs.written.copyOf(&found)
	n.logs.acked.copyOf(&found)
	n.logs.state, n.logs.writtenState = have, have
	n.logs.commit = 0
}

// read fills t with the terms of a log on disk, the one before its first entry
// included.
func (t *terms) read(l *wal.Log) {
	t.first, t.term = l.FirstIndex(), t.term[:0]
	if t.first > 0 {
		if _, err := l.Term(t.first - 1); err == nil {
			t.first--
		}
	}
	for i := t.first; i <= l.LastIndex(); i++ {
		term, err := l.Term(i)
		if err != nil {
			violate("entry %d has no term: %v", i, err)
		}
		t.term = append(t.term, term)
	}
}

// pause stops the process as SIGSTOP does: what happens to it waits.
func (n *node) pause() {
	n.w.tell("%s pauses", n)
	n.paused = true
}

// resume lets it go on: all that waited happens at once.
func (n *node) resume() {
	if !n.paused {
		return
	}
	n.w.tell("%s resumes", n)
	n.paused = false
	backlog := n.backlog
	n.backlog = nil
	for _, fn := range backlog {
		fn()
	}
}
