package migrate

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/concord-kv/concord/kv"
)

// errEnded: a lease of a running source has ended, and its keys with it.
var errEnded = errors.New("the lease has ended")

// leases carries leases over: under their ids and with their full TTL, as after
// a change of leaders. What is left of one is not carried over, because holders
// could not renew it to its length again.
type leases struct {
	from Source
	to   kv.Store

	// mu is held for look-ups, not for calls.
	mu      sync.Mutex
	known   map[kv.LeaseID]kv.LeaseResult // in the source
	inUse   map[kv.LeaseID]bool           // in the target
	granted int64
}

func newLeases(from Source, to kv.Store) *leases {
	return &leases{from: from, to: to, known: map[kv.LeaseID]kv.LeaseResult{}, inUse: map[kv.LeaseID]bool{}}
}

func (l *leases) counts() (inUse, granted int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(len(l.inUse)), l.granted
}

// load asks the source which leases there are.
func (l *leases) load(ctx context.Context) error {
	all, err := l.from.Leases(ctx)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range all {
		l.known[x.ID] = x
	}
	return nil
}

func (l *leases) grantAll(ctx context.Context) error {
	l.mu.Lock()
	ids := make([]kv.LeaseID, 0, len(l.known))
	for id := range l.known {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	for _, id := range ids {
		group.Go(func() error {
			_, err := l.use(ctx, id)
			return err
		})
	}
	return group.Wait()
}

// use makes sure that the target has the lease and returns its id there: 0 when
// a file does not have it, errEnded when a running source does not.
func (l *leases) use(ctx context.Context, id kv.LeaseID) (kv.LeaseID, error) {
	if id == 0 {
		return 0, nil
	}
	l.mu.Lock()
	x, known := l.known[id]
	used := l.inUse[id]
	l.mu.Unlock()
	if used {
		return id, nil
	}
	if !known {
		source, running := l.from.(*live)
		if !running {
			return 0, nil
		}
		var err error
		if x, err = source.TimeToLive(ctx, id, false); errors.Is(err, kv.ErrLeaseNotFound) {
			return 0, errEnded
		} else if err != nil {
			return 0, err
		}
	}
	_, err := l.to.Grant(ctx, kv.Grant{ID: id, TTL: x.TTL})
	fresh := err == nil
	if errors.Is(err, kv.ErrLeaseExists) {
		_, err = l.to.KeepAlive(ctx, id)
	}
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known[id], l.inUse[id] = x, true
	if fresh {
		l.granted++
	}
	return id, nil
}

// forget has use ask again.
func (l *leases) forget(id kv.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.inUse, id)
}

// during runs work and meanwhile keeps the leases that a running source still
// has alive in the target.
func (l *leases) during(ctx context.Context, work func(context.Context) error) error {
	source, running := l.from.(*live)
	if !running {
		return work(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel()
		return work(ctx)
	})
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(l.pause()):
			}
			if err := l.renew(ctx, source); err != nil && ctx.Err() == nil {
				return err
			}
		}
	})
	return group.Wait()
}

// pause is a third of the shortest TTL, within bounds.
func (l *leases) pause() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	shortest := 3 * time.Minute
	for id := range l.inUse {
		shortest = min(shortest, l.known[id].TTL)
	}
	return max(shortest/3, 500*time.Millisecond)
}

// renew renews in the target what the source still has.
func (l *leases) renew(ctx context.Context, source *live) error {
	list, err := source.Store.Leases(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	for _, id := range list.IDs {
		l.mu.Lock()
		used := l.inUse[id]
		l.mu.Unlock()
		if !used {
			continue
		}
		group.Go(func() error {
			_, err := l.to.KeepAlive(ctx, id)
			if errors.Is(err, kv.ErrLeaseNotFound) {
				l.forget(id) // whoever uses it next grants it again
				return nil
			}
			return err
		})
	}
	return group.Wait()
}
