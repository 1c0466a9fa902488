package client

import (
	"math/bits"
	"sync"

	"github.com/concord-kv/concord/kv"
)

// window is how many results a store remembers for one client id: a request
// must not be more than that behind the newest of its client, or its retry is
// refused as too old.
const window = 64

// ids gives out request ids such that each can be retried as long as it is
// under way: when 64 requests span a client id's window, the next takes another.
type ids struct {
	random func() [16]byte

	mu    sync.Mutex
	lanes []*lane
}

// lane is one client id with the requests that are under way.
type lane struct {
	client [16]byte
	// next is the next sequence number; base the oldest that is under way, or
	// next. Bit i of busy tells whether base+i is under way.
	base, next uint64
	busy       uint64
}

// take gives an id; done must be called when its request is over.
func (s *ids) take() (id kv.RequestID, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lanes {
		if l.next-l.base < window {
			return s.use(l)
		}
	}
	l := &lane{client: s.random(), base: 1, next: 1}
	s.lanes = append(s.lanes, l)
	return s.use(l)
}

// use with mu, on a lane with room.
func (s *ids) use(l *lane) (kv.RequestID, func()) {
	seq := l.next
	l.next++
	l.busy |= 1 << (seq - l.base)
	return kv.RequestID{Client: l.client, Seq: seq}, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		l.busy &^= 1 << (seq - l.base)
		free := uint64(bits.TrailingZeros64(l.busy)) // 64 when nothing is under way
		free = min(free, l.next-l.base)
		l.base += free
		l.busy >>= free
	}
}
