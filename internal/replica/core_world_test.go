package replica

import (
	"encoding/binary"
	"fmt"
	"io"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func writeBytes(b []byte) func(io.Writer) error {
	return func(w io.Writer) error { _, err := w.Write(b); return err }
}

// runTask applies a task at once and answers it.
func (p *peer) runTask(t Task) {
	w := p.w
	switch {
	case t.Install.Index != 0:
		if err := restore(Config{Machine: p.m, Snapshots: p.snaps}, t.Install.Index); err != nil {
			w.t.Fatal(err)
		}
		p.apply.Reset(t.Install)
		p.step(Input{Kind: InputApplied, Applied: &Applied{Index: t.Install.Index}})
	case t.Take != nil:
		info := p.apply.Snapshot()
		info.ConfState = t.Take
		conf, err := proto.Marshal(t.Take)
		if err != nil {
			w.t.Fatal(err)
		}
		write, release := p.m.Snapshot()
		defer release()
		meta, err := p.snaps.Create(SnapshotMeta{Index: info.Index, Term: info.Term, ConfState: conf, Time: info.Time}, write)
		if err != nil {
			w.t.Fatal(err)
		}
		info.Size = meta.Size
		p.step(Input{Kind: InputApplied, Applied: &Applied{Index: info.Index}})
		_ = p.snaps.Retain(2)
		oldest := p.snaps.metas[len(p.snaps.metas)-1].Index
		p.step(Input{Kind: InputSnapshotCreated, Snapshot: info, Index: oldest})
	default:
		done, err := p.apply.Apply(t, func(r Result) {
			cmd, ok := p.waiting[r.Seq]
			if !ok {
				return
			}
			if r.Values[0] != cmd {
				w.t.Fatalf("member %d: group %d got %v instead of %q", p.id, r.Seq, r.Values[0], cmd)
			}
			delete(p.waiting, r.Seq)
			w.acked = append(w.acked, cmd)
		})
		if err != nil {
			w.t.Fatal(err)
		}
		p.step(Input{Kind: InputApplied, Applied: &done})
	}
}

// checkRead: what was acknowledged last when the round began is there.
func (w *world) checkRead(p *peer, a Answer) {
	want := p.reading[a.ID]
	delete(p.reading, a.ID)
	for _, cmd := range w.acked[max(0, want-5):want] {
		w.until(p, a.Index, cmd)
	}
}

// until checks that cmd is in p's state once p has applied index.
func (w *world) until(p *peer, index uint64, cmd string) {
	w.after(int64(time.Millisecond), p, func() {
		if i, _ := p.m.Hash(); i < index {
			w.until(p, index, cmd)
		} else if p.m.seen(cmd) != 1 {
			w.t.Errorf("a read at %d on member %d misses %q", index, p.id, cmd)
		}
	})
}

// workload proposes and reads on p, for ever.
func (p *peer) workload() {
	w := p.w
	if p.core.Wants(1, 10) || w.rng.IntN(20) == 0 {
		p.groups++
		g := &Group{Seq: p.groups}
		cmd := fmt.Sprintf("%d.%d.%d", p.id, p.life, p.groups)
		g.Add([]byte(cmd))
		p.waiting[g.Seq] = cmd
		p.step(Input{Kind: InputPropose, Group: g})
	}
	if len(p.reading) == 0 {
		p.reads++
		p.reading = map[uint64]int{p.reads: len(w.acked)}
		p.step(Input{Kind: InputRead, ID: p.reads})
	}
	w.after(1+w.rng.Int64N(int64(20*time.Millisecond)), p, p.workload)
}

// play runs a seed and returns the hash of all that happened.
func play(t *testing.T, seed uint64, lease bool) uint64 {
	w := newWorld(t, seed, 3, Options{SnapshotBytes: 8 << 10, LogBytes: 4 << 10, CacheBytes: 2 << 10, ReadLease: lease})
	for _, p := range w.peers {
		p.workload()
	}
	for range 20 {
		w.run(w.now + w.rng.Int64N(int64(time.Second)))
		p := w.peers[w.rng.IntN(3)]
		if p.core == nil {
			p.boot()
			p.workload()
		} else {
			p.crash()
		}
	}
	for _, p := range w.peers {
		if p.core == nil {
			p.boot()
			p.workload()
		}
	}
	before := len(w.acked)
	w.run(w.now + int64(5*time.Second))
	if len(w.acked) < before+50 {
		t.Errorf("seed %d: only %d commands were acknowledged in 5s", seed, len(w.acked)-before)
	}
	w.checkStates()
	_ = binary.Write(w.trace, binary.LittleEndian, uint64(len(w.acked)))
	return w.trace.Sum64()
}

// checkStates: no acknowledged command is lost and none ran twice. Members may
// have applied different amounts.
func (w *world) checkStates() {
	best := w.peers[0]
	for _, p := range w.peers {
		if i, _ := p.m.Hash(); i > best.m.state.Index {
			best = p
		}
		for cmd, n := range p.m.state.Seen {
			if n != 1 {
				w.t.Errorf("%q ran %d times on member %d", cmd, n, p.id)
			}
		}
	}
	for _, cmd := range w.acked {
		if best.m.seen(cmd) != 1 {
			w.t.Errorf("%q was acknowledged and is lost", cmd)
		}
	}
}

// TestDeterminism: a seed is one story, whoever tells it.
func TestDeterminism(t *testing.T) {
	for seed := range uint64(4) {
		if a, b := play(t, seed, seed%2 == 0), play(t, seed, seed%2 == 0); a != b {
			t.Errorf("seed %d gave %x and then %x", seed, a, b)
		}
	}
}

// TestChaos runs more seeds: crashes, lost, repeated and reordered messages.
func TestChaos(t *testing.T) {
	for seed := range uint64(8) {
		play(t, 100+seed, seed%2 == 0)
	}
}

// FuzzReceive: nothing that a peer sends makes a member panic.
func FuzzReceive(f *testing.F) {
	types := []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgAppResp, raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp, raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp, raftpb.MsgSnap, raftpb.MsgProp}
	for _, typ := range types {
		for _, n := range []uint64{0, 1, 2, 5, 1<<64 - 1} {
			m := &raftpb.Message{Type: typ.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(n), Index: new(n), LogTerm: new(n), Commit: new(n), RejectHint: new(n), Context: []byte{1, 2, 3, 4, 5, 6, 7, 8}[:n%9]}
			m.Entries = []*raftpb.Entry{{Index: new(n + 1), Term: new(n), Data: make([]byte, n%32)}}
			k := wireRaft
			if typ == raftpb.MsgHeartbeat {
				k = wireHeartbeat
			} else if typ == raftpb.MsgHeartbeatResp {
				k = wireHeartbeatResp
			}
			f.Add(encodeRaft(wire{kind: k}, m), uint8(n))
		}
	}
	for k := wireForward; k <= wireTransfer; k++ {
		w := wire{kind: k, f: [5]uint64{3, 4, 1, 1, 1}, flag: 1}
		if k == wireForward || k == wireChange {
			w.rest = []byte{1, 'x'}
		}
		f.Add(w.append(nil), uint8(0))
	}
	f.Fuzz(func(t *testing.T, data []byte, flags uint8) {
		w := newWorld(t, 1, 3, Options{})
		if flags&1 == 0 {
			w.run(int64(time.Second)) // there is a leader
		}
		p := w.peers[0]
		if flags&2 != 0 {
			for _, o := range w.peers {
				if o.core.state.Role == Leader {
					p = o
				}
			}
		}
		for range 2 {
			p.core.Step(Input{Kind: InputMessage, Now: w.now, Peer: 2, Payload: data})
			p.core.Take()
		}
		p.core.Step(Input{Kind: InputSnapshotReceived, Now: w.now, Peer: 2, Payload: data, Snapshot: SnapshotInfo{Index: 9, Term: 1, ConfState: p.core.conf.state}})
		p.core.Take()
	})
}
