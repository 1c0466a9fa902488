package backup

import (
	"fmt"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/snap"
	"github.com/concord-kv/concord/internal/wal"
)

// replayBytes is how much of the log is read at a time.
const replayBytes = 4 << 20

// replay applies the log up to entry last to m, which has the state of snapshot
// meta, as a member does at its start.
func replay(m *machine.Machine, meta snap.Meta, log *wal.Log, last uint64) (err error) {
	if last > log.LastIndex() {
		return fmt.Errorf("the log ends at %d but %d was committed", log.LastIndex(), last)
	}
	conf := &raftpb.ConfState{}
	if err := proto.Unmarshal(meta.ConfState, conf); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	next := meta.Index + 1
	defer func() { // the machine stops at what it does not understand
		if p := recover(); p != nil {
			err = fmt.Errorf("entries behind %d cannot be applied: %v", m.Status().Applied, p)
		}
	}()
	a := replica.NewApplier(m, 0, 0, replica.SnapshotInfo{Index: meta.Index, Term: meta.Term, ConfState: conf, Time: meta.Time})
	for next <= last {
		entries, err := log.Entries(next, last+1, replayBytes)
		if err != nil {
			return err
		}
		for i := range entries {
			if conf, err = applyEntry(a, conf, &entries[i]); err != nil {
				return err
			}
		}
		next += uint64(len(entries))
		for m.Maintain() {
		}
	}
	return nil
}

// applyEntry applies one entry in configuration conf, and returns the one after
// it.
func applyEntry(a *replica.Applier, conf *raftpb.ConfState, e *wal.Entry) (*raftpb.ConfState, error) {
	entry := &raftpb.Entry{Index: &e.Index, Term: &e.Term, Type: raftpb.EntryType(e.Type).Enum(), Data: e.Data}
	task := replica.Task{Entries: []*raftpb.Entry{entry}}
	after := conf
	if entry.GetType() != raftpb.EntryNormal {
		cc := &raftpb.ConfChangeV2{}
		if err := proto.Unmarshal(e.Data, cc); err != nil {
			return nil, fmt.Errorf("entry %d is no configuration change: %w", e.Index, err)
		}
		var err error
		after, err = change(conf, cc)
		task.Refused = err != nil
	}
	done, err := a.Apply(task, func(replica.Result) {})
	if err != nil {
		return nil, err
	}
	if !done.Changed {
		return conf, nil
	}
	return after, nil
}

// change returns the configuration that Raft makes of conf by cc, or why it
// refuses.
func change(conf *raftpb.ConfState, cc *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	c := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	var err error
	if c.Tracker.Config, c.Tracker.Progress, err = confchange.Restore(c, conf); err != nil {
		return nil, err
	}
	switch autoLeave, joint := cc.EnterJoint(); {
	case cc.LeaveJoint():
		c.Tracker.Config, c.Tracker.Progress, err = c.LeaveJoint()
	case joint:
		c.Tracker.Config, c.Tracker.Progress, err = c.EnterJoint(autoLeave, cc.GetChanges()...)
	default:
		c.Tracker.Config, c.Tracker.Progress, err = c.Simple(cc.GetChanges()...)
	}
	if err != nil {
		return nil, err
	}
	return c.Tracker.ConfState(), nil
}
