package kvtest

import (
	"fmt"
	"slices"

	"github.com/concord-kv/concord/kv"
)

func leaseCases() []testCase {
	return []testCase{
		{"grant", leaseGrant},
		{"grant a wanted id", leaseWanted},
		{"not there", leaseMissing},
		{"keep alive", leaseKeepAlive},
		{"revoke deletes its keys", leaseRevoke},
		{"revoke without keys", leaseRevokeEmpty},
		{"keys of a lease", leaseKeys},
		{"a put moves the key", leaseMoves},
		{"a deleted key leaves the lease", leaseDelete},
		{"list", leaseList},
		{"expiry deletes its keys", leaseExpires},
	}
}

func (e *env) timeToLive(id kv.LeaseID) kv.LeaseResult {
	e.Helper()
	res, err := e.store.TimeToLive(e.ctx, id, true)
	if err != nil {
		e.Fatalf("time to live of %v: %v", id, err)
	}
	return res
}

// leaseHas checks which keys of the corner a lease has.
func (e *env) leaseHas(id kv.LeaseID, names ...string) {
	e.Helper()
	var want [][]byte
	for _, name := range names {
		want = append(want, e.key(name))
	}
	e.equal("keys of the lease", fmt.Sprintf("%q", e.timeToLive(id).Keys), fmt.Sprintf("%q", want))
}

func (e *env) revoke(id kv.LeaseID) kv.Header {
	e.Helper()
	h, err := e.store.Revoke(e.ctx, id)
	if err != nil {
		e.Fatalf("revoke %v: %v", id, err)
	}
	return h
}

func leaseGrant(e *env) {
	e.unmoved(func() {
		res, err := e.store.Grant(e.ctx, kv.Grant{TTL: longTTL})
		if err != nil {
			e.Fatal(err)
		}
		if res.ID <= 0 {
			e.Errorf("the store chose id %d", int64(res.ID))
		}
		e.equal("TTL", res.TTL, longTTL)
		e.equal("left", res.Left, longTTL)
		e.equal("revision", res.Revision, e.revision())
		left := e.timeToLive(res.ID)
		e.equal("TTL", left.TTL, longTTL)
		if left.Left <= 0 || left.Left > longTTL {
			e.Errorf("left %v of %v", left.Left, longTTL)
		}
		if other := e.grant(longTTL); other == res.ID {
			e.Errorf("two leases have id %v", other)
		}
	})
}

func leaseWanted(e *env) {
	const id = 7654321
	res, err := e.store.Grant(e.ctx, kv.Grant{ID: id, TTL: longTTL})
	if err != nil {
		e.Fatal(err)
	}
	e.equal("id", res.ID, kv.LeaseID(id))
	_, err = e.store.Grant(e.ctx, kv.Grant{ID: id, TTL: longTTL})
	e.is(err, kv.ErrLeaseExists)
	e.revoke(id)
	if _, err := e.store.Grant(e.ctx, kv.Grant{ID: id, TTL: longTTL}); err != nil {
		e.Errorf("grant after revoke: %v", err)
	}
}

func leaseMissing(e *env) {
	e.unmoved(func() {
		const id = 1 << 61
		_, err := e.store.KeepAlive(e.ctx, id)
		e.is(err, kv.ErrLeaseNotFound)
		_, err = e.store.Revoke(e.ctx, id)
		e.is(err, kv.ErrLeaseNotFound)
		_, err = e.store.TimeToLive(e.ctx, id, true)
		e.is(err, kv.ErrLeaseNotFound)
	})
}

func leaseKeepAlive(e *env) {
	id := e.grant(longTTL)
	e.advance(longTTL / 2)
	e.unmoved(func() {
		res, err := e.store.KeepAlive(e.ctx, id)
		if err != nil {
			e.Fatal(err)
		}
		e.equal("id", res.ID, id)
		e.equal("TTL", res.TTL, longTTL)
		e.equal("left", res.Left, longTTL)
	})
	e.advance(longTTL / 2)
	e.advance(longTTL / 4)
	if left := e.timeToLive(id).Left; left <= 0 || left > longTTL {
		e.Errorf("left %v of %v", left, longTTL)
	}
}

func leaseRevoke(e *env) {
	id := e.grant(longTTL)
	e.put("b", "1", kv.WithLease(id))
	e.put("a", "1", kv.WithLease(id))
	e.puts("free")
	w := e.watch(e.watchAll())
	before := e.revision()
	e.equal("revision", e.revoke(id).Revision, before+1)
	batch := w.next()
	e.equal("batch revision", batch.Revision, before+1)
	e.equal("deleted at one revision, in order", e.events(batch), "DELETE a, DELETE b")
	e.equal("left", e.names(e.read(e.everything())), "free")
	_, err := e.store.Revoke(e.ctx, id)
	e.is(err, kv.ErrLeaseNotFound)
}

func leaseRevokeEmpty(e *env) {
	id := e.grant(longTTL)
	e.unmoved(func() { e.revoke(id) })
}

func leaseKeys(e *env) {
	id := e.grant(longTTL)
	e.leaseHas(id)
	for _, name := range []string{"c", "a", "b"} {
		e.put(name, name, kv.WithLease(id))
	}
	e.leaseHas(id, "a", "b", "c")
	res, err := e.store.TimeToLive(e.ctx, id, false)
	if err != nil || len(res.Keys) != 0 {
		e.Errorf("keys that were not asked for: %q, %v", res.Keys, err)
	}
	e.equal("lease of a", e.get("a").Lease, id)
}

func leaseMoves(e *env) {
	one, two := e.grant(longTTL), e.grant(longTTL)
	e.put("a", "1", kv.WithLease(one))
	e.put("b", "1", kv.WithLease(one))
	e.put("a", "2", kv.WithLease(two))
	e.leaseHas(one, "b")
	e.leaseHas(two, "a")
	e.put("a", "3")
	e.leaseHas(two)
	e.put("b", "2", kv.WithLease(one))
	e.leaseHas(one, "b")
	e.revoke(two)
	e.equal("detached key", string(e.get("a").Value), "3")
}

func leaseDelete(e *env) {
	id := e.grant(longTTL)
	e.put("a", "1", kv.WithLease(id))
	e.delete("a")
	e.leaseHas(id)
	e.put("a", "2")
	e.revoke(id)
	e.equal("made again without the lease", string(e.get("a").Value), "2")
}

func leaseList(e *env) {
	ids := []kv.LeaseID{e.grant(longTTL), e.grant(longTTL), e.grant(longTTL)}
	e.revoke(ids[1])
	res, err := e.store.Leases(e.ctx)
	if err != nil {
		e.Fatal(err)
	}
	e.equal("ordered", slices.IsSorted(res.IDs), true)
	for i, want := range []bool{true, false, true} {
		e.equal(fmt.Sprintf("lease %d is listed", i), slices.Contains(res.IDs, ids[i]), want)
	}
}

func leaseExpires(e *env) {
	w := e.watch(e.watchAll())
	granted, err := e.store.Grant(e.ctx, kv.Grant{TTL: shortTTL * 10})
	if err != nil {
		e.Fatal(err)
	}
	e.txn(success(e.opLeased("b", granted.ID), e.opLeased("a", granted.ID), e.opPut("free", "")))
	w.next()
	e.advance(shortTTL * 10)
	e.equal("deleted at one revision, in order", e.events(w.next()), "DELETE a, DELETE b")
	_, err = e.store.KeepAlive(e.ctx, granted.ID)
	e.is(err, kv.ErrLeaseNotFound)
	after := e.read(e.everything())
	e.equal("left", e.names(after), "free")
	if due := granted.Time.Add(shortTTL * 10); after.Time < due {
		e.Errorf("expired at cluster time %d or before, due at %d", after.Time, due)
	}
}

func (e *env) opLeased(name string, id kv.LeaseID) kv.Op {
	op := e.opPut(name, "")
	op.Lease = id
	return op
}
