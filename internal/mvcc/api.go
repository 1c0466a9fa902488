package mvcc

import (
	"github.com/concord-kv/concord/kv"
)

// Options configures a [Store]. The zero value is good.
type Options struct {
	// Keys is how many keys are expected; the hash is sized for them. 0 means
	// a small one that grows.
	Keys int
}

// Record is a key as it stands at some revision. Inside a transaction its Key
// and Value lie in the store's pages: they must not be changed, and must not be
// used after the next Tx.Commit, CompactStep, Load or Close. Clone copies them.
type Record struct{ kv.KeyValue }

// Clone returns a copy that the caller owns.
func (r Record) Clone() kv.KeyValue {
	buf := make([]byte, len(r.Key)+len(r.Value))
	n := copy(buf, r.Key)
	copy(buf[n:], r.Value)
	out := r.KeyValue
	out.Key, out.Value = buf[:n:n], buf[n:]
	return out
}

// Stats says what a store holds. All sizes are bytes.
type Stats struct {
	// Keys counts the keys that exist at the current revision.
	Keys int64
	// Versions counts version records, tombstones and history included.
	Versions int64
	// LiveBytes are the keys and values that exist at the current revision,
	// HistoryBytes what superseded versions and tombstones take.
	LiveBytes, HistoryBytes int64
	// MemoryBytes is what the pages and tables outside the Go heap take.
	MemoryBytes int64
}
