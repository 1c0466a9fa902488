package replica

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// stepSnapshot handles the inputs about snapshots.
func (c *Core) stepSnapshot(in Input) {
	switch in.Kind {
	case InputTakeSnapshot:
		c.tasks.wanted = true
	case InputSnapshotCreated:
		c.snapshotCreated(in.Snapshot, in.Index)
	case InputSnapshotSent:
		c.snapshotSent(in.Peer, in.OK)
	case InputSnapshotReceived:
		if err := c.snapshotReceived(in.Peer, in.Payload, in.Snapshot); err != nil {
			c.out.Rejected = append(c.out.Rejected, Rejected{in.Peer, err})
		}
	case InputReadLease:
		c.opt.ReadLease = in.OK
	default:
		panic(fmt.Sprintf("replica: unknown input %d", in.Kind))
	}
}

// snapshotCreated tells the log of a snapshot, and only then drops entries.
func (c *Core) snapshotCreated(s SnapshotInfo, oldest uint64) {
	c.tasks.taking = false
	if s.Index == 0 || s.Index <= c.storage.snapshot.Index {
		return
	}
	c.storage.snapshot = s
	c.tasks.snapshotSize, c.tasks.oldest = s.Size, oldest
	c.issue(writing{began: c.now, mark: true}, Batch{State: c.disk.state, Mark: Mark{Index: s.Index, Term: s.Term}})
}

// truncate lets the log drop what the oldest snapshot on disk has, but for what
// slow followers need within LogBytes.
func (c *Core) truncate() {
	to := c.tasks.oldest + 1
	limit := c.opt.LogBytes
	if limit == 0 {
		limit = 4 * max(c.opt.SnapshotBytes, c.tasks.snapshotSize)
	}
	keep := func(i uint64) {
		if i < to && c.storage.bytesFrom(i) <= limit {
			to = i
		}
	}
	for _, s := range c.tasks.sending {
		keep(s.index + 1)
	}
	if c.isLeader() {
		c.node.WithProgress(func(id uint64, _ raft.ProgressType, pr tracker.Progress) {
			if pr.RecentActive && id != c.id {
				keep(max(pr.Match, pr.PendingSnapshot) + 1)
			}
		})
	}
	if to <= c.storage.first {
		return
	}
	if err := c.storage.compact(to); err != nil {
		panic(fmt.Sprintf("replica: read the term before entry %d: %v", to, err))
	}
	c.out.TruncateBefore = to
}

// sending is a snapshot on its way to a peer.
type sending struct {
	to, index uint64
	until     int64
}

// sendSnapshot has the shell stream the state that m names.
func (c *Core) sendSnapshot(m *raftpb.Message) {
	to, index := m.GetTo(), m.GetSnapshot().GetMetadata().GetIndex()
	for _, s := range c.tasks.sending {
		if s.to == to { // one at a time; raft asks again
			c.node.ReportSnapshot(to, raft.SnapshotFailure)
			return
		}
	}
	c.tasks.sending = append(c.tasks.sending, sending{to, index, c.now + int64(c.opt.SnapshotTimeout)})
	c.out.Snapshots = append(c.out.Snapshots, SnapshotSend{To: to, Index: index, Header: encodeRaft(wire{kind: wireRaft}, m)})
}

// snapshotSent tells raft how sending went: without that the peer would be left
// waiting for ever (etcd 10225).
func (c *Core) snapshotSent(to uint64, ok bool) {
	for i, s := range c.tasks.sending {
		if s.to == to {
			c.tasks.sending = append(c.tasks.sending[:i:i], c.tasks.sending[i+1:]...)
			status := raft.SnapshotFailure
			if ok {
				status = raft.SnapshotFinish
			}
			c.node.ReportSnapshot(to, status)
			return
		}
	}
}

// checkSnapshots gives up on those that take too long.
func (c *Core) checkSnapshots() {
	for _, s := range c.tasks.sending {
		if c.now > s.until {
			c.snapshotSent(s.to, false)
			return
		}
	}
}

// snapshotReceived takes up a leader's snapshot whose state is on disk.
func (c *Core) snapshotReceived(from uint64, header []byte, s SnapshotInfo) error {
	w, err := parseWire(header)
	if err != nil {
		return err
	}
	m := &raftpb.Message{}
	if err := proto.Unmarshal(w.rest, m); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	md := m.GetSnapshot().GetMetadata()
	switch {
	case w.kind != wireRaft || m.GetType() != raftpb.MsgSnap || m.GetFrom() != from || m.GetTo() != c.id:
		return fmt.Errorf("%w: not a snapshot for this member", errWire)
	case s.Index == 0 || s.Term == 0 || md.GetIndex() != s.Index || md.GetTerm() != s.Term:
		return fmt.Errorf("%w: snapshot %d of term %d came as %d of term %d", errWire, s.Index, s.Term, md.GetIndex(), md.GetTerm())
	case m.GetTerm() < s.Term || m.GetTerm() > maxNumber || s.Index > maxNumber || len(m.GetEntries())+len(m.GetResponses()) > 0:
		return fmt.Errorf("%w: a field is out of range", errWire)
	}
	// A change of members that nothing could come after tells whether the
	// configuration is one at all.
	if err := checkConfState(s.ConfState); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	if n := len(c.tasks.arrived); n >= 8 {
		c.tasks.arrived = append([]SnapshotInfo(nil), c.tasks.arrived[1:]...)
	}
	c.tasks.arrived = append(c.tasks.arrived, s)
	m.Snapshot = raftSnapshot(s)
	c.tasks.offered = m
	return nil
}

// offerSnapshot gives raft the snapshot that arrived. It takes over the
// snapshot's configuration at once, so no change may still be applied then, nor
// wait to be.
func (c *Core) offerSnapshot() {
	if m := c.tasks.offered; m != nil && !c.tasks.changing() {
		c.tasks.offered = nil
		_ = c.node.Step(m)
	}
}

// take finds the snapshot that raft wants installed among those that arrived.
func (t *tasks) take(md *raftpb.SnapshotMetadata) SnapshotInfo {
	for _, s := range t.arrived {
		if s.Index == md.GetIndex() && s.Term == md.GetTerm() {
			return s
		}
	}
	panic(fmt.Sprintf("replica: raft installs snapshot %d, which did not arrive", md.GetIndex()))
}

// install makes the state machine become s, after all that was committed before.
func (c *Core) install(s SnapshotInfo) {
	t := &c.tasks
	c.storage.reset(Mark{Index: s.Index, Term: s.Term})
	c.storage.snapshot = s
	c.conf.set(s.ConfState)
	c.keepContacts()
	c.pace.stamp = max(c.pace.stamp, s.Time)
	t.waiting = append(t.waiting, Task{Install: s})
	t.since, t.snapshotSize, t.oldest, t.arrived = 0, s.Size, s.Index, nil
}
