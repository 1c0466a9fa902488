package replica

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/concord-kv/concord/internal/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memLog is a log in memory. hook, if set, runs before each Append.
type memLog struct {
	mu    sync.Mutex
	hook  func() error
	first uint64
	ents  []Entry
	state HardState
	mark  Mark
}

func (l *memLog) setHook(f func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = f
}

func newMemLog() *memLog { return &memLog{first: 1} }

func (l *memLog) State() HardState   { l.mu.Lock(); defer l.mu.Unlock(); return l.state }
func (l *memLog) FirstIndex() uint64 { l.mu.Lock(); defer l.mu.Unlock(); return l.first }
func (l *memLog) LastIndex() uint64  { l.mu.Lock(); defer l.mu.Unlock(); return l.last() }
func (l *memLog) last() uint64       { return l.first + uint64(len(l.ents)) - 1 }

func (l *memLog) Term(i uint64) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i < l.first || i > l.last() {
		return 0, fmt.Errorf("term of %d, have %d to %d", i, l.first, l.last())
	}
	return l.ents[i-l.first].Term, nil
}

func (l *memLog) Entries(lo, hi uint64, maxBytes int64) (out []Entry, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lo < l.first || hi > l.last()+1 || lo >= hi {
		return nil, fmt.Errorf("entries %d to %d, have %d to %d", lo, hi, l.first, l.last())
	}
	for _, e := range l.ents[lo-l.first : hi-l.first] {
		if maxBytes -= int64(len(e.Data)); maxBytes < 0 && len(out) > 0 {
			break
		}
		out = append(out, e)
	}
	return out, nil
}

func (l *memLog) Append(batches ...Batch) error {
	l.mu.Lock()
	hook := l.hook
	l.mu.Unlock()
	if hook != nil {
		if err := hook(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range batches {
		if b.Reset {
			l.ents, l.first = nil, b.Mark.Index+1
		}
		if b.Mark.Index != 0 {
			l.mark = b.Mark
		}
		if len(b.Entries) > 0 {
			from := b.Entries[0].Index
			if from < l.first || from > l.last()+1 {
				return fmt.Errorf("append at %d to %d..%d", from, l.first, l.last())
			}
			if from <= l.last() {
				l.ents = slices.Clone(l.ents[:from-l.first])
			}
			l.ents = append(l.ents, b.Entries...)
		}
		if b.State != (HardState{}) {
			if b.State.Term < l.state.Term || b.State.Term == l.state.Term && l.state.Vote != 0 && b.State.Vote != l.state.Vote {
				return fmt.Errorf("hard state went from %+v to %+v", l.state, b.State)
			}
			l.state = b.State
		}
	}
	return nil
}

func (l *memLog) TruncateBefore(i uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i > l.first {
		l.ents = slices.Clone(l.ents[i-l.first:])
		l.first = i
	}
	return nil
}

// nullLog forgets all but the newest entries, for benchmarks.
type nullLog struct{ memLog }

func (l *nullLog) Append(batches ...Batch) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range batches {
		if b.Reset {
			l.first, l.state = b.Mark.Index+1, b.State
		}
		l.ents = append(l.ents, b.Entries...)
	}
	if len(l.ents) > 4096 {
		n := len(l.ents) - 2048
		l.first += uint64(n)
		l.ents = append([]Entry(nil), l.ents[n:]...)
	}
	return nil
}

// memSnaps keeps snapshots in memory.
type memSnaps struct {
	mu    sync.Mutex
	metas []SnapshotMeta // newest first
	data  map[uint64][]byte
}

func newMemSnaps() *memSnaps { return &memSnaps{data: map[uint64][]byte{}} }

func (s *memSnaps) List() []SnapshotMeta {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.metas)
}

func (s *memSnaps) Create(m SnapshotMeta, write func(io.Writer) error) (SnapshotMeta, error) {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return m, err
	}
	m.Size = int64(b.Len())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.metas = append(s.metas, m)
	slices.SortFunc(s.metas, func(a, b SnapshotMeta) int { return int(b.Index) - int(a.Index) })
	s.data[m.Index] = b.Bytes()
	return m, nil
}

func (s *memSnaps) Open(index uint64) (io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.data[index]
	if !ok {
		return nil, errors.New("no such snapshot")
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (s *memSnaps) SendTo(index uint64, w io.Writer) error {
	s.mu.Lock()
	i := slices.IndexFunc(s.metas, func(m SnapshotMeta) bool { return m.Index == index })
	if i < 0 {
		s.mu.Unlock()
		return errors.New("no such snapshot")
	}
	m, b := s.metas[i], s.data[index]
	s.mu.Unlock()
	return gob.NewEncoder(w).Encode(struct {
		Meta SnapshotMeta
		Data []byte
	}{m, b})
}

func (s *memSnaps) Receive(r io.Reader) (SnapshotMeta, error) {
	var v struct {
		Meta SnapshotMeta
		Data []byte
	}
	if err := gob.NewDecoder(r).Decode(&v); err != nil {
		return v.Meta, err
	}
	return s.Create(v.Meta, func(w io.Writer) error { _, err := w.Write(v.Data); return err })
}

func (s *memSnaps) Retain(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.metas) > n {
		last := s.metas[len(s.metas)-1]
		delete(s.data, last.Index)
		s.metas = s.metas[:len(s.metas)-1]
	}
	return nil
}

// machine counts commands. Its state is checked by hash.
type machine struct {
	mu      sync.Mutex
	state   machineState
	panicAt string
}

type machineState struct {
	Index, Term, Hash, Count uint64
	Now                      int64
	Seen                     map[string]int
	Members                  []string
}

func newMachine() *machine { return &machine{state: machineState{Seen: map[string]int{}}} }

func (m *machine) step(at Position) {
	if at.Index != m.state.Index+1 || at.Now < m.state.Now || at.Term < m.state.Term {
		panic(fmt.Sprintf("entry %d of term %d at %d after %+v", at.Index, at.Term, at.Now, m.state.Index))
	}
	m.state.Index, m.state.Term, m.state.Now = at.Index, at.Term, at.Now
}

func (m *machine) Apply(at Position, commands [][]byte, results []any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step(at)
	for i, cmd := range commands {
		if m.panicAt != "" && string(cmd) == m.panicAt {
			panic("unknown command")
		}
		h := fnv.New64a()
		fmt.Fprint(h, m.state.Hash, string(cmd))
		m.state.Hash = h.Sum64()
		m.state.Count++
		m.state.Seen[string(cmd)]++
		if results != nil {
			results[i] = string(cmd)
		}
	}
}

func (m *machine) ApplyMembers(at Position, change []byte) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.step(at)
	if string(change) == "refuse" {
		return errors.New("machine refuses")
	}
	m.state.Members = append(m.state.Members, string(change))
	return string(change)
}

func (m *machine) Snapshot() (func(io.Writer) error, func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(m.state); err != nil {
		panic(err)
	}
	return func(w io.Writer) error { _, err := w.Write(b.Bytes()); return err }, func() {}
}

func (m *machine) Restore(r io.Reader) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state = machineState{}
	if err := gob.NewDecoder(r).Decode(&m.state); err != nil {
		return err
	}
	if m.state.Seen == nil {
		m.state.Seen = map[string]int{}
	}
	return nil
}

func (m *machine) Maintain() bool { return false }

func (m *machine) Hash() (uint64, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Index, m.state.Hash
}

// poison makes the machine panic at cmd.
func (m *machine) poison(cmd string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.panicAt = cmd
}

func (m *machine) seen(cmd string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Seen[cmd]
}

// network connects replicas in memory. Messages of a channel stay in order.
type network struct {
	mu    sync.Mutex
	peers map[uint64]*node
	cut   map[[2]uint64]bool
}

// node is a replica and what it needs to be started again.
type node struct {
	id    uint64
	net   *network
	log   Log
	snaps *memSnaps
	m     Machine
	opt   Options
	now   func() int64
	over  Transport // instead of the network

	r      *Replica
	cancel context.CancelFunc
	ended  chan error
	queues [2]chan delivery
	done   chan struct{}
	pumps  sync.WaitGroup
}

type delivery struct {
	from    uint64
	payload []byte
}

func newNetwork() *network {
	return &network{peers: map[uint64]*node{}, cut: map[[2]uint64]bool{}}
}

func (n *network) get(from, to uint64) *node {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut[[2]uint64{from, to}] {
		return nil
	}
	return n.peers[to]
}

// set cuts or mends the way between two members.
func (n *network) set(a, b uint64, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]uint64{a, b}], n.cut[[2]uint64{b, a}] = cut, cut
}

func (n *node) Send(to uint64, ch Channel, payload []byte) bool {
	p := n.net.get(n.id, to)
	if p == nil {
		return false
	}
	q := p.queues[0]
	if ch == transport.Append {
		q = p.queues[1]
	}
	select {
	case q <- delivery{n.id, payload}:
		return true
	default:
		return false
	}
}

func (n *node) SendStream(_ context.Context, to uint64, header []byte, write func(io.Writer) error) error {
	p := n.net.get(n.id, to)
	if p == nil {
		return errors.New("no connection")
	}
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	return p.r.ReceiveStream(n.id, header, &b)
}

// start runs the node's replica; all others hear that it is up.
func (n *node) start(t testing.TB) {
	t.Helper()
	over := n.over
	if over == nil {
		over = n
	}
	r, err := New(Config{
		ID: n.id, Cluster: 7, Machine: n.m, Log: n.log, Snapshots: n.snaps, Transport: over,
		Options: n.opt, Now: n.now,
	})
	if err != nil {
		t.Fatalf("start %d: %v", n.id, err)
	}
	n.r, n.ended, n.done = r, make(chan error, 1), make(chan struct{})
	n.queues = [2]chan delivery{make(chan delivery, 4096), make(chan delivery, 4096)}
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	for _, q := range n.queues {
		n.pumps.Go(func() {
			for {
				select {
				case <-n.done:
					return
				case d := <-q:
					r.Receive(d.from, transport.Control, d.payload)
				}
			}
		})
	}
	go func() { n.ended <- r.Run(ctx) }()
	n.net.mu.Lock()
	n.net.peers[n.id] = n
	n.net.mu.Unlock()
	n.net.each(n.id, func(p *node) { p.r.PeerUp(n.id); r.PeerUp(p.id) })
}

func (n *network) each(but uint64, f func(*node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, p := range n.peers {
		if id != but {
			f(p)
		}
	}
}

// stop ends the replica as a killed process: nothing more is sent, and its peers
// notice at once.
func (n *node) stop() error {
	n.net.mu.Lock()
	delete(n.net.peers, n.id)
	n.net.mu.Unlock()
	n.cancel()
	close(n.done)
	err := <-n.ended
	n.pumps.Wait()
	n.net.each(n.id, func(p *node) { p.r.PeerDown(n.id) })
	return err
}

// found gives n the state of a founder.
func (n *node) found(t testing.TB, voters ...uint64) {
	t.Helper()
	m, err := FirstSnapshot(7, voters)
	if err != nil {
		t.Fatal(err)
	}
	state := machineState{Index: 1, Term: 1}
	if _, err := n.snaps.Create(m, func(w io.Writer) error { return gob.NewEncoder(w).Encode(state) }); err != nil {
		t.Fatal(err)
	}
	if err := n.log.Append(FirstBatch()); err != nil {
		t.Fatal(err)
	}
}

// cluster is some members in one process.
type cluster struct {
	t     testing.TB
	net   *network
	nodes map[uint64]*node
	opt   Options
	now   func() int64
	loads int
}

func newCluster(t testing.TB, n int, opt Options) *cluster {
	t.Helper()
	began := time.Now()
	c := &cluster{t: t, net: newNetwork(), nodes: map[uint64]*node{}, opt: opt, now: func() int64 { return int64(time.Since(began)) }}
	voters := make([]uint64, n)
	for i := range voters {
		voters[i] = uint64(i + 1)
	}
	for _, id := range voters {
		c.add(id).found(t, voters...)
	}
	for _, id := range voters {
		c.nodes[id].start(t)
	}
	return c
}

// add makes a node without state; it is not started.
func (c *cluster) add(id uint64) *node {
	n := &node{id: id, net: c.net, log: newMemLog(), snaps: newMemSnaps(), m: newMachine(), opt: c.opt, now: c.now}
	c.nodes[id] = n
	return n
}

func (c *cluster) stop() {
	c.t.Helper()
	for _, n := range c.nodes {
		c.net.mu.Lock()
		up := c.net.peers[n.id] == n
		c.net.mu.Unlock()
		if up {
			if err := n.stop(); err != nil {
				c.t.Errorf("member %d ended with %v", n.id, err)
			}
		}
	}
}

// leader waits for a running leader that a majority of the running members
// follow. One that was stopped may be followed for a moment still, and its last
// word was that it leads.
func (c *cluster) leader() *node {
	c.t.Helper()
	var lead *node
	c.until("a leader", func() bool {
		votes, leaders, up := map[uint64]int{}, []*node{}, 0
		c.net.each(0, func(n *node) {
			up++
			s := n.r.Status()
			votes[s.Leader]++
			if s.Role == Leader {
				leaders = append(leaders, n)
			}
		})
		i := slices.IndexFunc(leaders, func(n *node) bool { return votes[n.id] > up/2 })
		if i >= 0 {
			lead = leaders[i]
		}
		return i >= 0
	})
	return lead
}

// until waits for a condition.
func (c *cluster) until(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("no %s in two minutes", what)
		}
		<-time.After(time.Millisecond)
	}
}

func (c *cluster) propose(n *node, cmd string) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	got, err := n.r.Propose(ctx, []byte(cmd))
	if err != nil || got != cmd {
		c.t.Fatalf("propose %q on %d: %v, %v", cmd, n.id, got, err)
	}
}
