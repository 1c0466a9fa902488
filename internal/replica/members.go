package replica

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// ProposeConfChange changes the membership and returns what this member's
// Machine.ApplyMembers gave for change.Context, once this member has applied
// the change, though a joint configuration may still be left later.
func (r *Replica) ProposeConfChange(ctx context.Context, change ConfChange) (any, error) {
	w, id, err := r.calls.addChange()
	if err != nil {
		return nil, err
	}
	r.inbox.put(Input{Kind: InputConfChange, ID: id, Change: &change})
	return w.wait(ctx)
}

// TransferLeader moves leadership to a voter, or, if to is 0, to the one that
// has caught up most, and returns when this member knows it moved. ErrNotMoved
// means that it did not in two election timeouts.
func (r *Replica) TransferLeader(ctx context.Context, to uint64) error {
	from := r.state.Load()
	if from.Leader == 0 {
		return ErrNoLeader
	}
	if from.Leader == to {
		return nil
	}
	r.inbox.put(Input{Kind: InputTransfer, Peer: to})
	timer := time.NewTimer(2 * r.cfg.Options.Election)
	defer timer.Stop()
	for {
		changed := *r.changed.Load()
		if s := r.state.Load(); s.Term > from.Term && s.Leader != 0 {
			if to != 0 && s.Leader != to {
				return ErrNotMoved
			}
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return ErrNotMoved
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrTimeout, context.Cause(ctx))
		case <-r.stopped():
			return ErrStopped
		}
	}
}

// Status is what this member knows of itself.
type Status struct {
	State
	Voters, Learners []uint64
	// FirstIndex and LastIndex bound the log on disk.
	FirstIndex, LastIndex uint64
}

// Status answers at once.
func (r *Replica) Status() Status {
	s := Status{State: *r.state.Load(), FirstIndex: r.cfg.Log.FirstIndex(), LastIndex: r.cfg.Log.LastIndex()}
	s.Applied = r.progress.applied.Load()
	s.Voters, s.Learners = s.conf.GetVoters(), s.conf.GetLearners()
	return s
}

// AdvanceTime has the leader count cluster time on from ms, in milliseconds,
// unless it is there already, as if that time had passed: for tests of what ends
// by time. The next entry that is proposed after the call may be the first with
// it. On others it has no effect.
func (r *Replica) AdvanceTime(ms int64) { r.inbox.put(Input{Kind: InputTime, Time: ms}) }

// Changed is closed when term, leader or role change after the call.
func (r *Replica) Changed() <-chan struct{} { return *r.changed.Load() }

// Leadership is what the leader's duties need to know.
type Leadership struct {
	// Term that this member leads; 0 when it does not lead or has not applied
	// an entry of its own yet.
	Term uint64
	// Held is for how long it has, since that entry.
	Held time.Duration
	// Time is cluster time now, in milliseconds.
	Time int64
}

// Leadership answers at once. It is the zero value on others than the leader,
// and while the leader's disk hangs.
func (r *Replica) Leadership() Leadership {
	s := r.state.Load()
	if s.LeaderSince == 0 || s.Stalled {
		return Leadership{}
	}
	now := r.cfg.Now()
	return Leadership{Term: s.Term, Held: time.Duration(now - s.LeaderSince), Time: s.ClusterTime(now)}
}

// Peers asks what this member knows of the others as their leader.
func (r *Replica) Peers(ctx context.Context) (Peers, error) {
	answer := make(chan Peers, 1) // so that the loop never waits
	select {
	case r.inquiries <- answer:
	case <-ctx.Done():
		return Peers{}, ctx.Err()
	case <-r.stopped():
		return Peers{}, ErrStopped
	}
	select {
	case p := <-answer:
		return p, nil
	case <-r.stopped():
		return Peers{}, ErrStopped
	}
}

// FirstSnapshot describes the snapshot that every founder of a cluster, or a
// restored backup, writes before its first start: index 1, term 1, the given
// voters. FirstBatch goes into the log after it.
func FirstSnapshot(cluster uint64, voters []uint64) (SnapshotMeta, error) {
	conf := &raftpb.ConfState{Voters: voters}
	if err := checkConfState(conf); err != nil {
		return SnapshotMeta{}, err
	}
	data, err := proto.Marshal(conf)
	if err != nil {
		return SnapshotMeta{}, fmt.Errorf("encode configuration: %w", err)
	}
	return SnapshotMeta{Index: 1, Term: 1, ConfState: data, Cluster: cluster}, nil
}

// FirstBatch begins the log of a founder, behind its FirstSnapshot.
func FirstBatch() Batch {
	return Batch{State: HardState{Term: 1, Commit: 1}, Mark: Mark{Index: 1, Term: 1}, Reset: true}
}
