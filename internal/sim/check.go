package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/concord-kv/concord/kv"
)

// checkAnswer: what a client is told of a command is what the model made of
// it, and is not older than what was acknowledged before the client asked.
func (w *world) checkAnswer(c *command, f floor, res any, err error) {
	var got any = res
	if err != nil {
		got = err
	}
	i := slices.IndexFunc(c.results, func(want any) bool { return sameResult(want, got) })
	if i < 0 {
		violate("a client is told %s of %s; the model has %s", describeResult(got), describe(c), describeResults(c.results))
	}
	if err != nil {
		return
	}
	h := headerOf(res)
	if h.Revision < f.rev || h.Time < f.time {
		violate("an answer at %+v is older than %+v, which was acknowledged before the question: %s", h, f, describe(c))
	}
	if c.txn != nil && h.Revision == f.rev && len(w.model.changes) > int(h.Revision) && changes(res.(*kv.TxnResult)) {
		violate("a write at revision %d comes after that revision was acknowledged: %s", h.Revision, describe(c))
	}
	w.acknowledge(h)
}

// changes reports whether a transaction surely changed something.
func changes(r *kv.TxnResult) bool {
	return slices.ContainsFunc(r.Ops, func(o kv.OpResult) bool { return o.Kind == kv.OpPut || o.Deleted > 0 })
}

func headerOf(res any) kv.Header {
	switch r := res.(type) {
	case *kv.TxnResult:
		return r.Header
	case *kv.LeaseResult:
		return r.Header
	case *kv.Header:
		return *r
	}
	return kv.Header{}
}

func (w *world) acknowledge(h kv.Header) {
	w.acked.rev = max(w.acked.rev, h.Revision)
	w.acked.time = max(w.acked.time, h.Time)
	w.tally.acked++
	w.trace.mix(uint64(h.Revision), uint64(h.Time))
}

// answer is a result or an error.
type answer struct {
	res any
	err error
}

// checkRead: a read answers what the model had at the revision it claims, and
// that is not older than its level allows.
func (w *world) checkRead(n *node, ask *kv.Range, f floor, got answer) {
	if err := got.err; err != nil {
		switch {
		case errors.Is(err, kv.ErrCompacted) && ask.Revision < w.model.compacted:
		case errors.Is(err, kv.ErrFutureRevision) && (ask.Revision > f.rev || ask.Level == kv.Eventual):
		default:
			violate("a read of %q at %d (compacted %d, acknowledged %d) gives: %v", ask.Key, ask.Revision, w.model.compacted, f.rev, err)
		}
		return
	}
	r := got.res.(*kv.RangeResult)
	if r.Revision > w.model.rev {
		violate("a read sees revision %d, but only %d was ever committed", r.Revision, w.model.rev)
	}
	if ask.Level == kv.Eventual && n.up() {
		if r.Revision < n.proc.seen {
			violate("an eventual read at %s goes back from revision %d to %d", n, n.proc.seen, r.Revision)
		}
		n.proc.seen = r.Revision
	}
	switch {
	case ask.Level != kv.Eventual && (r.Revision < f.rev || r.Time < f.time):
		violate("stale read at %s (%v): revision %d time %d, but %+v was acknowledged before it began", n, ask.Level, r.Revision, r.Time, f)
	case ask.Level != kv.Eventual:
		w.acknowledge(r.Header)
	}
	at := r.Revision
	if ask.Revision != 0 {
		at = ask.Revision
	}
	want := w.model.rangeAt(ask.Key, ask.End, at)
	more := ask.Limit > 0 && int64(len(want)) > ask.Limit
	count := int64(len(want))
	if more {
		want = want[:ask.Limit]
	}
	if !sameKVs(want, r.KVs) || r.More != more || r.Count != count {
		violate("a read of %q to %q at revision %d gives %s, the model has %s", ask.Key, ask.End, at, describeKVs(r.KVs), describeKVs(want))
	}
	w.tally.reads++
}

// requireProgress: a healed cluster acknowledges a write soon, whatever was
// done to it.
func (w *world) requireProgress() {
	bound := 20*w.opt.election + 100*w.opt.net.latency + 2*time.Second
	before := w.tally.acked
	from := w.loop.now
	w.loop.after(bound, func() {
		if w.tally.acked == before {
			violate("no request was acknowledged within %v of healing at %v: leader %v", bound, time.Duration(from), w.leader())
		}
	})
}

// checkOverdue: in good times nothing outlives its deadline by much.
func (w *world) checkOverdue() {
	slack := kv.Time(0).Add(6*w.opt.election + 400*w.opt.apply + time.Second)
	w.checkAccessOverdue(slack)
	for id, l := range w.model.leases {
		if w.model.now > l.deadline+slack {
			violate("lease %d should have expired at %d, and it is %d", id, l.deadline, w.model.now)
		}
	}
	for key, item := range w.model.live {
		if item.Expires != 0 && w.model.now > item.Expires+slack {
			violate("key %q should have expired at %d, and it is %d", key, item.Expires, w.model.now)
		}
	}
}

// finish checks what can be said at the end only.
func (w *world) finish() {
	last := w.ledger.last()
	for _, n := range w.nodes {
		if !n.up() {
			if !n.gone {
				violate("%s is down at the end", n)
			}
			continue
		}
		if applied := n.proc.applies.applied; applied != last && n.member() {
			violate("%s applied %d of %d entries at the end: %+v", n, applied, last, n.state)
		}
		n.checkState()
	}
	w.checkOverdue()
	w.people.checked = w.history.check(2 * time.Second)
}

// member reports whether the newest configuration has the node.
func (n *node) member() bool {
	conf := n.w.conf
	return slices.Contains(conf.GetVoters(), n.id) || slices.Contains(conf.GetLearners(), n.id)
}

// checkState compares all that a member holds with the model, where it has
// applied as much: keys, history back to the compaction, leases.
func (n *node) checkState() {
	w, p := n.w, n.proc
	if p.applies.applied != w.modelled {
		return
	}
	v := p.machine.View()
	defer v.Close()
	for rev := max(w.model.compacted, 1); rev <= w.model.rev; rev += 1 + (w.model.rev-max(w.model.compacted, 1))/8 {
		res, err := v.Range(&kv.Range{Key: []byte{0}, End: []byte{0}, Revision: rev})
		if want := w.model.rangeAt([]byte{0}, []byte{0}, rev); err != nil || !sameKVs(want, res.KVs) {
			violate("%s at revision %d holds %s (%v), the model %s", n, rev, describeKVs(res.KVs), err, describeKVs(want))
		}
	}
	n.checkAccess()
	leases, _ := v.Leases() // asked by nobody in particular, it cannot fail
	if len(leases.IDs) != len(w.model.leases) {
		violate("%s has leases %v, the model %d", n, leases.IDs, len(w.model.leases))
	}
	for _, id := range leases.IDs {
		got, err := v.TimeToLive(id, true)
		l := w.model.leases[id]
		if err != nil || l == nil || got.TTL != l.ttl || got.Left != max(0, l.deadline.Sub(w.model.now)) {
			violate("%s: lease %d is %+v (%v), the model has %+v", n, id, got, err, l)
		}
		keys := w.model.attached(id)
		if !slices.EqualFunc(keys, got.Keys, func(a string, b []byte) bool { return a == string(b) }) {
			violate("%s: lease %d has keys %q, the model %q", n, id, got.Keys, keys)
		}
	}
}
