package kvtest

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/concord-kv/concord/kv"
)

// longTTL is a TTL that does not run out while a test runs.
const longTTL = time.Hour

// shortTTL is a TTL that a test waits for.
const shortTTL = 50 * time.Millisecond

func putCases() []testCase {
	return []testCase{
		{"previous", putPrevious},
		{"ignore value", putIgnoreValue},
		{"ignore lease", putIgnoreLease},
		{"empty value", putEmpty},
		{"large value", putLarge},
		{"TTL sets a deadline", putTTL},
		{"TTL is cleared by a put without", putTTLCleared},
		{"TTL deletes the key", putTTLExpires},
		{"TTL of a key that is put again", putTTLRenewed},
	}
}

func putPrevious(e *env) {
	if prev := e.put("a", "1", kv.WithPrev()).Prev; prev != nil {
		e.Errorf("previous of a new key: %s", renderKey(*prev))
	}
	if prev := e.put("a", "2").Prev; prev != nil {
		e.Errorf("previous that was not asked for: %s", renderKey(*prev))
	}
	was := e.get("a")
	prev := e.put("a", "3", kv.WithPrev()).Prev
	if prev == nil {
		e.Fatal("no previous key")
	}
	e.equal("previous", renderKey(*prev), renderKey(was))
}

func putIgnoreValue(e *env) {
	lease := e.grant(longTTL)
	e.put("a", "kept")
	op := e.opPut("a", "")
	op.IgnoreValue, op.Lease, op.PrevKV = true, lease, true
	res := e.txn(success(op))
	k := e.get("a")
	e.equal("value", string(k.Value), "kept")
	e.equal("lease", k.Lease, lease)
	e.equal("version", k.Version, int64(2))
	e.equal("previous", string(res.Ops[0].Prev[0].Value), "kept")
	op.Key = e.key("nothing")
	e.refused(kv.ErrKeyNotFound, success(op))
	op.Value = []byte("x")
	e.refused(kv.ErrValueProvided, success(op))
}

func putIgnoreLease(e *env) {
	lease := e.grant(longTTL)
	e.put("a", "1", kv.WithLease(lease))
	op := e.opPut("a", "2")
	op.IgnoreLease = true
	e.txn(success(op))
	k := e.get("a")
	e.equal("value", string(k.Value), "2")
	e.equal("lease", k.Lease, lease)
	op.Key = e.key("nothing")
	e.refused(kv.ErrKeyNotFound, success(op))
	op.Lease = lease
	e.refused(kv.ErrLeaseProvided, success(op))
}

func putEmpty(e *env) {
	e.put("a", "")
	k := e.get("a")
	e.equal("length", len(k.Value), 0)
	e.equal("version", k.Version, int64(1))
	e.equal("compares", e.txn(kv.Txn{Compare: []kv.Compare{e.valueIs("a", "")}}).Succeeded, true)
}

func putLarge(e *env) {
	for _, size := range []int64{1 << 16, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5<<20 + 3} {
		if size+1024 > e.opts.Limits.RequestBytes {
			break
		}
		value := bytes.Repeat([]byte("0123456789abcdef"), int(size/16+1))[:size]
		rev := e.put("large", string(value)).Revision
		k := e.get("large")
		e.equal(fmt.Sprintf("%d bytes came back", size), bytes.Equal(k.Value, value), true)
		e.equal("revision", k.ModRevision, rev)
	}
}

func putTTL(e *env) {
	res := e.put("a", "1", kv.WithTTL(longTTL))
	k := e.get("a")
	e.equal("deadline", k.Expires, res.Time.Add(longTTL))
	prev := e.put("a", "2", kv.WithTTL(longTTL), kv.WithPrev()).Prev
	e.equal("deadline before", prev.Expires, k.Expires)
	e.put("b", "1")
	e.equal("no deadline", e.get("b").Expires, kv.Time(0))
}

func putTTLCleared(e *env) {
	e.put("a", "1", kv.WithTTL(longTTL))
	e.put("a", "2")
	e.equal("deadline", e.get("a").Expires, kv.Time(0))
	e.put("b", "1", kv.WithTTL(longTTL))
	op := e.opPut("b", "")
	op.IgnoreValue = true
	e.txn(success(op))
	e.equal("deadline after a put that keeps the value", e.get("b").Expires, kv.Time(0))
}

func putTTLExpires(e *env) {
	w := e.watch(e.watchAll())
	res := e.put("a", "1", kv.WithTTL(shortTTL))
	e.put("stays", "1")
	w.next()
	w.next()
	e.advance(shortTTL)
	batch := w.next()
	e.equal("events", len(batch.Events), 1)
	ev := batch.Events[0]
	e.equal("event", fmt.Sprintf("%v %s", ev.Type, ev.KV.Key), "DELETE "+string(e.key("a")))
	e.gone("a")
	after := e.read(e.everything())
	e.equal("left", e.names(after), "stays")
	if due := res.Time.Add(shortTTL); after.Time < due {
		e.Errorf("deleted at cluster time %d or before, due at %d", after.Time, due)
	}
}

func putTTLRenewed(e *env) {
	e.put("a", "1", kv.WithTTL(shortTTL))
	e.put("b", "1", kv.WithTTL(2*shortTTL))
	kept := e.put("a", "2").Revision // in time or after a delete: it has no TTL either way
	w := e.watch(kv.WatchRequest{Key: e.key("b"), Start: kept, NoPut: true})
	e.advance(2 * shortTTL)
	w.next()
	e.equal("put again without TTL", string(e.get("a").Value), "2")
}

func onceCases() []testCase {
	return []testCase{
		{"a retry gives the first result", onceRetry},
		{"clients are told apart", onceClients},
		{"numbers out of order", onceDisorder},
		{"too old", onceTooOld},
		{"a refused transaction may be tried again", onceRefused},
	}
}

// once gives t the id seq of a client made from the case's name.
func (e *env) once(client string, seq uint64, t kv.Txn) kv.Txn {
	copy(t.ID.Client[:], e.corner+client)
	t.ID.Seq = seq
	return t
}

func onceRetry(e *env) {
	op := e.opPut("a", "1")
	op.PrevKV = true
	t := e.once("c", 1, success(op, e.opRange(e.everything()), e.opTxn(success(e.opDelete("b")))))
	first := e.txn(t)
	e.put("a", "2")
	e.unmoved(func() {
		again := e.txn(t)
		e.equal("result", renderTxnResult(&again), renderTxnResult(&first))
	})
	e.equal("value", string(e.get("a").Value), "2")
	e.txn(e.once("c", 2, success(e.opPut("a", "3"))))
	e.equal("value", string(e.get("a").Value), "3")
}

func onceClients(e *env) {
	for i, client := range []string{"c", "d"} {
		res := e.txn(e.once(client, 1, success(e.opPut(client, "x"))))
		e.equal(fmt.Sprintf("client %d", i), e.get(client).ModRevision, res.Revision)
	}
	e.puts("plain") // an id of zero is never remembered
	e.equal("version", e.get("plain").Version, int64(1))
	e.puts("plain")
	e.equal("version", e.get("plain").Version, int64(2))
}

func onceDisorder(e *env) {
	for _, seq := range []uint64{3, 1, 2} {
		e.txn(e.once("c", seq, success(e.opPut(fmt.Sprint(seq), "x"))))
	}
	for _, seq := range []uint64{1, 2, 3} {
		e.unmoved(func() { e.txn(e.once("c", seq, success(e.opPut(fmt.Sprint(seq), "x")))) })
	}
}

func onceTooOld(e *env) {
	request := func(seq uint64) kv.Txn { return e.once("c", seq, success(e.opPut("a", fmt.Sprint(seq)))) }
	for seq := range uint64(65) {
		e.txn(request(seq + 1))
	}
	e.refused(kv.ErrRequestTooOld, request(1))
	e.unmoved(func() { e.txn(request(2)) })
	e.equal("value", string(e.get("a").Value), "65")
}

func onceRefused(e *env) {
	op := e.opPut("a", "")
	op.IgnoreValue = true
	t := e.once("c", 1, success(op))
	e.refused(kv.ErrKeyNotFound, t)
	e.put("a", "1")
	// The store may remember the refusal or run the transaction now; it may
	// not do anything else.
	if _, err := e.store.Txn(e.ctx, t); err != nil {
		e.is(err, kv.ErrKeyNotFound)
	}
}

func contextCases() []testCase {
	return []testCase{
		{"cancelled before", contextCanceled},
		{"deadline passed before", contextExpired},
	}
}

// calls are all calls that take a context and answer at once.
func (e *env) calls() map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"range": func(ctx context.Context) error {
			_, err := e.store.Range(ctx, e.everything())
			return err
		},
		"put": func(ctx context.Context) error {
			_, err := kv.Put(ctx, e.store, e.key("a"), "1")
			return err
		},
		"read-only txn": func(ctx context.Context) error {
			_, err := e.store.Txn(ctx, success(e.opGet("a")))
			return err
		},
		"compact": func(ctx context.Context) error {
			_, err := e.store.Compact(ctx, e.revision())
			return err
		},
		"grant": func(ctx context.Context) error {
			_, err := e.store.Grant(ctx, kv.Grant{TTL: longTTL})
			return err
		},
		"keep alive": func(ctx context.Context) error {
			_, err := e.store.KeepAlive(ctx, e.grant(longTTL))
			return err
		},
		"revoke": func(ctx context.Context) error {
			_, err := e.store.Revoke(ctx, e.grant(longTTL))
			return err
		},
		"time to live": func(ctx context.Context) error {
			_, err := e.store.TimeToLive(ctx, e.grant(longTTL), true)
			return err
		},
		"leases": func(ctx context.Context) error {
			_, err := e.store.Leases(ctx)
			return err
		},
		"watch": func(ctx context.Context) error {
			for _, err := range e.store.Watch(ctx, e.watchAll()) {
				if err != nil {
					return err
				}
			}
			return ctx.Err() // a watch may also just end
		},
	}
}

func contextCanceled(e *env) {
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	for name, call := range e.calls() {
		err := call(ctx)
		if kv.CodeOf(err) != kv.Canceled || err == nil {
			e.Errorf("%s: %v (%v), want a canceled context's error", name, err, kv.CodeOf(err))
		}
	}
}

func contextExpired(e *env) {
	ctx, cancel := context.WithDeadline(e.ctx, time.Unix(1, 0))
	defer cancel()
	for name, call := range e.calls() {
		err := call(ctx)
		if kv.CodeOf(err) != kv.Unavailable || err == nil {
			e.Errorf("%s: %v (%v), want the error of a deadline", name, err, kv.CodeOf(err))
		}
	}
}
