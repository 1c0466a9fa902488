package kv

// Range asks for keys.
//
// Key and End select them: with a nil or empty End just Key; else every key k
// with Key <= k < End; with an End of one zero byte every key from Key on.
// [Prefix] gives the End for all keys that start with Key.
type Range struct {
	Key, End []byte
	// Revision to read at; 0 means the latest.
	Revision Revision
	// Limit bounds the keys returned, after filters and sorting; 0 means no
	// limit.
	Limit int64
	Sort  Sort
	// The bounds on revisions; 0 means no bound. Count ignores them.
	MinMod, MaxMod, MinCreate, MaxCreate Revision
	// KeysOnly leaves values out; CountOnly leaves the keys out too.
	KeysOnly, CountOnly bool
	// NoCount says that Count is not wanted: it may be left 0. With a Limit a
	// store then need not look at the rest of the range.
	NoCount bool
	Level   ReadLevel
}

// SortTarget is what a range is sorted by.
type SortTarget uint8

// The sort targets. Ties keep key order.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreate
	SortByMod
	SortByValue
)

// SortOrder is the direction of a sort.
type SortOrder uint8

// The sort orders. NoSort means key order for SortByKey and ascending for the
// other targets, as in etcd.
const (
	NoSort SortOrder = iota
	Ascending
	Descending
)

// Sort orders the keys of a range; the zero value is key order.
type Sort struct {
	By    SortTarget
	Order SortOrder
}

// RangeResult answers a [Range].
type RangeResult struct {
	Header
	KVs []KeyValue
	// More says that Limit cut the result.
	More bool
	// Count is how many keys the range holds at that revision, whatever the
	// limit and the revision bounds; perhaps 0 when NoCount was set.
	Count int64
}

// Prefix returns the End of the range of all keys that start with prefix. For
// an empty prefix, and for one of 0xff bytes only, that is "from key on".
func Prefix(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := append([]byte(nil), prefix[:i+1]...)
			end[i]++
			return end
		}
	}
	return []byte{0}
}

// FromKey reports whether end means "every key from Key on".
func FromKey(end []byte) bool { return len(end) == 1 && end[0] == 0 }

// InRange reports whether k lies in the range that key and end select.
func InRange(k, key, end []byte) bool {
	switch {
	case len(end) == 0:
		return string(k) == string(key)
	case string(k) < string(key):
		return false
	default:
		return FromKey(end) || string(k) < string(end)
	}
}
