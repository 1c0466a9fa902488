package sim

import (
	"io"

	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/kv"
)

// spy stands between a replica and its machine and holds every entry's results
// and hash against those of the other members and lives, and against the model.
type spy struct {
	replica.Machine // the real one, or a bug around it

	n *node
}

// spy returns what the replica of a process takes for its machine.
func (n *node) spy(p *process) replica.Machine {
	var m replica.Machine = p.machine
	if bug := n.w.bug(); bug.Machine != nil {
		m = bug.Machine(n, m)
	}
	return &spy{m, n}
}

// Apply implements replica.Machine.
func (s *spy) Apply(at replica.Position, commands [][]byte, results []any) {
	if results == nil { // nobody waits on this member, but here all are compared
		results = make([]any, len(commands))
	}
	s.Machine.Apply(at, commands, results)
	w := s.n.w
	w.ledger.stamped(s.n.id, at.Index, at.Now)
	s.after(at.Index)
	w.ledger.answered(s.n.id, at.Index, digestResults(results))
	if at.Index <= w.modelled {
		return
	}
	w.modelled++
	if at.Index != w.modelled {
		violate("%s applies entry %d, but %d was never applied", s.n, at.Index, w.modelled)
	}
	w.checkStamp(at.Now)
	w.model.advance(w, kv.Time(at.Now))
	for i, bytes := range commands {
		w.model.run(w, at.Term, bytes, results[i])
	}
}

// ApplyMembers implements replica.Machine.
func (s *spy) ApplyMembers(at replica.Position, change []byte) any {
	res := s.Machine.ApplyMembers(at, change)
	s.n.w.ledger.stamped(s.n.id, at.Index, at.Now)
	s.after(at.Index)
	if at.Index > s.n.w.modelled {
		s.n.w.modelled++
		s.n.w.model.advance(s.n.w, kv.Time(at.Now))
	}
	return res
}

// Restore implements replica.Machine.
func (s *spy) Restore(r io.Reader) error {
	if err := s.Machine.Restore(r); err != nil {
		return err
	}
	index, hash := s.Hash()
	s.n.w.ledger.applied(s.n.id, index, hash)
	return nil
}

func (s *spy) after(index uint64) {
	at, hash := s.Hash()
	if at != index {
		violate("%s: the hash is of index %d after entry %d", s.n, at, index)
	}
	s.n.w.ledger.applied(s.n.id, index, hash)
	s.n.w.trace.mix(uint64(s.n.slot), index, hash)
}

// digestResults is 0 for an entry without commands.
func digestResults(results []any) uint64 {
	if len(results) == 0 {
		return 0
	}
	return digest([]byte(describeResults(results)))
}

var _ replica.Machine = (*spy)(nil)
