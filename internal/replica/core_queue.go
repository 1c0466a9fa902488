package replica

import (
	"fmt"

	"go.etcd.io/raft/v3"

	"github.com/concord-kv/concord/internal/transport"
)

// queue holds the groups that were taken on this member and are not applied yet,
// in order of sequence. The first sent of them were handed to a leader, all
// under one term; they are applied in this order or not at all, because the log
// of a later leader has a prefix of them.
type queue struct {
	groups []*Group
	sent   int
	// stream is the number of the last group forwarded under streamTerm.
	stream, streamTerm uint64
	resendAt           int64
	// seq is the last sequence taken, and unknown the last one that was given up
	// though it may still be applied.
	seq, unknown uint64
}

// enqueue takes a group of this member's.
func (c *Core) enqueue(g *Group) {
	if g.Seq <= c.queue.seq {
		panic(fmt.Sprintf("replica: group %d came after group %d", g.Seq, c.queue.seq))
	}
	c.queue.seq = g.Seq
	switch {
	case c.state.Leaderless:
		c.answer(AnswerGroup, g.Seq, ErrNoLeader)
	case g.Term != 0 && !(c.isLeader() && g.Term == c.state.Term):
		c.answer(AnswerGroup, g.Seq, ErrNotLeader)
	default:
		c.queue.groups = append(c.queue.groups, g)
	}
}

func (c *Core) answer(kind AnswerKind, id uint64, err error) {
	c.out.Answers = append(c.out.Answers, Answer{Kind: kind, ID: id, Err: err})
}

// limbo reports whether groups were handed to an earlier leader and it is not
// known yet whether they are in the log. Nothing new is handed on meanwhile,
// which keeps the order of sequences.
func (c *Core) limbo() bool {
	return c.queue.sent > 0 && c.queue.groups[0].term != c.state.Term
}

// groupsApplied drops the groups that an entry brought.
func (c *Core) groupsApplied(seqs []uint64) {
	q := &c.queue
	for _, seq := range seqs {
		if seq <= q.unknown {
			continue
		}
		if q.sent == 0 || q.groups[0].Seq != seq {
			panic(fmt.Sprintf("replica: group %d was applied out of order: %d wait, %d were handed on", seq, len(q.groups), q.sent))
		}
		c.out.Finished = append(c.out.Finished, q.groups[0])
		q.groups[0] = nil
		q.groups = q.groups[1:]
		q.sent--
	}
	if len(seqs) > 0 {
		c.queue.resendAt = c.now + 2*int64(c.opt.Heartbeat)
	}
}

// termApplied takes back the groups that were handed to leaders before term, of
// which an entry has been applied now: they are in no log that can win.
func (c *Core) termApplied(term uint64) {
	q := &c.queue
	if q.sent == 0 || q.groups[0].term >= term {
		return
	}
	keep := q.groups[:0]
	for _, g := range q.groups {
		g.term = 0
		if g.Term != 0 && g.Term < term {
			c.answer(AnswerGroup, g.Seq, ErrNotLeader)
		} else {
			keep = append(keep, g)
		}
	}
	clear(q.groups[len(keep):])
	q.groups, q.sent = keep, 0
}

// giveUpSent fails the groups handed on, of which nothing will be heard: a
// snapshot may contain them.
func (c *Core) giveUpSent() {
	q := &c.queue
	for _, g := range q.groups[:q.sent] {
		c.answer(AnswerGroup, g.Seq, ErrLeaderChanged)
		q.unknown = g.Seq
	}
	q.groups, q.sent = append([]*Group(nil), q.groups[q.sent:]...), 0
}

// failWaiting fails what was not handed to a leader.
func (c *Core) failWaiting(err error) {
	q := &c.queue
	for _, g := range q.groups[q.sent:] {
		c.answer(AnswerGroup, g.Seq, err)
	}
	clear(q.groups[q.sent:])
	q.groups = q.groups[:q.sent]
}

// Wants reports whether an InputPropose with waiting commands of so many bytes
// would be handed on now. It is false while enough is under way, so that calls
// gather into larger groups.
func (c *Core) Wants(waiting int, bytes int64) bool {
	switch {
	case c.state.Leader == raft.None || len(c.queue.groups) > c.queue.sent || c.limbo() || c.state.Stalled:
		return false
	case c.isLeader():
		return c.mayPropose(waiting+c.intake.count, bytes+c.intake.bytes)
	}
	return c.pace.allows(c.queue.sent, waiting, bytes, c)
}

// forward hands this member's waiting groups to the leader.
func (c *Core) forward() {
	q := &c.queue
	if c.state.Leader == raft.None || c.isLeader() || c.limbo() || q.sent == len(q.groups) {
		return
	}
	if q.streamTerm != c.state.Term {
		q.stream, q.streamTerm = 0, c.state.Term
	}
	for ; q.sent < len(q.groups); q.sent++ {
		g := q.groups[q.sent]
		if g.Term != 0 { // led its term, and leads no longer
			c.dropGroup(q.sent, ErrNotLeader)
			q.sent--
			continue
		}
		q.stream++
		g.term, g.stream = c.state.Term, q.stream
		c.pace.last = g.Count
		c.sendGroup(g)
	}
	q.resendAt = c.now + 2*int64(c.opt.Heartbeat)
}

// dropGroup fails the waiting group at i.
func (c *Core) dropGroup(i int, err error) {
	c.answer(AnswerGroup, c.queue.groups[i].Seq, err)
	c.queue.groups = append(c.queue.groups[:i:i], c.queue.groups[i+1:]...)
}

func (c *Core) sendGroup(g *Group) {
	c.sendWire(c.state.Leader, transport.Append, wire{
		kind: wireForward,
		f:    [5]uint64{g.term, c.incarnation, g.stream, g.Seq, uint64(g.Count)},
		rest: g.Data,
	})
}

// checkForwards asks the leader, when nothing was heard for long, which group it
// waits for. The answer resends what was lost.
func (c *Core) checkForwards() {
	q := &c.queue
	if q.sent == 0 || c.now < q.resendAt || c.isLeader() || c.state.Leader == raft.None || c.limbo() {
		return
	}
	q.resendAt = c.now + 2*int64(c.opt.Heartbeat)
	c.sendWire(c.state.Leader, transport.Append, wire{kind: wireForward, f: [5]uint64{c.state.Term, c.incarnation}})
}

// receiveForwarded hears which group the leader waits for. It may have been given
// up here, with those behind it: then it must not be waited for.
func (c *Core) receiveForwarded(from uint64, w wire) error {
	term, incarnation, next := w.f[0], w.f[1], w.f[2]
	if from != c.state.Leader || term != c.state.Term || incarnation != c.incarnation || c.limbo() {
		return nil
	}
	q := &c.queue
	first := q.stream + 1
	if q.sent > 0 {
		first = q.groups[0].stream
	}
	if next < first && q.streamTerm == term {
		c.sendWire(from, transport.Append, wire{kind: wireForward, f: [5]uint64{term, incarnation, first - 1}})
	}
	for _, g := range q.groups[:q.sent] {
		if g.stream >= next {
			c.sendGroup(g)
		}
	}
	return nil
}
