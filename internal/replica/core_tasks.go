package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// tasks follows what is to be applied, and the snapshots.
type tasks struct {
	// waiting is not given out yet: behind a configuration change that is
	// being applied.
	waiting []Task
	given   []Task
	barrier bool // the last task given ends in a configuration change
	changes []ownChange

	// Log applied since the last snapshot, and that one's size.
	since, snapshotSize int64
	taking, wanted      bool

	// arrived are snapshots from leaders that raft was given, offered is one
	// that it was not.
	arrived []SnapshotInfo
	offered *raftpb.Message
	sending []sending
	// oldest is the oldest snapshot on disk that the log follows on.
	oldest uint64
}

// add takes committed entries, cut behind every configuration change.
func (t *tasks) add(ents []*raftpb.Entry) {
	for len(ents) > 0 {
		n := 0
		for n < len(ents) {
			t.since += onDisk(ents[n])
			n++
			if ents[n-1].GetType() != raftpb.EntryNormal {
				break
			}
		}
		t.waiting = append(t.waiting, Task{Entries: ents[:n:n]})
		ents = ents[n:]
	}
}

// changing reports whether a configuration change was committed and is not
// applied yet.
func (t *tasks) changing() bool {
	return t.barrier || slices.ContainsFunc(t.waiting, Task.changes)
}

// changes reports whether the task ends in a configuration change.
func (t Task) changes() bool {
	n := len(t.Entries)
	return n > 0 && t.Entries[n-1].GetType() != raftpb.EntryNormal
}

// onDisk is about what an entry takes in the log, which fills whole sectors: many
// small entries make a snapshot due as well as few large ones, because reading
// them at a start takes time too.
func onDisk(e *raftpb.Entry) int64 {
	const sector = 512
	return (int64(entryBytes(e)) + sector - 1) / sector * sector
}

// giveTasks hands out what may be applied now.
func (c *Core) giveTasks() {
	t := &c.tasks
	for len(t.waiting) > 0 && !t.barrier {
		task := t.waiting[0]
		t.waiting[0] = Task{}
		t.waiting = t.waiting[1:]
		if task.changes() {
			t.barrier = true
			cc := mustChange(task.Entries[len(task.Entries)-1])
			task.Refused = tryChange(c.conf.state, cc) != nil
		}
		c.give(task)
	}
	due := t.since > max(c.opt.SnapshotBytes, t.snapshotSize) || t.wanted || c.storage.wanted
	if due && !t.taking && !t.barrier {
		t.taking, t.wanted, c.storage.wanted, t.since = true, false, false, 0
		c.give(Task{Take: c.conf.state})
	}
}

func (c *Core) give(task Task) {
	c.tasks.given = append(c.tasks.given, task)
	c.out.Tasks = append(c.out.Tasks, task)
}

// mustChange decodes a change that is committed: all members have the same
// bytes, so there is nobody to refuse it.
func mustChange(e *raftpb.Entry) *raftpb.ConfChangeV2 {
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		panic(fmt.Sprintf("replica: entry %d is no configuration change: %v", e.GetIndex(), err))
	}
	return cc
}

// applied handles that the oldest task was run.
func (c *Core) applied(done *Applied) {
	t := &c.tasks
	if len(t.given) == 0 {
		panic("replica: a task is done that was not given")
	}
	task := t.given[0]
	t.given[0] = Task{}
	t.given = t.given[1:]
	replaying := c.replaying()
	switch n := len(task.Entries); {
	case task.Install.Index != 0:
		c.state.Applied = task.Install.Index
		c.installed()
	case n > 0:
		last := task.Entries[n-1]
		if done.Index != last.GetIndex() {
			panic(fmt.Sprintf("replica: applied %d instead of %d", done.Index, last.GetIndex()))
		}
		if t.barrier && task.changes() {
			t.barrier = false
			if done.Changed {
				c.conf.set(c.node.ApplyConfChange(mustChange(last)))
				c.keepContacts()
			}
		}
		c.groupsApplied(done.Groups)
		c.changesApplied(done.Changes, last.GetTerm())
		c.termApplied(last.GetTerm())
		c.state.Applied = done.Index
		_ = c.node.Step(&raftpb.Message{Type: raftpb.MsgStorageApplyResp.Enum(), To: new(c.id), From: new(raft.LocalApplyThread), Entries: task.Entries})
	}
	if replaying && !c.replaying() {
		c.replayed()
	}
}

// installed forgets calls whose commands may be inside the snapshot.
func (c *Core) installed() {
	c.giveUpSent()
	for len(c.tasks.changes) > 0 {
		c.endChange(c.tasks.changes[0].id, ErrLeaderChanged)
	}
}

// changesApplied drops the changes of this member's that were applied, and fails
// those of earlier terms: as with groups, they are in no log that can win.
func (c *Core) changesApplied(ids []uint64, term uint64) {
	keep := c.tasks.changes[:0]
	for _, o := range c.tasks.changes {
		done := false
		for _, id := range ids {
			done = done || id == o.id
		}
		if !done && o.term < term {
			c.answer(AnswerConfChange, o.id, ErrLeaderChanged)
		} else if !done {
			keep = append(keep, o)
		}
	}
	c.tasks.changes = keep
}
