package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/quorum"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/transport"
)

// config is the configuration that is in force.
type config struct {
	state  *raftpb.ConfState
	voters quorum.JointConfig
	// As a leader: the last change in its log or, when it took over, the last
	// entry, as raft counts it; and the first entry of its term.
	pending, ownFirst uint64
	transferring      bool
}

func (f *config) set(cs *raftpb.ConfState) {
	if cs == nil {
		cs = &raftpb.ConfState{}
	}
	f.state = cs
	majority := func(ids []uint64) quorum.MajorityConfig {
		m := make(quorum.MajorityConfig, len(ids))
		for _, id := range ids {
			m[id] = struct{}{}
		}
		return m
	}
	f.voters = quorum.JointConfig{majority(cs.GetVoters()), majority(cs.GetVotersOutgoing())}
}

func (f *config) joint() bool { return len(f.voters[1]) > 0 }

func (f *config) isVoter(id uint64) bool {
	_, in := f.voters[0][id]
	_, out := f.voters[1][id]
	return in || out
}

// sole reports whether id is the only voter.
func (f *config) sole(id uint64) bool {
	_, in := f.voters[0][id]
	return in && len(f.voters[0]) == 1 && !f.joint()
}

func (f *config) hasPeers(id uint64) bool { return f.peer(id) != raft.None }

// peer returns a voter that is not id.
func (f *config) peer(id uint64) uint64 {
	for _, ids := range [...][]uint64{f.state.GetVoters(), f.state.GetVotersOutgoing()} {
		for _, v := range ids {
			if v != id {
				return v
			}
		}
	}
	return raft.None
}

// hasMore reports whether the configuration has a member that cs lacks.
func (f *config) hasMore(cs *raftpb.ConfState) bool {
	known := func(id uint64) bool {
		return slices.Contains(cs.GetVoters(), id) || slices.Contains(cs.GetLearners(), id) || slices.Contains(cs.GetVotersOutgoing(), id)
	}
	for _, ids := range [...][]uint64{f.state.GetVoters(), f.state.GetVotersOutgoing(), f.state.GetLearners(), f.state.GetLearnersNext()} {
		if slices.ContainsFunc(ids, func(id uint64) bool { return !known(id) }) {
			return true
		}
	}
	return false
}

// leaseAcks lets quorum compute since when a quorum has promised. It counts
// this member as of now.
type leaseAcks struct{ c *Core }

// AckedIndex implements quorum.AckedIndexer.
func (a leaseAcks) AckedIndex(id uint64) (quorum.Index, bool) {
	if id == a.c.id {
		return quorum.Index(a.c.now), true
	}
	at, ok := a.c.lease.acks[id]
	return quorum.Index(at), ok
}

// checkConfState reports whether raft would take cs as its configuration.
func checkConfState(cs *raftpb.ConfState) error {
	if cs == nil || len(cs.GetVoters()) == 0 {
		return fmt.Errorf("%w: no voters", ErrInvalidChange)
	}
	for _, ids := range [...][]uint64{cs.GetVoters(), cs.GetLearners(), cs.GetVotersOutgoing(), cs.GetLearnersNext()} {
		sorted := slices.Sorted(slices.Values(ids))
		if len(slices.Compact(sorted)) < len(ids) || slices.Contains(ids, raft.None) {
			return fmt.Errorf("%w: an id is 0 or there twice", ErrInvalidChange)
		}
	}
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	cfg, progress, err := confchange.Restore(changer, cs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidChange, err)
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	got := changer.Tracker.ConfState()
	if err := cs.Equivalent(got); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidChange, err)
	}
	return nil
}

// tryChange reports whether raft would take change in configuration cs, instead
// of panicking when it is applied. It is a function of both alone.
func tryChange(cs *raftpb.ConfState, cc *raftpb.ConfChangeV2) error {
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	cfg, progress, err := confchange.Restore(changer, cs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidChange, err)
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	switch autoLeave, joint := cc.EnterJoint(); {
	case cc.LeaveJoint():
		_, _, err = changer.LeaveJoint()
	case joint:
		_, _, err = changer.EnterJoint(autoLeave, cc.GetChanges()...)
	default:
		_, _, err = changer.Simple(cc.GetChanges()...)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidChange, err)
	}
	return nil
}

// pendingChange is a configuration change on its way into the log, of this
// member's or forwarded.
type pendingChange struct {
	from, incarnation, id uint64
	change                *raftpb.ConfChangeV2 // without its header
	stepped               bool
}

// ownChange is a change of this member's that is not applied yet.
type ownChange struct {
	id, term uint64
}

// requestChange takes a change from this member.
func (c *Core) requestChange(id uint64, change *ConfChange) {
	kinds := [...]raftpb.ConfChangeType{AddVoter: raftpb.ConfChangeAddNode, AddLearner: raftpb.ConfChangeAddLearnerNode, RemoveMember: raftpb.ConfChangeRemoveNode}
	cc := &raftpb.ConfChangeV2{Context: change.Context}
	for _, m := range change.Members {
		if int(m.Kind) >= len(kinds) || m.ID == raft.None || raft.IsLocalMsgTarget(m.ID) {
			c.answer(AnswerConfChange, id, ErrInvalidChange)
			return
		}
		cc.Changes = append(cc.Changes, &raftpb.ConfChangeSingle{Type: kinds[m.Kind].Enum(), NodeId: new(m.ID)})
	}
	if len(cc.Changes) == 0 { // without any it would leave a joint configuration
		cc.Changes = []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeUpdateNode.Enum(), NodeId: new(c.id)}}
	}
	c.observe()
	switch {
	case change.Term != 0 && !(c.isLeader() && change.Term == c.state.Term):
		c.answer(AnswerConfChange, id, ErrNotLeader)
	case c.state.Leader == raft.None:
		c.answer(AnswerConfChange, id, ErrNoLeader)
	case c.isLeader():
		c.tasks.changes = append(c.tasks.changes, ownChange{id: id, term: c.state.Term})
		c.intake.offer(c, &pendingChange{from: c.id, incarnation: c.incarnation, id: id, change: cc})
	default:
		data, err := proto.Marshal(cc)
		if err != nil {
			c.answer(AnswerConfChange, id, fmt.Errorf("%w: %w", ErrInvalidChange, err))
			return
		}
		c.tasks.changes = append(c.tasks.changes, ownChange{id: id, term: c.state.Term})
		c.sendWire(c.state.Leader, transport.Append, wire{kind: wireChange, f: [5]uint64{c.state.Term, c.incarnation, id}, rest: data})
	}
}

// receiveChange takes a change from a follower.
func (c *Core) receiveChange(from uint64, w wire) error {
	if !c.isLeader() || w.f[0] != c.state.Term {
		return nil
	}
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(w.rest, cc); err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	if len(cc.GetChanges()) == 0 || cc.GetTransition() != raftpb.ConfChangeTransitionAuto {
		return fmt.Errorf("%w: a change without changes", errWire)
	}
	for _, s := range cc.GetChanges() {
		if s.GetNodeId() == raft.None || raft.IsLocalMsgTarget(s.GetNodeId()) {
			return fmt.Errorf("%w: a change of member %d", errWire, s.GetNodeId())
		}
	}
	c.intake.offer(c, &pendingChange{from: from, incarnation: w.f[1], id: w.f[2], change: cc})
	return nil
}

// reasons are the errors a leader may refuse a change with.
var reasons = [...]error{1: ErrChangePending, 2: ErrNotReady, 3: ErrInvalidChange, 4: ErrNotLeader}

// receiveRefused hears that the leader did not take a change.
func (c *Core) receiveRefused(w wire) error {
	if w.flag == 0 || int(w.flag) >= len(reasons) {
		return fmt.Errorf("%w: unknown reason %d", errWire, w.flag)
	}
	if w.f[1] == c.incarnation {
		c.endChange(w.f[2], reasons[w.flag])
	}
	return nil
}

// endChange fails the change of this member's with that id, if it waits.
func (c *Core) endChange(id uint64, err error) {
	n := len(c.tasks.changes)
	c.tasks.changes = slices.DeleteFunc(c.tasks.changes, func(o ownChange) bool { return o.id == id })
	if len(c.tasks.changes) < n {
		c.answer(AnswerConfChange, id, err)
	}
}

// offer takes p to be proposed, if the leader's rules allow it.
func (in *intake) offer(c *Core, p *pendingChange) {
	if err := in.checkChange(c, p); err != nil {
		c.refuse(p, err)
		return
	}
	in.change = p
}

// checkChange applies the rules for a new change. The first is raft's own, which
// would make an empty entry of the change.
func (in *intake) checkChange(c *Core, p *pendingChange) error {
	if in.change != nil || c.state.Applied < c.conf.pending || c.conf.joint() || c.conf.transferring {
		return ErrChangePending
	}
	for _, s := range p.change.GetChanges() {
		promotes := s.GetType() == raftpb.ConfChangeAddNode && slices.Contains(c.conf.state.GetLearners(), s.GetNodeId())
		if promotes && !c.caughtUp(s.GetNodeId()) {
			return ErrNotReady
		}
	}
	return tryChange(c.conf.state, p.change)
}

// refuse tells whoever asked.
func (c *Core) refuse(p *pendingChange, err error) {
	if p.from == c.id {
		c.endChange(p.id, err)
		return
	}
	w := wire{kind: wireRefused, f: [5]uint64{c.state.Term, p.incarnation, p.id}, flag: 3}
	for i, reason := range reasons {
		if reason == err {
			w.flag = uint8(i)
		}
	}
	c.sendWire(p.from, transport.Append, w)
}

// failChange refuses the change that waits, if any.
func (in *intake) failChange(c *Core, err error) {
	if p := in.change; p != nil {
		in.change = nil
		c.refuse(p, err)
	}
}

// proposeChange gives raft the change that waits.
func (c *Core) proposeChange() {
	p := c.intake.change
	if p == nil || p.stepped {
		return
	}
	if !c.isLeader() {
		c.intake.failChange(c, ErrNotLeader)
		return
	}
	cc := &raftpb.ConfChangeV2{Changes: p.change.GetChanges()}
	c.pace.stamp = c.pace.time(c.now)
	cc.Context = appendChange(nil, changeRef{c.pace.stamp, p.from, p.incarnation, p.id, p.change.GetContext()})
	if c.node.ProposeConfChange(cc) != nil {
		c.intake.failChange(c, ErrChangePending)
		return
	}
	p.stepped = true
}

// changeAppended sees the change in the log.
func (in *intake) changeAppended(e *raftpb.Entry) {
	if len(e.GetData()) > 0 {
		in.change = nil
	}
}

// changeProposed finds a change that was stepped but did not come out as one.
func (in *intake) changeProposed(c *Core) {
	if in.change != nil && in.change.stepped {
		in.failChange(c, ErrChangePending)
	}
}
