package concord

import (
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// told is the member's machine, which tells what it applied, and the state that
// it works on. Its methods are called by the goroutine that applies.
type told struct {
	replica.Machine
	state  *machine.Machine
	events *events
	// replay is the last entry that was in the log when the member started.
	replay uint64
	caught bool // it has been applied
}

// Apply implements replica.Machine.
func (m *told) Apply(at replica.Position, commands [][]byte, results []any) {
	o := m.events.hub.Load()
	if o.Apply == nil && o.Lease == nil && o.Expiry == nil && o.Compaction == nil && o.Membership == nil {
		m.Machine.Apply(at, commands, results)
	} else {
		m.applyTold(o, at, commands, results)
	}
	if o.Proposal != nil && at.Index > m.replay {
		m.tellTraced(o, at, commands)
	}
	m.passed(at.Index)
}

// tellTraced tells of the commands of an entry that carry a trace.
func (m *told) tellTraced(o *observe.Observer, at replica.Position, commands [][]byte) {
	var ev observe.Proposal
	for _, command := range commands {
		trace := machine.TraceOf(command)
		if trace == nil {
			continue
		}
		if ev.Start.IsZero() {
			ev = m.events.seen(at)
		}
		ev.Trace = observe.NewTrace(trace)
		o.Proposal(ev)
	}
}

// seen is what this member knows of an entry that it has just applied.
func (e *events) seen(at replica.Position) observe.Proposal {
	now, seen := time.Now(), e.times.Of(at.Index)
	e.part.mu.Lock()
	role := e.part.last.Role
	e.part.mu.Unlock()
	ev := observe.Proposal{Member: e.member, Role: role, Index: at.Index, Term: at.Term, Start: now}
	for _, begun := range [...]time.Time{seen.Committed, seen.Logged, seen.Received} {
		if !begun.IsZero() {
			ev.Start = begun // the earliest that is known
		}
	}
	after := func(t time.Time, least time.Duration) time.Duration {
		if t.IsZero() {
			return 0
		}
		return max(t.Sub(ev.Start), least)
	}
	p := &ev.Phases
	p.Logged = after(seen.Logged, 0)
	p.Committed = after(seen.Committed, p.Logged)
	p.Applied = after(now, max(p.Committed, 1))
	return ev
}

// ApplyMembers implements replica.Machine.
func (m *told) ApplyMembers(at replica.Position, change []byte) any {
	result := m.Machine.ApplyMembers(at, change)
	m.passed(at.Index)
	if _, failed := result.(error); failed || len(change) == 0 {
		return result
	}
	m.events.roleChanged()
	if at.Index > m.replay {
		m.tellMembers(m.events.hub.Load(), at.Index, machine.MemberChangesOf(change))
	}
	return result
}

// tellMembers tells of changes that were made.
func (m *told) tellMembers(o *observe.Observer, index uint64, changes []machine.MemberChange) {
	if o.Membership == nil {
		return
	}
	for _, c := range changes {
		o.Membership(observe.Membership{
			Kind: membershipKinds[c.Op], Member: uint64(c.Member.ID), Index: index,
			Members: len(m.state.Members()), Learner: c.Op == machine.AddMember && c.Member.Learner,
		})
	}
}

// membershipKinds are the changes as events.
var membershipKinds = map[machine.MemberOp]observe.MembershipKind{
	machine.AddMember: observe.MemberAdded, machine.PromoteMember: observe.MemberPromoted,
	machine.RemoveMember: observe.MemberRemoved, machine.UpdateMember: observe.MemberUpdated,
}

// passed notices that all has been applied that was in the log at the start.
func (m *told) passed(index uint64) {
	if !m.caught && index >= m.replay {
		m.caught = true
		m.events.recovered()
	}
}

// applyTold applies an entry and tells of it.
func (m *told) applyTold(o *observe.Observer, at replica.Position, commands [][]byte, results []any) {
	if results == nil {
		results = make([]any, len(commands)) // who waits is elsewhere
	}
	compacted := m.state.CompactRevision()
	ev := observe.Apply{Kind: observe.Applied, Index: at.Index, Term: at.Term, Commands: len(commands), Replayed: at.Index <= m.replay}
	had := m.expiring(o, commands)
	began := time.Now()
	m.Machine.Apply(at, commands, results)
	ev.Duration = time.Since(began)
	if !ev.Replayed {
		m.tellWork(o, &ev, entry{commands, results, compacted, had})
	}
	if o.Apply == nil {
		return
	}
	for i, command := range commands {
		ev.Bytes += int64(len(command))
		if name := machine.KindName(command); i == 0 {
			ev.Operation = name
		} else if ev.Operation != name {
			ev.Operation = "batch"
		}
	}
	o.Apply(ev)
}

// expiring are the leases that exist and that commands find expired.
func (m *told) expiring(o *observe.Observer, commands [][]byte) (had []kv.LeaseID) {
	if o.Lease == nil {
		return nil
	}
	for _, command := range commands {
		w, _ := machine.WorkOf(command)
		for _, id := range w.Expired {
			if m.state.HasLease(id) {
				had = append(had, id)
			}
		}
	}
	return had
}

// entry is what was applied, and how it was before.
type entry struct {
	commands  [][]byte
	results   []any
	compacted kv.Revision
	had       []kv.LeaseID
}

// tellWork tells of leases, keys with a time to live, compactions and members.
func (m *told) tellWork(o *observe.Observer, ev *observe.Apply, e entry) {
	for i, command := range e.commands {
		w, ok := machine.WorkOf(command)
		if _, failed := e.results[i].(error); !ok || failed {
			continue
		}
		if o.Lease != nil {
			m.tellLeases(o, &w, e.had)
		}
		if w.Keys > 0 && o.Expiry != nil {
			cleanup := observe.Expiry{Keys: w.Keys, Duration: ev.Duration}
			if h, ok := e.results[i].(*kv.Header); ok {
				cleanup.Revision = int64(h.Revision)
			}
			o.Expiry(cleanup)
		}
		if w.Compact > 0 && o.Compaction != nil {
			o.Compaction(observe.Compaction{Revision: int64(w.Compact), Revisions: int64(w.Compact - e.compacted)})
			e.compacted = w.Compact
		}
		m.tellMembers(o, ev.Index, w.Members)
	}
}

func (m *told) tellLeases(o *observe.Observer, w *machine.Work, had []kv.LeaseID) {
	tell := func(kind observe.LeaseKind, id kv.LeaseID) {
		o.Lease(observe.Lease{Kind: kind, ID: int64(id), TTL: w.TTL, Active: int(m.state.LeaseFigures().Live)})
	}
	for _, id := range w.Granted {
		tell(observe.LeaseGranted, id)
	}
	for _, id := range w.Renewed {
		if m.state.HasLease(id) {
			tell(observe.LeaseRenewed, id)
		}
	}
	for _, id := range w.Revoked {
		tell(observe.LeaseRevoked, id)
	}
	for _, id := range w.Expired {
		for _, was := range had {
			if was == id && !m.state.HasLease(id) { // else it was renewed in time
				tell(observe.LeaseExpired, id)
			}
		}
	}
}
