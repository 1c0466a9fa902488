package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leasing measures puts beside many leases that are kept alive: one cluster has
// them, another of the same store has not, and they take turns, for three TTLs.
// Of three members the leader is killed in the middle and started again. No
// lease may expire; when they are not renewed any more all must.
func (s *settings) leasing(ctx context.Context, clusters []*cluster) error {
	for _, plain := range clusters {
		if err := s.leasingOne(ctx, plain); err != nil {
			return fmt.Errorf("%s: leases: %w", plain.name, err)
		}
	}
	return nil
}

func (s *settings) leasingOne(ctx context.Context, plain *cluster) error {
	loaded, err := s.twin(ctx, plain, "leases")
	defer loaded.stop()
	if err != nil {
		return err
	}
	pair := []*cluster{loaded, plain}
	for _, c := range pair {
		if err := s.fill(ctx, c, s.keys); err != nil {
			return err
		}
	}
	l := &leases{c: loaded, ids: make([]int64, s.leases), ttl: s.ttl}
	keeping, release := context.WithCancel(ctx)
	defer release()
	start := time.Now()
	var group sync.WaitGroup
	if err := l.grant(keeping, &group, s.streams); err != nil {
		return err
	}
	if err := l.idle(keeping); err != nil {
		return err
	}
	fmt.Printf("-- %s: all are renewed every %v\n", loaded.name, s.ttl/3)
	for first := true; first || time.Since(start) < 3*s.ttl/2; first = false {
		if err := s.compare(keeping, pair, "put"); err != nil {
			return err
		}
	}
	if s.members > 1 {
		if err := l.failOver(keeping); err != nil {
			return err
		}
	}
	time.Sleep(3*s.ttl - time.Since(start))
	if err := l.all(ctx, len(l.ids)); err != nil {
		return err
	}
	fmt.Printf("leases     %-12s %d stand after %v and %d renewals, none expired, %d streams broke\n", loaded.name, len(l.ids),
		time.Since(start).Round(time.Second), l.renewed.Load(), l.broken.Load())
	release()
	group.Wait()
	start = time.Now()
	for {
		err := l.all(ctx, 0)
		if err == nil {
			break
		}
		if time.Since(start) > 2*s.ttl {
			return fmt.Errorf("after %v without renewals: %w", 2*s.ttl, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Printf("leases     %-12s all gone, with their keys, %v after the last renewal\n", loaded.name, time.Since(start).Round(time.Second/10))
	return nil
}

// leases are many, with a key each, renewed on few streams.
type leases struct {
	c   *cluster
	ids []int64
	ttl time.Duration

	renewed, broken, lost atomic.Int64
}

const leasePrefix = "lease/"

// share is the leases that one stream renews, more and more of them.
type share struct {
	every time.Duration // between two renewals

	mu  sync.Mutex
	ids []int64
}

func (s *share) add(id int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, id)
}

// all is those that there are now; it is not changed any more.
func (s *share) all() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids[:len(s.ids):len(s.ids)]
}

// grant makes all leases and keys, and has them kept alive until ctx ends.
func (l *leases) grant(ctx context.Context, group *sync.WaitGroup, streams int) error {
	before, err := l.c.memory("VmRSS")
	if err != nil {
		return err
	}
	start := time.Now()
	err = together(streams, func(first int) error {
		// Renewed from the first on: to grant all may take longer than a TTL.
		own := &share{every: l.ttl / 3 / time.Duration(max(1, len(l.ids)/streams))}
		group.Go(func() { l.keep(ctx, first, own) })
		for i := first; i < len(l.ids); i += streams {
			client := l.c.conns[i%len(l.c.conns)]
			g, err := client.Grant(ctx, int64(l.ttl/time.Second))
			if err != nil {
				return err
			}
			if _, err := client.Put(ctx, leasePrefix+strconv.Itoa(i), "x", clientv3.WithLease(g.ID)); err != nil {
				return err
			}
			l.ids[i] = int64(g.ID)
			own.add(int64(g.ID))
		}
		return nil
	})
	if err != nil {
		return err
	}
	took := time.Since(start)
	after, err := l.c.memory("VmRSS")
	if err != nil {
		return err
	}
	fmt.Printf("leases     %-12s %d, a key each, in %v, resident %.0f MiB before, %.2f KiB more a lease and member\n", l.c.name, len(l.ids),
		took.Round(time.Millisecond), before, (after-before)*1024/float64(len(l.ids)*len(l.c.processes)))
	return nil
}

// idle tells what renewals alone cost.
func (l *leases) idle(ctx context.Context) error {
	before, err := l.c.cpu()
	if err != nil {
		return err
	}
	start, renewed := time.Now(), l.renewed.Load()
	select {
	case <-time.After(l.ttl / 3):
	case <-ctx.Done():
	}
	after, err := l.c.cpu()
	if err != nil {
		return err
	}
	n := float64(l.renewed.Load() - renewed)
	fmt.Printf("leases     %-12s %.0f renewals a second alone, %.1f µs server CPU each\n", l.c.name,
		n/time.Since(start).Seconds(), float64((after-before).Microseconds())/n)
	return nil
}

// keep renews the leases until ctx ends, on one stream to a member after the
// other.
func (l *leases) keep(ctx context.Context, place int, own *share) {
	for ; ctx.Err() == nil; place++ {
		if l.keepOn(ctx, l.c.conns[place%len(l.c.conns)], own); ctx.Err() == nil {
			l.broken.Add(1)
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// keepOn renews on one stream as long as it lasts: all leases at once, because a
// stream before this one may have left some behind, then spread over a third of
// the TTL.
func (l *leases) keepOn(ctx context.Context, client *clientv3.Client, own *share) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(client.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return
	}
	go func() {
		defer cancel()
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			if r.TTL <= 0 {
				l.lost.Add(1)
			}
			l.renewed.Add(1)
		}
	}()
	behind := len(own.all())
	tick := time.NewTicker(own.every)
	defer tick.Stop()
	for n, next := 0, 0; ; n++ {
		if n >= behind {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
		ids := own.all()
		if len(ids) == 0 {
			continue
		}
		if next >= len(ids) {
			next = 0
		}
		if stream.Send(&pb.LeaseKeepAliveRequest{ID: ids[next]}) != nil {
			return
		}
		next++
	}
}

// failOver kills the leader, starts it again, and tells how long no put was
// acknowledged.
func (l *leases) failOver(ctx context.Context) error {
	victim := l.c.leader(ctx)
	if victim < 0 {
		return errors.New("no member leads")
	}
	others := l.c.conns[(victim+1)%len(l.c.processes)]
	last, longest := time.Now(), time.Duration(0)
	if err := l.c.kill(victim); err != nil {
		return err
	}
	for end := last.Add(l.ttl / 6); time.Now().Before(end); {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := others.Put(try, "ready", "")
		cancel()
		if err == nil {
			longest = max(longest, time.Since(last))
			last = time.Now()
		}
	}
	longest = max(longest, time.Since(last))
	fmt.Printf("leases     %-12s leader killed: %v without a put at most\n", l.c.name, longest.Round(time.Millisecond))
	return l.c.launch(victim)
}

// all returns nil when there are that many leases, and as many keys of theirs,
// and while there should be all none was missed.
func (l *leases) all(ctx context.Context, want int) error {
	got, err := l.c.conns[0].Leases(ctx)
	if err != nil {
		return err
	}
	keys, err := l.c.conns[0].Get(ctx, leasePrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	if len(got.Leases) != want || keys.Count != int64(want) || want > 0 && l.lost.Load() > 0 {
		return fmt.Errorf("%d leases with %d keys, not %d; %d renewals found none", len(got.Leases), keys.Count, want, l.lost.Load())
	}
	return nil
}
