package server

import (
	"context"
	"fmt"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Wrong passwords slow down who sends them. What comes from one address is
// refused for a while, exponentially longer with each, unless it comes from this
// machine; for one user it is held up for a moment before it is looked at, from
// wherever it comes, and never refused: so a right password from another address
// always gets in, and nobody is locked out, root neither. Whether there is such
// a user makes no difference.
const (
	// freeByAddress and freeByUser are how many wrong ones cost nothing.
	freeByAddress = 10
	freeByUser    = 5
	// The first that costs something does so for the least, each further one
	// for twice as long, up to the most.
	leastRefusal = time.Second
	mostRefusal  = time.Minute
	leastHold    = 50 * time.Millisecond
	mostHold     = 2 * time.Second
	// forgetLogins is after how long without a wrong one all is forgotten.
	forgetLogins = 15 * time.Minute
	// mostHeld is how many are held up at once. More are looked at without
	// delay: the cost of a hash bounds them then.
	mostHeld = 1000
)

// logins remembers who sent wrong passwords. A place's value is when the last
// one came, its extra how many there were.
type logins struct {
	began             time.Time
	addresses, people *table
	held              chan struct{}
}

func newLogins() *logins {
	return &logins{began: time.Now(), addresses: newTable(), people: newTable(), held: make(chan struct{}, mostHeld)}
}

// wrong is how many wrong passwords key has sent lately, and when the last.
func (l *logins) wrong(t *table, key uint64) (count int64, last time.Duration) {
	p, lock := t.at(key)
	defer lock.Unlock()
	if time.Since(l.began)-time.Duration(p.value) > forgetLogins {
		p.extra = 0
	}
	return p.extra, time.Duration(p.value)
}

func (l *logins) note(t *table, key uint64) {
	p, lock := t.at(key)
	defer lock.Unlock()
	p.value = int64(time.Since(l.began))
	p.extra++
}

// backOff is what the count-th wrong one costs, where free cost nothing.
func backOff(count, free int64, least, most time.Duration) time.Duration {
	over := count - free
	if over < 0 {
		return 0
	}
	return min(least<<min(over, 20), most)
}

// attempt lets one try through, holds it up or refuses it. What is let through
// has to be told whether it was right.
func (l *logins) attempt(ctx context.Context, user string, from address) (done func(right bool), err error) {
	byAddress, byUser := l.addresses.address(from), l.people.key('u', user)
	if count, last := l.wrong(l.addresses, byAddress); !from.local() {
		until := last + backOff(count, freeByAddress, leastRefusal, mostRefusal)
		if wait := until - time.Since(l.began); wait > 0 && count >= freeByAddress {
			return nil, kv.WithNext(fmt.Errorf("%w", kv.ErrTooManyLogins), fmt.Sprintf("wait %v, or log in from another address", wait.Round(time.Second)))
		}
	}
	count, _ := l.wrong(l.people, byUser)
	if hold := backOff(count, freeByUser, leastHold, mostHold); hold > 0 {
		select {
		case l.held <- struct{}{}:
			defer func() { <-l.held }()
			timer := time.NewTimer(hold)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		default: // so many are held that this one is not
		}
	}
	return func(right bool) {
		if !right {
			l.note(l.addresses, byAddress)
			l.note(l.people, byUser)
		}
	}, nil
}
