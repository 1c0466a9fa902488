package observe

import "time"

// Op is what a call asked for.
type Op uint8

// The operations. A write is named by what it does: one that has conditions is
// OpPutIf or OpDeleteIf when it has one key and changes nothing else, one of
// several keys without conditions OpPutMany or OpDeleteMany, and any other OpTxn.
// OpGet reads one key, OpRange several, OpGetMany several by their names.
const (
	OpPut Op = iota + 1
	OpPutIf
	OpPutMany
	OpDelete
	OpDeleteIf
	OpDeleteMany
	OpGet
	OpGetMany
	OpRange
	OpTxn
	OpWatch
	OpCompact
	OpLeaseGrant
	OpLeaseKeepAlive
	OpLeaseRevoke
	OpLeaseTTL
	OpLeases
	OpAuthenticate
	OpAuth
	OpMember
	OpSnapshot
)

var apiNames = [...]string{
	"", "api.put", "api.put_if", "api.put_many", "api.delete", "api.delete_if", "api.delete_many",
	"api.get", "api.get_many", "api.range", "api.txn", "api.watch", "api.compact",
	"api.lease_grant", "api.lease_keep_alive", "api.lease_revoke", "api.lease_ttl", "api.leases",
	"api.authenticate", "api.auth", "api.member", "api.snapshot",
}

// Ops is how many operations there are: they are 1 to Ops.
const Ops = int(OpSnapshot)

// String is the operation's name, as in "put".
func (o Op) String() string {
	if name := nameOf(apiNames[:], o); name != "" {
		return name[len("api."):]
	}
	return "unknown"
}

// API is a call of the member that has ended: by the embedding program, or by a
// client through a server around it.
type API struct {
	Op Op
	// Level of a read: "strong", "leader" or "eventual"; "" for a write.
	Level string
	// Result is "ok", or the words of the error's kv.Code, as in "permission
	// denied".
	Result string
	// Start is when the call began, and Duration how long it took. A watch has
	// the time until it was established.
	Start    time.Time
	Duration time.Duration
	// Phases of a write that was applied; zero for others.
	Phases Phases
	// Keys counts the operations of a write, or the keys that a read found.
	Keys int
	// Bytes is how long the keys and values of the request are.
	Bytes int64
	// Revision of the store that the answer told, 0 where it did not.
	Revision int64
	// HasTTL says that a put had a time to live or a lease, HasCondition that
	// the request compared something.
	HasTTL, HasCondition bool
	// Trace of the caller's context, see [WithTrace].
	Trace Trace
}

// Name implements [Event].
func (e API) Name() string { return nameOf(apiNames[:], e.Op) }

// Phases tell how far a write had got when, each counted from its start; what
// is not known is 0. They never fall from one field to the next. Many writes
// share an entry of the log, and their times from Queued to Applied.
type Phases struct {
	// Queued: taken out of the queue, to be put into an entry by this member,
	// or handed to the leader.
	Queued time.Duration
	// Logged: the entry is durable on this member.
	Logged time.Duration
	// Committed: this member knows that it is durable on a majority.
	Committed time.Duration
	// Applied: this member has applied it.
	Applied time.Duration
	// Answered: the caller has its result; the duration of the call.
	Answered time.Duration
}
