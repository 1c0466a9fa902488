package replica

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// race holds the leader's disk against those of the other voters: of one write
// at a time it notes when they had acknowledged its last entry, and when it was
// durable here. A leader whose writes take many times as long as those of a
// voter, which include the network, again and again, hands leadership to it.
type race struct {
	// The write that is watched; seq 0 is none.
	seq, last uint64
	began     int64
	acks      map[uint64]int64 // how long each voter took
	// score counts, for each voter, writes in which it won by far, less those
	// in which it did not.
	score map[uint64]int
	// led is since when this member leads, and so the soonest that it was
	// handed leadership.
	led int64
}

// Leadership moves when one voter has won by raceFactor raceScore times more
// often than not, writes here taking at least a tenth of an election timeout
// (100 ms by default: below that nobody suffers), and when this member has led
// for raceHold election timeouts. So two members whose disks are slow in turns
// hand it on once in 10 s at most.
const (
	raceFactor = 8
	raceScore  = 8
	raceHold   = 10
)

// leads begins anew, as the leader of another term or none.
func (r *race) leads(now int64) { *r = race{led: now} }

// start watches a write, if none is watched.
func (r *race) start(w *writing) {
	if r.seq == 0 {
		r.seq, r.last, r.began = w.seq, w.entries[len(w.entries)-1].GetIndex(), w.began
		clear(r.acks)
	}
}

// acked notes what a follower has on its disk.
func (r *race) acked(now int64, m *raftpb.Message) {
	if r.seq == 0 || m.GetReject() || m.GetIndex() < r.last {
		return
	}
	if r.acks == nil {
		r.acks = map[uint64]int64{}
	}
	if _, known := r.acks[m.GetFrom()]; !known {
		r.acks[m.GetFrom()] = now - r.began
	}
}

// finish ends the race that this write was in, and hands leadership over when
// that was one too many.
func (c *Core) finish(w *writing) {
	r := &c.disk.race
	if r.seq == 0 || w.seq != r.seq {
		return
	}
	r.seq = 0
	took := c.now - r.began
	slow := took >= int64(c.opt.Election)/10
	if r.score == nil {
		r.score = map[uint64]int{}
	}
	best := raft.None
	for _, id := range c.conf.state.GetVoters() {
		ack, ok := r.acks[id]
		switch {
		case !slow || !ok || ack > took/raceFactor:
			r.score[id] = max(r.score[id]-1, 0)
			continue
		case r.score[id] < raceScore:
			r.score[id]++
		}
		if r.score[id] == raceScore && (best == raft.None || ack < r.acks[best]) {
			best = id
		}
	}
	if best != raft.None && !c.conf.transferring && c.now-r.led >= raceHold*int64(c.opt.Election) {
		c.state.Slow = time.Duration(took)
		clear(r.score)
		c.transfer(best)
	}
}
