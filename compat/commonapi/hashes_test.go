package commonapi

import (
	"context"
	"fmt"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/concord-kv/concord/compat/processes"
)

func ofHashes() []behaviour {
	return []behaviour{
		{name: "hash", etcd: []string{"endpoint_test.go/TestEndpointHashKV"}, run: doHash},
		{name: "hash after a compaction", etcd: []string{"hashkv_test.go/TestVerifyHashKVAfterCompact"}, run: doHashCompacted},
		{name: "hash after two compactions", etcd: []string{"hashkv_test.go/TestVerifyHashKVAfterTwoCompactsOnTombstone"}, run: func(t *testing.T, ctx context.Context, w *world) {
			h := newHashed(t, ctx, w, "h1")
			h.compact(t, ctx, h.tombstones[0])
			h.compact(t, ctx, h.tombstones[1])
			h.same(t, ctx, h.tombstones[1])
		}},
		{name: "hash after a compaction at the last tombstone", etcd: []string{"hashkv_test.go/TestVerifyHashKVAfterCompactOnLastTombstone"}, run: func(t *testing.T, ctx context.Context, w *world) {
			for _, keys := range [][]string{{"h1"}, {"h1", "h2"}} {
				h := newHashed(t, ctx, w, keys...)
				last := h.tombstones[len(h.tombstones)-1]
				h.compact(t, ctx, last)
				h.same(t, ctx, last)
			}
		}},
		{name: "hash after a defragmentation", etcd: []string{"hashkv_test.go/TestVerifyHashKVAfterCompactAndDefrag"}, run: doHashDefragmented},
	}
}

// hashed is a history of keys that are put and deleted.
type hashed struct {
	w          *world
	tombstones []int64
	last       int64
}

// newHashed puts some keys together forty times, in place of each tenth deletes
// the first of them, and forgets what was before.
func newHashed(t *testing.T, ctx context.Context, w *world, keys ...string) *hashed {
	t.Helper()
	h := &hashed{w: w}
	for i := 1; i <= 40; i++ {
		if i%10 == 0 {
			h.last = get[*clientv3.DeleteResponse](t)(w.c.Delete(ctx, keys[0])).Header.Revision
			h.tombstones = append(h.tombstones, h.last)
			continue
		}
		var ops []clientv3.Op
		for _, key := range keys {
			ops = append(ops, clientv3.OpPut(key, fmt.Sprint(i)))
		}
		h.last = get[*clientv3.TxnResponse](t)(w.c.Txn(ctx).Then(ops...).Commit()).Header.Revision
	}
	return h
}

func (h *hashed) compact(t *testing.T, ctx context.Context, rev int64) {
	t.Helper()
	_, err := h.w.c.Compact(ctx, rev, clientv3.WithCompactPhysical())
	must(t, err)
}

// at is every member's hash at a revision.
func (h *hashed) at(ctx context.Context, rev int64) (all []uint32, err error) {
	for _, endpoint := range h.w.Endpoints() {
		r, err := h.w.c.HashKV(ctx, endpoint, rev)
		if err != nil {
			return nil, err
		}
		all = append(all, r.Hash)
	}
	return all, nil
}

// same waits until all members have one hash, at each revision from one on.
func (h *hashed) same(t *testing.T, ctx context.Context, from int64) {
	t.Helper()
	for rev := from; rev <= h.last; rev++ {
		h.w.Until(fmt.Sprint("the members have one hash at revision ", rev), func() error {
			all, err := h.at(ctx, rev)
			if err != nil {
				return err
			}
			for _, hash := range all {
				if hash != all[0] || hash == 0 {
					return fmt.Errorf("%x", all)
				}
			}
			return nil
		})
	}
}

func doHash(t *testing.T, ctx context.Context, w *world) {
	h := &hashed{w: w}
	for i := range 10 {
		h.last = put(t, ctx, w.c, fmt.Sprint("h", i), fmt.Sprint(i)).Header.Revision
	}
	h.same(t, ctx, h.last)
	for _, endpoint := range w.Endpoints() {
		r := get[*clientv3.HashKVResponse](t)(w.c.HashKV(ctx, endpoint, 0))
		if r.HashRevision != h.last || r.Header.Revision != h.last {
			t.Errorf("the hash is of revision %d, at %d", r.HashRevision, h.last)
		}
	}
}

func doHashCompacted(t *testing.T, ctx context.Context, w *world) {
	for _, keys := range [][]string{{"h1"}, {"h1", "h2"}} {
		for _, between := range []bool{false, true} {
			h := newHashed(t, ctx, w, keys...)
			rev := h.tombstones[0]
			if between {
				rev = (h.tombstones[0] + h.tombstones[1]) / 2
			}
			h.compact(t, ctx, rev)
			h.same(t, ctx, rev)
		}
	}
}

// doHashDefragmented: etcd goes on answering, at the revision of a compaction,
// what it hashed before; Concord answers what it then has.
func doHashDefragmented(t *testing.T, ctx context.Context, w *world) {
	if w.Server == processes.Etcd {
		w = w.fresh(t)
	}
	h := newHashed(t, ctx, w, "h1")
	rev := h.tombstones[0]
	if w.Server == processes.Concord {
		h.compact(t, ctx, rev)
	}
	h.same(t, ctx, rev)
	before := get[[]uint32](t)(h.at(ctx, rev))
	if w.Server == processes.Etcd {
		h.compact(t, ctx, rev)
	}
	for _, endpoint := range w.Endpoints() {
		_, err := w.c.Defragment(ctx, endpoint)
		must(t, err)
	}
	h.same(t, ctx, rev)
	if after := get[[]uint32](t)(h.at(ctx, rev)); after[0] != before[0] {
		t.Errorf("the hash was %x and is %x", before[0], after[0])
	}
}
