package sim

import (
	"slices"

	"go.etcd.io/raft/v3/confchange"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/internal/replica"
)

// observe holds what a core wants done against everything that any core ever
// did, before it is done.
func (n *node) observe(out *replica.Output) {
	w := n.w
	for i := range out.Writes {
		n.observeWrite(&out.Writes[i].Batch)
		if state := out.Writes[i].Batch.State; state.Vote != 0 {
			n.proc.writer.ballots = append(n.proc.writer.ballots, vote{out.Writes[i].Seq, state})
		}
	}
	s, old := &out.State, &n.state
	if s.Term < old.Term || s.Commit < old.Commit || s.Applied < old.Applied {
		violate("%s: term, commit or applied index falls from %+v to %+v", n, *old, *s)
	}
	if s.Role == replica.Leader && w.ledger.leads(n.id, s.Term) {
		w.tally.elections++
		n.seen.led = w.loop.now
		w.tell("%s leads term %d", n, s.Term)
		n.observeLeader(s.Term)
	}
	if s.Commit > old.Commit || old.Term == 0 {
		n.observeCommit(max(old.Commit, n.logs.emitted.first), s.Commit)
	}
}

// observeWrite checks what is to go to the log: entries are the same in all
// logs.
func (n *node) observeWrite(b *replica.Batch) {
	logs := &n.logs.emitted
	before, known := uint64(0), false
	if len(b.Entries) > 0 && !b.Reset {
		before, known = logs.at(b.Entries[0].Index - 1)
	} else if b.Reset {
		before, known = b.Mark.Term, true
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		if known {
			n.w.ledger.filled(n.id, slot{e.Index, e.Term}, content{digest(e.Data) ^ uint64(e.Type), before})
		}
		before, known = e.Term, true
		if n.w.opt.tend.on && raftpb.EntryType(e.Type) != raftpb.EntryNormal {
			n.w.tending.proposed[slot{e.Index, e.Term}] = true
		}
	}
	logs.write(b)
}

// vote is one that counts once the write with that number is done.
type vote struct {
	seq   uint64
	state replica.HardState
}

// observeVotes: what was written up to seq is promised: one vote a term.
func (p *process) observeVotes(seq uint64) {
	for b := &p.writer.ballots; len(*b) > 0 && (*b)[0].seq <= seq; *b = (*b)[1:] {
		s := (*b)[0].state
		p.n.w.ledger.voted(p.n.id, s.Term, s.Vote)
	}
}

// observeLeader: whoever wins an election has all that is committed (leader
// completeness, Ongaro 3.6.3).
func (n *node) observeLeader(term uint64) {
	l := n.w.ledger
	last := l.last()
	if last == 0 || last < n.logs.emitted.first {
		return
	}
	if got, ok := n.logs.emitted.at(last); !ok || got != l.committed[last].before {
		violate("%s leads term %d without the committed entry %d of term %d (its log ends at %d)",
			n, term, last, l.committed[last].before, n.logs.emitted.last())
	}
}

// observeCommit: what the core takes for committed is so, which means that the
// disks of a majority have it.
func (n *node) observeCommit(from, to uint64) {
	l := n.w.ledger
	for i := max(from, 1); i <= to; i++ {
		term, ok := n.logs.emitted.at(i)
		if !ok {
			continue // a snapshot stands for it
		}
		if !l.commits(n.id, slot{i, term}) || i == 1 {
			continue
		}
		conf := n.logs.conf
		if !n.w.durable(conf.GetVoters(), i, term) || !n.w.durable(conf.GetVotersOutgoing(), i, term) {
			violate("%s commits entry %d of term %d, which no majority has on disk", n, i, term)
		}
	}
}

// durable reports whether most of the voters have an entry on disk.
func (w *world) durable(voters []uint64, index, term uint64) bool {
	have := 0
	for _, id := range voters {
		m := w.byID(id)
		if m == nil {
			continue
		}
		if got, ok := m.logs.written.at(index); ok && got == term || !ok && index < m.logs.written.first {
			have++
		}
	}
	return len(voters) == 0 || have > len(voters)/2
}

func (w *world) byID(id uint64) *node {
	i := slices.IndexFunc(w.nodes, func(n *node) bool { return n.id == id })
	if i < 0 {
		return nil
	}
	return w.nodes[i]
}

// changed follows the configuration of a node, as raft computes it.
func (n *node) changed(e *raftpb.Entry) {
	cc := &raftpb.ConfChangeV2{}
	if err := proto.Unmarshal(e.GetData(), cc); err != nil {
		violate("entry %d is no configuration change: %v", e.GetIndex(), err)
	}
	changer := confchange.Changer{Tracker: tracker.MakeProgressTracker(1, 0), LastIndex: 1}
	cfg, progress, err := confchange.Restore(changer, n.logs.conf)
	if err == nil {
		changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
		if cc.LeaveJoint() {
			cfg, progress, err = changer.LeaveJoint()
		} else if auto, ok := cc.EnterJoint(); ok {
			cfg, progress, err = changer.EnterJoint(auto, cc.GetChanges()...)
		} else {
			cfg, progress, err = changer.Simple(cc.GetChanges()...)
		}
	}
	if err != nil {
		violate("%s accepted an impossible change: %v", n, err)
	}
	changer.Tracker.Config, changer.Tracker.Progress = cfg, progress
	n.logs.conf = changer.Tracker.ConfState()
	if e.GetIndex() > n.w.confAt {
		n.w.conf, n.w.confAt = n.logs.conf, e.GetIndex()
		n.w.checkVoters(n.w.conf)
	}
	n.w.tell("%s has voters %x learners %x", n, n.logs.conf.GetVoters(), n.logs.conf.GetLearners())
}
