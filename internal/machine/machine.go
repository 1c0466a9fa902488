package machine

import (
	"cmp"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/internal/mvcc"
	"github.com/concord-kv/concord/kv"
)

// Options configures a [Machine]. The zero value is good.
type Options struct {
	// Keys is how many keys are expected; 0 means few. It costs memory and
	// saves time, and has no other effect.
	Keys int
	// LoadParallel is how many goroutines Restore may use; 0 means one a CPU.
	LoadParallel int
	// Level is what this program understands; 0 means [ProgramLevel]. Tests
	// take another for a newer or older program.
	Level uint32
}

// Position is where an entry stands in the log: its index and term, and the
// cluster time in milliseconds that its leader stamped it with, which never
// falls, or 0 for an entry without a stamp. It is an alias, so that a [Machine]
// fits interfaces of packages that do not import this one.
type Position = struct {
	Index, Term uint64
	Now         int64
}

// reached says what was applied last, and what came of it.
type reached struct {
	index kv.Index
	term  kv.Term
	now   kv.Time
	hash  runningHash
	// written counts the bytes ever written, see history.
	written int64
}

// Machine is the replicated state of one member. One goroutine calls Bootstrap,
// Apply, ApplyMembers, Snapshot, Restore, Maintain and Close; the others may be
// called from any goroutine.
type Machine struct {
	// Set by New, then read only.
	options Options
	levels  *[256]uint8 // see kindLevels

	// Owned by the goroutine that applies.
	at       reached
	requests *requests
	uploads  uploads
	scratch
	locked bool // whether we hold mu
	gate   gate // in part for others

	// store is changed by Restore, which locks swap. The goroutine that
	// applies reads it without.
	swap     sync.RWMutex
	store    *mvcc.Store
	replaced chan struct{} // closed when store is replaced

	// mu is held by whoever applies a change of leases or TTLs from before it
	// is made until it is committed, and by readers for as long as a copy or
	// one look-up takes.
	mu     sync.Mutex
	shared shared

	// Written by the goroutine that applies, read by anyone. What the pointer
	// leads to never changes.
	config atomic.Pointer[config]
	clock  atomic.Int64 // at.now
}

// scratch is memory that one command leaves to the next.
type scratch struct {
	txn     kv.Txn // as decoded
	path    []bool // see plan
	doomed  [][]byte
	results []putResult // not given out yet
}

// shared is what mu guards.
type shared struct {
	leases    *lease.Table
	history   history
	published reached
	trail     trail
}

// config changes seldom and is replaced whole.
type config struct {
	membership
	upkeep
	settings Settings
	replaced chan struct{} // closed when another has taken its place
}

// setConfig replaces the config by c, and tells who waits for that.
func (m *Machine) setConfig(c *config) {
	c.replaced = make(chan struct{})
	if old := m.config.Swap(c); old != nil {
		close(old.replaced)
	}
}

// Reconfigured returns a channel that is closed when members or settings change
// after this call. Any goroutine.
func (m *Machine) Reconfigured() <-chan struct{} { return m.config.Load().replaced }

// New returns the machine of a cluster that has no members yet, at index 0 and
// revision 1.
func New(o Options) *Machine {
	o.Level = cmp.Or(o.Level, ProgramLevel)
	m := &Machine{
		options:  o,
		requests: newRequests(),
		store:    mvcc.New(mvcc.Options{Keys: o.Keys}),
		replaced: make(chan struct{}),
		shared:   shared{leases: lease.New()},
		levels:   &kindLevels,
	}
	m.setConfig(&config{settings: DefaultSettings()})
	m.gate.set(auth.New(), auth.NewTokens())
	return m
}

// Close gives the memory of the state back. Nothing but open views may be used
// afterwards.
func (m *Machine) Close() { m.store.Close() }

// Bootstrap makes m the state that a new cluster starts from, at index 1 and
// term 1, with these members. A fresh machine becomes an empty store; one that
// was restored from a backup keeps keys, revisions, leases, settings, users,
// access tokens and time, and forgets the members, requests, uploads and other
// tokens of the cluster it came from.
func (m *Machine) Bootstrap(cluster kv.ClusterID, members []kv.Member) {
	c := *m.config.Load()
	c.membership = newMembership(cluster, members)
	m.setConfig(&c)
	m.requests, m.uploads = newRequests(), uploads{}
	m.gate.set(m.Access(), auth.NewTokens())
	m.at.index, m.at.term, m.at.hash = 1, 1, 0
	c.membership.hash(&m.at.hash)
	m.at.hash.mix(uint64(m.at.now), uint64(m.store.Revision()))
	m.at.hash.bytes(m.Access().Append(nil))
	m.publish()
}

// Raise makes rev the current revision and the oldest that can be read, before
// Bootstrap of a state that was restored; see [mvcc.Store.Raise].
func (m *Machine) Raise(rev kv.Revision) {
	m.store.Raise(rev)
	m.shared.history = history{}
}

// Apply applies the entry at this position, which holds these commands, in
// order.
//
// Results is nil when nobody waits for any; else Apply sets each element to
// what the encoder of that command says: a pointer, or an error, which then
// says that nothing was changed. They belong to the caller. Commands are not
// kept.
//
// Apply panics with a [*CommandError] when it does not understand a command,
// and with a string when entries come twice or time falls: the member must
// stop, because what it does next could differ from what the others do.
func (m *Machine) Apply(at Position, commands [][]byte, results []any) {
	m.advance(at)
	for i, command := range commands {
		if i%mvcc.WarmGroup == 0 {
			m.warm(commands[i:])
		}
		result := m.run(command, results != nil)
		if err, failed := result.(error); failed {
			m.at.hash.mix(uint64(command[0]), uint64(kv.CodeOf(err))+1)
		}
		m.unlock()
		if results != nil {
			results[i] = result
		}
	}
	m.publish()
}

// warm has the keys of the next puts looked up together.
func (m *Machine) warm(commands [][]byte) {
	var keys [mvcc.WarmGroup][]byte
	n := 0
	for _, command := range commands[:min(len(commands), mvcc.WarmGroup)] {
		if key := plainKey(command); key != nil {
			keys[n] = key
			n++
		}
	}
	if n > 1 {
		m.store.Warm(keys[:n])
	}
}

// plainKey is the key of a command that is a put, whoever gave it; nil if it is
// another or the key is long.
func plainKey(command []byte) []byte {
	const before = 4 // kind, flags, bits and length
	if len(command) < before || kind(command[0]) != kindPut || command[1]&^(callerFlags|hasTrace) != 0 || command[3] >= 0x80 || len(command)-before < int(command[3]) {
		return nil
	}
	return command[before:][:command[3]]
}

// advance moves to the next entry.
func (m *Machine) advance(at Position) {
	index, term, now := kv.Index(at.Index), kv.Term(at.Term), kv.Time(at.Now)
	if now == 0 {
		now = m.at.now
	}
	if index <= m.at.index || term < m.at.term || now < m.at.now {
		panic(fmt.Sprintf("machine: entry %d of term %d at time %d follows entry %d of term %d at time %d",
			index, term, now, m.at.index, m.at.term, m.at.now))
	}
	m.at.index, m.at.term, m.at.now = index, term, now
	m.at.hash.mix(uint64(index)^uint64(term)<<32, uint64(now))
	if now >= m.gate.expires {
		m.expireAccess()
	}
	m.requests.forgetOld(now, forgetAtOnce)
	m.uploads.expire(now)
}

// publish lets readers see how far Apply has come.
func (m *Machine) publish() {
	revision := m.store.Revision()
	m.mu.Lock()
	m.shared.published = m.at
	m.shared.trail.note(m.at.index, m.at.hash)
	m.shared.history.sample(m.at.now, revision, m.at.written)
	m.mu.Unlock()
	m.clock.Store(int64(m.at.now))
}

// lock takes mu until the end of the command.
func (m *Machine) lock() {
	if !m.locked {
		m.mu.Lock()
		m.locked = true
	}
}

func (m *Machine) unlock() {
	if m.locked {
		m.locked = false
		m.mu.Unlock()
	}
}

// Changes counts the keys put and deleted since New, or since the state was last
// replaced by a snapshot. Anyone may call it.
func (m *Machine) Changes() (puts, deletes uint64) {
	m.swap.RLock()
	defer m.swap.RUnlock()
	s := m.store.Stats()
	return uint64(s.Puts), uint64(s.Deletes)
}

// header describes the state on the goroutine that applies.
func (m *Machine) header() kv.Header {
	return kv.Header{Revision: m.store.Revision(), Time: m.at.now}
}

// compactBudget is how many records one Maintain looks at: some tens of
// microseconds of work.
const compactBudget = 256

// Maintain does one small step of what may be done at any time: it removes
// compacted history from memory. It reports whether there is more to do. The
// logical state stays as it is.
func (m *Machine) Maintain() (more bool) { return m.store.CompactStep(compactBudget) }

// Hash returns the running hash over the effects of all entries, and the index
// of the last. Members whose hashes differ at one index hold different states.
func (m *Machine) Hash() (index uint64, hash uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(m.shared.published.index), uint64(m.shared.published.hash)
}

// MemoryBytes is what the keys, values and history take outside the Go heap. Any
// goroutine.
func (m *Machine) MemoryBytes() int64 {
	m.swap.RLock()
	defer m.swap.RUnlock()
	return m.store.Stats().MemoryBytes
}

// Status fills in what the machine knows of a member's status.
func (m *Machine) Status() kv.Status {
	m.swap.RLock()
	stats := m.store.Stats()
	revision, compacted := m.store.Revision(), m.store.CompactRevision()
	m.swap.RUnlock()
	m.mu.Lock()
	at := m.shared.published
	m.mu.Unlock()
	return kv.Status{
		Cluster:         m.config.Load().cluster,
		Applied:         at.index,
		Revision:        revision,
		CompactRevision: compacted,
		Time:            at.now,
		Hash:            uint64(at.hash),
		Keys:            stats.Keys,
		LiveBytes:       stats.LiveBytes,
		HistoryBytes:    stats.HistoryBytes,
		MemoryBytes:     stats.MemoryBytes,
	}
}
