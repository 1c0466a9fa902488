package kv_test

import (
	"errors"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// The shorthands are transactions of one operation, for strings and bytes.
func TestShorthands(t *testing.T) {
	ctx, s := t.Context(), kvtest.NewModel(kv.Limits{})
	lease, err := s.Grant(ctx, kv.Grant{TTL: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Put(ctx, s, "a", []byte("1"), kv.WithLease(lease.ID), kv.WithTTL(time.Minute)); err != nil {
		t.Fatal(err)
	}
	k, err := kv.Get(ctx, s, []byte("a"), kv.Strong)
	if err != nil || string(k.Value) != "1" || k.Lease != lease.ID || k.Expires != 60_000 {
		t.Fatalf("got %+v, %v", k, err)
	}
	res, err := kv.Put(ctx, s, "a", "2", kv.WithPrev())
	if err != nil || res.Prev == nil || string(res.Prev.Value) != "1" || res.Revision != 3 {
		t.Fatalf("put gave %+v, %v", res, err)
	}
	if _, err := kv.Get(ctx, s, "b", kv.Strong); !errors.Is(err, kv.ErrKeyNotFound) {
		t.Errorf("get of a missing key: %v", err)
	}
	if _, err := kv.Get(ctx, s, "", kv.Strong); !errors.Is(err, kv.ErrEmptyKey) {
		t.Errorf("get of no key: %v", err)
	}
	if _, err := kv.Put(ctx, s, "a", "x", kv.WithLease(99)); !errors.Is(err, kv.ErrLeaseNotFound) {
		t.Errorf("put with a missing lease: %v", err)
	}
	gone, err := kv.DeleteRange(ctx, s, kv.Op{Key: []byte("a"), End: []byte("b"), PrevKV: true})
	if err != nil || gone.Deleted != 1 || string(gone.Prev[0].Value) != "2" {
		t.Errorf("delete gave %+v, %v", gone, err)
	}
	if gone, err := kv.Delete(ctx, s, "a"); err != nil || gone.Deleted != 0 {
		t.Errorf("second delete gave %+v, %v", gone, err)
	}
	if _, err := kv.Delete(ctx, s, ""); !errors.Is(err, kv.ErrEmptyKey) {
		t.Errorf("delete of no key: %v", err)
	}
}
