package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"

	"github.com/concord-kv/concord/internal/vfs"
)

// script drives a log with random calls and knows what it must hold.
type script struct {
	rng  *rand.Rand
	l    *Log
	m    model // what was acknowledged
	next model // with the call under way; m when there is none
}

// step makes one call. The error is that of the call.
func (s *script) step() error {
	rng, m := s.rng, &s.m
	if rng.IntN(6) == 0 && m.mark.Index > m.base.Index {
		i := m.base.Index + 1 + rng.Uint64N(m.mark.Index-m.base.Index+1)
		s.next = m.truncated(i)
		return s.done(s.l.TruncateBefore(i))
	}
	var batches []Batch
	s.next = *m
	for range 1 + rng.IntN(3) {
		b := s.batch(&s.next)
		batches = append(batches, b)
		s.next = s.next.with(b)
	}
	return s.done(s.l.Append(batches...))
}

func (s *script) done(err error) error {
	if err == nil {
		s.m = s.next
	}
	if errors.Is(err, ErrNoSpace) {
		s.next = s.m
	}
	return err
}

func (s *script) batch(m *model) Batch {
	rng := s.rng
	term := m.state.Term
	b := Batch{}
	if rng.IntN(3) == 0 {
		term += rng.Uint64N(2) + 1
		b.State = State{term, rng.Uint64N(5), m.mark.Index}
	}
	if rng.IntN(20) == 0 {
		b.Reset = true
		b.Mark = Mark{m.last() + rng.Uint64N(10), term}
		if b.Mark.Index == 0 {
			b.Mark.Index = 1
		}
		return b
	}
	if rng.IntN(8) > 0 {
		first := m.last() + 1
		if lowest := max(m.base.Index, m.mark.Index) + 1; rng.IntN(4) == 0 && lowest < first {
			first = lowest + rng.Uint64N(first-lowest)
		}
		size := [...]int{0, 20, 200, 600, 3000}[rng.IntN(5)]
		b.Entries = entries(first, first+1+rng.Uint64N(4), term, size)
	}
	if n := uint64(len(m.entries)); rng.IntN(4) == 0 && n > 0 && len(b.Entries) == 0 {
		e := m.entries[rng.Uint64N(n)]
		if e.Index > m.mark.Index {
			b.Mark = Mark{e.Index, e.Term}
		}
	}
	return b
}

// restart opens the log after a crash and checks it against what it may hold.
func (s *script) restart(fs vfs.FS, o Options) error {
	l, err := Open(fs, "wal", o)
	if err != nil {
		return err
	}
	s.l = l
	err = s.next.diff(l, true)
	if err == nil {
		s.m = s.next
		return nil
	}
	if e := s.m.diff(l, true); e != nil {
		return fmt.Errorf("neither what was acknowledged (%w) nor the call under way (%w)", e, err)
	}
	s.next = s.m
	return nil
}

// TestCrashes cuts the power or kills the process at random operations, also
// while the log is being opened, again and again.
func TestCrashes(t *testing.T) {
	for seed := range uint64(250) {
		if err := crashes(seed); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func crashes(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 5))
	o := Options{SegmentSize: 2048 << rng.IntN(5), Synchronous: true, Reserve: int64(rng.IntN(3)-1) * 4096}
	power := errors.New("power")
	left := -1
	fs := &vfs.Mem{}
	fs.Hook = func(op vfs.Op) error {
		if left--; left < 0 {
			if op.Kind == vfs.OpWrite && rng.IntN(2) == 0 {
				return &vfs.ShortWrite{N: int(rng.Int64N(op.Len + 1)), Err: power}
			}
			return power
		}
		return nil
	}
	s := &script{rng: rng}
	for range 12 {
		left = rng.IntN(120)
		if rng.IntN(4) == 0 {
			left = rng.IntN(15)
		}
		err := s.restart(fs, o)
		for err == nil {
			err = s.step()
			if err == nil && rng.IntN(10) == 0 {
				err = s.m.diff(s.l, true)
			}
		}
		if !errors.Is(err, power) {
			return err
		}
		if rng.IntN(3) == 0 {
			fs.Kill()
		} else {
			fs.Crash(rng)
		}
	}
	left = 1 << 30
	return s.restart(fs, o)
}

// TestFaultAtEveryOperation lets each operation in turn fail, once. The log
// either says that nothing was written, or is dead; after a power cut all that
// was acknowledged is there.
func TestFaultAtEveryOperation(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		at := 1
		for ; ; at++ {
			hit, err := faultAt(at, fault)
			if err != nil {
				t.Fatalf("%v at operation %d: %v", fault, at, err)
			}
			if !hit {
				break
			}
		}
		if at < 300 {
			t.Errorf("only %d operations", at)
		}
	}
}

func faultAt(at int, fault error) (hit bool, err error) {
	o := Options{SegmentSize: 4096, Synchronous: true}
	n := 0
	fs := &vfs.Mem{}
	var kind vfs.Kind
	fs.Hook = func(op vfs.Op) error {
		if n++; n == at {
			hit, kind = true, op.Kind
			return fault
		}
		return nil
	}
	rng := rand.New(rand.NewPCG(9, 9))
	s := &script{rng: rng}
	err = s.restart(fs, o)
	for i := 0; i < 60 && err == nil; i++ {
		err = s.step()
		if errors.Is(err, ErrNoSpace) {
			err = s.l.Prepare()
		}
	}
	if err == nil {
		err = s.l.Prepare() // tells of what failed behind the last call
	}
	switch {
	case err != nil && !hit:
		return hit, err
	case err != nil && !errors.Is(err, fault):
		return hit, fmt.Errorf("the error does not say why: %w", err)
	case err == nil && hit && fault == syscall.EIO:
		return hit, fmt.Errorf("failing %v went unnoticed", kind)
	case err != nil && s.l != nil:
		if !errors.Is(err, ErrFailed) {
			return hit, err
		}
		for range 3 {
			if err := s.l.Append(Batch{State: State{1 << 40, 1, 1}}); !errors.Is(err, ErrFailed) || !errors.Is(err, fault) {
				return hit, fmt.Errorf("a dead log answers %w", err)
			}
		}
		if err := s.l.Prepare(); !errors.Is(err, ErrFailed) {
			return hit, fmt.Errorf("a dead log prepares: %w", err)
		}
	}
	fs.Hook = nil
	if at%2 == 0 { // first a plain restart that reads the page cache
		fs.Kill()
		if err := s.restart(fs, o); err != nil {
			return hit, err
		}
	}
	fs.Crash(rng)
	return hit, s.restart(fs, o)
}

// TestFullDisk fills a disk. The log tells early, takes what was prepared, says
// ErrNoSpace without harm, and goes on when there is room.
func TestFullDisk(t *testing.T) {
	for _, o := range []Options{
		{SegmentSize: 64 << 10, Reserve: 32 << 10, Synchronous: true},
		{SegmentSize: 64 << 10, Reserve: 32 << 10},
	} {
		fs := &vfs.Mem{Capacity: 1 << 20}
		l := mustOpen(t, fs, o)
		var m model
		told := int64(-1)
		for {
			b := Batch{Entries: entries(m.last()+1, m.last()+3, 1, 2000)}
			err := l.Append(b)
			if errors.Is(err, ErrNoSpace) {
				break
			}
			must(t, err)
			m = m.with(b)
			if told < 0 && l.NoSpace() {
				told = l.Size()
			}
		}
		// The goroutine may be late when appends are as fast as here.
		if spare := l.Size() - told; told < 0 || o.Synchronous && spare < 64<<10 {
			t.Errorf("told of the full disk at %d of %d bytes", told, l.Size())
		}
		if err := l.Prepare(); !errors.Is(err, ErrNoSpace) {
			t.Errorf("prepare on a full disk: %v", err)
		}
		// The mark is what a snapshot would bring; it must still fit.
		mark := Batch{Mark: Mark{m.last() - 3, 1}}
		must(t, l.Append(mark))
		m = m.with(mark)
		must(t, l.TruncateBefore(m.last()-5))
		m = m.truncated(m.last() - 5)
		must(t, l.Prepare())
		if l.NoSpace() {
			t.Error("still no space")
		}
		must(t, l.Append(Batch{Entries: entries(m.last()+1, m.last()+3, 1, 20_000)}))
		m = m.with(Batch{Entries: entries(m.last()+1, m.last()+3, 1, 20_000)})
		must(t, m.diff(l, false))
		must(t, l.Close())
		fs.Crash(rand.New(rand.NewPCG(1, 1)))
		l = mustOpen(t, fs, o)
		must(t, m.diff(l, false))
		must(t, l.Close())
	}
}
