package server

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// arrivals bounds the memory of messages that have not come whole, whose senders
// nobody knows yet: gRPC keeps what has come of a message until it has all. When
// together they hold more, the connection that costs most is closed, until they
// hold no more than that. Cost is what a connection holds times how long it has
// held something: who sends a message at once is cut after those who keep theirs.
type arrivals struct {
	// Set by newArrivals, then read only.
	most  int64 // in bytes; 0 is no limit
	began time.Time
	tell  func(cut uint64) // of those cut so far

	// Safe for concurrent use.
	held atomic.Int64
	cuts atomic.Uint64
	mu   sync.Mutex
	all  map[*arrival]struct{} // those that hold something, or did
}

// leastAge is what holding something at all counts for, so that of those that have
// just begun the largest is cut. It is short, so that who sends a large message
// at once stays before those who only keep theirs.
const leastAge = 10 * time.Millisecond

func newArrivals(most int64, tell func(cut uint64)) *arrivals {
	return &arrivals{most: most, began: time.Now(), tell: tell, all: map[*arrival]struct{}{}}
}

// arrival is what has come on one connection, or of one body.
type arrival struct {
	of  *arrivals
	cut func() // ends it; called once, at most

	mu   sync.Mutex
	over bool // it is cut, or closed
	told int64
	// What told is, and since when it is not 0, for others to see: nanoseconds
	// after of.began.
	held, since atomic.Int64
}

// hold says what a holds now, all in all.
func (a *arrival) hold(n int64) {
	a.mu.Lock()
	full := a.tellLocked(n)
	a.mu.Unlock()
	if full {
		a.of.shed()
	}
}

// tellLocked has the sum of all know of what a holds, with a.mu held. It reports
// whether the caller has to call shed, without a.mu.
func (a *arrival) tellLocked(n int64) (full bool) {
	change := n - a.told
	if change == 0 || a.over || a.of.most == 0 {
		return false
	}
	if a.told == 0 {
		a.since.Store(int64(time.Since(a.of.began)))
	}
	a.told = n
	a.held.Store(n)
	return a.of.held.Add(change) > a.of.most && change > 0
}

// end has a hold nothing, ever.
func (a *arrival) end() {
	a.mu.Lock()
	a.tellLocked(0)
	a.over = true
	a.mu.Unlock()
	a.of.mu.Lock()
	delete(a.of.all, a)
	a.of.mu.Unlock()
}

// watch has a among those that may be cut.
func (l *arrivals) watch(a *arrival) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		l.all[a] = struct{}{}
	}
}

// shed cuts those that cost most until the others hold what they may.
func (l *arrivals) shed() {
	var late []*arrival
	l.mu.Lock()
	now := int64(time.Since(l.began) + leastAge)
	for l.held.Load() > l.most {
		var worst *arrival
		var most float64
		for a := range l.all {
			if cost := float64(a.held.Load()) * float64(now-a.since.Load()); cost > most {
				worst, most = a, cost
			}
		}
		if worst == nil {
			break // those that hold it are ending
		}
		delete(l.all, worst)
		worst.mu.Lock()
		worst.tellLocked(0)
		worst.over = true
		worst.mu.Unlock()
		late = append(late, worst)
	}
	l.mu.Unlock()
	for _, a := range late {
		a.cut()
		l.tell(l.cuts.Add(1))
	}
}

// heldBody counts what is kept of a body of HTTP/1 until it makes a message.
type heldBody struct {
	io.ReadCloser
	arrival arrival
	read    int64 // of the message under way
	watched bool
}

// jsonKept is how many bytes are kept of one that has come: the decoder's buffer
// doubles.
const jsonKept = 2

var errCut = errors.New("too much of what clients send has not come whole")

// body counts what comes of from, which cut ends.
func (l *arrivals) body(from io.ReadCloser, cut func()) *heldBody {
	return &heldBody{ReadCloser: from, arrival: arrival{of: l, cut: cut}}
}

// Read implements [io.Reader]. Small messages are not counted: the connection's
// own buffers are about as large.
func (b *heldBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	switch {
	case err != nil:
		b.whole()
	case b.read > smallMessage:
		if !b.watched {
			b.watched = true
			b.arrival.of.watch(&b.arrival)
		}
		b.arrival.hold(jsonKept * b.read)
		if b.arrival.isOver() {
			return n, errCut
		}
	}
	return n, err
}

// whole says that nothing is kept any more: what has come is a message now.
func (b *heldBody) whole() {
	b.read = 0
	if b.watched {
		b.arrival.hold(0)
	}
}

func (a *arrival) isOver() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over
}
