package kvtest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord/kv"
)

// runRandom compares stores with the model over random sequences of calls.
func runRandom(t *testing.T, open func(t *testing.T) kv.Store, o Options) {
	if o.Seeds == 0 {
		o.Seeds = 8
	}
	if o.Steps == 0 {
		o.Steps = 150
	}
	first := max(o.FirstSeed, 1)
	for seed := first; seed < first+uint64(o.Seeds); seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			d := &differential{
				t: t, seed: seed, patience: o.Patience, model: NewModel(o.Limits), store: open(t),
				gen: generator{rng: rand.New(rand.NewPCG(seed, 0)), limits: o.Limits},
			}
			d.run(o.Steps)
		})
	}
}

// step is one call: what it is called in messages, and how it runs on a store
// and what that answers, as text.
type step struct {
	name string
	run  func(ctx context.Context, s kv.Store) string
}

// differential runs one sequence of steps on a store and on the model.
type differential struct {
	t        *testing.T
	seed     uint64
	patience time.Duration
	model    *Model
	store    kv.Store
	gen      generator
	// done are the names of the steps so far.
	done []string
}

func (d *differential) run(steps int) {
	ctx, cancel := context.WithTimeout(d.t.Context(), d.patience)
	defer cancel()
	whole := kv.WatchRequest{Key: []byte{0}, End: []byte{0}, PrevKV: true}
	live, stop := iter.Pull2(d.store.Watch(ctx, whole))
	defer stop()
	if _, err, ok := live(); err != nil || !ok {
		d.t.Fatalf("watch: %v", err)
	}
	seen := 0
	for range steps {
		d.gen.look(d.model)
		s := d.gen.step()
		d.done = append(d.done, s.name)
		d.same(s.name, s.run(ctx, d.store), s.run(ctx, d.model))
		for ; seen < len(d.model.history); seen++ {
			batch, err, ok := live()
			if err != nil || !ok {
				d.fail("the live watch ended: %v", err)
			}
			d.same("live watch", renderBatch(batch), renderBatch(d.model.history[seen]))
		}
	}
	d.gen.look(d.model)
	for range 20 {
		d.compareWatch(ctx, d.gen.watch())
	}
}

// compareWatch reads the past through w from both, up to the last batch that
// the model has for it.
func (d *differential) compareWatch(ctx context.Context, w kv.WatchRequest) {
	name := fmt.Sprintf("watch [%q,%q) from %d, no put %v, no delete %v, previous %v", w.Key, w.End, w.Start, w.NoPut, w.NoDelete, w.PrevKV)
	d.done = append(d.done, name)
	// The model's answer ends with the mark that is asked for.
	w.ProgressRequests = requests(1)
	var want []string
	for batch, err := range d.model.Watch(ctx, w) {
		if err != nil {
			want = append(want, renderError(err))
			break
		}
		want = append(want, renderBatch(batch))
		if len(batch.Events) == 0 && len(want) > 1 {
			break
		}
	}
	w.ProgressRequests = nil
	if n := len(want); n > 1 && !strings.Contains(want[n-1], "{") {
		want = want[:n-1]
	}
	pull, stop := iter.Pull2(d.store.Watch(ctx, w))
	defer stop()
	for _, want := range want {
		batch, err, ok := pull()
		switch {
		case !ok:
			d.fail("%s: ended, want %s", name, want)
		case err != nil:
			d.same(name, renderError(err), want)
		default:
			d.same(name, renderBatch(batch), want)
		}
	}
}

func (d *differential) same(what, got, want string) {
	d.t.Helper()
	if got != want {
		d.fail("%s\n got  %s\n want %s", what, got, want)
	}
}

func (d *differential) fail(format string, args ...any) {
	d.t.Helper()
	tail := d.done[max(0, len(d.done)-20):]
	d.t.Fatalf("seed %d (Options.FirstSeed), step %d: %s\nthe last steps were\n  %s",
		d.seed, len(d.done), fmt.Sprintf(format, args...), strings.Join(tail, "\n  "))
}

// generator draws calls. It knows the model's state well enough to draw calls
// that mostly mean something.
type generator struct {
	rng       *rand.Rand
	limits    kv.Limits
	revision  kv.Revision
	compacted kv.Revision
	seq       uint64
	sent      []kv.Txn
}

// look takes note of where the model stands.
func (g *generator) look(m *Model) {
	m.mu.Lock()
	defer m.mu.Unlock()
	g.revision, g.compacted = m.revision, m.compacted
}

func (g *generator) chance(percent int) bool { return g.rng.IntN(100) < percent }

func (g *generator) key() []byte {
	keys := []string{"a", "aa", "ab", "b", "c", "c\x00", "d", "\xff", "\xff\xff", "\x00", "e", "f"}
	return []byte(keys[g.rng.IntN(len(keys))])
}

func (g *generator) span() (key, end []byte) {
	key = g.key()
	switch g.rng.IntN(6) {
	case 0, 1:
		return key, nil
	case 2:
		return key, []byte{0}
	case 3:
		return key, kv.Prefix(key)
	}
	end = g.key()
	if bytes.Compare(key, end) > 0 && g.chance(80) {
		key, end = end, key
	}
	return key, end
}

func (g *generator) value() []byte {
	values := []string{"", "x", "y", "z", strings.Repeat("long ", 200)}
	return []byte(values[g.rng.IntN(len(values))])
}

// at draws a revision that is mostly there.
func (g *generator) at() kv.Revision {
	switch g.rng.IntN(10) {
	case 0:
		return g.revision + kv.Revision(g.rng.IntN(3))
	case 1:
		return kv.Revision(1 + g.rng.Int64N(int64(g.revision)))
	}
	low := max(g.compacted, 1)
	return low + kv.Revision(g.rng.Int64N(int64(g.revision-low+1)))
}

func (g *generator) lease() kv.LeaseID {
	if g.chance(60) {
		return 0
	}
	return kv.LeaseID(1 + g.rng.IntN(5))
}

func (g *generator) rangeRequest() kv.Range {
	key, end := g.span()
	r := kv.Range{Key: key, End: end, KeysOnly: g.chance(20), CountOnly: g.chance(10)}
	if g.chance(40) {
		r.Revision = g.at()
	}
	if g.chance(40) {
		r.Limit = int64(g.rng.IntN(6))
	}
	if g.chance(40) {
		r.Sort = kv.Sort{By: kv.SortTarget(g.rng.IntN(6)), Order: kv.SortOrder(g.rng.IntN(3))}
		if r.Sort.By > kv.SortByValue && g.chance(90) {
			r.Sort.By = kv.SortByKey
		}
	}
	for _, bound := range []*kv.Revision{&r.MinMod, &r.MaxMod, &r.MinCreate, &r.MaxCreate} {
		if g.chance(10) {
			*bound = g.at()
		}
	}
	return r
}

func (g *generator) compare() kv.Compare {
	c := kv.Compare{
		Key: g.key(), Target: kv.CompareTarget(g.rng.IntN(5)), Relation: kv.Relation(g.rng.IntN(4)),
		Number: g.rng.Int64N(4), Value: g.value(),
	}
	if g.chance(25) {
		c.Key, c.End = g.span()
	}
	if c.Target == kv.CompareCreate || c.Target == kv.CompareMod {
		c.Number = int64(g.at())
	}
	return c
}

func (g *generator) op(depth int) kv.Op {
	switch n := g.rng.IntN(20); {
	case n < 9:
		op := kv.Op{
			Kind: kv.OpPut, Key: g.key(), Value: g.value(), Lease: g.lease(),
			PrevKV: g.chance(40), IgnoreValue: g.chance(8), IgnoreLease: g.chance(8),
		}
		if op.IgnoreValue && g.chance(90) {
			op.Value = nil
		}
		if op.IgnoreLease && g.chance(90) {
			op.Lease = 0
		}
		if g.chance(15) {
			op.TTL = longTTL
		}
		return op
	case n < 13:
		key, end := g.span()
		return kv.Op{Kind: kv.OpDelete, Key: key, End: end, PrevKV: g.chance(40)}
	case n < 17 || depth > 2:
		r := g.rangeRequest()
		return kv.Op{Kind: kv.OpRange, Range: &r}
	default:
		t := g.txn(depth + 1)
		return kv.Op{Kind: kv.OpTxn, Txn: &t}
	}
}

func (g *generator) txn(depth int) kv.Txn {
	var t kv.Txn
	for range g.rng.IntN(3) {
		t.Compare = append(t.Compare, g.compare())
	}
	for range g.rng.IntN(4) {
		t.Success = append(t.Success, g.op(depth))
	}
	for range g.rng.IntN(3) {
		t.Failure = append(t.Failure, g.op(depth))
	}
	return t
}

func (g *generator) watch() kv.WatchRequest {
	w := kv.WatchRequest{Start: g.at(), PrevKV: g.chance(50), NoPut: g.chance(20), NoDelete: g.chance(20)}
	w.Key, w.End = g.span()
	return w
}

func (g *generator) step() step {
	switch n := g.rng.IntN(100); {
	case n < 30:
		return txnStep(kv.Txn{Success: []kv.Op{g.op(3)}})
	case n < 62:
		t := g.txn(1)
		if g.chance(20) {
			g.seq++
			t.ID = kv.RequestID{Client: [16]byte{0xc0}, Seq: g.seq}
			g.sent = append(g.sent, t)
		}
		return txnStep(t)
	case n < 66 && len(g.sent) > 0:
		return txnStep(g.sent[g.rng.IntN(len(g.sent))])
	case n < 88:
		return rangeStep(g.rangeRequest())
	case n < 90:
		return compactStep(g.at())
	}
	return leaseStep(g.rng.IntN(6), kv.LeaseID(1+g.rng.IntN(5)))
}
