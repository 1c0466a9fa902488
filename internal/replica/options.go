package replica

import (
	"fmt"
	"time"
)

// Options tune a replica; all members of a cluster should have the same times.
// A zero field means its default.
type Options struct {
	// Heartbeat is how often a leader shows that it is there; default 100 ms.
	Heartbeat time.Duration
	// Election is how long a follower waits for the leader before it campaigns,
	// up to twice that; default 1 s, at least 5 heartbeats.
	Election time.Duration
	// Tick is how finely the core keeps time; default a fifth of Heartbeat.
	Tick time.Duration
	// NoLeaderTimeout is how long calls wait for a leader to appear before
	// they fail with ErrNoLeader; default 5 Election.
	NoLeaderTimeout time.Duration
	// ReadLease switches leader leases on: Replica.LeaderRead may then answer
	// true. It trusts that clocks of members drift apart by less than an
	// eighth. Members that have it off do not count towards a lease. It must be
	// set if it may have been on at the end of the member's last life, because
	// a promise may still run; Replica.SetReadLease changes it later.
	ReadLease bool
	// MaxWaiting bounds the calls that wait on this member; default 65,536.
	MaxWaiting int
	// MaxWaitingBytes bounds their commands; default 512 MiB.
	MaxWaitingBytes int64
	// MaxCommandBytes bounds one command; default 64 MiB.
	MaxCommandBytes int
	// MaxEntryBytes is how large an entry is packed; default 1 MiB. A larger
	// command has an entry of its own.
	MaxEntryBytes int
	// MaxMessageBytes bounds the entries of one message; default 1 MiB. At
	// least one is sent.
	MaxMessageBytes int
	// MaxInflightBytes bounds entries under way to one peer; default 16 MiB.
	MaxInflightBytes int64
	// CacheBytes bounds the recent entries kept in memory; default 8 MiB.
	CacheBytes int64
	// SnapshotBytes is how much log makes a snapshot due, unless the last
	// snapshot is larger; default 64 MiB.
	SnapshotBytes int64
	// LogBytes bounds the log kept for slow followers while it could be
	// dropped; default four times what makes a snapshot due.
	LogBytes int64
	// SnapshotTimeout bounds how long sending a snapshot may take; default
	// 10 minutes.
	SnapshotTimeout time.Duration
}

// withDefaults returns o with zero fields replaced, or what is wrong with it.
func (o Options) withDefaults() (Options, error) {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&o.Heartbeat, 100*time.Millisecond)
	def(&o.Election, 10*o.Heartbeat)
	def(&o.Tick, o.Heartbeat/5)
	def(&o.NoLeaderTimeout, 5*o.Election)
	def(&o.SnapshotTimeout, 10*time.Minute)
	o.MaxWaiting = or(o.MaxWaiting, 65_536)
	o.MaxWaitingBytes = or(o.MaxWaitingBytes, 512<<20)
	o.MaxCommandBytes = or(o.MaxCommandBytes, 64<<20)
	o.MaxEntryBytes = or(o.MaxEntryBytes, 1<<20)
	o.MaxMessageBytes = or(o.MaxMessageBytes, 1<<20)
	o.MaxInflightBytes = or(o.MaxInflightBytes, 16<<20)
	o.CacheBytes = or(o.CacheBytes, 8<<20)
	o.SnapshotBytes = or(o.SnapshotBytes, 64<<20)
	switch {
	case o.Tick <= 0 || o.Heartbeat < o.Tick:
		return o, fmt.Errorf("replica: a heartbeat of %v needs a tick from 1ns to that, not %v", o.Heartbeat, o.Tick)
	case o.Election < 5*o.Heartbeat:
		return o, fmt.Errorf("replica: an election timeout of %v is shorter than five heartbeats of %v", o.Election, o.Heartbeat)
	case o.MaxWaiting < 0 || o.MaxWaitingBytes < 0 || o.MaxCommandBytes < 0 || o.MaxEntryBytes < 0 ||
		o.MaxMessageBytes < 0 || o.CacheBytes < 0 || o.SnapshotBytes < 0 || o.LogBytes < 0:
		return o, fmt.Errorf("replica: a limit is negative")
	case o.MaxInflightBytes < int64(o.MaxMessageBytes):
		return o, fmt.Errorf("replica: %d bytes under way are fewer than the %d of one message", o.MaxInflightBytes, o.MaxMessageBytes)
	}
	return o, nil
}

func or[T int | int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}
