package machine

import (
	"fmt"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Commands have an encoding of our own. Integers are unsigned varints unless
// said otherwise, durations whole milliseconds, strings a length and the bytes.
//
//	command  = kind (1 byte) flags (1 byte) body
//	put      = op                        a transaction of one put, without id
//	txn      = [client (16 bytes) seq] branches          id with flag hasRequest
//	branches = n compare… n op… n op…
//	compare  = target relation withEnd (1 byte each) key [end] (value | zigzag number)
//	op       = kind (1 byte) rest
//	  put    = bits (1 byte) key (value | offset length) [zigzag lease] [ttl]
//	  delete = bits key [end]
//	  range  = bits key [end] then a zigzag number for each bit that says so
//	  txn    = branches
//	upload   = [client seq] id (16 bytes) branches       puts may be staged
//	piece    = id (16 bytes) offset total data (the rest)
//	grant    = zigzag id, ttl
//	alive    = n, zigzag ids
//	revoke   = zigzag id
//	compact  = revision
//	expire   = term, n × (zigzag id, generation), n × (key, mod revision)
//	settings = bits, then a value for each
//	members  = change (see members.go)
//	alarm, downgrade: see alarms.go; auth, token: see auth.go; access: see access.go
//
// A kind is never given a second meaning; a new layout is a new kind. Flag bits
// that a member does not know make the command unknown to it.
type kind uint8

const (
	kindPut kind = iota + 1
	kindTxn
	kindUploadTxn
	kindPiece
	kindGrant
	kindKeepAlive
	kindRevoke
	kindCompact
	kindExpire
	kindSettings
	kindMembers
)

// The flags of a command; for the others see auth.go and trace.go.
const hasRequest = 1 << 1

// The bits of an op.
const (
	bitPrev = 1 << iota
	bitIgnoreValue
	bitIgnoreLease
	bitLease
	bitTTL
	bitEnd
	bitStaged
)

// The bits of a range op.
const (
	rangeEnd = 1 << iota
	rangeKeysOnly
	rangeCountOnly
	rangeRevision
	rangeLimit
	rangeSort
	rangeMinMod
	rangeMaxMod
	rangeMinCreate
	rangeMaxCreate
)

// MaxDepth is how deep transactions may nest in a command; configured limits
// must not allow more.
const MaxDepth = 256

// PieceBytes is the size that a large value is cut into, and from which on a
// value is large: 1 MiB keeps an entry far below what delays a heartbeat.
const PieceBytes = 1 << 20

// UploadID names a large value while it is staged. It is random, made by the
// member that took the call.
type UploadID [16]byte

// ExpiredLease is a lease that was found due, at the generation it then had.
type ExpiredLease struct {
	ID         kv.LeaseID
	Generation uint64
}

// ExpiredKey is a key whose TTL was found over, at the revision it then had.
type ExpiredKey struct {
	Key []byte
	Mod kv.Revision
}

// Settings are the replicated settings of a cluster.
type Settings struct {
	// LeaderReads lets the leader serve reads under its lease. Default off.
	LeaderReads bool
	// Retention is how long history is kept; default 10 minutes.
	Retention time.Duration
	// HistoryBytes is how much history is kept, where the live keys take
	// less; default 256 MiB.
	HistoryBytes int64
	// Autopilot lets the leader tend the membership. Default on.
	Autopilot bool
	// Voters is how many voters the leader tries to have, an odd number; 0,
	// the default, means 3, or 5 where 5 or more have founded the cluster.
	Voters int
	// DeadAfter is how long a member must be silent before another may take
	// its place; default 5 minutes.
	DeadAfter time.Duration
	// Level is the generation of commands and formats that all members
	// understand; it never falls. Default 1.
	Level uint32
}

// DefaultSettings are those of a fresh cluster.
func DefaultSettings() Settings {
	return Settings{
		Retention: 10 * time.Minute, HistoryBytes: 256 << 20,
		Autopilot: true, DeadAfter: 5 * time.Minute, Level: 1,
	}
}

// SettingsChange says which settings to change; nil fields stay.
type SettingsChange struct {
	LeaderReads *bool
	// Retention is kept in whole milliseconds.
	Retention    *time.Duration
	HistoryBytes *int64
	Autopilot    *bool
	Voters       *int
	// DeadAfter is kept in whole milliseconds.
	DeadAfter *time.Duration
	// Level is raised no further than all members understand.
	Level *uint32
}

// CommandError says that a member cannot make sense of a committed command: a
// newer member wrote it, or it is damaged. Apply panics with it, because a
// member that skipped it would differ from the others: the member has to stop
// and say so.
type CommandError struct {
	Index  kv.Index
	Kind   uint8
	Reason string
}

// Error names the entry and what to do.
func (e *CommandError) Error() string {
	return fmt.Sprintf("entry %d has a command of kind %d that this version cannot apply: %s; run a version of concord that is at least the cluster's", e.Index, e.Kind, e.Reason)
}
