package migrate

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/concord-kv/concord/internal/etcdfile"
	"github.com/concord-kv/concord/kv"
)

// Source is what keys and leases are copied from, as it is at one revision.
type Source interface {
	// Revision is that revision.
	Revision() kv.Revision
	// Count counts the keys of a range.
	Count(ctx context.Context, key, end []byte) (int64, error)
	// Page returns at most limit keys from the beginning of a range, and
	// whether there are more.
	Page(ctx context.Context, r *kv.Range) (kvs []kv.KeyValue, more bool, err error)
	// Leases returns the leases that there are now, by id.
	Leases(ctx context.Context) ([]kv.LeaseResult, error)
}

// live is a running store.
type live struct {
	kv.Store
	rev kv.Revision
}

// Live makes a source of a running store, at its present revision. It fails when
// that is compacted before all is read.
func Live(ctx context.Context, s kv.Store) (Source, error) {
	res, err := s.Range(ctx, kv.Range{Key: []byte{0}, KeysOnly: true})
	if err != nil {
		return nil, err
	}
	return &live{s, res.Revision}, nil
}

func (l *live) Revision() kv.Revision { return l.rev }

func (l *live) Count(ctx context.Context, key, end []byte) (int64, error) {
	res, err := l.Range(ctx, kv.Range{Key: key, End: end, Revision: l.rev, CountOnly: true})
	return res.Count, err
}

func (l *live) Page(ctx context.Context, r *kv.Range) ([]kv.KeyValue, bool, error) {
	q := *r
	q.Revision = l.rev
	res, err := l.Range(ctx, q)
	if errors.Is(err, kv.ErrCompacted) {
		err = kv.Errorf(kv.OutOfRange, "the source compacted revision %d while it was read; copy again: what was copied is kept: %w", l.rev, err)
	}
	return res.KVs, res.More, err
}

// together is how many calls are under way at once where each is for one lease.
const together = 32

func (l *live) Leases(ctx context.Context) ([]kv.LeaseResult, error) {
	list, err := l.Store.Leases(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]kv.LeaseResult, len(list.IDs))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(together)
	for i, id := range list.IDs {
		group.Go(func() (err error) {
			found[i], err = l.TimeToLive(ctx, id, false)
			if errors.Is(err, kv.ErrLeaseNotFound) {
				err = nil // it ended since
			}
			return err
		})
	}
	err = group.Wait()
	return slices.DeleteFunc(found, func(l kv.LeaseResult) bool { return l.ID == 0 }), err
}

// file is a file of etcd.
type file struct{ *etcdfile.File }

// FromFile makes a source of a file, which must stay open.
func FromFile(f *etcdfile.File) Source { return file{f} }

func (f file) Revision() kv.Revision { return f.File.Revision }

func (f file) bounds(key, end []byte) (from, to int) {
	from, to = f.Search(key), f.Len()
	switch {
	case len(end) == 0:
		to = f.Search(append(bytes.Clone(key), 0))
	case !kv.FromKey(end):
		to = f.Search(end)
	}
	return from, max(from, to)
}

func (f file) Count(_ context.Context, key, end []byte) (int64, error) {
	from, to := f.bounds(key, end)
	return int64(to - from), nil
}

func (f file) Page(_ context.Context, r *kv.Range) (kvs []kv.KeyValue, more bool, err error) {
	from, to := f.bounds(r.Key, r.End)
	until := min(to, from+int(r.Limit))
	for i := from; i < until; i++ {
		k, err := f.Key(i)
		if err != nil {
			return nil, false, err
		}
		kvs = append(kvs, k)
	}
	return kvs, until < to, nil
}

func (f file) Leases(context.Context) ([]kv.LeaseResult, error) { return f.File.Leases, nil }

// cursor goes through a range in pages of about a megabyte.
type cursor struct {
	page  func(context.Context, *kv.Range) ([]kv.KeyValue, bool, error)
	next  kv.Range
	some  []kv.KeyValue
	ended bool
}

// Bounds on a page.
const (
	pageBytes = 1 << 20
	pageKeys  = 1000
	firstPage = 64
)

func newCursor(key, end []byte, page func(context.Context, *kv.Range) ([]kv.KeyValue, bool, error)) *cursor {
	return &cursor{page: page, next: kv.Range{Key: key, End: end, Limit: firstPage}}
}

// peek returns the next key, or nil at the end.
func (c *cursor) peek(ctx context.Context) (*kv.KeyValue, error) {
	for len(c.some) == 0 {
		if c.ended {
			return nil, nil
		}
		kvs, more, err := c.page(ctx, &c.next)
		if err != nil {
			return nil, err
		}
		c.some, c.ended = kvs, !more
		if n := int64(len(kvs)); n > 0 {
			size := int64(1)
			for i := range kvs {
				size += int64(len(kvs[i].Key) + len(kvs[i].Value))
			}
			c.next.Key = append(bytes.Clone(kvs[n-1].Key), 0)
			c.next.Limit = max(1, min(pageKeys, 2*n, pageBytes*n/size))
		}
	}
	return &c.some[0], nil
}

func (c *cursor) pop() { c.some = c.some[1:] }
