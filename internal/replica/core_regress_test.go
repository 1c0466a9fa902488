package replica

import (
	"testing"

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
