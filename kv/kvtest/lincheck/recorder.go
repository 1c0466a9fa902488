package lincheck

import (
	"context"
	"errors"

	"github.com/concord-kv/concord/kv"
)

// Recorder makes calls on a store and writes them into a history, as one
// client. One goroutine uses it at a time.
type Recorder struct {
	store   kv.KV
	history *History
	client  int
	level   kv.ReadLevel
}

// Recorder returns the recorder of a client on a store. Gets are made at the
// given level, which must be one that promises linearizable reads. h must come
// from [NewHistory].
func (h *History) Recorder(s kv.KV, client int, level kv.ReadLevel) *Recorder {
	return &Recorder{store: s, history: h, client: client, level: level}
}

// Get reads key.
func (r *Recorder) Get(ctx context.Context, key string) (kv.KeyValue, error) {
	o := r.begin(Get, key)
	res, err := r.store.Range(ctx, kv.Range{Key: []byte(key), Level: r.level})
	if err != nil {
		return kv.KeyValue{}, err // a failed read tells nothing
	}
	o.Answer.Revision = res.Revision
	if len(res.KVs) == 0 {
		r.end(o, nil)
		return kv.KeyValue{}, kv.ErrKeyNotFound
	}
	k := res.KVs[0]
	o.Answer.Done, o.Answer.Value, o.Answer.Mod = true, string(k.Value), k.ModRevision
	r.end(o, nil)
	return k, nil
}

// Put writes key.
func (r *Recorder) Put(ctx context.Context, key, value string) (kv.Revision, error) {
	o := r.begin(Put, key)
	o.Value = value
	res, err := kv.Put(ctx, r.store, key, value)
	o.Answer.Revision = res.Revision
	r.end(o, err)
	return res.Revision, err
}

// Delete deletes key and reports whether it was there.
func (r *Recorder) Delete(ctx context.Context, key string) (bool, error) {
	o := r.begin(Delete, key)
	res, err := kv.Delete(ctx, r.store, key)
	o.Answer.Revision, o.Answer.Done = res.Revision, res.Deleted == 1
	r.end(o, err)
	return res.Deleted == 1, err
}

// Swap writes key if its mod revision is expect, where 0 means that it does not
// exist, and reports whether it was.
func (r *Recorder) Swap(ctx context.Context, key, value string, expect kv.Revision) (bool, error) {
	o := r.begin(Swap, key)
	o.Value, o.Expect = value, expect
	res, err := r.store.Txn(ctx, kv.Txn{
		Compare: []kv.Compare{{Key: []byte(key), Target: kv.CompareMod, Number: int64(expect)}},
		Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: []byte(value)}},
	})
	o.Answer.Revision, o.Answer.Done = res.Revision, res.Succeeded
	r.end(o, err)
	return res.Succeeded, err
}

func (r *Recorder) begin(kind Kind, key string) Operation {
	return Operation{Client: r.client, Kind: kind, Key: key, Call: r.history.clock()}
}

// end records o unless err says that it did not happen.
func (r *Recorder) end(o Operation, err error) {
	o.Return = r.history.clock()
	o.Unknown = err != nil
	if err == nil || MayHaveHappened(err) {
		r.history.Add(o)
	}
}

// MayHaveHappened reports whether a write that ended with err may be in the
// store all the same, by the promise of [kv.Store]. Errors that nobody
// classified count as such.
func MayHaveHappened(err error) bool {
	return errors.Is(err, kv.ErrUnavailable) || kv.CodeOf(err) == kv.Internal ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
