package founding

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"time"
)

// maxTargets bounds how many addresses are asked.
const maxTargets = 3 * MaxMembers

// target is where another process is asked: one of the list, by its name, or
// whoever is at an address.
type target struct {
	// Set by newTarget, then read only.
	name  string // empty without a list
	addrs []string
	kick  chan struct{} // ask now

	err error // of the last question; owned by Founder.mu
}

func newTarget(name string, addrs ...string) *target {
	return &target{name: name, addrs: addrs, kick: make(chan struct{}, 1)}
}

// hint has the target asked now.
func (t *target) hint() {
	select {
	case t.kick <- struct{}{}:
	default:
	}
}

// ask asks a target until ctx ends: at each interval, and more rarely where
// nobody answers.
func (f *Founder) ask(ctx context.Context, t *target) {
	pause := f.cfg.Interval
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.kick:
		}
		f.askOnce(ctx, t)
		f.mu.Lock()
		silent := t.err != nil
		f.mu.Unlock()
		if pause = min(2*pause, 8*f.cfg.Interval); !silent || t.name != "" {
			pause = f.cfg.Interval
		}
		timer.Reset(pause/2 + rand.N(pause))
	}
}

// askRarely asks a target about once a minute until ctx ends.
func (f *Founder) askRarely(ctx context.Context, t *target) {
	for {
		f.askOnce(ctx, t)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute/2 + rand.N(time.Minute)):
		}
	}
}

// askOnce asks at the first address that answers.
func (f *Founder) askOnce(ctx context.Context, t *target) {
	var err error
	for _, addr := range t.addrs {
		f.mu.Lock()
		question, failed := f.machine.Status().encode(), f.failed
		f.mu.Unlock()
		if failed != nil {
			return
		}
		var s *Status
		if s, err = f.call(ctx, addr, question); err == nil {
			f.mu.Lock()
			f.step(Input{Heard: s, Answer: true, Asked: t.name})
			if s.Group == f.cfg.Group && !f.over {
				f.learn(s.PeerAddrs...)
			}
			f.mu.Unlock()
			break
		}
	}
	if ctx.Err() == nil {
		f.mu.Lock()
		t.err = err
		f.mu.Unlock()
	}
}

func (f *Founder) call(ctx context.Context, addr string, question []byte) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*f.cfg.Interval)
	defer cancel()
	answer, err := f.cfg.Caller.Call(ctx, addr, question)
	if err != nil {
		return nil, err
	}
	return decode(answer)
}

// noteAll logs what is in the way when it changes: of each of the list, or how
// many are here, and of each other process that there is something to say about.
func (f *Founder) noteAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over || f.failed != nil {
		return
	}
	if n := f.machine.Status().Free; f.cfg.Expect > n && n > 0 && n != f.here {
		f.cfg.Logger.Info("founding waits for more members", "here", n, "expected", f.cfg.Expect)
		f.here = n
	}
	waits := f.machine.Problems()
	for who, err := range waits { // in any order
		f.note(who, err, slog.LevelWarn)
	}
	for who, t := range f.targets { // in any order
		if t.name != "" && t.err != nil && waits[who] == nil { // not there yet: nothing is wrong with that
			waits[who] = t.err
			f.note(who, t.err, slog.LevelInfo)
		}
	}
	maps.DeleteFunc(f.logged, func(who, _ string) bool { return waits[who] == nil })
}

// note logs what is in the way of another process when it changes. It is called
// with mu held.
func (f *Founder) note(who string, err error, level slog.Level) {
	if text := err.Error(); text != f.logged[who] {
		f.logged[who] = text
		f.cfg.Logger.Log(context.Background(), level, "founding waits for a member", "waits-for", who, "address", f.cfg.Peers[who], "reason", text)
	}
}
