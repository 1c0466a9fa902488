package sim

import (
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/vfs"
)

// Bug is a fault of the program, to find out whether the checks would notice
// it. Nil fields change nothing. Each is given every member of a run, so that
// its author decides whose it is.
type Bug struct {
	Name string
	// Machine replaces the machine of a process that starts.
	Machine func(n *node, m replica.Machine) replica.Machine
	// Disk replaces the file system that processes see.
	Disk func(fs vfs.FS) vfs.FS
	// Input changes what a core is given, Output what it wants done; the
	// checks see it before.
	Input  func(p *process, in *replica.Input)
	Output func(p *process, out *replica.Output)
	// AckEarly tells the core of writes that have not begun.
	AckEarly bool
	// StaleReads serves strong reads without asking for an index, EarlyReads
	// without waiting until it is applied.
	StaleReads, EarlyReads bool
}

var noBug Bug
