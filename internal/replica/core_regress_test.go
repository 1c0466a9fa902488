package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// TestGivenUpGroupIsApplied: a snapshot was installed that might contain a
// group, but the group comes after it in the log.
func TestGivenUpGroupIsApplied(t *testing.T) {
	w := newWorld(t, 1, 3, Options{})
	c := w.peers[0].core
	c.queue.groups, c.queue.sent, c.queue.seq = []*Group{{Seq: 1, term: 2}}, 1, 1
	c.installed()
	if a := c.Take().Answers; len(a) != 1 || a[0].ID != 1 || a[0].Err != ErrLeaderChanged {
		t.Errorf("answers are %+v", a)
	}
	c.groupsApplied([]uint64{1})
	c.enqueue(&Group{Seq: 2, Count: 1, Data: []byte{0}})
	if len(c.queue.groups) != 1 || c.queue.sent != 0 {
		t.Errorf("%d groups wait, %d were handed on", len(c.queue.groups), c.queue.sent)
	}
}

// TestGivenUpGroupsLeaveNoGap: what a follower forwards is applied also when what
// it forwarded before was lost on the way, and was given up because a snapshot
// was installed that might have contained it.
func TestGivenUpGroupsLeaveNoGap(t *testing.T) {
	w := newWorld(t, 1, 3, Options{})
	w.run(int64(3 * time.Second))
	at := slices.IndexFunc(w.peers, func(p *peer) bool { return p.core.state.Role == Follower })
	f := w.peers[at]
	term := f.core.state.Term
	propose := func(seq uint64) {
		g := &Group{Seq: seq}
		cmd := fmt.Sprint("group ", seq)
		g.Add([]byte(cmd))
		f.waiting[seq] = cmd
		f.core.Step(Input{Kind: InputPropose, Now: w.now, Group: g})
	}
	propose(1)
	o := f.core.Take()
	if o.Messages = nil; f.core.queue.sent != 1 {
		t.Fatal("the group was not forwarded")
	}
	f.handle(o)
	f.core.installed()
	f.handle(f.core.Take())
	propose(2)
	propose(3)
	f.handle(f.core.Take())
	w.run(w.now + int64(3*time.Second))
	if len(f.waiting) != 0 || f.core.state.Term != term {
		t.Errorf("in term %d, of %d %v are not applied", f.core.state.Term, term, f.waiting)
	}
}

// TestLateAnswers: what answers an earlier leadership or life of this member in
// the same term is no error.
func TestLateAnswers(t *testing.T) {
	w := newWorld(t, 1, 3, Options{})
	c := w.peers[0].core
	for kind, m := range map[wireKind]*raftpb.Message{
		wireHeartbeatResp: {Type: raftpb.MsgHeartbeatResp.Enum(), Context: []byte{61, 0, 0, 0, 0, 0, 0, 0}},
		wireRaft:          {Type: raftpb.MsgAppResp.Enum(), Index: new(uint64(992))},
	} {
		m.From, m.To, m.Term = new(uint64(2)), new(uint64(1)), new(c.state.Term)
		c.Step(Input{Kind: InputMessage, Peer: 2, Payload: encodeRaft(wire{kind: kind}, m)})
		if o := c.Take(); len(o.Rejected) != 0 {
			t.Errorf("%v was rejected: %v", m.GetType(), o.Rejected[0].Err)
		}
	}
}

// hear gives a message of from to c, and has written what c wants written.
func hear(t *testing.T, c *Core, from uint64, m *raftpb.Message) (tasks []Task) {
	t.Helper()
	m.From, m.To = new(from), new(c.id)
	c.Step(Input{Kind: InputMessage, Peer: from, Payload: encodeRaft(wire{kind: wireRaft}, m)})
	return settle(t, c)
}

// settle takes what c wants done, has it written, and returns the tasks.
func settle(t *testing.T, c *Core) (tasks []Task) {
	t.Helper()
	for {
		o := c.Take()
		for _, r := range o.Rejected {
			t.Fatalf("rejected a message of %d: %v", r.From, r.Err)
		}
		tasks = append(tasks, o.Tasks...)
		if len(o.Writes) == 0 {
			return tasks
		}
		c.Step(Input{Kind: InputWritten, Seq: o.Writes[len(o.Writes)-1].Seq})
	}
}

// after is an append of entries behind entry prev.
func after(prev, prevTerm, term uint64, data ...[]byte) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(term), Index: new(prev), LogTerm: new(prevTerm), Commit: new(prev)}
	for i, d := range data {
		m.Entries = append(m.Entries, &raftpb.Entry{Index: new(prev + 1 + uint64(i)), Term: new(term), Type: raftpb.EntryNormal.Enum(), Data: d})
	}
	return m
}

// TestSnapshotWaitsForChanges: a member applies a change by joint consensus, the
// end of which waits behind it, when a snapshot comes that is past both.
func TestSnapshotWaitsForChanges(t *testing.T) {
	w := newWorld(t, 1, 3, Options{})
	c := w.peers[0].core
	settle(t, c)
	last, term := c.disk.last, c.state.Term+1
	prevTerm, err := c.storage.Term(last)
	if err != nil {
		t.Fatal(err)
	}
	enter, err := proto.Marshal(&raftpb.ConfChangeV2{Context: appendChange(nil, changeRef{stamp: 1}), Changes: []*raftpb.ConfChangeSingle{
		{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: new(uint64(4))}, {Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(3))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	m := after(last, prevTerm, term, enter, nil)
	m.Commit = new(last + 2)
	for _, e := range m.Entries {
		e.Type = raftpb.EntryConfChangeV2.Enum()
	}
	tasks := hear(t, c, 2, m)
	if len(tasks) == 0 || !tasks[len(tasks)-1].changes() {
		t.Fatalf("the tasks are %+v", tasks)
	}
	s := SnapshotInfo{Index: last + 9, Term: term, Time: 9, Size: 1, ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 4}}}
	snap := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(term), Snapshot: raftSnapshot(s)}
	c.Step(Input{Kind: InputSnapshotReceived, Peer: 2, Payload: encodeRaft(wire{kind: wireRaft}, snap), Snapshot: s})
	changes := 0
	for len(tasks) > 0 {
		task := tasks[0]
		done := Applied{Index: task.Install.Index}
		if n := len(task.Entries); n > 0 {
			done.Index = task.Entries[n-1].GetIndex()
			if done.Changed = task.changes(); done.Changed {
				changes++
			}
		}
		if task.Refused {
			t.Errorf("a change is refused: %+v", task)
		}
		c.Step(Input{Kind: InputApplied, Applied: &done})
		tasks = append(tasks[1:], settle(t, c)...)
	}
	if changes != 2 || c.state.Applied != s.Index || c.conf.joint() || !c.conf.isVoter(4) {
		t.Errorf("%d changes, applied %d, the configuration is %v", changes, c.state.Applied, c.conf.state)
	}
}

// TestReplacedTimeDoesNotCount: cluster time that a leader told this member alone
// is not what this member counts on from when it leads later.
func TestReplacedTimeDoesNotCount(t *testing.T) {
	w := newWorld(t, 1, 3, Options{})
	c := w.peers[0].core
	settle(t, c)
	last, term := c.disk.last, c.state.Term+1
	prevTerm, err := c.storage.Term(last)
	if err != nil {
		t.Fatal(err)
	}
	at := func(ms int64) []byte { return appendPayloadHeader(nil, ms) }
	hear(t, c, 2, after(last, prevTerm, term, at(1000), at(1_000_000)))
	hear(t, c, 3, after(last+1, term, term+1, at(1010), nil))
	hear(t, c, 3, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), Term: new(term + 1)})
	hear(t, c, 3, &raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), Term: new(term + 2)})
	if c.state.Role != Leader || c.state.Term != term+2 {
		t.Fatalf("%v in term %d", c.state.Role, c.state.Term)
	}
	if now := c.state.ClusterTime(c.now); now != 1010 {
		t.Errorf("cluster time is %d", now)
	}
	if stamp, err := c.lastStamp(); stamp != 1010 || err != nil {
		t.Errorf("the log's last cluster time is %d, %v", stamp, err)
	}
}
