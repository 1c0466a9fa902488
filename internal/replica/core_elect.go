package replica

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/concord-kv/concord/internal/transport"
)

// elect makes elections faster than raft's timers would.
type elect struct {
	random uint64
	// campaignAt is when to start a pre-vote unless a leader shows up; 0 for
	// not. It is tried again, less and less often, until raft's own timer is
	// about as good.
	campaignAt int64
	attempts   int
	// lost is the leader whose connection closed; what still arrives from it
	// until lostUntil was under way then and says nothing.
	lost      uint64
	lostUntil int64
	// replayTo is the entry up to which this member knew its log to be
	// committed when it started. It applies that before it campaigns: raft
	// would else read all of it, at each attempt, for changes of the
	// configuration, and a leader that has not applied it could serve nobody.
	replayTo uint64
	// leaderlessSince is since when no leader is known.
	leaderlessSince int64
	// holdUntil: no vote is given before, because this member may have
	// promised so in an earlier life by acknowledging a read lease.
	holdUntil int64
}

// startElections plans the first campaign. A sole voter need not wait. Others
// take turns over some heartbeats, which is still much less than raft's first
// timeout; to a cluster that has a leader a pre-vote does no harm.
func (c *Core) startElections(seed uint64) {
	c.elect.random = seed
	c.elect.leaderlessSince = c.now
	c.elect.replayTo = c.storage.log.State().Commit
	if c.conf.sole(c.id) {
		c.elect.campaignAt = max(c.now, 1)
		return
	}
	if c.opt.ReadLease && c.storage.last > 1 {
		c.elect.holdUntil = c.now + c.leaseLength()
	}
	wait := (1 + c.turn(raft.None)) * int64(c.opt.Heartbeat)
	c.elect.campaignAt = max(c.elect.holdUntil, c.now+wait) + c.jitter(int64(c.opt.Heartbeat)/2)
}

// jitter returns a number from 1 to n. Source: splitmix64, Steele, Lea and
// Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
func (c *Core) jitter(n int64) int64 {
	c.elect.random += 0x9e3779b97f4a7c15
	z := c.elect.random
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return 1 + int64((z^z>>31)%uint64(n))
}

// peerUp hurries what waits for the peer.
func (c *Core) peerUp(peer uint64) {
	if peer == c.elect.lost {
		c.elect.lost = raft.None
	}
	if peer == c.state.Leader {
		c.queue.resendAt = c.now
		c.reads.at = min(c.reads.at, c.now-int64(c.opt.Heartbeat))
	}
}

// peerDown follows the leader's connection: a process that was killed closes
// it, and then there is no reason to wait for an election timeout. Who still
// hears the leader ignores the pre-vote. A read lease that this member
// acknowledged is waited for.
func (c *Core) peerDown(peer uint64) {
	c.observe()
	if peer != c.state.Leader || peer == c.id || !c.conf.isVoter(c.id) {
		return
	}
	at := c.now
	if promised := c.lease.promised; promised > c.now {
		at = promised
	} else {
		c.elect.lost, c.elect.lostUntil = peer, c.now+int64(c.opt.Heartbeat)
		_ = c.node.ForgetLeader()
		c.observe()
	}
	c.elect.campaignAt = at + c.turn(peer)*int64(c.opt.Heartbeat)/2
	c.elect.attempts = 0
	c.checkCampaign()
}

// turn is this member's place among the voters that may follow lost, from 0, in
// the order of ids behind it. Who campaigns in turn does not split the vote.
func (c *Core) turn(lost uint64) (place int64) {
	for _, v := range c.conf.state.GetVoters() {
		if v != lost && v-lost < c.id-lost { // in the ring of ids
			place++
		}
	}
	return place
}

// checkCampaign starts the pre-vote that is due.
func (c *Core) checkCampaign() {
	if c.elect.campaignAt == 0 {
		return
	}
	if c.replaying() {
		return
	}
	if c.conf.sole(c.id) {
		if c.state.Role != Follower {
			return // its vote is being written
		}
	} else if c.now < c.elect.campaignAt {
		return
	}
	c.elect.campaignAt = 0
	c.observe()
	if c.state.Role == Leader || !c.conf.isVoter(c.id) {
		return
	}
	if c.state.Leader != raft.None { // its lease has run out, and it was not heard since
		_ = c.node.ForgetLeader()
	}
	_ = c.node.Campaign()
	// The next attempt breaks this one off, so it leaves time for votes to be
	// written to slow disks.
	c.elect.attempts++
	wait := int64(c.opt.Heartbeat) << min(c.elect.attempts, 16)
	if wait < int64(c.opt.Election) {
		c.elect.campaignAt = c.now + wait + c.jitter(wait)
	}
}

// replaying reports whether this member still applies what its log held when it
// started.
func (c *Core) replaying() bool { return c.state.Applied < c.elect.replayTo }

// replayed lets a member that has caught up with its own log campaign.
func (c *Core) replayed() {
	if !c.conf.sole(c.id) && c.elect.campaignAt != 0 {
		c.elect.campaignAt = max(c.elect.campaignAt, c.now+c.turn(raft.None)*int64(c.opt.Heartbeat)/2)
	}
	c.checkCampaign()
}

// checkLeaderless fails what waits for a leader for too long.
func (c *Core) checkLeaderless() {
	if c.state.Leader != raft.None || c.now-c.elect.leaderlessSince < int64(c.opt.NoLeaderTimeout) {
		return
	}
	c.state.Leaderless = true
	c.failWaiting(ErrNoLeader)
	c.reads.fail(c, ErrNoLeader)
	c.intake.failChange(c, ErrNoLeader)
}

// transfer gives leadership away, to the voter with the longest log if peer is
// 0. The read lease ends with the decision, for the whole term: the message that
// makes the other one campaign may come late.
func (c *Core) transfer(peer uint64) {
	c.observe()
	if !c.isLeader() {
		if c.state.Leader != raft.None {
			c.sendWire(c.state.Leader, transport.Control, wire{kind: wireTransfer, f: [5]uint64{c.state.Term, peer}})
		}
		return
	}
	if peer == raft.None {
		peer = c.mostCaughtUp()
	}
	if peer == c.id || !c.conf.isVoter(peer) {
		return
	}
	c.lease.ended = true
	c.state.LeaseUntil = 0
	c.node.TransferLeader(peer)
	c.observe()
}

// lease is both sides of the read lease: a leader reads without asking while a
// quorum has promised not to elect another one. It lasts from when heartbeats
// were sent, not from when they were answered, and shorter than an election
// timeout. Source: Ongaro, "Consensus: Bridging Theory and Practice", 2014,
// section 6.4.1; the pitfalls are raft issues 99 and 166.
type lease struct {
	// As a leader: the time of sending of the last heartbeat that each peer
	// answered, and of the last one sent.
	acks  map[uint64]int64
	sent  int64
	reads uint64 // the greatest read position that a heartbeat carried
	ended bool   // a transfer began in this term

	// As a follower: from whom the last heartbeat came, of which term and
	// round, and until when this member promised not to vote.
	from, term, round uint64
	promised          int64
}

// clear forgets what belongs to a term as a leader.
func (l *lease) clear() { l.acks, l.sent, l.reads, l.ended = nil, 0, 0, false }

// leaseLength is the election timeout less a tick, which raft may count too
// early, and less an eighth for clocks that drift.
func (c *Core) leaseLength() int64 {
	return int64(c.opt.Election - c.opt.Tick - c.opt.Election/8)
}

// heartbeat is what goes with a heartbeat of this leader's.
func (l *lease) heartbeat(c *Core, m *raftpb.Message) wire {
	w := wire{kind: wireHeartbeat}
	l.sent = c.now
	if ctx := m.GetContext(); len(ctx) == 8 {
		l.reads = max(l.reads, readPosition(ctx))
	}
	w.f[0] = uint64(c.now)
	if c.opt.ReadLease && !l.ended && !c.state.Stalled {
		w.f[1] = uint64(c.leaseLength())
	}
	return w
}

// heard notes a heartbeat before raft sees it.
func (l *lease) heard(c *Core, m *raftpb.Message, w wire) {
	l.from, l.term, l.round = m.GetFrom(), m.GetTerm(), w.f[0]
	// A promise lasts as long as this member's own settings say.
	if w.f[1] > 0 && c.opt.ReadLease {
		l.promised = max(l.promised, c.now+min(int64(w.f[1]), c.leaseLength()))
	}
}

// response is what goes with the answer to a heartbeat.
func (l *lease) response(c *Core, m *raftpb.Message) wire {
	w := wire{kind: wireHeartbeatResp}
	if m.GetTo() == l.from && m.GetTerm() == l.term {
		w.f[0] = l.round
		if c.opt.ReadLease {
			w.flag = 1
		}
	}
	return w
}

// acked notes the answer to a heartbeat of this leader's.
func (l *lease) acked(c *Core, m *raftpb.Message, w wire) {
	if round := int64(w.f[0]); w.flag == 1 && c.isLeader() && m.GetTerm() == c.state.Term && round <= l.sent {
		if l.acks == nil {
			l.acks = make(map[uint64]int64)
		}
		l.acks[m.GetFrom()] = max(l.acks[m.GetFrom()], round)
	}
}

// updateLease tells until when this member may serve leader reads.
func (c *Core) updateLease() {
	c.state.LeaseUntil = 0
	if !c.opt.ReadLease || !c.isLeader() || !c.state.Caught || c.lease.ended || c.state.Stalled {
		return
	}
	if start := int64(c.conf.voters.CommittedIndex(leaseAcks{c})); start > 0 {
		c.state.LeaseUntil = min(start, c.now) + c.leaseLength()
	}
}

// vote reports whether to look at a request for a vote at all.
func (c *Core) mayVote(m *raftpb.Message) bool {
	if string(m.GetContext()) == campaignTransfer {
		return true // its leader ended the lease first
	}
	if c.now < c.elect.holdUntil {
		return false
	}
	return c.now >= c.lease.promised || m.GetFrom() == c.lease.from
}

// campaignTransfer marks votes after a transfer of leadership; raft's own.
const campaignTransfer = "CampaignTransfer"
