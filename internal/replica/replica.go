package replica

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Config configures a [Replica]. Logger and Observer are optional.
type Config struct {
	// ID is this member's identity; not 0, never used again after removal.
	ID uint64
	// Cluster goes into snapshots.
	Cluster uint64
	// Machine is given to the replica, which restores it.
	Machine Machine
	Log     Log
	// Snapshots must hold one at index 1 for a founder, and none for a member
	// that joins.
	Snapshots Snapshots
	// Transport is nil for a member that is alone.
	Transport Transport
	Options   Options
	// Now is monotonic time in nanoseconds that keeps running while the machine
	// sleeps; nil means CLOCK_BOOTTIME.
	Now      func() int64
	Logger   *slog.Logger
	Observer Observer
	// Times is kept by the replica, for its machine to ask; nil is none.
	Times *Times
}

// Replica is a running member. Its methods are safe for concurrent use. Calls
// made before Run wait for it.
type Replica struct {
	// Set by New, then read only.
	cfg  Config
	pool *waiters

	// Owned by the loop.
	core *Core
	// Owned by the applying goroutine.
	applier *Applier

	// Carry work to the goroutines.
	inbox  *inbox
	writes *feed[logWork]
	tasks  *feed[applyWork]

	// What calls wait for.
	calls     *calls
	rounds    rounds
	progress  progress
	snapshots snapshotCalls
	inquiries chan chan<- Peers

	// Published by the loop; changed is closed and replaced when term, leader
	// or role change.
	state   atomic.Pointer[State]
	changed atomic.Pointer[chan struct{}]

	running running
}

// running is the life of a Replica's goroutines.
type running struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	group  sync.WaitGroup
	began  atomic.Bool
}

// New restores the machine from the newest good snapshot and prepares to replay
// the log behind it. Run does the rest.
func New(cfg Config) (*Replica, error) {
	opt, err := cfg.Options.withDefaults()
	if err != nil {
		return nil, err
	}
	cfg.Options = opt
	if cfg.Now == nil {
		cfg.Now = boottime
	}
	if cfg.Times == nil {
		cfg.Times = new(Times)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	snapshot, err := restoreNewest(cfg)
	if err != nil {
		return nil, err
	}
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("make an incarnation: %w", err)
	}
	incarnation := binary.LittleEndian.Uint64(random[:])
	core, err := NewCore(CoreConfig{
		ID: cfg.ID, Incarnation: incarnation, Seed: binary.LittleEndian.Uint64(random[8:]), Now: cfg.Now(),
		Snapshot: snapshot, Log: cfg.Log, Options: opt, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	pool := &waiters{}
	r := &Replica{
		cfg: cfg, pool: pool, core: core, applier: NewApplier(cfg.Machine, cfg.ID, incarnation, snapshot),
		inbox: newInbox(max(64<<20, 2*int64(opt.MaxCommandBytes))), writes: newFeed[logWork](), tasks: newFeed[applyWork](),
		calls: newCalls(opt, pool), inquiries: make(chan chan<- Peers),
	}
	r.running.ctx, r.running.cancel = context.WithCancelCause(context.Background())
	r.progress.applied.Store(snapshot.Index)
	r.state.Store(new(core.state))
	r.changed.Store(new(make(chan struct{})))
	return r, nil
}

// boottime is the clock that does not stop while the machine sleeps.
func boottime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("replica: read CLOCK_BOOTTIME: %v", err))
	}
	return ts.Nano()
}

// Run drives the member until ctx ends, which returns nil, or until it cannot go
// on: its log could not be written, its machine failed or did not understand an
// entry, or an invariant is broken. All goroutines have ended when it returns,
// and all calls have been answered. It may be called once.
func (r *Replica) Run(ctx context.Context) error {
	if r.running.began.Swap(true) {
		return errors.New("replica: Run was called twice")
	}
	stop := context.AfterFunc(ctx, func() { r.running.cancel(nil) })
	defer stop()
	r.spawn("drive raft", r.loop)
	r.spawn("write the log", r.writeLog)
	r.spawn("apply entries", r.apply)
	<-r.running.ctx.Done()
	r.inbox.close()
	r.running.group.Wait()
	r.calls.close()
	r.rounds.close(ErrClosed)
	r.progress.close(ErrClosed)
	r.snapshots.close(ErrClosed)
	if err := context.Cause(r.running.ctx); err != context.Canceled {
		return err
	}
	return nil
}

// spawn runs f until the replica ends. An error or panic of f ends the replica.
func (r *Replica) spawn(what string, f func() error) {
	r.running.group.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				r.cfg.Logger.Error("replica panicked", "while", what, "panic", p, "stack", string(debug.Stack()))
				err, ok := p.(error)
				if !ok {
					err = fmt.Errorf("%v", p)
				}
				r.fail(fmt.Errorf("replica: %s: panic: %w", what, err))
			}
		}()
		if err := f(); err != nil {
			r.fail(fmt.Errorf("%s: %w", what, err))
		}
	})
}

// fail ends the replica with err; the first counts.
func (r *Replica) fail(err error) { r.running.cancel(err) }

// stopped is closed when the replica ends.
func (r *Replica) stopped() <-chan struct{} { return r.running.ctx.Done() }

// Propose has every member apply cmd, which is copied, and returns what this
// member's machine made of it: a result, or the error that the machine gave as
// one. An error of the replica wraps ErrUnknown if cmd may have run; it did not
// when ctx had ended before the call.
func (r *Replica) Propose(ctx context.Context, cmd []byte) (any, error) {
	w, err := r.propose(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return w.wait(ctx)
}

// propose queues a proposal.
func (r *Replica) propose(ctx context.Context, cmd []byte) (*waiter, error) {
	if len(cmd) > r.cfg.Options.MaxCommandBytes {
		return nil, ErrTooLarge
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, wake, err := r.calls.add(cmd)
	if err != nil {
		return nil, err
	}
	if wake {
		r.inbox.kick()
	}
	return w, nil
}

// ProposeLocal is Propose for decisions that only the leader of term may make:
// cmd is never forwarded and never appended in another term. ErrNotLeader means
// that it was not and will not be.
func (r *Replica) ProposeLocal(ctx context.Context, term uint64, cmd []byte) (any, error) {
	if len(cmd) > r.cfg.Options.MaxCommandBytes {
		return nil, ErrTooLarge
	}
	if s := r.state.Load(); term == 0 || s.Role != Leader || s.Term != term {
		return nil, ErrNotLeader
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w, err := r.calls.addLocal(term, cmd)
	if err != nil {
		return nil, err
	}
	r.inbox.kick()
	return w.wait(ctx)
}

// ReadIndex returns once this member has applied everything that was committed
// anywhere before the call, so that a read of the machine is linearizable. It
// asks a majority.
func (r *Replica) ReadIndex(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	w := r.pool.get()
	start, err := r.rounds.join(w)
	if err != nil {
		w.free()
		return err
	}
	if start {
		r.inbox.kick()
	}
	_, err = w.wait(ctx)
	return err
}

// LeaderRead reports that this member holds the read lease now and has applied
// all that is committed: a read of the machine that starts after this call is
// linearizable. Always false while leases are off.
func (r *Replica) LeaderRead() bool {
	s := r.state.Load()
	return s.LeaseUntil != 0 && r.progress.applied.Load() >= s.Commit && r.cfg.Now() < s.LeaseUntil
}

// SetReadLease switches leader leases on or off on this member, see
// Options.ReadLease. Before it is switched on, that must be remembered for the
// next start.
func (r *Replica) SetReadLease(on bool) { r.inbox.put(Input{Kind: InputReadLease, OK: on}) }

// WaitApplied returns once this member has applied index.
func (r *Replica) WaitApplied(ctx context.Context, index uint64) error {
	if r.progress.applied.Load() >= index {
		return nil
	}
	w := r.pool.get()
	r.progress.when(index, w)
	_, err := w.wait(ctx)
	return err
}
