package mvcc

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// packBytes is about how much of a result shares one allocation.
const packBytes = 1 << 20

// Range answers r as etcd does: Count is all keys of the range at that revision,
// whatever the limit and the revision bounds, or 0 with NoCount; then those bounds, the sort (none
// means ascending where the target is not the key), the limit. Header.Revision
// is the view's, Header.Time is left to the caller. Keys and values are copies.
//
// It returns a [kv.CompactedError], [kv.ErrFutureRevision] or [kv.ErrClosed].
func (v View) Range(r *kv.Range) (kv.RangeResult, error) {
	result := kv.RangeResult{Header: kv.Header{Revision: v.rev}}
	rev := r.Revision
	switch {
	case !v.open:
		return result, kv.ErrClosed
	case rev > v.rev:
		return result, kv.ErrFutureRevision
	case rev <= 0:
		rev = v.rev
	case rev < v.compacted:
		return result, &kv.CompactedError{Compacted: v.compacted}
	}
	s := v.s
	filtered := r.MinMod|r.MaxMod|r.MinCreate|r.MaxCreate != 0
	sorted := r.Sort.By != kv.SortByKey || r.Sort.Order == kv.Descending
	var all []found
	s.scan(r.Key, r.End, rev, func(found []found) bool {
		if !r.NoCount {
			result.Count += int64(len(found))
		}
		switch {
		case r.CountOnly:
		case filtered:
			for _, f := range found {
				if within(r, s.version(f.version)) {
					all = append(all, f)
				}
			}
		case sorted || r.Limit <= 0:
			all = append(all, found...)
		default: // one more than asked for, to know that there is more
			if room := r.Limit - int64(len(all)); room < int64(len(found)) {
				found = found[:room+1]
			}
			all = append(all, found...)
			return !r.NoCount || int64(len(all)) <= r.Limit
		}
		return true
	})
	if sorted {
		s.sort(all, r.Sort)
	}
	if r.Limit > 0 && int64(len(all)) > r.Limit {
		all, result.More = all[:r.Limit], true
	}
	if len(all) > 0 {
		result.KVs = s.copyOut(all, r.KeysOnly)
	}
	return result, nil
}

func within(r *kv.Range, v version) bool {
	mod := v.mod()
	if r.MinMod != 0 && mod < r.MinMod || r.MaxMod != 0 && mod > r.MaxMod {
		return false
	}
	if r.MinCreate|r.MaxCreate == 0 {
		return true
	}
	create := v.fields().create
	return (r.MinCreate == 0 || create >= r.MinCreate) && (r.MaxCreate == 0 || create <= r.MaxCreate)
}

// sort orders what scan found; ties keep key order.
func (s *Store) sort(all []found, by kv.Sort) {
	if by.By == kv.SortByKey {
		slices.Reverse(all)
		return
	}
	compare := func(a, b found) int {
		x, y := s.version(a.version), s.version(b.version)
		switch by.By {
		case kv.SortByMod:
			return cmp.Compare(x.mod(), y.mod())
		case kv.SortByVersion:
			return cmp.Compare(x.fields().version, y.fields().version)
		case kv.SortByCreate:
			return cmp.Compare(x.fields().create, y.fields().create)
		}
		return bytes.Compare(x.fields().value, y.fields().value)
	}
	if by.Order == kv.Descending {
		slices.SortStableFunc(all, func(a, b found) int { return compare(b, a) })
		return
	}
	slices.SortStableFunc(all, compare)
}

// copyOut copies records, a megabyte an allocation.
func (s *Store) copyOut(all []found, keysOnly bool) []kv.KeyValue {
	kvs := make([]kv.KeyValue, len(all))
	for from := 0; from < len(all); {
		to, size := from, 0
		for ; to < len(all) && (to == from || size < packBytes); to++ {
			rec := record(s.key(all[to].key), s.version(all[to].version))
			if keysOnly {
				rec.Value = nil
			}
			kvs[to] = rec.KeyValue
			size += len(rec.Key) + len(rec.Value)
		}
		buf := make([]byte, 0, size)
		for i := from; i < to; i++ {
			kvs[i].Key, buf = pack(buf, kvs[i].Key)
			if !keysOnly {
				kvs[i].Value, buf = pack(buf, kvs[i].Value)
			}
		}
		from = to
	}
	return kvs
}

// pack appends b to buf, which has room, and returns the copy.
func pack(buf, b []byte) (copied, rest []byte) {
	n := len(buf)
	buf = append(buf, b...)
	return buf[n:len(buf):len(buf)], buf
}
