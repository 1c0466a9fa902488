package sim

import (
	"bytes"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
)

// process is one life of a node: all that is in its memory. It does what
// replica's shell does with goroutines, by events.
type process struct {
	n       *node
	life    uint64
	log     *wal.Log
	snaps   *snap.Store
	core    *replica.Core
	machine *machine.Machine
	spy     replica.Machine // around machine
	applier *replica.Applier

	restored uint64      // index of the snapshot it started from
	turning  bool        // a turn is scheduled
	failed   error       // why the process has to end
	seen     kv.Revision // the last that an eventual read saw

	writer  writer
	applies applies
	calls   calls
	reads   reads
}

// writer is the goroutine that writes the log.
type writer struct {
	queue    []replica.Write
	truncate uint64
	busy     bool
	taken    int    // writes of the queue that are on their way to the disk
	ballots  []vote // not yet on disk
}

// open opens what is on the disk.
func (n *node) open() (_ *process, err error) {
	p := &process{n: n, life: n.life}
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	if err := n.disk.fs.MkdirAll("wal"); err != nil {
		return nil, err
	}
	o := wal.Options{Synchronous: true, SegmentSize: n.w.opt.limits.segmentBytes}
	if p.log, err = wal.Open(n.disk.fs, "wal", o); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	if p.snaps, err = snap.Open(n.disk.fs, "snap", snap.Options{ChunkSize: 512}); err != nil {
		return nil, fmt.Errorf("open snapshots: %w", err)
	}
	return p, nil
}

// newProcess starts a member on what its disk has.
func newProcess(n *node) (*process, error) {
	p, err := n.open()
	if err != nil {
		return nil, err
	}
	p.machine = machine.New(machine.Options{LoadParallel: 1})
	p.spy = n.spy(p)
	if err := p.boot(); err != nil {
		p.abandon()
		return nil, err
	}
	return p, nil
}

// begin gives the new process its first events.
func (p *process) begin() {
	n := p.n
	for _, peer := range n.w.nodes {
		if peer != n && peer.up() && n.w.net.cuts[n.slot][peer.slot] == cutNone {
			p.step(replica.Input{Kind: replica.InputPeerUp, Peer: peer.id})
			n.w.loop.after(n.w.net.opt.latency, func() {
				life := peer.life
				peer.do(life, func() { peer.proc.step(replica.Input{Kind: replica.InputPeerUp, Peer: n.id}) })
			})
		}
	}
	p.tick()
	p.duties()
	if n.w.opt.tend.on {
		p.tend()
		p.listen()
	}
}

// tick brings the time, every tick of the node's own clock.
func (p *process) tick() {
	p.step(replica.Input{Kind: replica.InputTick})
	p.after(time.Duration(float64(p.n.w.opt.tick)/p.n.rate), p.tick)
}

// after schedules fn in this life.
func (p *process) after(d time.Duration, fn func()) {
	p.n.w.loop.after(d, func() { p.n.do(p.life, fn) })
}

// step gives the core an input, and lets it have a turn soon: inputs that come
// at nearly the same time are taken together, as in the shell.
func (p *process) step(in replica.Input) {
	if p.failed != nil {
		return
	}
	in.Now = p.n.now()
	if bug := p.n.w.bug(); bug.Input != nil {
		bug.Input(p, &in)
	}
	p.n.w.trace.mix(uint64(p.n.slot), uint64(in.Kind), in.Peer, in.Seq, in.Index, uint64(in.Now))
	p.guard(func() { p.core.Step(in) })
	if !p.turning {
		p.turning = true
		p.after(p.n.w.rnd.between(0, 20*time.Microsecond), p.turn)
	}
}

// guard runs what ends the member when it panics. A panic is right only if the
// disk gave a reason.
func (p *process) guard(fn func()) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if v, ok := r.(violation); ok {
			panic(v)
		}
		if d := p.n.disk; !d.dead && !d.erred && !d.damaged {
			violate("%s panics: %v\n%s", p.n, r, debug.Stack())
		}
		p.failed = fmt.Errorf("panic: %v", r)
	}()
	fn()
}

// turn proposes what waits and does what the core wants done.
func (p *process) turn() {
	p.turning = false
	p.propose()
	var out replica.Output
	p.guard(func() { out = p.core.Take() })
	if p.failed != nil {
		return
	}
	p.n.observe(&out)
	p.n.state = out.State
	if bug := p.n.w.bug(); bug.Output != nil {
		bug.Output(p, &out)
	}
	for i := range out.Messages {
		p.send(&out.Messages[i])
	}
	p.write(out.Writes, out.TruncateBefore)
	for i := range out.Tasks {
		p.applies.queue = append(p.applies.queue, &out.Tasks[i])
	}
	p.apply()
	for _, a := range out.Answers {
		p.answer(a)
	}
	for _, s := range out.Snapshots {
		p.sendSnapshot(s)
	}
	for _, r := range out.Rejected {
		p.n.w.tell("%s rejects a message of member %x: %v", p.n, r.From, r.Err)
	}
}

func (p *process) send(m *replica.Message) {
	w := p.n.w
	to := w.byID(m.To)
	w.trace.mix(m.To, uint64(m.Channel))
	w.trace.mixBytes(m.Payload)
	if (to == nil || !w.net.send(route{p.n.slot, to.slot, int(m.Channel)}, m.Payload)) && m.Channel != transport.Control {
		p.after(0, func() { p.step(replica.Input{Kind: replica.InputUnreachable, Peer: m.To}) })
	}
}

// write queues what the log's goroutine shall do.
func (p *process) write(writes []replica.Write, truncate uint64) {
	p.writer.queue = append(p.writer.queue, writes...)
	p.writer.truncate = max(p.writer.truncate, truncate)
	p.pump()
}

// pump starts the next write of the log. All that waits becomes one write; half
// of its time passes before the disk has it and half after.
func (p *process) pump() {
	wr := &p.writer
	if wr.busy || len(wr.queue) == 0 && wr.truncate == 0 {
		return
	}
	wr.busy, wr.taken = true, len(wr.queue)
	took := p.n.disk.latency()
	if p.n.w.bug().shell.ackEarly && wr.taken > 0 {
		seq := wr.queue[wr.taken-1].Seq
		p.after(0, func() { p.step(replica.Input{Kind: replica.InputWritten, Seq: seq}) })
	}
	var try func()
	try = func() {
		err := p.append()
		if errors.Is(err, wal.ErrNoSpace) { // nothing was written: the shell waits, too
			p.after(p.n.w.opt.election, try)
			return
		}
		if err != nil {
			p.failed = err
			return
		}
		done := wr.queue[:wr.taken]
		p.after(took/2, func() { p.written(done) })
	}
	p.after(took/2, try)
}

func batches(writes []replica.Write) []wal.Batch {
	out := make([]wal.Batch, len(writes))
	for i := range writes {
		out[i] = writes[i].Batch
	}
	return out
}

// append writes the log. After an error other than a full disk the process
// ends.
func (p *process) append() error {
	wr := &p.writer
	if writes := wr.queue[:wr.taken]; len(writes) > 0 {
		if err := p.log.Append(batches(writes)...); err != nil {
			return fmt.Errorf("append to log: %w", err)
		}
		for i := range writes {
			p.n.logs.written.write(&writes[i].Batch)
			if s := writes[i].Batch.State; s != (replica.HardState{}) {
				p.n.logs.writtenState = s
			}
		}
	}
	if wr.truncate > 0 {
		if err := p.log.TruncateBefore(wr.truncate); err != nil {
			return fmt.Errorf("truncate log: %w", err)
		}
		wr.truncate = 0
	}
	return nil
}

// written acknowledges writes to the core.
func (p *process) written(done []replica.Write) {
	wr := &p.writer
	wr.busy = false
	if len(done) > 0 {
		for i := range done {
			p.n.logs.acked.write(&done[i].Batch)
			if s := done[i].Batch.State; s != (replica.HardState{}) {
				p.n.logs.state = s
			}
		}
		last := done[len(done)-1].Seq
		wr.queue = wr.queue[len(done):]
		p.observeVotes(last)
		p.step(replica.Input{Kind: replica.InputWritten, Seq: last})
	}
	p.pump()
}

// abandon lets go of what a process held; its memory is lost.
func (p *process) abandon() {
	p.calls.fail()
	if p.applies.release != nil {
		p.applies.release()
	}
	if p.log != nil {
		_ = p.log.Close()
	}
	if p.machine != nil {
		p.machine.Close()
	}
}

// sendSnapshot streams a snapshot to a peer. The stream may break anywhere.
func (p *process) sendSnapshot(s replica.SnapshotSend) {
	n, w := p.n, p.n.w
	to := w.byID(s.To)
	done := func(ok bool) {
		p.step(replica.Input{Kind: replica.InputSnapshotSent, Peer: s.To, OK: ok})
	}
	var body bytes.Buffer
	if err := p.snaps.SendTo(s.Index, &body); err != nil || to == nil {
		w.tell("%s cannot send snapshot %d: %v", n, s.Index, err)
		p.after(0, func() { done(false) })
		return
	}
	w.tell("%s sends snapshot %d to %s (%d bytes)", n, s.Index, to, body.Len())
	took := w.net.opt.floor + w.rnd.exp(10*w.net.opt.latency)
	there, back := w.net.links[n.slot][to.slot][chBulk].epoch, to.life
	w.loop.after(took, func() {
		stream := body.Bytes()
		broken := w.net.cuts[n.slot][to.slot] != cutNone || w.net.links[n.slot][to.slot][chBulk].epoch != there
		if broken || !w.healed && w.chaos.is(0.05) {
			broken = true
			stream = stream[:w.chaos.IntN(len(stream))]
		}
		to.do(back, func() {
			ok := to.proc.receiveSnapshot(n.id, s.Header, stream) && !broken && w.net.cuts[to.slot][n.slot] == cutNone
			p.after(w.net.opt.floor, func() { done(ok) })
		})
		if to.life != back || !to.up() {
			p.after(w.opt.election, func() { done(false) })
		}
	})
}

// receiveSnapshot takes a snapshot from a peer.
func (p *process) receiveSnapshot(from uint64, header, stream []byte) bool {
	m, err := p.snaps.Receive(bytes.NewReader(stream))
	if err != nil {
		p.n.w.tell("%s: snapshot from %x refused: %v", p.n, from, err)
		p.diskError(err)
		return false
	}
	p.n.w.tally.installs++
	p.step(replica.Input{Kind: replica.InputSnapshotReceived, Peer: from, Payload: header, Snapshot: p.info(m)})
	return true
}

// diskError ends the process if err came from its disk.
func (p *process) diskError(err error) {
	if errors.Is(err, errIO) || errors.Is(err, errPower) {
		p.failed = err
	}
}

// info turns what stands in a snapshot's file into what the core reads.
func (p *process) info(m snap.Meta) replica.SnapshotInfo {
	conf := &raftpb.ConfState{}
	if err := proto.Unmarshal(m.ConfState, conf); err != nil {
		violate("%s: snapshot %d has no configuration: %v", p.n, m.Index, err)
	}
	return replica.SnapshotInfo{Index: m.Index, Term: m.Term, ConfState: conf, Time: m.Time, Size: m.Size}
}
