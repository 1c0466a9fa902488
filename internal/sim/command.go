package sim

import (
	"errors"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// command is one that was proposed, in both languages: the machine's bytes and
// what the model makes of it. Exactly one of txn, piece, grant, alive, revoke,
// compact, expire, auth and access is set.
type command struct {
	bytes []byte

	txn     *kv.Txn
	upload  machine.UploadID // where txn's large values were staged, if not zero
	piece   *piece
	grant   *kv.Grant
	alive   kv.LeaseID
	revoke  kv.LeaseID
	compact kv.Revision
	expire  *expiry
	aboutRights
	due bool // the revoke was not asked for: a planted bug's expiry

	// started is when it was proposed first; tries and applied count its way
	// through the log, results are what the model made of it.
	started        int64
	tries, applied int
	results        []any
}

// piece is a part of a large value.
type piece struct {
	machine.Piece
	data []byte
}

// expiry is a decision of a leader.
type expiry struct {
	term   kv.Term
	leases []machine.ExpiredLease
	keys   []machine.ExpiredKey
}

// register encodes a command, so that its bytes are known when a member
// applies them.
func (w *world) register(c *command) *command {
	switch {
	case c.txn != nil && c.upload != machine.UploadID{}:
		c.bytes = machine.EncodeUploadTxn(nil, c.txn, c.upload, stagedBytes)
	case c.txn != nil:
		c.bytes = machine.EncodeTxn(nil, c.txn)
	case c.piece != nil:
		c.bytes = machine.EncodePiece(nil, c.piece.Piece, c.piece.data)
	case c.grant != nil:
		c.bytes = machine.EncodeGrant(nil, c.grant.ID, c.grant.TTL)
	case c.alive != 0:
		c.bytes = machine.EncodeKeepAlive(nil, c.alive)
	case c.revoke != 0:
		c.bytes = machine.EncodeRevoke(nil, c.revoke)
	case c.compact != 0:
		c.bytes = machine.EncodeCompact(nil, c.compact)
	case c.expire != nil:
		c.bytes = machine.EncodeExpire(nil, c.expire.term, c.expire.leases, c.expire.keys)
	case c.auth != nil:
		c.bytes = machine.EncodeAuth(nil, c.auth)
	case c.access != nil:
		c.bytes = c.access.encode()
	}
	c.bytes = machine.AppendCaller(c.bytes, 0, c.who)
	c.started = w.loop.now
	if known := w.people.commands[string(c.bytes)]; known != nil {
		return known // the same again, such as a delete without a request id
	}
	w.people.commands[string(c.bytes)] = c
	return c
}

// run lets the model apply a committed command, and holds the result that the
// first member to apply it had against the model's.
func (m *model) run(w *world, term uint64, bytes []byte, got any) {
	c := w.people.commands[string(bytes)]
	if c == nil {
		violate("a command of %d bytes was applied that nobody proposed", len(bytes))
	}
	if c.applied++; c.applied > c.tries {
		violate("a command proposed %d times was applied %d times: %s", c.tries, c.applied, describe(c))
	}
	before := m.rev
	want := m.apply(w, c, kv.Term(term))
	c.results = append(c.results, want)
	if !sameResult(want, got) {
		violate("wrong result at revision %d to %d: %s gives %s, the model says %s", before, m.rev, describe(c), describeResult(got), describeResult(want))
	}
}

func (m *model) apply(w *world, c *command, term kv.Term) any {
	switch {
	case c.piece != nil:
		m.stage(c.piece)
	case c.txn != nil:
		if c.who != nil {
			if err := m.refusal(c); err != nil {
				w.tally.refused++
				return err
			}
		}
		res, err := m.txn(c.txn, m.whole(c))
		if err != nil {
			return err
		}
		return res
	case c.grant != nil:
		if m.leases[c.grant.ID] != nil {
			return kv.ErrLeaseExists
		}
		m.leases[c.grant.ID] = &modelLease{ttl: c.grant.TTL, deadline: m.now.Add(c.grant.TTL), since: c.started}
		return &kv.LeaseResult{Header: m.header(), ID: c.grant.ID, TTL: c.grant.TTL, Left: c.grant.TTL}
	case c.alive != 0:
		l := m.leases[c.alive]
		if l == nil {
			return kv.ErrLeaseNotFound
		}
		l.deadline = m.now.Add(l.ttl)
		l.generation++
		return &kv.LeaseResult{Header: m.header(), ID: c.alive, TTL: l.ttl, Left: l.ttl}
	case c.revoke != 0:
		l := m.leases[c.revoke]
		if l == nil {
			return kv.ErrLeaseNotFound
		}
		if c.due {
			w.checkNotEarly("lease", l.since, l.ttl)
		}
		m.endLease(c.revoke)
	case c.compact != 0:
		if err := m.compact(c.compact); err != nil {
			return err
		}
	case c.expire != nil && c.expire.term == term:
		m.expire(w, c.expire)
	case c.auth != nil:
		next, err := m.access.With(c.auth)
		if err != nil {
			return err
		}
		m.access = next
	case c.access != nil:
		if err := m.changeAccess(c); err != nil {
			return err
		}
	}
	h := m.header()
	return &h
}

func (m *model) header() kv.Header { return kv.Header{Revision: m.rev, Time: m.now} }

func (m *model) compact(rev kv.Revision) error {
	switch {
	case rev <= m.compacted:
		return &kv.CompactedError{Compacted: m.compacted}
	case rev > m.rev:
		return kv.ErrFutureRevision
	}
	m.compacted = rev
	return nil
}

// expire ends what is over in cluster time and was not renewed or changed since
// the decision. What its holder was told lives on that long in real time, too.
func (m *model) expire(w *world, e *expiry) {
	for _, x := range e.leases {
		l := m.leases[x.ID]
		if l == nil || l.generation != x.Generation || l.deadline > m.now {
			continue
		}
		w.checkNotEarly("lease", l.since, l.ttl)
		w.tally.expired++
		m.endLease(x.ID)
	}
	var keys []string
	for _, x := range e.keys {
		if item, ok := m.live[string(x.Key)]; ok && item.ModRevision == x.Mod && item.Expires != 0 && item.Expires <= m.now {
			keys = append(keys, string(x.Key))
		}
	}
	w.tally.expired += len(keys)
	m.remove(keys)
}

func (m *model) endLease(id kv.LeaseID) {
	keys := m.attached(id)
	delete(m.leases, id)
	m.remove(keys)
}

// checkNotEarly: a deadline counted from an acknowledged request comes no
// earlier by anybody's clock than its TTL after that request was made.
func (w *world) checkNotEarly(what string, since int64, ttl time.Duration) {
	least := time.Duration(float64(ttl)*(1-2*w.opt.skew)) - 2*time.Millisecond
	if lived := time.Duration(w.loop.now - since); lived < least {
		violate("a %s of %v expired %v after its renewal was asked for", what, ttl, lived)
	}
}

// checkStamp: cluster time runs no faster than the fastest clock.
func (w *world) checkStamp(now int64) {
	most := int64(float64(w.loop.now)*(1+w.opt.skew)/1e6) + 10
	if now > most {
		violate("cluster time is %d ms after %d ms", now, w.loop.now/1e6)
	}
}

// sameResult compares what a machine answered with what the model says.
func sameResult(want, got any) bool {
	switch want := want.(type) {
	case *kv.TxnResult:
		got, ok := got.(*kv.TxnResult)
		return ok && got != nil && sameTxn(want, got)
	case *kv.LeaseResult:
		got, ok := got.(*kv.LeaseResult)
		return ok && got.Header == want.Header && got.ID == want.ID && got.TTL == want.TTL && got.Left == want.Left
	case *kv.Header:
		got, ok := got.(*kv.Header)
		return ok && *got == *want
	case error:
		got, ok := got.(error)
		return ok && (errors.Is(got, want) || kv.CodeOf(got) == kv.CodeOf(want))
	}
	return false
}
