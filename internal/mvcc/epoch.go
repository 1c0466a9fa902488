package mvcc

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// epochs tell the writer when nobody can see any more what it took out of the
// structures: epoch based reclamation (Fraser, "Practical lock-freedom",
// Cambridge TR-579, 2004, section 5.2.3).
//
// A reader adds itself to the count of the current epoch, on a stripe chosen by
// its stack address, and looks again: when the epoch has moved it starts over.
// The writer moves from e to e+1 only when nobody is left in e-1. So whoever is
// counted in e saw everything done before e began, what was taken out during e
// can be used again from e+2 on, and three counts are enough.
//
// All accesses are atomic and thus sequentially consistent: either the writer
// sees the reader's count or the reader sees the writer's new epoch.
type epochs struct {
	current atomic.Uint64
	stripes []stripe
}

type stripe struct {
	in [3]atomic.Int64
	_  [40]byte // a cache line each
}

// closedEpoch is what current says after Close.
const closedEpoch = ^uint64(0)

// pin is a reader's place in an epoch: stripe << 2 | epoch mod 3.
type pin uint32

func newEpochs() *epochs {
	n := 4 << bits.Len(uint(runtime.GOMAXPROCS(0)-1))
	e := &epochs{stripes: make([]stripe, min(n, 256))}
	e.current.Store(3)
	return e
}

// enter counts the caller in; ok is false after Close.
func (e *epochs) enter() (p pin, ok bool) {
	var here byte
	// Stacks are at least 2 KiB apart. The address only spreads the load.
	h := uintptr(unsafe.Pointer(&here)) >> 11
	s := uint32(h*0x9E3779B1>>8) & uint32(len(e.stripes)-1)
	for {
		now := e.current.Load()
		if now == closedEpoch {
			return 0, false
		}
		slot := uint32(now % 3)
		e.stripes[s].in[slot].Add(1)
		if e.current.Load() == now {
			return pin(s<<2 | slot), true
		}
		e.stripes[s].in[slot].Add(-1)
	}
}

func (e *epochs) leave(p pin) { e.stripes[p>>2].in[p&3].Add(-1) }

// advance moves to the next epoch if nobody is left in the one before this.
func (e *epochs) advance() bool {
	now := e.current.Load()
	if e.count((now-1)%3) != 0 {
		return false
	}
	e.current.Store(now + 1)
	return true
}

func (e *epochs) count(slot uint64) (n int64) {
	for i := range e.stripes {
		n += e.stripes[i].in[slot].Load()
	}
	return n
}

// idle reports whether no reader is counted anywhere.
func (e *epochs) idle() bool { return e.count(0)+e.count(1)+e.count(2) == 0 }
