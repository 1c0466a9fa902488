package sim

import (
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/steward"
	"github.com/concord-kv/concord/internal/vfs"
)

// Bug is a fault of the program, planted to find out whether the checks notice
// it. Nothing of it stands in product code: a bug wraps what a member is made
// of, or has the simulator's shell do what a wrong shell would do. Nil fields
// change nothing.
type Bug struct {
	Name string
	// Mix changes what the seed drew, so that the bug has a chance to show.
	Mix func(m *mix)
	// Machine replaces the machine of a process that starts.
	Machine func(n *node, m replica.Machine) replica.Machine
	// Disk replaces the file system that processes see.
	Disk func(fs vfs.FS) vfs.FS
	// Boot does something to a node before it starts again.
	Boot func(n *node)
	// Input changes what a core is given, Output what it wants done; the
	// checks see it before.
	Input  func(p *process, in *replica.Input)
	Output func(p *process, out *replica.Output)
	// View changes what a steward sees, and Tend what it does about it.
	View  func(p *process, v *steward.View)
	Tend  func(a *steward.Action) []*steward.Action
	shell shellBug
}

// parts are what a steward does.
func (b *Bug) parts(a *steward.Action) []*steward.Action {
	if b.Tend != nil {
		return b.Tend(a)
	}
	return []*steward.Action{a}
}

// shellBug is what a wrong shell would do.
type shellBug struct {
	// ackEarly tells the core of writes that have not begun.
	ackEarly bool
	// staleReads serves strong reads without asking for an index, earlyReads
	// without waiting until it is applied, looseLease leader reads by whoever
	// believes to lead.
	staleReads, earlyReads, looseLease bool
	// blindRetry proposes again what may have been done.
	blindRetry bool
	// plainRevoke ends leases by id, whoever leads when it is applied.
	plainRevoke bool
	// noLearners lets new members vote at once.
	noLearners bool
}
