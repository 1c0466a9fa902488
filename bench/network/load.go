package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// result is what one measurement gave.
type result struct {
	rate     float64 // operations a second
	cpu      float64 // microseconds of all servers an operation
	p50, p99 time.Duration
}

// call does one operation. It checks what the answer must say.
type call func(ctx context.Context, c *clientv3.Client, key, value string) error

// operations are what can be measured. Reads are of keys that were put before.
var operations = map[string]call{
	"put": func(ctx context.Context, c *clientv3.Client, key, value string) error {
		_, err := c.Put(ctx, key, value)
		return err
	},
	"get": func(ctx context.Context, c *clientv3.Client, key, value string) error { return get(ctx, c, key, value) },
	"sget": func(ctx context.Context, c *clientv3.Client, key, value string) error {
		return get(ctx, c, key, value, clientv3.WithSerializable())
	},
	"txn": func(ctx context.Context, c *clientv3.Client, key, value string) error {
		res, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), ">", 0)).Then(clientv3.OpPut(key, value)).Commit()
		if err == nil && !res.Succeeded {
			return fmt.Errorf("key %s is not there", key)
		}
		return err
	},
}

func opNames() []string { return slices.Sorted(maps.Keys(operations)) }

func get(ctx context.Context, c *clientv3.Client, key, value string, opts ...clientv3.OpOption) error {
	res, err := c.Get(ctx, key, opts...)
	if err != nil {
		return err
	}
	if len(res.Kvs) != 1 || len(res.Kvs[0].Value) != len(value) {
		return fmt.Errorf("key %s: %d answers", key, len(res.Kvs))
	}
	return nil
}

func keyOf(n int) string { return fmt.Sprintf("%08d", n) }

// load is how many call at once, on how many connections.
type load struct{ callers, conns int }

// measure runs one operation under a load.
func (s *settings) measure(ctx context.Context, c *cluster, op string, l load) (result, error) {
	do, ok := operations[op]
	if !ok {
		return result{}, fmt.Errorf("no such operation; use %s or stream", strings.Join(opNames(), ", "))
	}
	if err := s.fill(ctx, c, s.keys); err != nil {
		return result{}, fmt.Errorf("put the keys: %w", err)
	}
	value := strings.Repeat("v", s.value)
	before, err := c.cpu()
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.duration+time.Minute)
	defer cancel()
	all := make([][]time.Duration, l.callers)
	start := time.Now()
	deadline := start.Add(s.duration)
	err = together(l.callers, func(i int) error {
		random := rand.New(rand.NewPCG(uint64(i), 1))
		for {
			began := time.Now()
			if began.After(deadline) {
				return nil
			}
			if err := do(ctx, c.conns[i%l.conns], keyOf(random.IntN(s.keys)), value); err != nil {
				return err
			}
			all[i] = append(all[i], time.Since(began))
		}
	})
	elapsed := time.Since(start)
	if err != nil {
		return result{}, err
	}
	after, err := c.cpu()
	if err != nil {
		return result{}, err
	}
	took := slices.Concat(all...)
	slices.Sort(took)
	n := len(took)
	return result{
		rate: float64(n) / elapsed.Seconds(),
		cpu:  float64((after - before).Microseconds()) / float64(n),
		p50:  took[n/2], p99: took[n*99/100],
	}, nil
}

// fill puts the keys that are not there yet.
func (s *settings) fill(ctx context.Context, c *cluster, keys int) error {
	res, err := c.conns[0].Get(ctx, keyOf(keys-1), clientv3.WithCountOnly())
	if err != nil || res.Count == 1 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	value := strings.Repeat("v", s.value)
	var next atomic.Int64
	err = together(200, func(i int) error {
		for {
			n := int(next.Add(1) - 1)
			if n >= keys-1 {
				return nil
			}
			if _, err := c.conns[i%len(c.conns)].Put(ctx, keyOf(n), value); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return err
	}
	_, err = c.conns[0].Put(ctx, keyOf(keys-1), value) // last: it says that all are there
	return err
}

// together runs n goroutines and joins their errors.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() { errs[i] = do(i) })
	}
	group.Wait()
	return errors.Join(errs...)
}

// ranges reads all keys in one RangeStream, and tells how long it took and by
// how much the server's memory peaked meanwhile. The servers are started anew
// before, so that no memory that loading left hides what a stream takes.
func (s *settings) ranges(ctx context.Context, clusters []*cluster) error {
	for _, c := range clusters {
		if err := s.fill(ctx, c, s.keys); err != nil {
			return fmt.Errorf("%s: put the keys: %w", c.name, err)
		}
		if err := c.restart(ctx); err != nil {
			return fmt.Errorf("%s: restart: %w", c.name, err)
		}
		for range s.rounds {
			before, err := c.memory("VmRSS")
			if err == nil {
				err = c.forgetPeak()
			}
			if err != nil {
				return err
			}
			start := time.Now()
			n, err := readStream(ctx, c.conns[0])
			if err != nil {
				return fmt.Errorf("%s: stream: %w", c.name, err)
			}
			peak, err := c.memory("VmHWM")
			if err != nil {
				return err
			}
			fmt.Printf("stream     %-8s %d keys in %v, resident %.0f MiB before, %.0f more at most\n", c.name, n, time.Since(start).Round(time.Millisecond), before, peak-before)
		}
	}
	return nil
}

func readStream(ctx context.Context, c *clientv3.Client) (int, error) {
	stream, err := c.GetStream(ctx, "0", clientv3.WithFromKey())
	if err != nil {
		return 0, err
	}
	n := 0
	for res := range stream {
		if err := res.Err(); err != nil {
			return n, err
		}
		n += len(res.RangeResponse.Kvs)
	}
	return n, nil
}
