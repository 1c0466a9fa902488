package replica

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// Applier runs tasks on a machine: it decodes entries, and finds in them the
// groups and changes that came from this member. It is deterministic.
type Applier struct {
	machine             Machine
	origin, incarnation uint64

	index, term uint64 // of the last entry applied
	stamp       int64  // cluster time of the last entry that had one

	// Scratch, kept for its memory.
	commands [][]byte
	results  []any
	groups   []groupRef
}

// Result is what a group or change of this member gave.
type Result struct {
	// Seq is that of the group, or the ID of the InputConfChange, and Index
	// that of the entry.
	Seq    uint64
	Index  uint64
	Change bool
	// Values are the commands' results, in order; for a change just one. They
	// are valid until resolve returns.
	Values []any
}

// NewApplier returns an Applier for a member's life, whose machine has the state
// of snapshot s, or none if s is zero.
func NewApplier(m Machine, id, incarnation uint64, s SnapshotInfo) *Applier {
	a := &Applier{machine: m, origin: id, incarnation: incarnation}
	a.Reset(s)
	return a
}

// Reset tells the applier that the machine was restored from s.
func (a *Applier) Reset(s SnapshotInfo) { a.index, a.term, a.stamp = s.Index, s.Term, s.Time }

// Snapshot describes the state as a snapshot taken now, without ConfState and
// Size.
func (a *Applier) Snapshot() SnapshotInfo {
	return SnapshotInfo{Index: a.index, Term: a.term, Time: a.stamp}
}

// Apply runs t's entries; installing t.Install and taking snapshots is the
// caller's. resolve is called for each of this member's groups and changes. An
// error means that an entry has no meaning here: the member must end.
func (a *Applier) Apply(t Task, resolve func(Result)) (Applied, error) {
	done := Applied{Index: a.index}
	for i, e := range t.Entries {
		if e.GetIndex() != a.index+1 || e.GetTerm() < a.term {
			return done, fmt.Errorf("replica: entry %d of term %d cannot follow entry %d of term %d", e.GetIndex(), e.GetTerm(), a.index, a.term)
		}
		var err error
		switch e.GetType() {
		case raftpb.EntryNormal:
			err = a.applyNormal(e, &done, resolve)
		case raftpb.EntryConfChangeV2:
			err = a.applyChange(e, t.Refused && i == len(t.Entries)-1, &done, resolve)
		default:
			err = fmt.Errorf("%w: type %v", errPayload, e.GetType())
		}
		if err != nil {
			return done, fmt.Errorf("apply entry %d: %w", e.GetIndex(), err)
		}
		a.index, a.term = e.GetIndex(), e.GetTerm()
	}
	done.Index = a.index
	return done, nil
}

// at is where an entry stands, with the cluster time up to it.
func (a *Applier) at(e *raftpb.Entry) Position {
	return Position{e.GetIndex(), e.GetTerm(), a.stamp}
}

func (a *Applier) applyNormal(e *raftpb.Entry, done *Applied, resolve func(Result)) error {
	if len(e.GetData()) == 0 {
		a.machine.Apply(a.at(e), nil, nil)
		return nil
	}
	stamp, rest, err := payloadStamp(e.GetData())
	if err != nil {
		return err
	}
	a.stamp = max(a.stamp, stamp)
	a.commands, a.groups = a.commands[:0], a.groups[:0]
	for len(rest) > 0 {
		var g groupRef
		if g, rest, err = cutGroup(rest); err != nil {
			return err
		}
		if a.commands, err = appendCommands(a.commands, g); err != nil {
			return err
		}
		a.groups = append(a.groups, g)
	}
	var results []any
	if slices.ContainsFunc(a.groups, a.own) {
		n := len(a.commands)
		if cap(a.results) < n {
			a.results = make([]any, n)
		}
		results = a.results[:n]
	}
	a.machine.Apply(a.at(e), a.commands, results)
	lo := 0
	for _, g := range a.groups {
		hi := lo + g.count
		if a.own(g) {
			done.Groups = append(done.Groups, g.seq)
			resolve(Result{Seq: g.seq, Index: e.GetIndex(), Values: results[lo:hi]})
		}
		lo = hi
	}
	clear(results)
	clear(a.commands)
	clear(a.groups)
	return nil
}

// own reports whether callers on this member wait for g.
func (a *Applier) own(g groupRef) bool {
	return g.origin == a.origin && g.incarnation == a.incarnation
}

func (a *Applier) applyChange(e *raftpb.Entry, refused bool, done *Applied, resolve func(Result)) error {
	var cc raftpb.ConfChangeV2
	if err := proto.Unmarshal(e.GetData(), &cc); err != nil {
		return fmt.Errorf("%w: %w", errPayload, err)
	}
	if len(cc.GetContext()) == 0 { // raft leaves a joint configuration
		a.machine.Apply(a.at(e), nil, nil)
		done.Changed = !refused
		return nil
	}
	c, err := parseChange(cc.GetContext())
	if err != nil {
		return err
	}
	a.stamp = max(a.stamp, c.stamp)
	var result any = ErrInvalidChange
	if refused {
		a.machine.Apply(a.at(e), nil, nil)
	} else {
		result = a.machine.ApplyMembers(a.at(e), c.context)
		_, failed := result.(error)
		done.Changed = !failed
	}
	if c.origin == a.origin && c.incarnation == a.incarnation {
		done.Changes = append(done.Changes, c.id)
		resolve(Result{Seq: c.id, Index: e.GetIndex(), Change: true, Values: []any{result}})
	}
	return nil
}
