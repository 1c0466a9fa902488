package sim

import (
	"errors"
	"fmt"
	"time"

	"github.com/concord-kv/concord/kv"
)

// action is a kind of request that clients make.
type action int

const (
	actGet action = iota
	actPut
	actDelete
	actSwap    // compare-and-swap on the value
	actGuard   // compare-and-swap on the mod revision, reading in the other branch
	actMany    // several keys at once, with reads between
	actRange   // all keys, now or at an older revision
	actLeased  // put under a lease
	actTTL     // put with a time to live
	actUpload  // a put whose value was staged before, in pieces
	actNothing // a transaction that fails or changes nothing: it uses no revision
	actions
)

// client is one sequential user. It talks to any member, retries what was not
// answered under the same request id, and knows for each answer what it must
// not be older than.
type client struct {
	w    *world
	id   int
	seq  uint64
	at   *node
	call uint64 // counts attempts: answers to an older one come too late
	// guest says that it writes in others' names.
	guest bool
}

// run makes requests one after another for as long as the run lasts.
func (c *client) run() {
	if c.w.closing {
		return
	}
	c.w.loop.after(c.w.load.exp(c.w.opt.load.think), c.act)
}

func (c *client) act() {
	if c.w.closing {
		return
	}
	if c.at == nil || c.w.load.is(0.1) {
		c.move()
	}
	switch a := c.choose(); a {
	case actGet:
		c.get(c.w.key(), c.level())
	case actRange:
		c.scan()
	case actUpload:
		c.upload()
	default:
		c.write(c.txn(a))
	}
}

// move goes to another member.
func (c *client) move() { c.at = c.w.nodes[c.w.load.IntN(len(c.w.nodes))] }

func (c *client) level() kv.ReadLevel { return pick(c.w.load, c.w.opt.load.levels...) }

func (c *client) choose() action {
	total := 0
	for _, weight := range c.w.opt.load.weights {
		total += weight
	}
	n := c.w.load.IntN(total)
	for a, weight := range c.w.opt.load.weights {
		if n -= weight; n < 0 {
			return action(a)
		}
	}
	return actGet
}

// noLease is a lease that nobody was ever granted.
const noLease = 1 << 40

// value makes a value that nobody else writes.
func (c *client) value() []byte {
	v := fmt.Appendf(nil, "%d.%d", c.id, c.seq)
	if n := c.w.opt.load.valueBytes; n > len(v) {
		v = append(v, make([]byte, c.w.load.IntN(n-len(v)+1))...)
	}
	return v
}

// txn draws a transaction, and what porcupine shall know of it.
func (c *client) txn(a action) (*kv.Txn, []asked) {
	c.seq++
	key := c.w.key()
	if a == actGuard || a == actLeased || a == actTTL {
		key = c.w.wildKey()
	}
	put := kv.Op{Kind: kv.OpPut, Key: []byte(key), Value: c.value(), PrevKV: c.w.load.is(0.3)}
	now, _ := c.w.model.at(key, c.w.model.rev-kv.Revision(c.w.load.IntN(3)))
	read := kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: []byte(key)}}
	t := &kv.Txn{Success: []kv.Op{put}}
	as := []asked{{kind: opPut, key: key, value: string(put.Value)}}
	switch a {
	case actDelete:
		t.Success[0] = kv.Op{Kind: kv.OpDelete, Key: []byte(key), PrevKV: put.PrevKV}
		as[0] = asked{kind: opDelete, key: key}
	case actSwap:
		t.Compare = []kv.Compare{{Key: []byte(key), Target: kv.CompareValue, Value: now.Value}}
		if len(now.Value) == 0 {
			t.Compare[0] = kv.Compare{Key: []byte(key), Target: kv.CompareVersion}
		}
		as[0].kind, as[0].old = opSwap, string(now.Value)
	case actGuard:
		t.Compare = []kv.Compare{{Key: []byte(key), Target: kv.CompareMod, Number: int64(now.ModRevision)}}
		t.Failure = []kv.Op{read}
	case actMany:
		as = append(as, c.addKeys(t, key)...)
	case actLeased:
		if id, ok := c.w.lease(); ok {
			t.Success[0].Lease = id
		}
	case actTTL:
		t.Success[0].TTL = c.w.load.between(time.Millisecond, 3*time.Second)
	case actNothing:
		as = nil
		t.Success = []kv.Op{read, {Kind: kv.OpDelete, Key: []byte("never/there")}}
		if c.w.load.is(0.5) {
			t.Success = []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: put.Value, Lease: noLease}}
		}
	}
	if !c.w.load.is(0.1) {
		t.ID = kv.RequestID{Client: c.uuid(), Seq: c.seq}
	}
	return t, as
}

// addKeys makes t a transaction over several keys, with a read after the write.
func (c *client) addKeys(t *kv.Txn, first string) (as []asked) {
	seen := map[string]bool{first: true}
	for range 1 + c.w.load.IntN(4) {
		key := c.w.key()
		if seen[key] {
			continue
		}
		seen[key] = true
		if c.w.load.is(0.3) {
			t.Success = append(t.Success, kv.Op{Kind: kv.OpDelete, Key: []byte(key), PrevKV: true})
			as = append(as, asked{kind: opDelete, key: key})
			continue
		}
		value := fmt.Appendf(nil, "%d.%d/%d", c.id, c.seq, len(seen))
		t.Success = append(t.Success, kv.Op{Kind: kv.OpPut, Key: []byte(key), Value: value})
		as = append(as, asked{kind: opPut, key: key, value: string(value)})
	}
	if key := c.w.wildKey(); !seen[key] && c.w.load.is(0.3) {
		nested := &kv.Txn{
			Compare: []kv.Compare{{Key: []byte("k"), End: []byte("l"), Target: kv.CompareVersion, Relation: kv.Less, Number: int64(c.w.load.IntN(20))}},
			Success: []kv.Op{{Kind: kv.OpPut, Key: []byte(key), Value: c.value(), PrevKV: true}},
			Failure: []kv.Op{{Kind: kv.OpDelete, Key: []byte(key), PrevKV: true}},
		}
		t.Success = append(t.Success, kv.Op{Kind: kv.OpTxn, Txn: nested})
	}
	all := kv.Op{Kind: kv.OpRange, Range: &kv.Range{Key: []byte("k"), End: []byte("l"), Limit: int64(c.w.load.IntN(4))}}
	t.Success = append(t.Success, all)
	return as
}

func (c *client) uuid() (id [16]byte) {
	copy(id[:], fmt.Sprintf("client-%d", c.id))
	return id
}

// request is one call of a client with all its attempts.
type request struct {
	c        *client
	start    int64
	deadline int64
	floor    floor
	retry    bool // the same request may be made again without doing it twice
	unknown  bool // an attempt may have taken effect
	attempt  func(n *node, done func(any, error))
	finish   func(res any, err error, unknown bool)
	then     func() // instead of the client's next request
}

// floor is what a client knew when it asked: the answer must not be older.
type floor struct {
	rev  kv.Revision
	time kv.Time
}

// do starts a request: it is tried until it is answered or the client loses
// patience.
func (c *client) do(r *request) {
	r.c, r.start = c, c.w.loop.now
	r.deadline = r.start + int64(4*c.w.opt.load.timeout)
	r.floor = c.w.acked
	r.try()
}

func (r *request) try() {
	c, w := r.c, r.c.w
	if c.at == nil || !c.at.up() {
		r.again(refusal{errors.New("connection refused")})
		return
	}
	c.call++
	call := c.call
	open := true
	answer := func(res any, err error) {
		if open && call == c.call {
			open = false
			r.answered(res, err)
		}
	}
	r.attempt(c.at, answer)
	w.loop.after(w.opt.load.timeout, func() { answer(nil, kv.ErrTimeout) })
}

func (r *request) answered(res any, err error) {
	switch {
	case errors.Is(err, kv.ErrUnavailable):
		r.unknown = true
		r.again(err)
	case isRefusal(err):
		r.again(err)
	default:
		r.end(res, err, false)
	}
}

// again retries after a while at another member, or gives up.
func (r *request) again(err error) {
	c := r.c
	if r.unknown && !r.retry || c.w.loop.now >= r.deadline || c.w.closing {
		r.end(nil, err, true)
		return
	}
	if c.w.load.is(0.7) {
		c.move()
	}
	c.w.loop.after(c.w.load.between(time.Millisecond, 100*time.Millisecond), r.try)
}

func (r *request) end(res any, err error, unknown bool) {
	r.finish(res, err, unknown)
	if r.then == nil {
		r.c.run()
	}
}

// write makes a transaction and holds its answer against the model's.
func (c *client) write(t *kv.Txn, as []asked) {
	c.send(&command{txn: t, aboutRights: aboutRights{who: c.who()}}, as)
}

func (c *client) send(cmd *command, as []asked) {
	w, t := c.w, cmd.txn
	var ends []func(told, int64)
	for _, a := range as {
		if !wild(a.key) {
			ends = append(ends, w.history.begin(c.id, a, w.loop.now))
		}
	}
	cmd = w.register(cmd)
	r := &request{retry: !t.ID.IsZero()}
	r.attempt = func(n *node, done func(any, error)) { n.propose(cmd, done) }
	r.finish = func(res any, err error, unknown bool) {
		if w.trace.on() {
			w.tell("client %d %s -> %s", c.id, describeTxn(t), describeAnswer(res, err, unknown))
		}
		if unknown {
			return
		}
		if err != nil && r.unknown {
			return // an earlier attempt may still take effect
		}
		out := told{failed: err != nil}
		if err == nil {
			out.swapped = res.(*kv.TxnResult).Succeeded
		}
		for _, end := range ends {
			end(out, w.loop.now)
		}
		w.checkAnswer(cmd, r.floor, res, err)
	}
	c.do(r)
}

// get reads one key.
func (c *client) get(key string, level kv.ReadLevel) {
	w := c.w
	end := func(told, int64) {}
	if level != kv.Eventual && !wild(key) {
		end = w.history.begin(c.id, asked{kind: opGet, key: key}, w.loop.now)
	}
	ask := kv.Range{Key: []byte(key), Level: level}
	c.read(&ask, func(res *kv.RangeResult) {
		out := told{}
		if len(res.KVs) > 0 {
			out.value = string(res.KVs[0].Value)
		}
		end(out, w.loop.now)
	})
}

// scan reads all keys, or some of them, sometimes in the past.
func (c *client) scan() {
	ask := kv.Range{Key: []byte("k"), End: []byte("l"), Level: c.level()}
	if c.w.load.is(0.3) {
		ask.Revision = c.w.model.compacted + kv.Revision(c.w.load.IntN(int(c.w.model.rev-c.w.model.compacted)+1))
	}
	if c.w.load.is(0.3) {
		ask.Limit = int64(1 + c.w.load.IntN(4))
	}
	c.read(&ask, func(*kv.RangeResult) {})
}

func (c *client) read(ask *kv.Range, seen func(*kv.RangeResult)) {
	w := c.w
	r := &request{retry: true}
	var from *node
	r.attempt = func(n *node, done func(any, error)) {
		from = n
		n.read(ask, done)
	}
	r.finish = func(res any, err error, unknown bool) {
		if w.trace.on() {
			w.tell("client %d %v %q@%d at %s -> %s", c.id, ask.Level, ask.Key, ask.Revision, from, describeAnswer(res, err, unknown))
		}
		if unknown {
			return
		}
		w.checkRead(from, ask, r.floor, answer{res, err})
		if err == nil {
			seen(res.(*kv.RangeResult))
		}
	}
	c.do(r)
}
