package kvtest

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// rangeIn answers r from keys, which stand at revision seen. r.Revision was
// checked before.
func (m *Model) rangeIn(keys map[string]kv.KeyValue, seen kv.Revision, r *kv.Range) kv.RangeResult {
	if r.Revision != 0 {
		keys = m.at(r.Revision)
	}
	found := selectKeys(keys, r.Key, r.End)
	res := kv.RangeResult{
		Header: kv.Header{Revision: seen, Time: m.now},
		Count:  int64(len(found)),
	}
	if r.CountOnly {
		return res
	}
	found = slices.DeleteFunc(found, func(k kv.KeyValue) bool { return outside(r, k) })
	sortKeys(found, r.Sort)
	if r.Limit > 0 && int64(len(found)) > r.Limit {
		found, res.More = found[:r.Limit], true
	}
	for _, k := range found {
		k = k.Clone()
		if r.KeysOnly {
			k.Value = nil
		}
		res.KVs = append(res.KVs, k)
	}
	return res
}

// selectKeys returns the keys in [key, end), in order.
func selectKeys(keys map[string]kv.KeyValue, key, end []byte) []kv.KeyValue {
	var found []kv.KeyValue
	for _, k := range keys {
		if kv.InRange(k.Key, key, end) {
			found = append(found, k)
		}
	}
	slices.SortFunc(found, func(a, b kv.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return found
}

// outside reports whether r's bounds on revisions leave k out.
func outside(r *kv.Range, k kv.KeyValue) bool {
	return r.MinMod != 0 && k.ModRevision < r.MinMod ||
		r.MaxMod != 0 && k.ModRevision > r.MaxMod ||
		r.MinCreate != 0 && k.CreateRevision < r.MinCreate ||
		r.MaxCreate != 0 && k.CreateRevision > r.MaxCreate
}

func sortKeys(keys []kv.KeyValue, s kv.Sort) {
	slices.SortStableFunc(keys, func(a, b kv.KeyValue) int {
		c := comparePart(a, b, s.By)
		if s.Order == kv.Descending {
			return -c
		}
		return c
	})
}

func comparePart(a, b kv.KeyValue, by kv.SortTarget) int {
	switch by {
	case kv.SortByVersion:
		return cmp.Compare(a.Version, b.Version)
	case kv.SortByCreate:
		return cmp.Compare(a.CreateRevision, b.CreateRevision)
	case kv.SortByMod:
		return cmp.Compare(a.ModRevision, b.ModRevision)
	case kv.SortByValue:
		return bytes.Compare(a.Value, b.Value)
	default:
		return bytes.Compare(a.Key, b.Key)
	}
}
