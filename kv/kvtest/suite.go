package kvtest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// Options say what the suite may assume about the stores under test.
type Options struct {
	// Limits are those that the store enforces; zero fields mean their
	// defaults. A RequestBytes above 8 MiB is not tried out.
	Limits kv.Limits
	// Advance moves a store's cluster time on and expires what is due. When
	// it is nil, cluster time runs by itself and the suite waits for it.
	Advance func(s kv.Store, d time.Duration)
	// Patience bounds every wait of a case; 0 means a minute. It is long
	// because a wait ends when what is waited for comes: only a failure takes
	// it all.
	Patience time.Duration
	// Seeds is how many random sequences are compared with [Model], each on a
	// store of its own; 0 means 8. Steps is the length of each; 0 means 150.
	Seeds, Steps int
	// FirstSeed is the seed of the first sequence; 0 means 1. A failure
	// prints the seed to put here.
	FirstSeed uint64
}

// Run holds the stores that open makes to the behaviour that package kv
// promises. Each store must be fresh; open closes it with t.Cleanup. A few
// stores are opened, one after the other.
func Run(t *testing.T, open func(t *testing.T) kv.Store, o Options) {
	o.Limits = o.Limits.WithDefaults()
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	groups := []struct {
		name  string
		cases []testCase
	}{
		{"Range", rangeCases()},
		{"Compare", compareCases()},
		{"Txn", txnCases()},
		{"Put", putCases()},
		{"Once", onceCases()},
		{"Bad", badCases(o.Limits)},
		{"Watch", watchCases()},
		{"Lease", leaseCases()},
		{"Context", contextCases()},
		{"Concurrent", concurrentCases()},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			store := open(t)
			for i, c := range g.cases {
				t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, store, o, i)) })
			}
		})
	}
	t.Run("Fresh", func(t *testing.T) { runAlone(t, open, o, freshCases()) })
	t.Run("Compact", func(t *testing.T) { runAlone(t, open, o, compactCases()) })
	t.Run("Random", func(t *testing.T) { runRandom(t, open, o) })
}

// runAlone gives each case a store of its own.
func runAlone(t *testing.T, open func(t *testing.T) kv.Store, o Options, cases []testCase) {
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(newEnv(t, open(t), o, i)) })
	}
}

type testCase struct {
	name string
	run  func(e *env)
}

// env is what a case works with: a store, and a corner of its key space.
type env struct {
	*testing.T
	store  kv.Store
	ctx    context.Context
	opts   Options
	corner string
}

func newEnv(t *testing.T, s kv.Store, o Options, n int) *env {
	ctx, cancel := context.WithTimeout(t.Context(), o.Patience)
	t.Cleanup(cancel)
	return &env{T: t, store: s, ctx: ctx, opts: o, corner: fmt.Sprintf("%02d/", n)}
}

// key gives name's key in the case's corner.
func (e *env) key(name string) []byte { return []byte(e.corner + name) }

// everything gives the range that is the case's whole corner.
func (e *env) everything() kv.Range {
	return kv.Range{Key: []byte(e.corner), End: kv.Prefix([]byte(e.corner))}
}

func (e *env) watchAll() kv.WatchRequest {
	r := e.everything()
	return kv.WatchRequest{Key: r.Key, End: r.End}
}

// put writes a key that must be written.
func (e *env) put(name, value string, opts ...kv.PutOption) kv.PutResult {
	e.Helper()
	res, err := kv.Put(e.ctx, e.store, e.key(name), value, opts...)
	if err != nil {
		e.Fatalf("put %s: %v", name, err)
	}
	return res
}

// puts writes each name with its own name as the value.
func (e *env) puts(names ...string) {
	e.Helper()
	for _, name := range names {
		e.put(name, name)
	}
}

// get reads a key that must be there.
func (e *env) get(name string) kv.KeyValue {
	e.Helper()
	k, err := kv.Get(e.ctx, e.store, e.key(name), kv.Strong)
	if err != nil {
		e.Fatalf("get %s: %v", name, err)
	}
	return k
}

// gone fails if the key is there.
func (e *env) gone(name string) {
	e.Helper()
	if k, err := kv.Get(e.ctx, e.store, e.key(name), kv.Strong); err == nil {
		e.Errorf("%s is there: %s", name, renderKey(k))
	} else {
		e.is(err, kv.ErrKeyNotFound)
	}
}

func (e *env) delete(name string) kv.DeleteResult {
	e.Helper()
	res, err := kv.Delete(e.ctx, e.store, e.key(name))
	if err != nil {
		e.Fatalf("delete %s: %v", name, err)
	}
	return res
}

func (e *env) read(r kv.Range) kv.RangeResult {
	e.Helper()
	res, err := e.store.Range(e.ctx, r)
	if err != nil {
		e.Fatalf("range %s: %v", renderRange(&r), err)
	}
	return res
}

func (e *env) txn(t kv.Txn) kv.TxnResult {
	e.Helper()
	res, err := e.store.Txn(e.ctx, t)
	if err != nil {
		e.Fatalf("txn %s: %v", renderTxn(&t), err)
	}
	return res
}

func (e *env) grant(ttl time.Duration) kv.LeaseID {
	e.Helper()
	res, err := e.store.Grant(e.ctx, kv.Grant{TTL: ttl})
	if err != nil {
		e.Fatalf("grant %v: %v", ttl, err)
	}
	return res.ID
}

// revision gives the store's current revision.
func (e *env) revision() kv.Revision {
	e.Helper()
	return e.read(kv.Range{Key: e.key("revision"), CountOnly: true}).Revision
}

// unmoved runs f, which must not change the store's revision.
func (e *env) unmoved(f func()) {
	e.Helper()
	before := e.revision()
	f()
	if after := e.revision(); after != before {
		e.Errorf("the revision moved from %d to %d", before, after)
	}
}

// is fails unless err matches want and has its code.
func (e *env) is(err error, want *kv.Error) {
	e.Helper()
	if !isError(err, want) {
		e.Errorf("error %v (%v), want %v (%v)", err, kv.CodeOf(err), want, want.Code)
	}
}

// refused runs t, which must fail with want and leave the store as it is.
func (e *env) refused(want *kv.Error, t kv.Txn) {
	e.Helper()
	e.unmoved(func() {
		e.Helper()
		if _, err := e.store.Txn(e.ctx, t); !isError(err, want) {
			e.Errorf("%s: error %v (%v), want %v (%v)", renderTxn(&t), err, kv.CodeOf(err), want, want.Code)
		}
	})
}

func (e *env) equal(what string, got, want any) {
	e.Helper()
	if got != want {
		e.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// names joins the keys of res, without the corner.
func (e *env) names(res kv.RangeResult) string { return e.join(res.KVs) }

func (e *env) join(keys []kv.KeyValue) string {
	var out string
	for i, k := range keys {
		if i > 0 {
			out += " "
		}
		out += string(k.Key[min(len(e.corner), len(k.Key)):])
	}
	return out
}

// advance lets d of cluster time pass where the suite can make it pass; else it
// passes while the suite waits.
func (e *env) advance(d time.Duration) {
	if e.opts.Advance != nil {
		e.opts.Advance(e.store, d)
	}
}

// eventually waits until f is true.
func (e *env) eventually(what string, f func() bool) {
	e.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-e.ctx.Done():
			e.Fatalf("waited too long: %s", what)
		case <-tick.C:
		}
	}
}
