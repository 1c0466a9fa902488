package replica

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// disk follows the writes of the log that are under way.
type disk struct {
	// state is the newest hard state. What is on disk may have an older
	// commit index: that alone is never worth a write.
	state HardState
	last  uint64 // last index given to the log, durable or not
	seq   uint64 // of the last write
	// queue holds the writes under way, oldest first.
	queue []writing
	// took is a moving average of how long writes take, in nanoseconds.
	took int64
	race race
}

// writing is a write under way, and what may happen once it is durable.
type writing struct {
	seq       uint64
	began     int64
	entries   []*raftpb.Entry
	install   SnapshotInfo
	mark      bool // of a snapshot taken here
	responses []*raftpb.Message
}

// write takes a MsgStorageAppend: entries, hard state and snapshot that are to
// be durable before its responses are delivered.
func (c *Core) write(m *raftpb.Message) {
	old := c.disk.state
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		c.disk.state = HardState{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
	}
	w := writing{began: c.now, entries: m.GetEntries(), responses: m.GetResponses()}
	b := Batch{State: c.disk.state}
	if snap := m.GetSnapshot(); !raft.IsEmptySnap(snap) {
		w.install = c.tasks.take(snap.GetMetadata())
		b.Mark, b.Reset = Mark{Index: w.install.Index, Term: w.install.Term}, true
		c.disk.last = w.install.Index
	}
	if n := len(w.entries); n > 0 {
		b.Entries = make([]Entry, n)
		for i, e := range w.entries {
			b.Entries[i] = Entry{Index: e.GetIndex(), Term: e.GetTerm(), Type: uint8(e.GetType()), Data: e.GetData()}
		}
		c.disk.last = b.Entries[n-1].Index
		c.noteEntries(w.entries)
	}
	if len(w.entries) == 0 && w.install.Index == 0 && c.disk.state.Term == old.Term && c.disk.state.Vote == old.Vote {
		// Nothing here needs the disk, but responses wait for the writes
		// before. A new commit index goes along with the next write.
		if n := len(c.disk.queue); n > 0 {
			last := &c.disk.queue[n-1]
			last.responses = append(last.responses[:len(last.responses):len(last.responses)], w.responses...)
		} else {
			c.deliver(w.responses)
		}
		return
	}
	c.issue(w, b)
}

func (c *Core) issue(w writing, b Batch) {
	c.disk.seq++
	w.seq = c.disk.seq
	c.disk.queue = append(c.disk.queue, w)
	if len(w.entries) > 0 && c.isLeader() {
		c.disk.race.start(&w)
	}
	c.out.Writes = append(c.out.Writes, Write{w.seq, b})
}

// written handles that the writes up to seq are durable.
func (c *Core) written(seq uint64) {
	if seq > c.disk.seq {
		panic(fmt.Sprintf("replica: write %d is done but %d was the last", seq, c.disk.seq))
	}
	for len(c.disk.queue) > 0 && c.disk.queue[0].seq <= seq {
		w := c.disk.queue[0]
		c.disk.queue[0] = writing{}
		c.disk.queue = c.disk.queue[1:]
		c.disk.took += (c.now - w.began - c.disk.took) / 8
		c.finish(&w)
		if w.install.Index != 0 {
			c.install(w.install)
		}
		c.storage.append(w.entries)
		c.deliver(w.responses)
		if w.mark {
			c.truncate()
		}
	}
}

// deliver sends what had to wait for the disk.
func (c *Core) deliver(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() == c.id {
			// It cannot be refused but for a member that left the
			// configuration, for whom it means nothing.
			_ = c.node.Step(m)
		} else {
			c.send(m)
		}
	}
}

// watchDisk looks after a disk that hangs. A leader whose disk hangs would go on
// sending heartbeats, and nothing would ever be committed through it if its
// followers were slow too; it gives leadership away, and if that fails drops it
// (reference: hashicorp/raft 503, cockroach 41691, tarantool 9399).
func (c *Core) watchDisk() {
	late := time.Duration(0)
	if len(c.disk.queue) > 0 {
		late = time.Duration(c.now - c.disk.queue[0].began)
	}
	c.state.Stalled = late > c.opt.Election
	if !c.state.Stalled || !c.isLeader() || !c.conf.hasPeers(c.id) {
		return
	}
	if late > 2*c.opt.Election {
		// A message of a later term makes raft a follower at once. It keeps no
		// promise that needs the disk: the term is written behind the rest.
		_ = c.node.Step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(c.conf.peer(c.id)), To: new(c.id), Term: new(c.state.Term + 1)})
	} else if !c.conf.transferring {
		c.transfer(0)
	}
}

// slow reports that a write takes more than 2 ms: then it pays to have more of
// them under way (measured with the prototype).
func (d *disk) slow() bool { return d.took > int64(2*time.Millisecond) }
