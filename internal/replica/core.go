package replica

import "log/slog"

// CoreConfig configures a [Core].
type CoreConfig struct {
	// ID is this member's; not 0.
	ID uint64
	// Incarnation is a random number for the life of the process: it tells
	// groups and reads of one life from those of another.
	Incarnation uint64
	// Seed of the small jitters that are the core's own.
	Seed uint64
	// Now is the time of the start, as in Input.Now.
	Now int64
	// Snapshot is what the machine was restored from; the zero value for a
	// member that joins and has no state yet.
	Snapshot SnapshotInfo
	// Newest is the index of the newest snapshot kept, usually
	// Snapshot.Index, and Oldest of the oldest that the log still follows on.
	Log     LogReader
	Options Options
	// Logger gets raft's messages at debug level; nil for none.
	Logger *slog.Logger
}

// Core is the deterministic part of a replica: Step gives it what happened, Take
// says what to do. It is not safe for concurrent use. It panics when an
// invariant is broken, when raft does, and when LogReader fails: the member
// must end then.
type Core struct {
	cfg CoreConfig
}

// NewCore returns the core of a member that starts from the snapshot and log in
// cfg. It does nothing before the first Step.
func NewCore(cfg CoreConfig) (*Core, error) {
	c := &Core{cfg: cfg}
	return c, nil
}

// Step gives the core one input.
func (c *Core) Step(in Input) { panic("not written yet") }

// Take returns what is to be done since the last Take.
func (c *Core) Take() Output { panic("not written yet") }

// Wants reports whether an InputPropose with waiting commands of so many bytes
// would be taken now. It is false while enough is under way, so that calls
// gather into larger groups.
func (c *Core) Wants(waiting int, bytes int64) bool { panic("not written yet") }
