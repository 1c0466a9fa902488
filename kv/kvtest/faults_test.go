package kvtest_test

import (
	"context"
	"errors"
	"iter"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// faulty is the model with one fault. Each field, when set, stands for a method.
type faulty struct {
	*kvtest.Model
	read    func(m *kvtest.Model, r kv.Range) (kv.RangeResult, error)
	txn     func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error)
	watch   func(m *kvtest.Model, w kv.WatchRequest) kv.WatchRequest
	batch   func(w kv.WatchRequest, b kv.WatchBatch) (kv.WatchBatch, bool)
	compact func(m *kvtest.Model, rev kv.Revision) (kv.Header, error)
}

func (f faulty) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	if f.read != nil && ctx.Err() == nil {
		return f.read(f.Model, r)
	}
	return f.Model.Range(ctx, r)
}

func (f faulty) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	if f.txn != nil && ctx.Err() == nil {
		return f.txn(f.Model, t)
	}
	return f.Model.Txn(ctx, t)
}

func (f faulty) Compact(ctx context.Context, rev kv.Revision) (kv.Header, error) {
	if f.compact != nil && ctx.Err() == nil {
		return f.compact(f.Model, rev)
	}
	return f.Model.Compact(ctx, rev)
}

func (f faulty) Watch(ctx context.Context, w kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	if f.watch != nil {
		w = f.watch(f.Model, w)
	}
	return func(yield func(kv.WatchBatch, error) bool) {
		for b, err := range f.Model.Watch(ctx, w) {
			keep := true
			if f.batch != nil && err == nil {
				b, keep = f.batch(w, b)
			}
			if keep && !yield(b, err) {
				return
			}
		}
	}
}

var background = context.Background()

// faults are bugs that stores have had, or that are easily made.
var faults = map[string]faulty{
	"count obeys the limit": {read: func(m *kvtest.Model, r kv.Range) (kv.RangeResult, error) {
		res, err := m.Range(background, r)
		if r.Limit > 0 {
			res.Count = min(res.Count, r.Limit)
		}
		return res, err
	}},
	"limit before bounds": {read: func(m *kvtest.Model, r kv.Range) (kv.RangeResult, error) {
		if r.MinMod == 0 || r.Limit == 0 {
			return m.Range(background, r)
		}
		low := r.MinMod
		r.MinMod = 0
		res, err := m.Range(background, r)
		kept := res.KVs[:0]
		for _, k := range res.KVs {
			if k.ModRevision >= low {
				kept = append(kept, k)
			}
		}
		res.KVs = kept
		return res, err
	}},
	"header of an old revision": {read: func(m *kvtest.Model, r kv.Range) (kv.RangeResult, error) {
		res, err := m.Range(background, r)
		if r.Revision != 0 {
			res.Revision = r.Revision
		}
		return res, err
	}},
	"read-only transactions take a revision": {txn: func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error) {
		if t.ReadOnly() {
			kv.Put(background, m, "bump", "")
		}
		return m.Txn(background, t)
	}},
	"failed transactions take a revision": {txn: func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error) {
		res, err := m.Txn(background, t)
		if err != nil {
			kv.Put(background, m, "bump", "")
		}
		return res, err
	}},
	"retries run twice": {txn: func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error) {
		t.ID = kv.RequestID{}
		return m.Txn(background, t)
	}},
	"previous is not given": {txn: func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error) {
		res, err := m.Txn(background, t)
		for i := range res.Ops {
			res.Ops[i].Prev = nil
		}
		return res, err
	}},
	"TTLs are ignored": {txn: func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error) {
		for i := range t.Success {
			if op := &t.Success[i]; op.TTL > 0 && op.TTL <= kv.MaxTTL {
				op.TTL = 0
			}
		}
		return m.Txn(background, t)
	}},
	"errors lose their kind": {txn: func(m *kvtest.Model, t kv.Txn) (kv.TxnResult, error) {
		res, err := m.Txn(background, t)
		if err != nil {
			err = errors.New(err.Error())
		}
		return res, err
	}},
	"a future watch gets old events": {watch: func(m *kvtest.Model, w kv.WatchRequest) kv.WatchRequest {
		if now, _ := m.Range(background, kv.Range{Key: []byte("x")}); w.Start > now.Revision {
			w.Start = 0
		}
		return w
	}},
	"a watch starts one late": {watch: func(_ *kvtest.Model, w kv.WatchRequest) kv.WatchRequest {
		if w.Start > 0 {
			w.Start++
		}
		return w
	}},
	"filters are ignored": {watch: func(_ *kvtest.Model, w kv.WatchRequest) kv.WatchRequest {
		w.NoPut, w.NoDelete = false, false
		return w
	}},
	"a watch misses deletes": {batch: func(_ kv.WatchRequest, b kv.WatchBatch) (kv.WatchBatch, bool) {
		return b, len(b.Events) == 0 || b.Events[0].Type == kv.PutEvent
	}},
	"a revision is split": {batch: func(_ kv.WatchRequest, b kv.WatchBatch) (kv.WatchBatch, bool) {
		b.Events = b.Events[:min(1, len(b.Events))]
		return b, true
	}},
	"marks run ahead": {batch: func(_ kv.WatchRequest, b kv.WatchBatch) (kv.WatchBatch, bool) {
		if len(b.Events) == 0 {
			b.Revision += 3
		}
		return b, true
	}},
	"no marks": {batch: func(_ kv.WatchRequest, b kv.WatchBatch) (kv.WatchBatch, bool) {
		return b, len(b.Events) > 0
	}},
	"compaction goes one too far": {compact: func(m *kvtest.Model, rev kv.Revision) (kv.Header, error) {
		if h, err := m.Compact(background, rev+1); err == nil {
			return h, nil
		}
		return m.Compact(background, rev)
	}},
	"compaction does nothing": {compact: func(m *kvtest.Model, rev kv.Revision) (kv.Header, error) {
		now, err := m.Range(background, kv.Range{Key: []byte("x")})
		return now.Header, err
	}},
}

// faultVariable names the fault that a second run of this test binary has.
const faultVariable = "KVTEST_FAULT"

// TestSuiteOnFault is the suite on a faulty store; without a fault it passes.
func TestSuiteOnFault(t *testing.T) {
	fault, faulted := faults[os.Getenv(faultVariable)]
	o := kvtest.Options{Advance: func(s kv.Store, d time.Duration) { s.(faulty).Advance(d) }}
	if faulted {
		o.Patience = 2 * time.Second // it may make a case wait for what never comes
	}
	kvtest.Run(t, func(*testing.T) kv.Store {
		s := fault
		s.Model = kvtest.NewModel(kv.Limits{})
		return s
	}, o)
}

// The suite must fail on each of the faults.
func TestSuiteFindsFaults(t *testing.T) {
	for name := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestSuiteOnFault$", "-test.failfast")
			cmd.Env = append(os.Environ(), faultVariable+"="+name)
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || !strings.Contains(string(out), "--- FAIL: TestSuiteOnFault/") {
				t.Fatalf("the suite did not find it: %v\n%s", err, out)
			}
		})
	}
}
