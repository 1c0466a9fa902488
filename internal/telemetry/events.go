package telemetry

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

// Events counts what a member tells. The zero value is ready; it is safe for
// concurrent use.
type Events struct {
	ops    [observe.Ops + 1]opCounts
	phases [len(phaseNames)]kv.DurationCounter
	keys   atomic.Uint64 // that reads found
	// unproposed are writes that failed for want of a leader, of time or of room.
	unproposed atomic.Uint64

	counts [lastCount]atomic.Uint64
	levels [lastLevel]atomic.Int64
	sync   kv.DurationCounter // of the log
	sent   kv.DurationCounter // snapshots
	backup kv.DurationCounter

	mu     sync.Mutex
	limits map[string]uint64 // hits
}

// opCounts are of one operation.
type opCounts struct {
	took    kv.DurationCounter
	results [len(resultNames)]atomic.Uint64
}

// resultNames are the results of calls: "ok", the words of the codes of errors,
// and "other" for what a later version may tell.
var resultNames = [...]string{
	"ok", "internal", "invalid argument", "not found", "exists", "failed precondition", "out of range", "resource exhausted",
	"unavailable", "permission denied", "unauthenticated", "data loss", "canceled", "unsupported", "other",
}

// resultOf is the index of a name.
func resultOf(name string) int {
	for i, r := range resultNames {
		if r == name {
			return i
		}
	}
	return len(resultNames) - 1
}

// phaseNames are the parts of a write, in order.
var phaseNames = [...]string{"queue", "log", "replicate", "apply", "answer"}

// What is counted one by one.
const (
	logBytes = iota
	diskStalls
	snapshotsInstalled
	snapshotBytesSent
	backupErrors
	disconnects
	membersAdded
	membersPromoted
	membersRemoved
	membersUpdated
	watchesCreated
	watchesCancelled
	watchEvents
	watchLags
	leasesGranted
	leasesRenewed
	leasesRevoked
	leasesExpired
	keysExpired
	compactions
	compactedRevisions
	loginsGood
	loginsFailed
	denied
	unknownCallers
	lastCount
)

// What is the newest of its kind, as Unix time in milliseconds.
const (
	lastBackup = iota
	lastCompaction
	lastLevel
)

// mostLimits bounds the names of limits that are told apart.
const mostLimits = 32

// Observer counts events. The hot ones cost some atomic additions.
func (e *Events) Observer() observe.Observer {
	return observe.Observer{
		API: e.api, Snapshot: e.snapshot, Disk: e.disk, Transport: e.transport, Membership: e.membership, Watch: e.watch,
		Lease: e.lease, Compaction: e.compaction, Auth: e.auth, Limit: e.limit, Backup: e.backedUp,
		Expiry: func(x observe.Expiry) { e.counts[keysExpired].Add(uint64(x.Keys)) },
	}
}

func (e *Events) api(a observe.API) {
	if int(a.Op) >= len(e.ops) {
		return
	}
	op := &e.ops[a.Op]
	op.took.Add(a.Duration)
	result := 0
	if a.Result != resultNames[0] {
		result = resultOf(a.Result)
		if isWrite(a.Op) && isUnproposed(a.Result) {
			e.unproposed.Add(1)
		}
	}
	op.results[result].Add(1)
	if p := &a.Phases; p.Applied > 0 {
		before := time.Duration(0)
		for i, at := range [...]time.Duration{p.Queued, p.Logged, p.Committed, p.Applied, p.Answered} {
			if at > 0 {
				e.phases[i].Add(at - before)
				before = at
			}
		}
	} else if !isWrite(a.Op) {
		e.keys.Add(uint64(a.Keys))
	}
}

// isWrite tells whether an operation needs a proposal.
func isWrite(op observe.Op) bool {
	switch op {
	case observe.OpGet, observe.OpGetMany, observe.OpRange, observe.OpWatch, observe.OpLeaseTTL, observe.OpLeases, observe.OpSnapshot:
		return false
	}
	return true
}

// isUnproposed tells of a result whether nothing may have come of a proposal.
func isUnproposed(result string) bool {
	return result == kv.Unavailable.String() || result == kv.ResourceExhausted.String() || result == kv.Canceled.String()
}

func (e *Events) snapshot(s observe.Snapshot) {
	switch s.Kind {
	case observe.SnapshotInstalled:
		e.counts[snapshotsInstalled].Add(1)
	case observe.SnapshotSent:
		e.sent.Add(s.Duration)
		e.counts[snapshotBytesSent].Add(uint64(s.Bytes))
	}
}

func (e *Events) disk(d observe.Disk) {
	switch d.Kind {
	case observe.DiskWritten:
		e.counts[logBytes].Add(uint64(d.Bytes))
		if d.Sync > 0 {
			e.sync.Add(d.Sync)
		}
	case observe.DiskStalled:
		e.counts[diskStalls].Add(1)
	}
}

func (e *Events) transport(t observe.Transport) {
	if t.Kind == observe.Disconnected {
		e.counts[disconnects].Add(1)
	}
}

func (e *Events) membership(m observe.Membership) {
	e.countKind(membersAdded, int(m.Kind), int(observe.MemberUpdated))
}

// countKind counts the kind of an event, of which the counts follow on another
// from first.
func (e *Events) countKind(first, kind, last int) {
	if kind >= 1 && kind <= last {
		e.counts[first+kind-1].Add(1)
	}
}

func (e *Events) watch(w observe.Watch) {
	switch w.Kind {
	case observe.WatchCreated:
		e.counts[watchesCreated].Add(1)
	case observe.WatchCancelled:
		e.counts[watchesCancelled].Add(1)
	case observe.WatchDispatched:
		e.counts[watchEvents].Add(uint64(w.Events))
	case observe.WatchLagging:
		e.counts[watchLags].Add(1)
	}
}

func (e *Events) lease(l observe.Lease) {
	e.countKind(leasesGranted, int(l.Kind), int(observe.LeaseExpired))
}

func (e *Events) compaction(c observe.Compaction) {
	e.counts[compactions].Add(1)
	e.counts[compactedRevisions].Add(uint64(max(0, c.Revisions)))
	e.levels[lastCompaction].Store(time.Now().UnixMilli())
}

func (e *Events) auth(a observe.Auth) {
	e.countKind(loginsGood, int(a.Kind), int(observe.UnknownCaller))
}

func (e *Events) backedUp(b observe.Backup) {
	if b.Err != nil {
		e.counts[backupErrors].Add(1)
		return
	}
	e.backup.Add(b.Duration)
	e.levels[lastBackup].Store(time.Now().UnixMilli())
}

func (e *Events) limit(l observe.Limit) {
	if l.Kind != observe.LimitHit {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.limits == nil {
		e.limits = map[string]uint64{}
	}
	name := l.Limit
	if _, known := e.limits[name]; !known && len(e.limits) >= mostLimits {
		name = "other"
	}
	e.limits[name]++
}

// eachLimit puts how often each limit was hit.
func eachLimit(s *sample, put func(v float64, labels ...string)) {
	s.events.mu.Lock()
	defer s.events.mu.Unlock()
	for name, hits := range s.events.limits {
		put(float64(hits), name)
	}
}
