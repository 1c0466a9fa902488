package concord

import (
	"context"
	"sync"
	"time"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/transport"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

var _ kv.Measured = (*Node)(nil)

// Listen has o's functions called, as those of [Observe], until stop is called.
func (n *Node) Listen(o observe.Observer) (stop func()) { return n.figures.events.hub.Add(o) }

// askLoop bounds how long figures wait for the loop of a leader that is busy.
const askLoop = 100 * time.Millisecond

// Figures implements [kv.Measured].
func (n *Node) Figures() kv.Figures {
	f, s := n.figures, n.replica.Status()
	waiting, waitingBytes := n.replica.Waiting()
	access := n.machine.Access()
	out := kv.Figures{
		LeaderChanges: f.leaderChanges.Load(), BadMessages: f.badMessages.Load(),
		UpTime: f.pulse.upTime(time.Now()), Name: n.cfg.name,
		Proposals: kv.ProposalFigures{Waiting: int64(waiting), WaitingBytes: waitingBytes},
		Log: kv.LogFigures{
			Entries: f.logEntries.Load(), Writes: f.logWrites.Load(), Size: n.disk.log.Size(),
			First: kv.Index(s.FirstIndex), Last: kv.Index(s.LastIndex),
			Full: n.disk.log.NoSpace(), Stalled: s.Stalled, DiskFree: diskFree(n.cfg.dir),
		},
		Apply:     kv.ApplyFigures{Entries: f.appliedEntries.Load(), Batches: f.applies.Load(), Slow: f.slowApplies.Load()},
		Snapshots: kv.SnapshotFigures{Taken: f.snapshots.Load(), Errors: f.snapshotErrors.Load(), Bytes: f.snapshotBytes.Load()},
		State:     n.machine.StateFigures(),
		Leases:    n.machine.LeaseFigures(),
		Watches:   n.watches.figures(n.machine.Watchers(), n.machine.Settled()),
		Access: kv.AccessFigures{
			Enabled: access.Enabled(), Users: int64(len(access.Users())), Roles: int64(len(access.Roles())), Checking: n.logins.under.Load(),
		},
		Peers:  n.peerFigures(),
		Alarms: n.Alarms(),
	}
	out.Memory.Limit, out.Memory.Used, out.Memory.Full = n.cfg.memory.told()
	out.Members = n.memberFigures(&s, out.Peers)
	return out
}

// figures tell of watches, of which there are open.
func (w *watches) figures(open int64, now kv.Revision) kv.WatchFigures {
	f := kv.WatchFigures{Open: open}
	if oldest := w.oldest(); oldest != 0 {
		f.Lag = max(0, int64(now-oldest)+1)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	f.Behind = int64(len(w.all))
	return f
}

// memberFigures counts members, those that peers says are connected too.
func (n *Node) memberFigures(s *replica.Status, peers []kv.PeerFigures) kv.MemberFigures {
	connected := map[uint64]bool{uint64(n.id): true}
	for _, p := range peers {
		connected[uint64(p.Member)] = p.Connected
	}
	f := kv.MemberFigures{Voters: int64(len(s.Voters)), Learners: int64(len(s.Learners))}
	for _, id := range s.Voters {
		if connected[id] {
			f.Reached++
		}
	}
	if n.circle != nil {
		found := n.circle.found
		f.Known, f.Strangers, f.Problems = int64(len(found.Known())), int64(len(found.Strangers())), int64(len(found.Problems()))
	}
	return f
}

// peerFigures are of all other members.
func (n *Node) peerFigures() (out []kv.PeerFigures) {
	if n.transport == nil {
		return nil
	}
	names := map[kv.MemberID]string{}
	for _, m := range n.machine.Members() {
		names[m.ID] = m.Name
	}
	lag := n.lags()
	peers := n.transport.Peers()
	n.figures.roundTrips.keep(peers)
	for _, p := range peers {
		f := kv.PeerFigures{
			Member: kv.MemberID(p.ID), Name: names[kv.MemberID(p.ID)], Connected: p.Connected, RoundTrips: n.figures.roundTrips.of(p.ID),
			Sent: p.Sent, Received: p.Received, Dropped: p.Dropped, Urgent: p.Urgent, Silent: p.Silent, Lag: -1,
		}
		for _, bytes := range p.Queued {
			f.Queued += bytes
		}
		if behind, known := lag[p.ID]; known {
			f.Lag = int64(behind)
		}
		out = append(out, f)
	}
	return out
}

// lags is by how many entries the others are behind, where this member leads.
func (n *Node) lags() map[uint64]uint64 {
	if n.replica.Status().Role != replica.Leader {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLoop)
	defer cancel()
	known, err := n.replica.Peers(ctx)
	if err != nil {
		return nil
	}
	out := map[uint64]uint64{}
	for _, p := range known.List {
		out[p.ID] = p.Behind
	}
	return out
}

// roundTrips are those of each peer.
type roundTrips struct {
	mu   sync.Mutex
	each map[uint64]*kv.DurationCounter
}

// add counts one; some come every second.
func (r *roundTrips) add(peer uint64, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.each[peer]
	if c == nil {
		if r.each == nil {
			r.each = map[uint64]*kv.DurationCounter{}
		}
		c = new(kv.DurationCounter)
		r.each[peer] = c
	}
	c.Add(took)
}

// of returns those of one peer.
func (r *roundTrips) of(peer uint64) kv.Durations {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.each[peer]; c != nil {
		return c.Load()
	}
	return kv.Durations{}
}

// keep forgets all but these.
func (r *roundTrips) keep(peers []transport.PeerStatus) {
	here := map[uint64]bool{}
	for _, p := range peers {
		here[p.ID] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.each {
		if !here[id] {
			delete(r.each, id)
		}
	}
}
