package replica

import (
	"container/heap"
	"crypto/rand"
	"fmt"
	"hash"
	"hash/fnv"
	mrand "math/rand/v2"
	"slices"
	"testing"
	"time"
)

// world drives cores in one goroutine: a network that loses, repeats and delays,
// disks that take their time, crashes. All chance comes from a seed.
type world struct {
	t      *testing.T
	rng    *mrand.Rand
	now    int64
	trace  hash.Hash64
	peers  []*peer
	events events
	seq    int
	acked  []string
	opt    Options

	leaders map[uint64]uint64 // by term
}

type event struct {
	at  int64
	seq int
	do  func()
}

// events is a heap.
type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e *events) Push(x any) { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// peer is one member: a core, and what of it outlives a crash.
type peer struct {
	w     *world
	id    uint64
	life  uint64
	log   *memLog
	snaps *memSnaps
	m     *machine
	core  *Core
	apply *Applier

	groups  uint64
	waiting map[uint64]string
	disk    int64 // busy until
	reading map[uint64]int
	reads   uint64
}

// seeded makes raft's own chance part of the seed.
type seeded struct{ rng *mrand.Rand }

func (s seeded) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(s.rng.Uint32())
	}
	return len(p), nil
}

func newWorld(t *testing.T, seed uint64, n int, opt Options) *world {
	w := &world{t: t, rng: mrand.New(mrand.NewPCG(seed, 1)), trace: fnv.New64a(), opt: opt, leaders: map[uint64]uint64{}}
	old := rand.Reader
	rand.Reader = seeded{mrand.New(mrand.NewPCG(seed, 2))}
	t.Cleanup(func() { rand.Reader = old })
	var voters []uint64
	for i := range n {
		voters = append(voters, uint64(i+1))
	}
	for _, id := range voters {
		p := &peer{w: w, id: id, log: newMemLog(), snaps: newMemSnaps()}
		(&node{log: p.log, snaps: p.snaps}).found(t, voters...)
		w.peers = append(w.peers, p)
		p.boot()
	}
	return w
}

// after plans do, unless the member it is for has another life by then.
func (w *world) after(d int64, p *peer, do func()) {
	life := p.life
	w.seq++
	heap.Push(&w.events, event{w.now + d, w.seq, func() {
		if p.life == life && p.core != nil {
			do()
		}
	}})
}

func (w *world) run(until int64) {
	for len(w.events) > 0 && w.events[0].at <= until {
		e := heap.Pop(&w.events).(event)
		w.now = max(w.now, e.at)
		e.do()
	}
	w.now = until
}

func (p *peer) boot() {
	w := p.w
	p.life++
	p.m, p.waiting, p.reading = newMachine(), map[uint64]string{}, map[uint64]int{}
	p.groups, p.disk = 0, w.now
	info := SnapshotInfo{}
	cfg := Config{Machine: p.m, Log: p.log, Snapshots: p.snaps}
	info, err := restoreNewest(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	p.core, err = NewCore(CoreConfig{ID: p.id, Incarnation: p.id<<32 | p.life, Seed: w.rng.Uint64(), Now: w.now, Snapshot: info, Log: p.log, Options: w.opt})
	if err != nil {
		w.t.Fatal(err)
	}
	p.apply = NewApplier(p.m, p.id, p.id<<32|p.life, info)
	p.tick()
}

func (p *peer) tick() {
	p.step(Input{Kind: InputTick})
	p.w.after(int64(20*time.Millisecond), p, p.tick)
}

func (p *peer) crash() {
	p.core = nil
	p.life++
	for _, o := range p.w.peers {
		if o != p && o.core != nil {
			o.step(Input{Kind: InputPeerDown, Peer: p.id})
		}
	}
}

func (p *peer) step(in Input) {
	w := p.w
	in.Now = w.now
	p.core.Step(in)
	p.handle(p.core.Take())
}

func (p *peer) handle(o Output) {
	w := p.w
	fmt.Fprintln(w.trace, w.now, p.id, o.State.Term, o.State.Leader, o.State.Commit, o.State.Applied, len(o.Writes), len(o.Tasks))
	if o.State.Role == Leader {
		if l, ok := w.leaders[o.State.Term]; ok && l != p.id {
			w.t.Fatalf("term %d has leaders %d and %d", o.State.Term, l, p.id)
		}
		w.leaders[o.State.Term] = p.id
	}
	for _, r := range o.Rejected {
		w.t.Fatalf("member %d rejected a message of %d: %v", p.id, r.From, r.Err)
	}
	for _, m := range o.Messages {
		w.trace.Write(m.Payload)
		to := w.peers[m.To-1]
		copies := 1
		switch w.rng.IntN(50) {
		case 0:
			copies = 0
		case 1:
			copies = 2
		}
		for range copies {
			if to.core != nil {
				w.after(w.rng.Int64N(int64(3*time.Millisecond)), to, func() {
					to.step(Input{Kind: InputMessage, Peer: p.id, Payload: m.Payload})
				})
			}
		}
	}
	for _, wr := range o.Writes {
		p.disk = max(p.disk, w.now) + w.rng.Int64N(int64(2*time.Millisecond))
		w.after(p.disk-w.now, p, func() {
			if err := p.log.Append(wr.Batch); err != nil {
				w.t.Fatal(err)
			}
			p.step(Input{Kind: InputWritten, Seq: wr.Seq})
		})
	}
	if o.TruncateBefore != 0 {
		_ = p.log.TruncateBefore(o.TruncateBefore)
	}
	for _, a := range o.Answers {
		switch {
		case a.Kind == AnswerGroup:
			delete(p.waiting, a.ID)
		case a.Kind == AnswerRead && a.Err == nil:
			w.checkRead(p, a)
		}
	}
	for _, s := range o.Snapshots {
		p.sendSnapshot(s)
	}
	for _, t := range o.Tasks {
		w.after(1, p, func() { p.runTask(t) })
	}
}

// sendSnapshot loses one in three.
func (p *peer) sendSnapshot(s SnapshotSend) {
	w := p.w
	to := w.peers[s.To-1]
	ok := to.core != nil && w.rng.IntN(3) > 0
	if ok {
		i := slices.IndexFunc(p.snaps.metas, func(m SnapshotMeta) bool { return m.Index == s.Index })
		if ok = i >= 0; ok {
			meta, data := p.snaps.metas[i], p.snaps.data[s.Index]
			w.after(int64(5*time.Millisecond), to, func() {
				_, _ = to.snaps.Create(meta, writeBytes(data))
				info, err := snapshotInfo(meta)
				if err != nil {
					w.t.Fatal(err)
				}
				to.step(Input{Kind: InputSnapshotReceived, Peer: p.id, Payload: s.Header, Snapshot: info})
			})
		}
	}
	w.after(int64(8*time.Millisecond), p, func() { p.step(Input{Kind: InputSnapshotSent, Peer: s.To, OK: ok}) })
}
