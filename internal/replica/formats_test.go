package replica

import (
	"bytes"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// FuzzPayload: what decodes is what encodes to the same bytes; the rest is an
// error, never a panic or a large allocation.
func FuzzPayload(f *testing.F) {
	g := Group{Seq: 7}
	g.Add([]byte("one"))
	g.Add(nil)
	payload := appendGroup(appendPayloadHeader(nil, 5), groupRef{1, 2, g.Seq, g.Count, g.Data})
	f.Add(payload)
	f.Add(appendGroup(payload, groupRef{3, 4, 300, g.Count, g.Data}))
	f.Add(appendChange(nil, changeRef{9, 1, 2, 3, []byte("context")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = parseChange(data)
		stamp, rest, err := payloadStamp(data)
		if err != nil {
			return
		}
		again := appendPayloadHeader(nil, stamp)
		for len(rest) > 0 {
			var g groupRef
			if g, rest, err = cutGroup(rest); err != nil {
				return
			}
			cmds, err := appendCommands(nil, g)
			if err != nil {
				return
			}
			if len(cmds) != g.count {
				t.Fatalf("%d commands instead of %d", len(cmds), g.count)
			}
			if checkGroup(g, len(data)) != nil {
				t.Fatal("the leader refuses what members can decode")
			}
			again = appendGroup(again, g)
		}
		if len(again) == len(data) && !bytes.Equal(again, data) {
			t.Fatalf("%x became %x", data, again)
		}
	})
}

func TestAppliedIsStrict(t *testing.T) {
	good := Group{Seq: 1}
	good.Add([]byte("cmd"))
	ref := groupRef{1, 2, 1, good.Count, good.Data}
	for name, data := range map[string][]byte{
		"version":  append([]byte{9}, appendGroup(appendPayloadHeader(nil, 5), ref)[1:]...),
		"short":    appendPayloadHeader(nil, 5)[:4],
		"cut":      appendGroup(appendPayloadHeader(nil, 5), ref)[:30],
		"trailing": append(appendGroup(appendPayloadHeader(nil, 5), ref), 0),
		"count":    appendGroup(appendPayloadHeader(nil, 5), groupRef{1, 2, 1, 2, good.Data}),
		"negative": appendGroup(appendPayloadHeader(nil, -5), ref),
	} {
		a := NewApplier(newMachine(), 1, 2, SnapshotInfo{})
		e := &raftpb.Entry{Index: new(uint64(1)), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: data}
		if _, err := a.Apply(Task{Entries: []*raftpb.Entry{e}}, func(Result) { t.Errorf("%s: resolved", name) }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	a := NewApplier(newMachine(), 1, 2, SnapshotInfo{})
	e := &raftpb.Entry{Index: new(uint64(2)), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum()}
	if _, err := a.Apply(Task{Entries: []*raftpb.Entry{e}}, nil); err == nil {
		t.Error("a gap was applied")
	}
}

// TestTime: cluster time never falls in apply, whatever entries say.
func TestTime(t *testing.T) {
	m := newMachine()
	a := NewApplier(m, 1, 2, SnapshotInfo{})
	g := Group{}
	g.Add([]byte("x"))
	for i, stamp := range []int64{5, 9, 7} {
		data := appendGroup(appendPayloadHeader(nil, stamp), groupRef{3, 4, uint64(i + 1), 1, g.Data})
		e := &raftpb.Entry{Index: new(uint64(i + 1)), Term: new(uint64(1)), Type: raftpb.EntryNormal.Enum(), Data: data}
		if _, err := a.Apply(Task{Entries: []*raftpb.Entry{e}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if m.state.Now != 9 || a.Snapshot().Time != 9 {
		t.Errorf("time is %d, %d", m.state.Now, a.Snapshot().Time)
	}
}

func entriesOf(term uint64, size int, indexes ...uint64) (ents []*raftpb.Entry) {
	for _, i := range indexes {
		ents = append(ents, &raftpb.Entry{Index: new(i), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: make([]byte, size)})
	}
	return ents
}

// logPair is a storage and the log behind it, written together.
type logPair struct {
	t   *testing.T
	log *memLog
	*storage
}

func newLogPair(t *testing.T, cache int64) *logPair {
	log := newMemLog()
	if err := log.Append(FirstBatch()); err != nil {
		t.Fatal(err)
	}
	s, err := newStorage(log, SnapshotInfo{Index: 1, Term: 1}, cache)
	if err != nil {
		t.Fatal(err)
	}
	return &logPair{t, log, s}
}

func (p *logPair) add(term uint64, size int, indexes ...uint64) {
	p.t.Helper()
	ents := entriesOf(term, size, indexes...)
	b := Batch{}
	for _, e := range ents {
		b.Entries = append(b.Entries, Entry{Index: e.GetIndex(), Term: e.GetTerm(), Data: e.GetData()})
	}
	if err := p.log.Append(b); err != nil {
		p.t.Fatal(err)
	}
	p.append(ents)
	p.check()
}

// check reads everything that raft may ask for.
func (p *logPair) check() {
	p.t.Helper()
	if p.last != p.log.LastIndex() {
		p.t.Fatalf("ends at %d instead of %d", p.last, p.log.LastIndex())
	}
	for lo := p.first; lo <= p.last; lo++ {
		want, _ := p.log.Term(lo)
		if got, err := p.Term(lo); err != nil || got != want {
			p.t.Fatalf("term of %d is %d, %v instead of %d", lo, got, err, want)
		}
		for next := lo; next <= p.last; {
			ents, err := p.Entries(next, p.last+1, 150)
			if err != nil || len(ents) == 0 {
				p.t.Fatalf("entries from %d: %v", next, err)
			}
			for _, e := range ents {
				if e.GetIndex() != next {
					p.t.Fatalf("entry %d instead of %d", e.GetIndex(), next)
				}
				next++
			}
		}
	}
	if _, err := p.Entries(p.first-1, p.last+1, 1); err != raft.ErrCompacted {
		p.t.Errorf("entries before the first: %v", err)
	}
	if _, err := p.Term(p.last + 1); err != raft.ErrUnavailable {
		p.t.Errorf("term behind the last: %v", err)
	}
	if _, err := p.Term(p.first - 1); err != nil {
		p.t.Errorf("term before the first: %v", err)
	}
}

// TestStorage: the tail in memory and the log behind it give one log, through
// overwriting, truncation and reset; slices handed out do not change.
func TestStorage(t *testing.T) {
	p := newLogPair(t, 400)
	p.add(2, 50, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	if p.bytes > 400 {
		t.Errorf("%d bytes in memory", p.bytes)
	}
	held, err := p.Entries(8, 11, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	p.add(3, 10, 9, 10, 11)
	if held[1].GetTerm() != 2 {
		t.Error("a slice that was handed out changed")
	}
	p.add(4, 10, 3) // further back than memory goes
	p.add(4, 10, 4, 5, 6, 7, 8)
	if err := p.compact(5); err != nil {
		t.Fatal(err)
	}
	p.check()
	if err := p.log.TruncateBefore(5); err != nil {
		t.Fatal(err)
	}
	p.check()
	if err := p.log.Append(Batch{Mark: Mark{Index: 100, Term: 9}, Reset: true}); err != nil {
		t.Fatal(err)
	}
	p.reset(Mark{Index: 100, Term: 9})
	p.add(9, 10, 101, 102)
	if _, err := newStorage(p.log, SnapshotInfo{Index: 50, Term: 5}, 400); err == nil {
		t.Error("a gap between snapshot and log was accepted")
	}
	// At a restart whose snapshot lies inside the log, the first entry only
	// gives its term.
	if s, err := newStorage(p.log, SnapshotInfo{Index: 102, Term: 9}, 400); err != nil || s.first != 102 || s.prevTerm != 9 {
		t.Errorf("restart: %+v, %v", s, err)
	}
}

// TestLogSize: bytesFrom counts what was written from an index on, within a
// sample, also when entries were overwritten.
func TestLogSize(t *testing.T) {
	p := newLogPair(t, 1<<30)
	for i := uint64(2); i < 50; i++ {
		p.append(entriesOf(2, 32<<10, i))
	}
	p.append(entriesOf(3, 32<<10, 40, 41))
	for _, i := range []uint64{2, 10, 39, 41} {
		want := int64(42-i) * (32<<10 + 32)
		if got := p.bytesFrom(i); got < want || got > want+12*(32<<10+32) {
			t.Errorf("%d bytes from %d on, want about %d", got, i, want)
		}
	}
}

func TestRefusedChanges(t *testing.T) {
	cs := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	for _, cc := range []*raftpb.ConfChangeV2{
		{},
		{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(1))}, {Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(2))}, {Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(3))}}},
	} {
		before := proto.Clone(cs)
		if tryChange(cs, cc) == nil {
			t.Errorf("%v was accepted", cc)
		}
		if !proto.Equal(before, cs) {
			t.Error("trying changed the configuration")
		}
	}
	for _, bad := range []*raftpb.ConfState{nil, {}, {Voters: []uint64{0}}, {Voters: []uint64{1, 1}}, {Voters: []uint64{1}, Learners: []uint64{1}}} {
		if checkConfState(bad) == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}
