package founding

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
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
}

// Founder runs the protocol for one process.
type Founder struct {
	// Set by New, then read only.
	cfg  Config
	kick map[string]chan struct{} // by name: ask now

	mu      sync.Mutex
	machine *Machine
	failed  error // of Store: nothing may be said any more
	founded *Proposal
	over    bool          // founded or failed for good
	done    chan struct{} // closed when over
	err     error
	logged  map[string]string
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
	f := &Founder{cfg: cfg, kick: map[string]chan struct{}{}, machine: m, done: make(chan struct{}), logged: map[string]string{}}
	for name := range cfg.Peers {
		if name != cfg.Name {
			f.kick[name] = make(chan struct{}, 1)
		}
	}
	return f, nil
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
	return f.machine.Status().encode(), nil
}

// Run asks the others until there is a cluster, and returns it. Every member
// gets the same one. It returns a [FoundedError] when there is one without this
// process, Store's error, or ctx's.
func (f *Founder) Run(ctx context.Context) (*Proposal, error) {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	f.mu.Lock()
	f.step(Input{})
	f.mu.Unlock()
	var wg sync.WaitGroup
	for name := range f.kick {
		wg.Go(func() { f.ask(asking, name) })
	}
	select {
	case <-f.done:
	case <-ctx.Done():
	}
	stop()
	wg.Wait()
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

// tell spreads the news that only the proposer has. Whoever does not hear it
// asks for it.
func (f *Founder) tell(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*f.cfg.Interval)
	defer cancel()
	var wg sync.WaitGroup
	for name := range f.kick {
		wg.Go(func() { f.askOnce(ctx, name) })
	}
	wg.Wait()
}

// ask asks one other process until ctx ends.
func (f *Founder) ask(ctx context.Context, name string) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-f.kick[name]:
		}
		f.askOnce(ctx, name)
		timer.Reset(f.cfg.Interval/2 + rand.N(f.cfg.Interval))
	}
}

// askOnce asks at the first address that answers.
func (f *Founder) askOnce(ctx context.Context, name string) {
	var err error
	for _, addr := range f.cfg.Peers[name] {
		f.mu.Lock()
		question, failed := f.machine.Status().encode(), f.failed
		f.mu.Unlock()
		if failed != nil {
			return
		}
		var answer []byte
		if answer, err = f.cfg.Caller.Call(ctx, addr, question); err != nil {
			continue
		}
		var s *Status
		if s, err = decode(answer); err == nil {
			f.mu.Lock()
			f.step(Input{Heard: s, Asked: name})
			f.mu.Unlock()
			break
		}
	}
	if ctx.Err() == nil {
		f.note(name, err)
	}
}

// note logs what is in the way of one other process when it changes.
func (f *Founder) note(name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	level := slog.LevelInfo // not there yet: nothing is wrong with that
	if err == nil {
		err, level = f.machine.problems[name], slog.LevelWarn
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != f.logged[name] {
		f.cfg.Logger.Log(context.Background(), level, "founding waits for a member", "waits-for", name, "address", f.cfg.Peers[name], "reason", text)
	}
	f.logged[name] = text
}

// step runs the machine, keeps its record and takes its results. It is called
// with mu held.
func (f *Founder) step(in Input) {
	if f.failed != nil || f.over {
		return // what is decided stays, whoever else may come
	}
	out := f.machine.Step(in)
	if out.Save != nil {
		if err := f.cfg.Store.SaveFounding(*out.Save); err != nil {
			f.failed = fmt.Errorf("keep the founding record: %w", err)
			out = Output{Err: f.failed}
		}
	}
	if out.Ask {
		for _, kick := range f.kick {
			select {
			case kick <- struct{}{}:
			default:
			}
		}
	}
	if (out.Founded != nil || out.Err != nil) && !f.over {
		f.over, f.founded, f.err = true, out.Founded, out.Err
		close(f.done)
	}
}
