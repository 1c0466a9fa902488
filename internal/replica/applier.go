package replica

// Applier runs tasks on a machine: it decodes entries, and finds in them the
// groups and changes that came from this member. It is deterministic.
type Applier struct {
	machine             Machine
	origin, incarnation uint64
}

// Result is what a group or change of this member gave.
type Result struct {
	// Seq is that of the group, or the ID of the InputConfChange.
	Seq    uint64
	Change bool
	// Values are the commands' results, in order; for a change just one. They
	// are valid until the next call of Apply.
	Values []any
}

// NewApplier returns an Applier for a member's life, whose machine has the state
// of snapshot s, or none if s is zero.
func NewApplier(m Machine, id, incarnation uint64, s SnapshotInfo) *Applier {
	return &Applier{machine: m, origin: id, incarnation: incarnation}
}

// Apply runs t's entries; t.Snapshot is the caller's to restore before, followed
// by Reset. resolve is called for each of this member's groups and changes. An
// error means that an entry has no meaning here: the member must end.
func (a *Applier) Apply(t Task, resolve func(Result)) (Applied, error) { panic("not written yet") }

// Reset tells the applier that the machine was restored from s.
func (a *Applier) Reset(s SnapshotInfo) { panic("not written yet") }

// Snapshot describes the state as a snapshot taken now, without its ConfState,
// which the caller has from the last Task, and Size.
func (a *Applier) Snapshot() SnapshotInfo { panic("not written yet") }
