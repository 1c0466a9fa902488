package founding

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Caller asks the process at an address. A transport is one.
type Caller interface {
	// Call returns what the other's Answer returned. It must return when ctx
	// ends.
	Call(ctx context.Context, addr string, payload []byte) ([]byte, error)
}

// Store keeps the record. Its method is called by one goroutine at a time.
type Store interface {
	// SaveFounding returns when r is durable in place of the record before.
	// After an error the process says nothing more.
	SaveFounding(r Record) error
}

// Config configures a Founder. Settings, Record, Caller and Store are required.
type Config struct {
	Settings
	// Record is what Store kept last, or a new random ID alone.
	Record Record
	Caller Caller
	Store  Store
	// Interval is how often others are asked when nothing happens; default
	// 100ms.
	Interval time.Duration
	// Logger is told what is in the way; default none.
	Logger *slog.Logger
	// Rival is called, at most once a minute for each, when this process is
	// founded and hears of another cluster of the group; it must not call the
	// Founder. The Logger is told too. Default none.
	Rival func(*RivalError)
}

// Founder runs the protocol for one process.
type Founder struct {
	// Set by New, then read only.
	cfg   Config
	begun time.Time

	mu      sync.Mutex
	machine *Machine
	targets map[string]*target
	spawn   func(*target) // while Run or Watch runs
	failed  error         // of Store: nothing may be said any more
	founded *Proposal
	over    bool          // founded or failed for good
	done    chan struct{} // closed when over
	err     error
	logged  map[string]string
	here    int                  // as was logged last
	rivals  map[uint64]time.Time // when each was last reported
}

// New returns a Founder that can answer.
func New(cfg Config) (*Founder, error) {
	m, err := NewMachine(cfg.Settings, cfg.Record, rand.Uint64)
	if err != nil {
		return nil, err
	}
	if cfg.Interval == 0 {
		cfg.Interval = 100 * time.Millisecond
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	f := &Founder{
		cfg: cfg, begun: time.Now(), machine: m, targets: map[string]*target{},
		done: make(chan struct{}), logged: map[string]string{}, rivals: map[uint64]time.Time{},
	}
	for name, addrs := range cfg.Peers {
		if name != cfg.Name {
			f.targets[name] = newTarget(name, addrs...)
		}
	}
	if p := cfg.Record.Proposal; p != nil {
		f.learn(p.addrs()...)
	}
	return f, nil
}

// Learn tells of addresses where other processes may be. It may be called at any
// time, and again with the same ones; it does nothing where there is a list.
// Those that turn out to be of another group, or this process's own, do no harm.
func (f *Founder) Learn(addrs ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.learn(addrs...)
}

// learn is Learn with mu held.
func (f *Founder) learn(addrs ...string) {
	if f.cfg.Peers != nil {
		return
	}
	for _, addr := range addrs {
		if t := f.targets[addr]; t != nil {
			if t.err != nil {
				t.hint()
			}
			continue
		}
		if slices.Contains(f.cfg.Addrs, addr) || !goodTexts([]string{addr}, 1) || len(f.targets) >= maxTargets {
			continue
		}
		t := newTarget("", addr)
		f.targets[addr] = t
		if f.spawn != nil {
			f.spawn(t)
		}
	}
}

// Answer answers another process's question. It may be called at any time, and
// should be for as long as the member lives: a process that missed the founding
// learns of it so.
func (f *Founder) Answer(question []byte) ([]byte, error) {
	s, err := decode(question)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.step(Input{Heard: s}); f.failed != nil {
		return nil, f.failed
	}
	if s.Group == f.cfg.Group && !f.over {
		f.learn(s.PeerAddrs...)
	}
	return f.machine.Status().encode(), nil
}

// Run asks the others until there is a cluster, and returns it. Every member
// gets the same one. It returns a [FoundedError] when there is one without this
// process, which is a [PlaceError] when that has a place for it, Store's error,
// or ctx's.
func (f *Founder) Run(ctx context.Context) (*Proposal, error) {
	f.asking(ctx, func(ctx context.Context) {
		tick := time.NewTicker(f.cfg.Interval)
		defer tick.Stop()
		for {
			f.mu.Lock()
			f.step(Input{})
			f.mu.Unlock()
			f.noteAll()
			select {
			case <-f.done:
				return
			case <-ctx.Done():
				return
			case <-tick.C: // time passes
			}
		}
	}, f.ask)
	f.mu.Lock()
	p, err, over := f.founded, f.err, f.over
	f.mu.Unlock()
	if !over {
		return nil, fmt.Errorf("found the cluster: %w", context.Cause(ctx))
	}
	if p != nil && p.Proposer == f.cfg.Record.ID {
		f.tell(ctx)
	}
	return p, err
}

// Watch asks around until ctx ends whether there is another cluster of the same
// name, at the addresses that Learn tells of. It is for members of a cluster;
// see Config.Rival.
func (f *Founder) Watch(ctx context.Context) error {
	f.asking(ctx, func(ctx context.Context) { <-ctx.Done() }, f.askRarely)
	return nil
}

// asking runs ask for each target, and those to come, until wait returns.
func (f *Founder) asking(ctx context.Context, wait func(context.Context), ask func(context.Context, *target)) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	f.mu.Lock()
	f.spawn = func(t *target) { wg.Go(func() { ask(ctx, t) }) }
	for _, t := range f.targets { // in any order
		f.spawn(t)
	}
	f.mu.Unlock()
	wait(ctx)
	f.mu.Lock()
	f.spawn = nil
	f.mu.Unlock()
	stop()
	wg.Wait()
}

// tell spreads the news that only the proposer has. Whoever does not hear it
// asks for it.
func (f *Founder) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*f.cfg.Interval)
	defer cancel()
	f.asking(ctx, func(context.Context) {}, f.askOnce)
}

// step runs the machine, keeps its record and takes its results. It is called
// with mu held.
func (f *Founder) step(in Input) {
	if f.failed != nil {
		return
	}
	in.Now = time.Since(f.begun)
	if f.over { // what is decided stays, whoever else may come
		if f.founded != nil {
			f.report(f.machine.Step(in).Rival)
		}
		return
	}
	out := f.machine.Step(in)
	if out.Save != nil {
		if err := f.cfg.Store.SaveFounding(*out.Save); err != nil {
			f.failed = fmt.Errorf("keep the founding record: %w", err)
			out = Output{Err: f.failed}
		} else if p := out.Save.Proposal; p != nil {
			f.learn(p.addrs()...)
		}
	}
	if out.Ask {
		for _, t := range f.targets {
			t.hint()
		}
	}
	f.report(out.Rival)
	if out.Founded != nil || out.Err != nil {
		f.over, f.founded, f.err = true, out.Founded, out.Err
		close(f.done)
	}
}

// report tells of another cluster, at most once a minute of each. It is called
// with mu held.
func (f *Founder) report(r *RivalError) {
	if r == nil || len(f.rivals) > maxTargets {
		return
	}
	if last, ok := f.rivals[r.Other]; ok && time.Since(last) < time.Minute {
		return
	}
	f.rivals[r.Other] = time.Now()
	f.cfg.Logger.Error("two clusters of one name have met", "reason", r.Error())
	if f.cfg.Rival != nil {
		f.cfg.Rival(r)
	}
}
