package observe

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Buffer is how many events a [Subscription] keeps that nobody has received.
const Buffer = 1024

// Subscription receives events by name. Its buffer is bounded: an event that
// does not fit is dropped and counted, and the member is never held up.
type Subscription struct {
	events  chan Event
	names   map[string]bool // nil for all
	dropped atomic.Uint64
	remove  func()
}

// Subscribe receives the events of these names, or of all when there are none,
// until Close. It returns an error for a name that no event has.
func (h *Hub) Subscribe(names ...string) (*Subscription, error) {
	s := &Subscription{events: make(chan Event, Buffer)}
	known := Names()
	for _, name := range names {
		if _, ok := slices.BinarySearch(known, name); !ok {
			return nil, fmt.Errorf("observe: no event is named %q", name)
		}
		if s.names == nil {
			s.names = map[string]bool{}
		}
		s.names[name] = true
	}
	s.remove = h.Add(s.observer())
	return s, nil
}

// Events gives the events in the order in which they were told. It is not closed.
func (s *Subscription) Events() <-chan Event { return s.events }

// Dropped counts the events that did not fit.
func (s *Subscription) Dropped() uint64 { return s.dropped.Load() }

// Close ends the subscription. What is in the buffer stays there.
func (s *Subscription) Close() { s.remove() }

// observer has a function for each type of event that has one of the names.
func (s *Subscription) observer() Observer {
	return Observer{
		API: take[API](s, apiNames[1:]...), Apply: take[Apply](s, applyNames[1:]...),
		Proposal: take[Proposal](s, proposalName), State: take[State](s, stateName),
		Snapshot: take[Snapshot](s, snapshotNames[1:]...), Status: take[Status](s, statusName),
		Disk: take[Disk](s, diskNames[1:]...), Transport: take[Transport](s, transportNames[1:]...),
		Membership: take[Membership](s, membershipNames[1:]...), Watch: take[Watch](s, watchNames[1:]...),
		Lease: take[Lease](s, leaseNames[1:]...), Expiry: take[Expiry](s, expiryName),
		Compaction: take[Compaction](s, compactionName), Auth: take[Auth](s, authNames[1:]...),
		Limit: take[Limit](s, limitNames[1:]...), Backup: take[Backup](s, backupName),
	}
}

// take puts events of type E into the buffer; it is nil when none of their names
// is wanted.
func take[E Event](s *Subscription, names ...string) func(E) {
	if s.names != nil && !slices.ContainsFunc(names, func(name string) bool { return s.names[name] }) {
		return nil
	}
	return func(e E) {
		if s.names != nil && !s.names[e.Name()] {
			return
		}
		select {
		case s.events <- e:
		default:
			s.dropped.Add(1)
		}
	}
}
