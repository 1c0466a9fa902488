package machine

import (
	"fmt"

	"github.com/concord-kv/concord/kv"
)

// A level is a generation of commands and formats. Each member tells the level
// of its program in its member record; the cluster has one, replicated level,
// which the leader raises to the lowest of all members'. What is newer than the
// cluster's level is never proposed, so that members of two versions can run
// side by side while they are replaced one after the other.

// ProgramLevel is the level that this program understands. Whoever adds a
// command, or a field to one, raises it by one and notes the level of what is
// new in kindLevels.
const ProgramLevel = 1

// kindLevels is the level that each kind of command needs; 0 is a kind that this
// program does not know.
var kindLevels = [256]uint8{
	kindPut: 1, kindTxn: 1, kindUploadTxn: 1, kindPiece: 1, kindGrant: 1, kindKeepAlive: 1, kindRevoke: 1,
	kindCompact: 1, kindExpire: 1, kindSettings: 1, kindMembers: 1,
	kindAlarm: 1, kindDowngrade: 1, kindAuth: 1, kindToken: 1, kindAccess: 1,
}

// LevelError says that the cluster uses commands or formats that this program
// does not understand.
type LevelError struct{ Cluster, Program uint32 }

// Error says what to do.
func (e *LevelError) Error() string {
	return fmt.Sprintf("the cluster has level %d of commands and formats, this program understands up to %d; run the version of concord that the other members run", e.Cluster, e.Program)
}

// Unwrap classifies the error.
func (e *LevelError) Unwrap() error { return errLevel }

var errLevel = kv.Errorf(kv.Unsupported, "the program is older than the cluster")

// Level is the cluster's level. Any goroutine.
func (m *Machine) Level() uint32 { return m.config.Load().settings.Level }

// Proposable returns nil when all members can apply command, as far as this one
// knows. It must be asked before each proposal. Any goroutine.
func (m *Machine) Proposable(command []byte) error {
	needs, have := m.levels[command[0]], m.Level()
	if needs != 0 && uint32(needs) <= have {
		return nil
	}
	return kv.Errorf(kv.FailedPrecondition, "commands of kind %d need level %d, and the cluster has %d, the lowest of its members; update all members to one version ('concord cluster members' lists them); nothing was done: %w", command[0], needs, have, kv.ErrUnsupported)
}

// Lowest is the level that all members understand, and so the one to raise the
// cluster's to. Any goroutine.
func (m *Machine) Lowest() uint32 { return m.config.Load().membership.level() }

// level is the lowest of all members'. Those that are reserved and have never
// been started do not count: they cannot join with a lower one.
func (s *membership) level() uint32 {
	lowest := uint32(0)
	for i := range s.members {
		m := &s.members[i]
		if m.Level == 0 && m.Name == "" {
			continue
		}
		if l := max(m.Level, 1); lowest == 0 || l < lowest {
			lowest = l
		}
	}
	return max(lowest, 1)
}

// checkLevel refuses a member whose program does not understand the cluster's
// commands.
func checkLevel(m *kv.Member, level uint32) error {
	if m.Level != 0 && m.Level < level {
		return kv.Errorf(kv.Unsupported, "member %q: %w", m.Name, &LevelError{Cluster: level, Program: m.Level})
	}
	return nil
}

// VoterTarget is how many voters the cluster shall have; see
// [Settings.Voters]. Any goroutine.
func (m *Machine) VoterTarget() int {
	c := m.config.Load()
	switch {
	case c.settings.Voters != 0:
		return c.settings.Voters
	case c.founders >= 5:
		return 5
	}
	return 3
}
