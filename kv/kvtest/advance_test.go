package kvtest_test

import (
	"errors"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// What is due goes by deadline: leases one by one, then the keys together.
func TestAdvanceExpiresInOrder(t *testing.T) {
	ctx, m := t.Context(), kvtest.NewModel(kv.Limits{})
	for _, g := range []kv.Grant{{ID: 1, TTL: 2 * time.Second}, {ID: 2, TTL: time.Second}, {ID: 3, TTL: time.Minute}} {
		if _, err := m.Grant(ctx, g); err != nil {
			t.Fatal(err)
		}
	}
	put := func(key string, opts ...kv.PutOption) {
		if _, err := kv.Put(ctx, m, key, "", opts...); err != nil {
			t.Fatal(err)
		}
	}
	put("b1", kv.WithLease(1))
	put("a1", kv.WithLease(1))
	put("a2", kv.WithLease(2))
	put("a3", kv.WithLease(3))
	put("ttl2", kv.WithTTL(time.Second))
	put("ttl1", kv.WithTTL(2*time.Second))
	put("both", kv.WithLease(2), kv.WithTTL(time.Second))
	next, stop := iter.Pull2(m.Watch(ctx, kv.WatchRequest{Key: []byte{0}, End: []byte{0}}))
	defer stop()
	next()
	m.Advance(2*time.Second - 1) // cluster time counts whole milliseconds, rounded up
	for _, want := range []string{"[a2 both]", "[a1 b1]", "[ttl1 ttl2]"} {
		batch, err, _ := next()
		var keys []string
		for _, ev := range batch.Events {
			keys = append(keys, string(ev.KV.Key))
		}
		if fmt.Sprint(keys) != want || err != nil {
			t.Errorf("expired %v, %v, want %v", keys, err, want)
		}
	}
	left, err := m.Leases(ctx)
	if err != nil || fmt.Sprint(left.IDs) != "[0000000000000003]" || left.Time != 2000 {
		t.Errorf("left %v at %d, %v", left.IDs, left.Time, err)
	}
}

func TestKeepAliveMovesTheDeadline(t *testing.T) {
	ctx, m := t.Context(), kvtest.NewModel(kv.Limits{})
	if _, err := m.Grant(ctx, kv.Grant{ID: 1, TTL: time.Second}); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		m.Advance(900 * time.Millisecond)
		if res, err := m.KeepAlive(ctx, 1); err != nil || res.Left != time.Second {
			t.Fatalf("keep alive: %v left, %v", res.Left, err)
		}
	}
	m.Advance(time.Second)
	if _, err := m.KeepAlive(ctx, 1); !errors.Is(err, kv.ErrLeaseNotFound) {
		t.Errorf("keep alive after the deadline: %v", err)
	}
}

// A client that is silent for longer than five minutes is forgotten.
func TestResultsAreForgotten(t *testing.T) {
	ctx, m := t.Context(), kvtest.NewModel(kv.Limits{})
	txn := kv.Txn{
		ID:      kv.RequestID{Client: [16]byte{1}, Seq: 1},
		Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("a")}},
	}
	for i, want := range []kv.Revision{2, 2, 3} {
		if i > 0 {
			m.Advance(2*time.Minute + time.Duration(i-1)*4*time.Minute)
		}
		if res, err := m.Txn(ctx, txn); err != nil || res.Revision != want {
			t.Errorf("call %d: revision %d, %v, want %d", i, res.Revision, err, want)
		}
	}
}
