package replica

import (
	"encoding/binary"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// reads confirms that this member knows the newest commit index. One request is
// under way at a time; whoever arrives meanwhile joins the next.
type reads struct {
	id   uint64 // of the InputRead under way; 0 for none
	sent bool   // the attempt under key was made, at the time at
	key  uint64
	at   int64
	// held are requests of followers that wait for this leader's first commit,
	// the last one of each.
	held []*raftpb.Message
}

func (r *reads) start(id uint64) {
	r.id, r.sent = id, false
}

func (r *reads) fail(c *Core, err error) {
	if r.id != 0 {
		c.answer(AnswerRead, r.id, err)
		r.id, r.sent = 0, false
	}
}

// readKeyBytes is the length of the id of an attempt: incarnation and number, so
// that an answer to an earlier attempt or life cannot pass for this one's (etcd
// 20418).
const readKeyBytes = 16

// startRead makes an attempt if reads wait.
func (c *Core) startRead() {
	r := &c.reads
	if r.id == 0 || r.sent {
		return
	}
	switch {
	case c.state.Leaderless:
		r.fail(c, ErrNoLeader)
		return
	case c.state.Leader == raft.None, c.isLeader() && !c.state.Caught:
		return
	}
	r.key++
	key := binary.LittleEndian.AppendUint64(make([]byte, 0, readKeyBytes), c.incarnation)
	c.node.ReadIndex(binary.LittleEndian.AppendUint64(key, r.key))
	r.sent, r.at = true, c.now
}

// checkRead makes a new attempt when the answer does not come: messages may be
// lost.
func (c *Core) checkRead() {
	if c.reads.sent && c.now-c.reads.at > 2*int64(c.opt.Heartbeat) {
		c.reads.sent = false
	}
}

// readState hears raft's answer.
func (c *Core) readState(rs raft.ReadState) {
	r, key := &c.reads, rs.RequestCtx
	if len(key) != readKeyBytes || !r.sent || r.id == 0 ||
		binary.LittleEndian.Uint64(key) != c.incarnation || binary.LittleEndian.Uint64(key[8:]) != r.key {
		return
	}
	c.out.Answers = append(c.out.Answers, Answer{Kind: AnswerRead, ID: r.id, Index: rs.Index})
	r.id, r.sent = 0, false
}

// receiveRead passes on a follower's request, or keeps it until this leader has
// committed an entry of its own.
func (c *Core) receiveRead(m *raftpb.Message) {
	c.observe()
	if !c.isLeader() {
		return // the follower asks again
	}
	if c.state.Caught {
		_ = c.node.Step(m)
		return
	}
	for i, old := range c.reads.held {
		if old.GetFrom() == m.GetFrom() {
			c.reads.held[i] = m
			return
		}
	}
	if len(c.reads.held) < maxStreams {
		c.reads.held = append(c.reads.held, m)
	}
}

// readPosition is what raft's heartbeats carry for reads.
func readPosition(ctx []byte) uint64 { return binary.LittleEndian.Uint64(ctx) }
