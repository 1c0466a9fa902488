package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest/lincheck"
)

// keysPerRound spreads a round's operations so that each key's history stays
// short enough to be searched.
const keysPerRound = 200

// load is the clients of one round. Their keys are the round's own.
type load struct {
	round   int
	history *lincheck.History
	cancel  context.CancelFunc
	group   sync.WaitGroup
	failed  atomic.Pointer[error]
	clients []*client.Client

	mu      sync.Mutex
	acks    []time.Time
	unknown int
}

func startLoad(ctx context.Context, c *cluster, p plan, round int) *load {
	l := &load{round: round, history: lincheck.NewHistory(nil)}
	ctx, l.cancel = context.WithCancel(ctx)
	for i := range p.clients {
		// One client a member stays with it, so that writes are tried at each
		// member whatever the others have met. The rest take another one when
		// theirs fails.
		var endpoints []string
		for j := range c.members {
			endpoints = append(endpoints, c.members[(i+j)%len(c.members)].clientAddr)
		}
		if i < len(c.members) {
			endpoints = endpoints[:1]
		}
		cl, err := client.New(client.Config{Endpoints: endpoints, Timeout: 5 * time.Second})
		if err != nil {
			l.fail(err)
			return l
		}
		l.clients = append(l.clients, cl)
		rng := rand.New(rand.NewPCG(p.seed, uint64(round*1000+i)))
		l.group.Go(func() { l.work(ctx, cl, i, rng, time.Second/time.Duration(p.rate)) })
	}
	return l
}

func (l *load) fail(err error) { l.failed.CompareAndSwap(nil, &err) }

// work is one client.
func (l *load) work(ctx context.Context, s kv.KV, id int, rng *rand.Rand, every time.Duration) {
	r := l.history.Recorder(s, id, kv.Strong)
	tick := time.NewTicker(every)
	defer tick.Stop()
	var mod kv.Revision
	for n := 0; ; n++ {
		key := fmt.Sprintf("round%d/%d", l.round, rng.IntN(keysPerRound))
		value := fmt.Sprintf("%d.%d", id, n)
		var err error
		wrote := true
		switch dice := rng.IntN(10); {
		case dice < 4:
			var k kv.KeyValue
			k, err = r.Get(ctx, key)
			mod, wrote = k.ModRevision, false
			if errors.Is(err, kv.ErrKeyNotFound) {
				err = nil
			}
		case dice < 8:
			_, err = r.Put(ctx, key, value)
		case dice < 9:
			_, err = r.Delete(ctx, key)
		default:
			_, err = r.Swap(ctx, key, value, mod)
		}
		if err == nil || ctx.Err() == nil { // else the round is over
			l.note(err, wrote)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *load) note(err error, wrote bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && wrote:
		l.acks = append(l.acks, time.Now())
	case err != nil && lincheck.MayHaveHappened(err):
		l.unknown++
	}
}

func (l *load) counts() (acked, unknown int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acks), l.unknown
}

// flows waits for a write that is acknowledged after since.
func (l *load) flows(ctx context.Context, since time.Time) error {
	return within(ctx, patience, func(context.Context) error {
		if err := l.failed.Load(); err != nil {
			return *err
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if n := len(l.acks); n == 0 || l.acks[n-1].Before(since) {
			return errors.New("no write is acknowledged")
		}
		return nil
	})
}

// longestGap is the longest time between acknowledged writes since start.
func (l *load) longestGap(start time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	acks := slices.Clone(l.acks)
	slices.SortFunc(acks, time.Time.Compare)
	last, longest := start, time.Duration(0)
	for _, ack := range acks {
		if ack.After(start) {
			longest = max(longest, ack.Sub(last))
			last = ack
		}
	}
	return longest
}

func (l *load) stop() {
	l.cancel()
	l.group.Wait()
	for _, c := range l.clients {
		_ = c.Close() // its calls have ended
	}
}

// finish ends the load and reads every key once more, so that a lost write
// cannot hide behind the end of the history.
func (l *load) finish(ctx context.Context, c *cluster) error {
	l.stop()
	r := l.history.Recorder(c.client, len(l.clients), kv.Strong)
	for i := range keysPerRound {
		_, err := r.Get(ctx, fmt.Sprintf("round%d/%d", l.round, i))
		if err != nil && !errors.Is(err, kv.ErrKeyNotFound) {
			return fmt.Errorf("read back: %w", err)
		}
	}
	return nil
}

// check finds out whether the round's history is linearizable.
func (l *load) check() error {
	return l.history.Check(lincheck.Options{Timeout: 10 * time.Minute})
}
