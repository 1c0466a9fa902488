package commonapi

import (
	"context"
	"fmt"
	"slices"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func ofLeases() []behaviour {
	return []behaviour{
		{name: "lease", etcd: []string{"lease_test.go/TestLeaseGrantTimeToLive"}, run: doGrant},
		{name: "list of leases", etcd: []string{"lease_test.go/TestLeaseGrantAndList"}, run: doListLeases},
		{name: "lease that is over", etcd: []string{"lease_test.go/TestLeaseGrantTimeToLiveExpired"}, run: doExpire},
		{name: "lease that is renewed", etcd: []string{"lease_test.go/TestLeaseGrantKeepAliveOnce"}, run: doKeepAlive},
		{name: "lease that is revoked", etcd: []string{"lease_test.go/TestLeaseGrantRevoke"}, run: doRevoke},
	}
}

// grant makes a lease.
func grant(t *testing.T, ctx context.Context, c *clientv3.Client, ttl int64) clientv3.LeaseID {
	t.Helper()
	return get[*clientv3.LeaseGrantResponse](t)(c.Grant(ctx, ttl)).ID
}

// left tells how long a lease still lasts.
func left(t *testing.T, ctx context.Context, c *clientv3.Client, id clientv3.LeaseID) int64 {
	t.Helper()
	return get[*clientv3.LeaseTimeToLiveResponse](t)(c.TimeToLive(ctx, id)).TTL
}

func doGrant(t *testing.T, ctx context.Context, w *world) {
	r := get[*clientv3.LeaseTimeToLiveResponse](t)(w.c.TimeToLive(ctx, grant(t, ctx, w.c, 600)))
	if r.GrantedTTL != 600 || r.TTL > 600 || r.TTL < 600-int64(patience.Seconds()) {
		t.Errorf("granted for %d s, %d s are left", r.GrantedTTL, r.TTL)
	}
}

func doListLeases(t *testing.T, ctx context.Context, w *world) {
	var granted []clientv3.LeaseID
	for n := range 4 {
		// A member may not have applied yet what another one has granted.
		w.Until(fmt.Sprint(n, " leases are listed"), func() error {
			var listed []clientv3.LeaseID
			r, err := w.c.Leases(ctx)
			if err != nil {
				return err
			}
			for _, l := range r.Leases {
				listed = append(listed, l.ID)
			}
			if slices.Sort(listed); !slices.Equal(listed, granted) {
				return fmt.Errorf("%x, want %x", listed, granted)
			}
			return nil
		})
		granted = append(granted, grant(t, ctx, w.c, 600))
		slices.Sort(granted)
	}
}

// wantOver waits until a lease is over and its key is gone.
func wantOver(t *testing.T, ctx context.Context, w *world, c *clientv3.Client, id clientv3.LeaseID, key string) {
	t.Helper()
	w.Until("the lease is over", func() error {
		if r, err := c.TimeToLive(ctx, id); err != nil || r.TTL != -1 {
			return fmt.Errorf("%v s are left, %w", r.TTL, err)
		}
		return nil
	})
	if _, ok := value(t, ctx, c, key); ok {
		t.Errorf("%s is still there", key)
	}
}

func doExpire(t *testing.T, ctx context.Context, w *world) {
	id := grant(t, ctx, w.c, 2)
	put(t, ctx, w.c, "leased", "x", clientv3.WithLease(id))
	wantOver(t, ctx, w, w.c, id, "leased")
}

// doKeepAlive renews a lease before it would be over, for longer than it lasts.
func doKeepAlive(t *testing.T, ctx context.Context, w *world) {
	id := grant(t, ctx, w.c, 20)
	w.Until("a second of it has passed", func() error {
		if s := left(t, ctx, w.c, id); s > 18 {
			return fmt.Errorf("%d s are left", s)
		}
		return nil
	})
	if r := get[*clientv3.LeaseKeepAliveResponse](t)(w.c.KeepAliveOnce(ctx, id)); r.TTL != 20 {
		t.Errorf("renewed for %d s", r.TTL)
	}
	if s := left(t, ctx, w.c, id); s < 0 || s > 20 {
		t.Errorf("%d s are left", s)
	}
}

func doRevoke(t *testing.T, ctx context.Context, w *world) {
	id := grant(t, ctx, w.c, 600)
	put(t, ctx, w.c, "leased", "x", clientv3.WithLease(id))
	wantValue(t, ctx, w.c, "leased", "x")
	_, err := w.c.Revoke(ctx, id)
	must(t, err)
	wantOver(t, ctx, w, w.c, id, "leased")
}
