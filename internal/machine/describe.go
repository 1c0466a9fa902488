package machine

import (
	"math"
	"time"

	"github.com/concord-kv/concord/kv"
)

// kindNames are the kinds of commands in words.
var kindNames = [256]string{
	kindPut: "put", kindTxn: "txn", kindUploadTxn: "large txn", kindPiece: "piece",
	kindGrant: "lease grant", kindKeepAlive: "lease keep-alive", kindRevoke: "lease revoke",
	kindCompact: "compact", kindExpire: "expire", kindSettings: "settings", kindMembers: "member update",
	kindAlarm: "alarm", kindDowngrade: "downgrade", kindAuth: "auth", kindToken: "token", kindAccess: "access token",
}

// KindName is what a command is, in words; "unknown" for one that this program
// does not know.
func KindName(command []byte) string {
	if len(command) > 0 && kindNames[command[0]] != "" {
		return kindNames[command[0]]
	}
	return "unknown"
}

// Work is what a command does with leases, with keys that have a time to live,
// with history or with the list of members.
type Work struct {
	// Granted has one lease, Renewed, Revoked and Expired any number: those that
	// the command names, whether or not it had its way with them.
	Granted, Renewed, Revoked, Expired []kv.LeaseID
	// TTL of the lease that is granted.
	TTL time.Duration
	// Keys counts the keys whose time to live is over.
	Keys int
	// Compact is up to where history is given up, 0 for no compaction.
	Compact kv.Revision
	// Members are changed without a change of votes.
	Members []MemberChange
}

// WorkOf takes a command apart, for those who watch; ok is false for one of
// another kind, or one that cannot be read. It allocates for the others only.
func WorkOf(command []byte) (w Work, ok bool) {
	d := decoder{data: command}
	k, flags := kind(d.byte()), d.byte()
	switch k {
	case kindGrant, kindKeepAlive, kindRevoke, kindCompact, kindExpire, kindMembers:
	default:
		return w, false
	}
	if flags&hasTrace != 0 {
		d.trace()
	}
	if flags&callerFlags != 0 {
		d.caller(flags)
	}
	switch k {
	case kindGrant:
		w.Granted, w.TTL = []kv.LeaseID{kv.LeaseID(d.int())}, d.ttl()
	case kindKeepAlive:
		for n := d.count(1); n > 0; n-- {
			w.Renewed = append(w.Renewed, kv.LeaseID(d.int()))
		}
	case kindRevoke:
		w.Revoked = []kv.LeaseID{kv.LeaseID(d.int())}
	case kindCompact:
		w.Compact = kv.Revision(d.atMost(math.MaxInt64, errNegative))
	case kindExpire:
		_, leases, keys := d.expire()
		for _, l := range leases {
			w.Expired = append(w.Expired, l.ID)
		}
		w.Keys = len(keys)
	case kindMembers:
		w.Members = d.memberChanges()
	}
	return w, d.end() == nil
}

// HasLease reports whether a lease exists. Any goroutine.
func (m *Machine) HasLease(id kv.LeaseID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.shared.leases.Get(id)
	return ok
}

// MemberChangesOf takes the context of a configuration change apart; nil for one
// that cannot be read.
func MemberChangesOf(change []byte) []MemberChange {
	d := decoder{data: change}
	if changes := d.memberChanges(); d.err == nil {
		return changes
	}
	return nil
}
