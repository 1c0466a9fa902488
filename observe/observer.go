package observe

import "slices"

// Event is one thing that happened. The types of this package are all there are.
type Event interface {
	// Name is one of [Names].
	Name() string
}

// Observer has a function for each type of event; nil ones are not called. All
// may be called at once, from several goroutines.
type Observer struct {
	// API is called when a call of the member has ended, whoever made it.
	API func(API)
	// Apply is called for each entry of the log that this member has applied.
	Apply func(Apply)
	// Proposal is called on each member when it has applied a write that
	// carries a [Trace]. Where it is set, contexts of calls are asked for a
	// trace, which goes along with the write to all members, and is in the
	// event of the call, too.
	Proposal func(Proposal)
	// State is called when the member's part in Raft has changed, in order.
	State func(State)
	// Snapshot is called after each snapshot was taken, sent or installed.
	Snapshot func(Snapshot)
	// Status is called every [StatusEvery].
	Status func(Status)
	// Disk is called after each write of the log, and when the disk stalls.
	Disk func(Disk)
	// Transport is called about the connections with other members.
	Transport func(Transport)
	// Membership is called when a change of the members was applied.
	Membership func(Membership)
	// Watch is called about the watches that this member serves.
	Watch func(Watch)
	// Lease is called when a command about a lease was applied; each member
	// tells of all.
	Lease func(Lease)
	// Expiry is called when keys with a time to live were deleted.
	Expiry func(Expiry)
	// Compaction is called when a compaction was applied.
	Compaction func(Compaction)
	// Auth is called when somebody logged in, or was refused.
	Auth func(Auth)
	// Limit is called when a limit was hit.
	Limit func(Limit)
	// Backup is called after a backup was made from this member.
	Backup func(Backup)
}

// tables are the names of all events, by type. The zero of each kind is none.
var tables = [...][]string{
	apiNames[1:], applyNames[1:], {proposalName}, {stateName}, snapshotNames[1:], {statusName},
	diskNames[1:], transportNames[1:], membershipNames[1:], watchNames[1:], leaseNames[1:],
	{expiryName}, {compactionName}, authNames[1:], limitNames[1:], {backupName},
}

// Names are the names of all events, sorted.
func Names() []string {
	names := slices.Concat(tables[:]...)
	slices.Sort(names)
	return names
}

// nameOf is the name of a kind, "" for one that does not exist.
func nameOf[K ~uint8](table []string, kind K) string {
	if int(kind) < len(table) {
		return table[kind]
	}
	return ""
}
