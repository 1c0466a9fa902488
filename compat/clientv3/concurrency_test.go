package clientv3

import (
	"context"
	"errors"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sync/errgroup"
)

func session(t *testing.T, c *clientv3.Client) *concurrency.Session {
	t.Helper()
	s := get[*concurrency.Session](t)(concurrency.NewSession(c, concurrency.WithTTL(30)))
	t.Cleanup(func() { _ = s.Close() }) // a test may have closed it
	return s
}

func useSession(t *testing.T, ctx context.Context, c *clientv3.Client) {
	s := session(t, c)
	put(t, ctx, c, "session/a", "x", clientv3.WithLease(s.Lease()))
	must(t, s.Close())
	next(t, ctx, closed(s.Done()))
	if v := value(t, ctx, c, "session/a"); v != "" {
		t.Fatalf("after the session: %q", v)
	}
}

// closed brings one value when c is closed.
func closed(c <-chan struct{}) <-chan struct{} {
	out := make(chan struct{}, 1)
	go func() {
		<-c
		out <- struct{}{}
	}()
	return out
}

func useMutex(t *testing.T, ctx context.Context, c *clientv3.Client) {
	counter := 0 // guarded by the mutex; the race detector would tell
	var group errgroup.Group
	for range 4 {
		s := session(t, c)
		group.Go(func() error {
			m := concurrency.NewMutex(s, "mutex")
			for range 10 {
				if err := m.Lock(ctx); err != nil {
					return err
				}
				counter++
				if err := m.Unlock(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
	if counter != 40 {
		t.Fatalf("counted to %d", counter)
	}
	holder, other := concurrency.NewMutex(session(t, c), "mutex"), concurrency.NewMutex(session(t, c), "mutex")
	must(t, holder.Lock(ctx))
	if err := other.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Fatalf("a lock that is held: %v", err)
	}
	must(t, holder.Unlock(ctx))
	must(t, other.TryLock(ctx))
}

func useElection(t *testing.T, ctx context.Context, c *clientv3.Client) {
	first, second := concurrency.NewElection(session(t, c), "election"), concurrency.NewElection(session(t, c), "election")
	observing, cancel := context.WithCancel(ctx)
	defer cancel()
	seen := second.Observe(observing)
	must(t, first.Campaign(ctx, "first"))
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "second") }()
	if r := next(t, ctx, seen); string(r.Kvs[0].Value) != "first" {
		t.Fatal(r)
	}
	must(t, first.Proclaim(ctx, "still first"))
	if l := get[*clientv3.GetResponse](t)(first.Leader(ctx)); string(l.Kvs[0].Value) != "still first" {
		t.Fatal(l)
	}
	must(t, first.Resign(ctx))
	must(t, next(t, ctx, won))
	for r := next(t, ctx, seen); string(r.Kvs[0].Value) != "second"; r = next(t, ctx, seen) {
	}
	must(t, second.Resign(ctx))
	if _, err := second.Leader(ctx); !errors.Is(err, concurrency.ErrElectionNoLeader) {
		t.Fatalf("after all have resigned: %v", err)
	}
}

func useSTM(t *testing.T, ctx context.Context, c *clientv3.Client) {
	for _, level := range []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads} {
		key := fmt.Sprint("stm/", level)
		var group errgroup.Group
		for range 4 {
			group.Go(func() error {
				for range 10 {
					_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
						n := 0
						_, _ = fmt.Sscan(s.Get(key), &n) // empty counts as 0
						s.Put(key, fmt.Sprint(n+1))
						return nil
					}, concurrency.WithAbortContext(ctx), concurrency.WithIsolation(level))
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		must(t, group.Wait())
		if v := value(t, ctx, c, key); v != "40" {
			t.Fatalf("counted to %s", v)
		}
	}
}
