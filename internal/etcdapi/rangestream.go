package etcdapi

import (
	"bytes"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord/kv"
)

// firstChunk is how many keys the first chunk of a range stream has at most, as
// in etcd 3.7. Later ones double or halve towards maxChunk bytes.
const firstChunk = 10

// RangeStream answers a range in chunks, all at the revision of the first. Only
// the last has header, more and count.
func (s *kvServer) RangeStream(r *pb.RangeRequest, stream pb.KV_RangeStreamServer) error {
	x, err := extensionsOf(r)
	if err != nil {
		return err
	}
	if err := s.checkLeader(stream.Context()); err != nil {
		return err
	}
	if err := checkRangeStream(r); err != nil {
		return err
	}
	q := toRange(r, x)
	// A target without an order counts for nothing here.
	q.Sort, q.Limit, q.KeysOnly = kv.Sort{}, max(r.Limit, 0), r.KeysOnly
	if x.has1001 {
		q.Level = kv.ReadLevel(min(x.n1001, 255))
	}
	if !q.CountOnly {
		return s.rangeChunks(stream, q, x)
	}
	res, err := s.store.Range(stream.Context(), q)
	if err != nil {
		return toStatus(err)
	}
	return stream.Send(&pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{
		Header: s.header(res.Header, x), Count: res.Count,
	}})
}

func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	ascending := r.SortTarget == pb.RangeRequest_KEY && r.SortOrder == pb.RangeRequest_ASCEND
	if r.SortOrder != pb.RangeRequest_NONE && !ascending {
		return errNoSort
	}
	if r.MinModRevision|r.MaxModRevision|r.MinCreateRevision|r.MaxCreateRevision != 0 {
		return errNoFilters
	}
	return nil
}

func (s *kvServer) rangeChunks(stream pb.KV_RangeStreamServer, q kv.Range, x extensions) error {
	left := q.Limit
	if left == 0 {
		left = math.MaxInt64
	}
	q.Limit = min(firstChunk, left)
	var first kv.RangeResult
	for {
		res, err := s.store.Range(stream.Context(), q)
		if err != nil {
			return toStatus(err)
		}
		if first.Revision == 0 {
			// What is in the first chunk's state is in this member's from
			// then on, so the next chunks need no confirmation.
			first = kv.RangeResult{Header: res.Header, Count: res.Count}
			q.Level, q.NoCount = kv.Eventual, true
			if q.Revision == 0 {
				q.Revision = res.Revision
			}
		}
		if q.KeysOnly && !x.wanted {
			dropValues(res.KVs, false)
		}
		left -= int64(len(res.KVs))
		out := &pb.RangeResponse{Kvs: fromKVs(res.KVs, x)}
		done := !res.More || left == 0
		if done {
			out.Header, out.More, out.Count = s.header(first.Header, x), res.More, first.Count
		}
		if err := stream.Send(&pb.RangeStreamResponse{RangeResponse: out}); err != nil || done {
			return err
		}
		q.Key = append(bytes.Clone(res.KVs[len(res.KVs)-1].Key), 0)
		q.Limit = min(nextLimit(q.Limit, sizeOf(res.KVs)), left)
	}
}

// nextLimit steers the size of chunks to between a half and twice maxChunk.
func nextLimit(limit int64, size int) int64 {
	switch {
	case size < maxChunk/2:
		return limit * 2
	case size > maxChunk*2:
		return max(limit/2, 1)
	}
	return limit
}

// sizeOf is about the encoded size of kvs.
func sizeOf(kvs []kv.KeyValue) (n int) {
	const numbers = 32 // revisions, version, lease, lengths and tags
	for i := range kvs {
		n += len(kvs[i].Key) + len(kvs[i].Value) + numbers
	}
	return n
}
