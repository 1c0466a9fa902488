package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// changeRate is how many of the watched keys change in a second.
	changeRate = 500
	// slowWatchers never read; each watches all keys that are put.
	slowWatchers = 10
	// settle bounds how long events may take that are waited for.
	settle = time.Minute
)

// watching measures puts beside many watchers of other keys: one cluster has
// them, another of the same store has not, and they take turns. First nothing
// that is watched changes, then some of it all the time, then there are
// watchers of all puts besides that never read.
func (s *settings) watching(ctx context.Context, clusters []*cluster) error {
	for _, plain := range clusters {
		for _, prefix := range []bool{false, true} {
			if err := s.watchingOne(ctx, plain, prefix); err != nil {
				return fmt.Errorf("%s: watchers: %w", plain.name, err)
			}
		}
	}
	return nil
}

func (s *settings) watchingOne(ctx context.Context, plain *cluster, prefix bool) error {
	what := "keys"
	if prefix {
		what = "ranges"
	}
	loaded, err := s.twin(ctx, plain, what)
	defer loaded.stop()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pair := []*cluster{loaded, plain}
	for _, c := range pair {
		if err := s.fill(ctx, c, s.keys); err != nil {
			return err
		}
	}
	w := &watchers{c: loaded, n: s.watchers, prefix: prefix}
	if err := w.open(ctx, s.streams); err != nil {
		return err
	}
	fmt.Printf("-- %s: nothing of what is watched changes\n", loaded.name)
	if err := s.compare(ctx, pair, "put"); err != nil {
		return err
	}
	fmt.Printf("-- %s: %d changes a second of what is watched, in both clusters\n", loaded.name, changeRate)
	if err := s.changing(ctx, w, plain, func() error { return s.compare(ctx, pair, "put") }); err != nil {
		return err
	}
	fmt.Printf("-- %s: and %d watchers of all puts that never read\n", loaded.name, slowWatchers)
	for i := range slowWatchers {
		if err := w.neverRead(ctx, i); err != nil {
			return err
		}
	}
	return s.changing(ctx, w, plain, func() error { return s.compare(ctx, pair, "put") })
}

// changing changes what is watched while measure runs, and tells how long events
// took and whether each came once.
func (s *settings) changing(ctx context.Context, w *watchers, plain *cluster, measure func() error) error {
	w.forget()
	before, err := memoryOf(w.c, plain)
	if err != nil {
		return err
	}
	changing, stop := context.WithCancel(ctx)
	defer stop()
	var errs [2]error
	var group sync.WaitGroup
	for i, c := range []*cluster{w.c, plain} {
		group.Go(func() { errs[i] = w.change(changing, c) })
	}
	err = measure()
	stop()
	group.Wait()
	if err := errors.Join(err, errs[0], errs[1]); err != nil {
		return err
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	after, err := memoryOf(w.c, plain)
	if err != nil {
		return err
	}
	fmt.Printf("events     %d of %d changes, each once, p50 %v p99 %v after the put began; resident %+.0f MiB, without watchers %+.0f MiB\n",
		w.delivered.Load(), w.changed.Load(), w.percentile(50), w.percentile(99), after[0]-before[0], after[1]-before[1])
	return nil
}

func memoryOf(clusters ...*cluster) (all []float64, err error) {
	for _, c := range clusters {
		mib, err := c.memory("VmRSS")
		if err != nil {
			return nil, err
		}
		all = append(all, mib)
	}
	return all, nil
}

// watchers are many watches on few streams, each of a key, or a range, of its
// own, and count what comes.
type watchers struct {
	c      *cluster
	n      int
	prefix bool

	changed, delivered atomic.Int64
	mu                 sync.Mutex
	took               []time.Duration
	failed             error
}

// key is one that watcher i sees.
func (w *watchers) key(i int) string {
	if w.prefix {
		return fmt.Sprintf("w%07d/x", i)
	}
	return fmt.Sprintf("w%07d", i)
}

// request makes watcher i.
func (w *watchers) request(i int) *pb.WatchRequest {
	create := &pb.WatchCreateRequest{Key: []byte(w.key(i))}
	if w.prefix {
		prefix := fmt.Sprintf("w%07d/", i)
		create.Key, create.RangeEnd = []byte(prefix), []byte(clientv3.GetPrefixRangeEnd(prefix))
	}
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}
}

// open makes all watches and waits until they stand.
func (w *watchers) open(ctx context.Context, streams int) error {
	before, err := w.c.memory("VmRSS")
	if err != nil {
		return err
	}
	cpu, err := w.c.cpu()
	if err != nil {
		return err
	}
	start := time.Now()
	err = together(streams, func(i int) error { return w.openStream(ctx, i, streams) })
	if err != nil {
		return err
	}
	took := time.Since(start)
	after, err := w.c.memory("VmRSS")
	if err != nil {
		return err
	}
	end, err := w.c.cpu()
	if err != nil {
		return err
	}
	fmt.Printf("watchers   %-12s %d on %d streams in %v, %.1f µs server CPU each, resident %.0f MiB before, %.1f KiB more a watcher\n",
		w.c.name, w.n, streams, took.Round(time.Millisecond), float64((end-cpu).Microseconds())/float64(w.n),
		before, (after-before)*1024/float64(w.n))
	return nil
}

// openStream makes every streams-th watch, from the first-th on, on one stream,
// and has its events counted.
func (w *watchers) openStream(ctx context.Context, first, streams int) error {
	stream, err := pb.NewWatchClient(w.c.conns[first%len(w.c.conns)].ActiveConnection()).Watch(ctx)
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		for i := first; i < w.n; i += streams {
			if err := stream.Send(w.request(i)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for i := first; i < w.n; i += streams {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if !r.Created || r.Canceled {
			return fmt.Errorf("watch %d was not made: %s", i, r.CancelReason)
		}
	}
	if err := <-sent; err != nil {
		return err
	}
	go w.receive(ctx, stream)
	return nil
}

// receive counts events. Their values are when the put began.
func (w *watchers) receive(ctx context.Context, stream pb.Watch_WatchClient) {
	for {
		r, err := stream.Recv()
		if ctx.Err() != nil {
			return
		}
		if err == nil && r.Canceled {
			err = fmt.Errorf("watch %d ended: %s", r.WatchId, r.CancelReason)
		}
		w.mu.Lock()
		if err != nil {
			w.failed = errors.Join(w.failed, err)
			w.mu.Unlock()
			return
		}
		for _, e := range r.Events {
			began, err := strconv.ParseInt(string(e.Kv.Value), 10, 64)
			w.failed = errors.Join(w.failed, err)
			w.took = append(w.took, time.Since(time.Unix(0, began)))
			w.delivered.Add(1)
		}
		w.mu.Unlock()
	}
}

// neverRead makes a watch of all keys that are put, and reads no more than that
// it stands.
func (w *watchers) neverRead(ctx context.Context, i int) error {
	stream, err := pb.NewWatchClient(w.c.conns[i%len(w.c.conns)].ActiveConnection()).Watch(ctx)
	if err != nil {
		return err
	}
	all := &pb.WatchCreateRequest{Key: []byte("0"), RangeEnd: []byte("9")}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: all}}); err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

// change puts watched keys at changeRate until ctx ends, in the cluster that has
// the watchers or another. Those are counted.
func (w *watchers) change(ctx context.Context, c *cluster) error {
	const putters = 10
	return together(putters, func(i int) error {
		tick := time.NewTicker(time.Second * putters / changeRate)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			began := strconv.FormatInt(time.Now().UnixNano(), 10)
			// To its end, so that it is known what was put.
			_, err := c.conns[i%len(c.conns)].Put(context.WithoutCancel(ctx), w.key(rand.IntN(w.n)), began)
			if err != nil {
				return err
			}
			if c == w.c {
				w.changed.Add(1)
			}
		}
	})
}

// forget begins to count anew.
func (w *watchers) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.took = nil
	w.changed.Store(0)
	w.delivered.Store(0)
}

// settled waits until every change was told, and returns an error if one was not,
// or was twice.
func (w *watchers) settled(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for w.delivered.Load() < w.changed.Load() && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second) // for what comes twice
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, c := w.delivered.Load(), w.changed.Load(); d != c {
		w.failed = errors.Join(w.failed, fmt.Errorf("%d changes, %d events", c, d))
	}
	return w.failed
}

// percentile is of how long events took.
func (w *watchers) percentile(p int) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.took) == 0 {
		log.Print("no event at all")
		return 0
	}
	slices.Sort(w.took)
	return w.took[len(w.took)*p/100].Round(10 * time.Microsecond)
}
