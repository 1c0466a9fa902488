package concord

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/wal"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// part is a member's part in Raft as it was last told.
type part struct {
	mu         sync.Mutex // held while it is told, so that all hear it in order
	recovering bool
	raft       replica.State
	last       observe.State
	learner    func() bool
}

// begin makes ready to tell what the member in n does.
func (e *events) begin(n *Node, m replica.Machine, replay uint64) replica.Machine {
	caught := replay <= uint64(n.machine.Status().Applied)
	e.part.recovering = !caught
	e.member, e.part.last.Member = uint64(n.id), uint64(n.id)
	e.part.learner = func() bool {
		for _, m := range n.machine.Members() {
			if m.ID == n.id {
				return m.Learner
			}
		}
		return false
	}
	if !caught {
		e.roleChanged()
	}
	return &told{Machine: m, state: n.machine, events: e, replay: replay, caught: caught}
}

// stateChanged takes what the replica says of itself.
func (e *events) stateChanged(s replica.State) {
	e.part.mu.Lock()
	defer e.part.mu.Unlock()
	e.part.raft = s
	e.tellPart()
}

// recovered says that the log of the last life has been applied.
func (e *events) recovered() {
	e.part.mu.Lock()
	defer e.part.mu.Unlock()
	e.part.recovering = false
	e.tellPart()
}

// roleChanged looks again whether the member votes.
func (e *events) roleChanged() {
	e.part.mu.Lock()
	defer e.part.mu.Unlock()
	e.tellPart()
}

// tellPart tells the member's part in Raft if it is another one; e.part.mu is
// held.
func (e *events) tellPart() {
	p, o := &e.part, e.hub.Load()
	was := p.last
	now := observe.State{
		Member: was.Member, Before: was.Before, Term: p.raft.Term, Leader: p.raft.Leader,
		Leaderless: p.raft.Leaderless, Stalled: p.raft.Stalled,
	}
	switch now.Role = roles[p.raft.Role].String(); {
	case p.recovering && p.raft.Role == replica.Follower:
		now.Role = "recovering"
	case p.raft.Role == replica.Follower && p.learner():
		now.Role = kv.LearnerRole.String()
	}
	if now == was {
		return
	}
	now.Before = was.Role
	p.last = now
	if o.State != nil {
		o.State(now)
	}
	switch {
	case now.Stalled && !was.Stalled:
		e.disk(observe.DiskStalled)
	case was.Stalled && !now.Stalled:
		e.disk(observe.DiskRecovered)
	}
}

// disk tells of trouble with the disk, or of its end.
func (e *events) disk(kind observe.DiskKind) {
	if f := e.hub.Load().Disk; f != nil {
		f(observe.Disk{Kind: kind})
	}
}

// with has the replica tell who listens, beside what r counts.
func (e *events) with(r replica.Observer) replica.Observer {
	changed, taken := r.StateChanged, r.SnapshotTaken
	r.StateChanged = func(s replica.State) {
		changed(s)
		e.stateChanged(s)
	}
	r.SnapshotTaken = func(m snap.Meta, took time.Duration, err error) {
		taken(m, took, err)
		ev := observe.Snapshot{Kind: observe.SnapshotCreated, Index: m.Index, Bytes: m.Size, Duration: took, Err: err}
		if err != nil {
			ev.Kind = observe.SnapshotFailed
		}
		e.snapshot(ev)
	}
	r.SnapshotInstalled = func(s replica.SnapshotInfo, took time.Duration) {
		e.snapshot(observe.Snapshot{Kind: observe.SnapshotInstalled, Index: s.Index, Bytes: s.Size, Duration: took})
	}
	r.SnapshotSent = func(to, index uint64, took time.Duration, err error) {
		if err == nil {
			e.snapshot(observe.Snapshot{Kind: observe.SnapshotSent, Index: index, Peer: to, Duration: took})
		}
	}
	return r
}

func (e *events) snapshot(ev observe.Snapshot) {
	if f := e.hub.Load().Snapshot; f != nil {
		ev.Member = e.member
		f(ev)
	}
}

// ended tells why the member ended, where that is a command it does not know.
func (e *events) ended(err error) {
	var unknown *machine.CommandError
	if f := e.hub.Load().Apply; f != nil && errors.As(err, &unknown) {
		f(observe.Apply{Kind: observe.UnknownCommand, Index: uint64(unknown.Index)})
	}
}

// peer tells of the connection with another member.
func (e *events) peer(kind observe.TransportKind, id uint64, took time.Duration) {
	if f := e.hub.Load().Transport; f != nil {
		f(observe.Transport{Kind: kind, Peer: id, RoundTrip: took})
	}
}

// tell tells of a watch that was given so many events and has lag revisions more
// to read.
func (c *cursor) tell(kind observe.WatchKind, events int, lag kv.Revision) {
	if f := c.node.figures.events.hub.Load().Watch; f != nil {
		f(observe.Watch{Kind: kind, Streams: int(c.node.machine.Watchers()), Events: events, Revision: int64(c.seen), Lag: int64(lag)})
	}
}

// append writes to the log and tells of it.
func (e *events) append(log *wal.Log, batches []wal.Batch) error {
	f := e.hub.Load().Disk
	if f == nil {
		return log.Append(batches...)
	}
	ev := observe.Disk{Kind: observe.DiskWritten}
	for i := range batches {
		ev.Entries += len(batches[i].Entries)
		for k := range batches[i].Entries {
			ev.Bytes += int64(len(batches[i].Entries[k].Data))
		}
	}
	began := time.Now()
	err := log.Append(batches...)
	ev.Duration, ev.Sync = time.Since(began), log.SyncTime()
	if err == nil {
		f(ev)
	}
	return err
}

// dropsEvery is how often lost messages are told.
const dropsEvery = time.Second

// tellStatus tells how the member is, and what was lost on the way to others.
func (n *Node) tellStatus(ctx context.Context) error {
	tick := time.NewTicker(dropsEvery)
	defer tick.Stop()
	told := time.Now()
	dropped := map[uint64]uint64{}
	for {
		o := n.figures.events.hub.Load()
		if n.transport != nil && o.Transport != nil {
			n.tellDrops(o, dropped)
		}
		if now := time.Now(); o.Status != nil && now.Sub(told) >= observe.StatusEvery {
			told = now
			o.Status(n.statusEvent())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// tellDrops tells of messages that were dropped since the last time.
func (n *Node) tellDrops(o *observe.Observer, before map[uint64]uint64) {
	for _, p := range n.transport.Peers() {
		if p.Dropped > before[p.ID] {
			ev := observe.Transport{Kind: observe.Dropped, Peer: p.ID, RoundTrip: p.RoundTrip, Drops: p.Dropped - before[p.ID]}
			for _, bytes := range p.Queued {
				ev.Queued += bytes
			}
			o.Transport(ev)
		}
		before[p.ID] = p.Dropped
	}
}

func (n *Node) statusEvent() observe.Status {
	s := n.Status()
	return observe.Status{
		Member: uint64(s.Member), Leader: uint64(s.Leader), Term: uint64(s.Term), Role: s.Role.String(),
		Members: len(n.machine.Members()), Commit: uint64(s.Committed), Applied: uint64(s.Applied),
		Revision: int64(s.Revision), Compacted: int64(s.CompactRevision), Keys: s.Keys, Bytes: s.MemoryBytes,
		Resident: resident(), DiskFree: diskFree(n.cfg.dir),
		Leases: int(n.machine.LeaseFigures().Live), Watches: int(n.machine.Watchers()),
	}
}
