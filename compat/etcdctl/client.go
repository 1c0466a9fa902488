package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// clientChecks use clientv3, on the keys under compat/go/.
func clientChecks(endpoint string) (_ []check, closeClient func() error, err error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, nil, err
	}
	with := func(name string, run func(context.Context, *clientv3.Client) error) check {
		return check{"clientv3 " + name, func(ctx context.Context) error { return run(ctx, c) }}
	}
	return []check{
		with("kv", checkKV), with("stream", checkStream), with("errors", checkErrors),
		with("watch", checkWatch), with("progress", checkProgress), with("lease", checkLease),
		with("mutex", checkMutex), with("election", checkElection), with("stm", checkSTM),
	}, c.Close, nil
}

func checkKV(ctx context.Context, c *clientv3.Client) error {
	if _, err := c.Put(ctx, "compat/go/a", "1"); err != nil {
		return err
	}
	tx, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("compat/go/a"), "=", "1"), clientv3.Compare(clientv3.Version("compat/go/z"), "=", 0)).
		Then(clientv3.OpPut("compat/go/b", "2"), clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpGet("compat/go/", clientv3.WithPrefix())}, nil)).
		Else(clientv3.OpDelete("compat/go/a")).Commit()
	if err != nil || !tx.Succeeded {
		return fmt.Errorf("txn: %v, %w", tx, err)
	}
	if n := tx.Responses[1].GetResponseTxn().Responses[0].GetResponseRange().Count; n != 2 {
		return fmt.Errorf("the nested range saw %d keys", n)
	}
	old, err := c.Get(ctx, "compat/go/", clientv3.WithPrefix(), clientv3.WithRev(tx.Header.Revision-1))
	if err != nil || len(old.Kvs) != 1 {
		return fmt.Errorf("an old revision: %v, %w", old, err)
	}
	return nil
}

func checkStream(ctx context.Context, c *clientv3.Client) error {
	for i := range 50 {
		if _, err := c.Put(ctx, fmt.Sprintf("compat/go/stream/%02d", i), string(make([]byte, 50<<10))); err != nil {
			return err
		}
	}
	stream, err := c.GetStream(ctx, "compat/go/stream/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	all, err := clientv3.GetStreamToGetResponse(stream)
	if err != nil || len(all.Kvs) != 50 || all.Count != 50 {
		return fmt.Errorf("%d keys, count %d, %w", len(all.Kvs), all.Count, err)
	}
	return nil
}

func checkErrors(ctx context.Context, c *clientv3.Client) error {
	_, err := c.Put(ctx, "", "x")
	if !errors.Is(err, rpctypes.ErrEmptyKey) {
		return fmt.Errorf("an empty key: %w", err)
	}
	_, err = c.Txn(ctx).Then(clientv3.OpPut("compat/go/d", "1"), clientv3.OpPut("compat/go/d", "2")).Commit()
	if !errors.Is(err, rpctypes.ErrDuplicateKey) {
		return fmt.Errorf("a duplicate key: %w", err)
	}
	_, err = c.Get(ctx, "compat/go/a", clientv3.WithRev(1<<40))
	if !errors.Is(err, rpctypes.ErrFutureRev) {
		return fmt.Errorf("a future revision: %w", err)
	}
	return nil
}

func checkWatch(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	events := c.Watch(ctx, "compat/go/w", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithFragment(), clientv3.WithCreatedNotify())
	if r := <-events; !r.Created {
		return fmt.Errorf("instead of the created response: %+v", r)
	}
	for i := range 100 {
		if _, err := c.Put(ctx, "compat/go/w", fmt.Sprint(i)); err != nil {
			return err
		}
	}
	for i := 0; i < 100; {
		r, ok := <-events
		if !ok || r.Err() != nil {
			return fmt.Errorf("the watch ended: %w", r.Err())
		}
		for _, e := range r.Events {
			if string(e.Kv.Value) != fmt.Sprint(i) || (e.PrevKv == nil) != (i == 0) {
				return fmt.Errorf("event %d is %v", i, e)
			}
			i++
		}
	}
	return nil
}

func checkProgress(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := c.Watch(ctx, "compat/go/p", clientv3.WithCreatedNotify())
	<-events
	put, err := c.Put(ctx, "compat/go/elsewhere", "x")
	if err != nil {
		return err
	}
	if err := c.RequestProgress(ctx); err != nil {
		return err
	}
	if r := <-events; !r.IsProgressNotify() || r.Header.Revision < put.Header.Revision {
		return fmt.Errorf("after revision %d: %+v", put.Header.Revision, r)
	}
	return nil
}

func checkLease(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, err := c.Grant(ctx, 5)
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, "compat/go/leased", "x", clientv3.WithLease(g.ID)); err != nil {
		return err
	}
	alive, err := c.KeepAlive(ctx, g.ID)
	if err != nil {
		return err
	}
	if r := <-alive; r == nil || r.TTL != 5 {
		return fmt.Errorf("kept alive: %v", r)
	}
	ttl, err := c.TimeToLive(ctx, g.ID, clientv3.WithAttachedKeys())
	if err != nil || len(ttl.Keys) != 1 || ttl.GrantedTTL != 5 {
		return fmt.Errorf("time to live: %v, %w", ttl, err)
	}
	if _, err := c.Revoke(ctx, g.ID); err != nil {
		return err
	}
	if got, err := c.Get(ctx, "compat/go/leased"); err != nil || len(got.Kvs) != 0 {
		return fmt.Errorf("after the revocation: %v, %w", got, err)
	}
	_, err = c.KeepAliveOnce(ctx, g.ID)
	if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("a renewal after the revocation: %w", err)
	}
	return nil
}

func checkMutex(ctx context.Context, c *clientv3.Client) error {
	s, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer s.Close()
	counter := 0
	failed := make(chan error, 4)
	for range 4 {
		go func() {
			own, err := concurrency.NewSession(c, concurrency.WithTTL(10))
			if err != nil {
				failed <- err
				return
			}
			defer own.Close()
			m := concurrency.NewMutex(own, "compat/go/mutex")
			for range 10 {
				if err := m.Lock(ctx); err != nil {
					failed <- err
					return
				}
				counter++
				if err := m.Unlock(ctx); err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range 4 {
		if err := <-failed; err != nil {
			return err
		}
	}
	if counter != 40 {
		return fmt.Errorf("counted to %d", counter)
	}
	return nil
}

func checkElection(ctx context.Context, c *clientv3.Client) error {
	s, err := concurrency.NewSession(c, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer s.Close()
	e := concurrency.NewElection(s, "compat/go/election")
	if err := e.Campaign(ctx, "me"); err != nil {
		return err
	}
	if l, err := e.Leader(ctx); err != nil || string(l.Kvs[0].Value) != "me" {
		return fmt.Errorf("the leader is %v, %w", l, err)
	}
	return e.Resign(ctx)
}

func checkSTM(ctx context.Context, c *clientv3.Client) error {
	failed := make(chan error, 4)
	for range 4 {
		go func() {
			for range 10 {
				_, err := concurrency.NewSTM(c, func(s concurrency.STM) error {
					n := 0
					_, _ = fmt.Sscan(s.Get("compat/go/stm"), &n) // empty counts as 0
					s.Put("compat/go/stm", fmt.Sprint(n+1))
					return nil
				}, concurrency.WithAbortContext(ctx))
				if err != nil {
					failed <- err
					return
				}
			}
			failed <- nil
		}()
	}
	for range 4 {
		if err := <-failed; err != nil {
			return err
		}
	}
	got, err := c.Get(ctx, "compat/go/stm")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "40" {
		return fmt.Errorf("counted to %v, %w", got, err)
	}
	return nil
}
