package replica

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
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
