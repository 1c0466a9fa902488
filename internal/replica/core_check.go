package replica

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// maxNumber bounds terms and indexes from peers, so that none can overflow.
const maxNumber = 1 << 62

// receiveRaft gives raft a message that cannot break it.
func (c *Core) receiveRaft(from uint64, w wire) error {
	m := &raftpb.Message{}
	if err := proto.Unmarshal(w.rest, m); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	if m.GetFrom() != from || m.GetTo() != c.id || from == c.id || from == raft.None || raft.IsLocalMsgTarget(from) {
		return fmt.Errorf("%w: from %d to %d, but member %d sent it", errWire, m.GetFrom(), m.GetTo(), from)
	}
	switch t := m.GetType(); {
	case (t == raftpb.MsgHeartbeat) != (w.kind == wireHeartbeat), (t == raftpb.MsgHeartbeatResp) != (w.kind == wireHeartbeatResp):
		return fmt.Errorf("%w: %v in the wrong envelope", errWire, t)
	case t == raftpb.MsgSnap:
		return fmt.Errorf("%w: a snapshot without its state", errWire)
	}
	if from == c.elect.lost && c.now < c.elect.lostUntil && m.GetTerm() <= c.state.Term {
		return nil
	}
	c.observe() // what is checked depends on the term
	if err := c.checkMessage(m); err != nil {
		return fmt.Errorf("%w: %v: %w", errWire, m.GetType(), err)
	}
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if m.GetTerm() > c.state.Term && !c.mayVote(m) {
			return nil
		}
	case raftpb.MsgReadIndex:
		c.receiveRead(m)
		return nil
	case raftpb.MsgHeartbeat:
		if m.GetTerm() >= c.state.Term {
			c.lease.heard(c, m, w)
		}
	case raftpb.MsgHeartbeatResp:
		c.lease.acked(c, m, w)
	case raftpb.MsgAppResp:
		if m.GetTerm() == c.state.Term {
			c.disk.race.acked(c.now, m)
		}
	}
	// What raft refuses here is a response of somebody who is not a member.
	_ = c.node.Step(m)
	return nil
}

// checkMessage looks for whatever raft would panic at. raft trusts its peers;
// this does not (etcd 21518).
func (c *Core) checkMessage(m *raftpb.Message) error {
	if m.GetTerm() > maxNumber || m.GetIndex() > maxNumber || m.GetLogTerm() > maxNumber || m.GetCommit() > maxNumber ||
		m.GetRejectHint() > maxNumber || len(m.GetResponses()) > 0 || m.GetSnapshot() != nil {
		return fmt.Errorf("a field is out of range")
	}
	t := m.GetType()
	if t != raftpb.MsgReadIndex && m.GetTerm() == 0 {
		return fmt.Errorf("no term")
	}
	if n := len(m.GetEntries()); n > 0 && t != raftpb.MsgApp && t != raftpb.MsgReadIndex && t != raftpb.MsgReadIndexResp {
		return fmt.Errorf("%d entries", n)
	}
	switch t {
	case raftpb.MsgApp:
		return c.checkAppend(m)
	case raftpb.MsgAppResp:
		// Only what was sent can be acknowledged, in the life that sent it: a
		// leader's own disk may be behind and forget the entry in a crash.
		if c.isLeader() && m.GetTerm() == c.state.Term && m.GetIndex() > c.disk.last {
			return fmt.Errorf("index %d is behind the last, %d", m.GetIndex(), c.disk.last)
		}
	case raftpb.MsgHeartbeat:
		if m.GetCommit() > c.disk.last && m.GetTerm() >= c.state.Term {
			return fmt.Errorf("commit index %d is behind the last entry, %d: this member has lost part of its log, or the leader is wrong", m.GetCommit(), c.disk.last)
		}
		return checkReadContext(m, maxNumber)
	case raftpb.MsgHeartbeatResp:
		if m.GetTerm() != c.state.Term || !c.isLeader() { // raft does not look at it
			return checkReadContext(m, maxNumber)
		}
		return checkReadContext(m, c.lease.reads)
	case raftpb.MsgTimeoutNow:
		if m.GetFrom() != c.state.Leader || m.GetTerm() != c.state.Term {
			return fmt.Errorf("not from the leader")
		}
	case raftpb.MsgReadIndex, raftpb.MsgReadIndexResp:
		if len(m.GetEntries()) != 1 || len(m.GetEntries()[0].GetData()) != readKeyBytes || (t == raftpb.MsgReadIndex) != (m.GetTerm() == 0) {
			return fmt.Errorf("not one id of %d bytes", readKeyBytes)
		}
	case raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp:
	default:
		return fmt.Errorf("not a message between members")
	}
	return nil
}

// checkAppend makes sure that entries follow each other.
func (c *Core) checkAppend(m *raftpb.Message) error {
	index, term := m.GetIndex(), m.GetLogTerm()
	if term > m.GetTerm() || (index == 0) != (term == 0) {
		return fmt.Errorf("entries after %d of term %d in term %d", index, term, m.GetTerm())
	}
	for _, e := range m.GetEntries() {
		if e.GetIndex() != index+1 || e.GetTerm() < term || e.GetTerm() == 0 || e.GetTerm() > m.GetTerm() {
			return fmt.Errorf("entry %d of term %d after %d of term %d", e.GetIndex(), e.GetTerm(), index, term)
		}
		if t := e.GetType(); t != raftpb.EntryNormal && t != raftpb.EntryConfChangeV2 {
			return fmt.Errorf("entry %d of type %v", e.GetIndex(), t)
		}
		index, term = e.GetIndex(), e.GetTerm()
	}
	return nil
}

// checkReadContext: raft reads a number from it, up to which it confirms reads.
func checkReadContext(m *raftpb.Message, limit uint64) error {
	switch ctx := m.GetContext(); {
	case len(ctx) == 0:
		return nil
	case len(ctx) != 8 || readPosition(ctx) > limit:
		return fmt.Errorf("read position %x is out of range", ctx)
	}
	return nil
}
