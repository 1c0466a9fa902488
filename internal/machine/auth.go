package machine

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"sync/atomic"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/lease"
	"github.com/concord-kv/concord/kv"
)

// The commands about who may do what have kinds far from the others'.
//
//	auth  = change (1 byte) name role hash noPassword (1 byte) access (1 byte) key end
//	token = op (1 byte) id (32 bytes) [user revision ttl]
const (
	kindAuth kind = iota + 96
	kindToken
	kindAccess // see access.go
)

// The ops of a token command. The last two have no more than the id.
const (
	tokenAdd = iota + 1
	tokenRenew
	tokenRevoke
)

// A command of a caller from outside has one of three flags. One of a user has a
// trailer behind the body, with the length of what precedes it (2 bytes, little
// endian) at its end. Where a kept token is the proof, the trailer has the
// token's mark, so that what is applied decides whether it is good.
//
//	trailer = revision name length                                 hasCaller
//	trailer = mark (8 bytes, little endian) name length            hasToken
//
// A command with no such flag is the cluster's own, or the embedding program's.
const (
	hasCaller   = 1 << 0
	isAnonymous = 1 << 2
	hasToken    = 1 << 3
	callerFlags = hasCaller | isAnonymous | hasToken
)

// AppendCaller marks the command that begins at cmd[start] as c's; nil leaves it
// as it is. An anonymous caller takes no byte.
func AppendCaller(cmd []byte, start int, c *kv.Caller) []byte {
	if c == nil {
		return cmd
	}
	flag, cmd := appendCaller(cmd, c)
	cmd[start+1] |= flag
	return cmd
}

func appendCaller(dst []byte, c *kv.Caller) (flag byte, longer []byte) {
	if c.User == "" || len(c.User) > kv.MaxAuthName { // nobody has a longer name
		return isAnonymous, dst
	}
	before := len(dst)
	if flag = hasCaller; c.Token != 0 {
		flag, dst = hasToken, binary.LittleEndian.AppendUint64(dst, c.Token)
	} else {
		dst = binary.AppendUvarint(dst, c.AuthRevision)
	}
	dst = append(dst, c.User...)
	return flag, binary.LittleEndian.AppendUint16(dst, uint16(len(dst)-before))
}

// AppendMembersCaller marks a change of members (see [EncodeMembers]) as c's.
func AppendMembersCaller(change []byte, c *kv.Caller) []byte {
	if c == nil {
		return change
	}
	at := len(change)
	flag, change := appendCaller(append(change, 0), c)
	change[at] = flag
	return change
}

// caller is a [kv.Caller] whose name is a part of the command.
type caller struct {
	name            []byte
	revision, token uint64
}

// caller takes the trailer off the data.
func (d *decoder) caller(flags byte) (c caller) {
	if bits.OnesCount8(flags&callerFlags) > 1 {
		d.fail(errUnknown)
	}
	if flags&(hasCaller|hasToken) == 0 || d.err != nil {
		return c
	}
	end := len(d.data) - 2
	if end < 0 || int(binary.LittleEndian.Uint16(d.data[end:])) > end {
		d.fail(errTruncated)
		return c
	}
	begin := end - int(binary.LittleEndian.Uint16(d.data[end:]))
	trailer := decoder{data: d.data[begin:end]}
	d.data = d.data[:begin:begin]
	if flags&hasToken == 0 {
		c.revision = trailer.uint()
	} else if mark := trailer.take(8); mark != nil {
		c.token = binary.LittleEndian.Uint64(mark)
	}
	if c.name = trailer.data; len(c.name) == 0 { // also after an error
		d.fail(errTruncated)
	}
	return c
}

// EncodeAuth encodes a change of users and roles. Its result is a *kv.Header or
// an error.
func EncodeAuth(dst []byte, c *auth.Change) []byte {
	dst = append(dst, byte(kindAuth), 0, byte(c.Op))
	for _, s := range [...]string{c.Name, c.Role, c.Hash} {
		dst = appendBytes(dst, s)
	}
	dst = append(dst, boolByte(c.NoPassword), byte(c.Permission.Access))
	return appendBytes(appendBytes(dst, c.Permission.Key), c.Permission.End)
}

// EncodeToken encodes that a token becomes good. Its result is a *kv.Header or
// an error.
func EncodeToken(dst []byte, t *kv.Token) []byte {
	dst = appendToken(dst, tokenAdd, t.ID)
	dst = binary.AppendUvarint(appendBytes(dst, t.Caller.User), t.Caller.AuthRevision)
	return binary.AppendUvarint(dst, milliseconds(t.TTL))
}

// EncodeRenewToken encodes that a token is good for its whole time again. Its
// result is a *kv.Header or [kv.ErrInvalidAuthToken].
func EncodeRenewToken(dst []byte, id kv.TokenID) []byte { return appendToken(dst, tokenRenew, id) }

// EncodeRevokeToken encodes the end of a token. Its result is a *kv.Header.
func EncodeRevokeToken(dst []byte, id kv.TokenID) []byte { return appendToken(dst, tokenRevoke, id) }

func appendToken(dst []byte, op byte, id kv.TokenID) []byte {
	return append(append(dst, byte(kindToken), 0, op), id[:]...)
}

// gate is who may do what.
type gate struct {
	// Owned by the goroutine that applies: who gave the command that runs, and
	// the tokens.
	who    auth.Subject
	tokens *auth.Tokens
	// expires is when the next access token does.
	expires kv.Time
	// Written by that goroutine, read by anyone.
	open atomic.Pointer[access]
}

// access is what readers see of it. It is replaced, never changed.
type access struct {
	tables  *auth.Tables
	tokens  *auth.Tokens
	latest  kv.Time       // when the last of the tokens will be over
	changed chan struct{} // closed when other tables have taken their place
}

// subject is a caller as it stands at now.
func (a *access) subject(c caller, now kv.Time) auth.Subject {
	if c.token == 0 {
		return a.tables.Subject(c.name, c.revision)
	}
	return a.tables.Bearer(auth.Shown{Name: c.name, Revision: c.revision, Mark: c.token}, a.tokens.Marked(c.token), now)
}

// set replaces tables and tokens.
func (g *gate) set(tables *auth.Tables, tokens *auth.Tokens) {
	g.tokens, g.expires = tokens, tables.NextExpiry()
	next, old := &access{tables: tables, tokens: tokens.Copy(), latest: tokens.Latest()}, g.open.Load()
	if old != nil && old.tables == tables {
		next.changed = old.changed
		g.open.Store(next)
		return
	}
	next.changed = make(chan struct{})
	g.open.Store(next)
	if old != nil {
		close(old.changed)
	}
}

// Access returns users and roles as applied last. Any goroutine.
func (m *Machine) Access() *auth.Tables { return m.gate.open.Load().tables }

// Subject is a caller as users, roles and tokens were applied last; nil may do
// everything. Any goroutine.
func (m *Machine) Subject(c *kv.Caller) auth.Subject {
	if c == nil {
		return auth.Subject{}
	}
	return m.gate.open.Load().subject(callerFrom(c), kv.Time(m.clock.Load()))
}

func callerFrom(c *kv.Caller) caller {
	return caller{name: []byte(c.User), revision: c.AuthRevision, token: c.Token}
}

// AccessChanged returns a channel that is closed when users, roles or access
// tokens change after this call. Any goroutine.
func (m *Machine) AccessChanged() <-chan struct{} { return m.gate.open.Load().changed }

// Token tells for whom a token stands, when it is good: it is not over, and
// neither user nor password have changed since; or who an access token is, and
// notes that it was used in that [auth.Hour]. Half says that less than half of
// the time is left of one that is to be renewed. Any goroutine.
func (m *Machine) Token(id kv.TokenID, hour int64) (c kv.Caller, half, ok bool) {
	a, now := m.gate.open.Load(), kv.Time(m.clock.Load())
	if c, ok = a.tables.Access(id, hour); ok {
		return c, false, true
	}
	b, ok := a.tokens.Find(id, now)
	if !ok {
		return kv.Caller{}, false, false
	}
	s := a.tables.Subject([]byte(b.User), b.Revision)
	return kv.Caller{User: b.User, AuthRevision: b.Revision, Token: id.Mark()}, b.Deadline-now < b.TTL/2, s.Right(kv.AnyUser) == nil
}

func (c *captured) readAuth(s *sectionReader) {
	data := s.bytes(math.MaxInt32)
	if s.err == nil {
		c.access.tables, c.access.tokens, s.err = auth.Decode(data, s.version < 5)
	}
}

// runAuth runs the commands about who may do what.
func (m *Machine) runAuth(d *decoder, k kind) any {
	var err error
	switch k {
	case kindToken:
		err = m.runToken(d)
	case kindAccess:
		err = m.runAccess(d)
	default:
		c := auth.Change{Op: auth.Op(d.byte())}
		for _, s := range [...]*string{&c.Name, &c.Role, &c.Hash} {
			*s = string(d.bytes())
		}
		c.NoPassword, c.Permission.Access = d.byte() == 1, kv.Access(d.byte())
		c.Permission.Key, c.Permission.End = d.bytes(), d.bytes()
		if c.Op == 0 || c.Op > auth.LastOp {
			d.fail(errUnknown)
		}
		if d.end() == nil {
			err = m.changeAuth(&c)
		}
	}
	if d.end() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	h := m.header()
	return &h
}

func (m *Machine) changeAuth(c *auth.Change) error {
	old := m.Access()
	if old.RootOnly(c) && !m.gate.who.Root() {
		return kv.ErrPermissionDenied
	}
	next, err := old.With(c)
	if err != nil || next == old {
		return err
	}
	tokens := m.gate.tokens
	if c.Op == auth.Disable {
		tokens = auth.NewTokens()
	}
	m.at.hash.bytes(next.AppendChanged(nil, c))
	m.gate.set(next, tokens)
	return nil
}

func (m *Machine) runToken(d *decoder) error {
	b := auth.Bearer{}
	op := d.byte()
	copy(b.ID[:], d.take(uint64(len(b.ID))))
	switch op {
	case tokenAdd:
		b.User, b.Revision = string(d.bytes()), d.uint()
		b.TTL = kv.Time(d.ttl().Milliseconds())
	case tokenRenew, tokenRevoke:
	default:
		d.fail(errUnknown)
	}
	if d.end() != nil {
		return nil
	}
	tokens, now := m.gate.tokens, m.at.now
	switch op {
	case tokenAdd:
		if err := m.checkBearer(&b); err != nil {
			return err
		}
	case tokenRevoke:
		if old := tokens.Marked(b.ID.Mark()); old != nil && m.Access().HasRoot(old.User) && !m.gate.who.Root() {
			return kv.ErrPermissionDenied
		}
	case tokenRenew:
		old, ok := tokens.Find(b.ID, now)
		if !ok {
			return kv.ErrInvalidAuthToken
		}
		b = *old
	}
	if op == tokenRevoke {
		tokens.Delete(b.ID)
	} else {
		b.Deadline = now + b.TTL
		tokens.Put(b, now)
	}
	m.at.hash.mix(sum(b.ID[:])^uint64(op), uint64(b.Deadline))
	m.at.hash.mix(sum([]byte(b.User))^uint64(tokens.Len()), b.Revision)
	m.gate.set(m.Access(), tokens)
	return nil
}

// checkBearer finds out what would keep a token from being made. That it is made
// at the revision at which the password was checked shows that it still is the
// password.
func (m *Machine) checkBearer(b *auth.Bearer) error {
	tables := m.Access()
	_, unknown := tables.User(b.User)
	switch {
	case b.TTL == 0:
		return kv.ErrInvalidTTL
	case !tables.Enabled():
		return kv.ErrAuthNotEnabled
	case b.Revision != tables.Revision():
		return kv.ErrAuthOldRevision
	case unknown != nil:
		return kv.ErrAuthFailed
	}
	return nil
}

// identify notes who gave the command, and returns an error when that is
// somebody who may not give such a command, whatever is in it.
func (m *Machine) identify(d *decoder, k kind, flags byte) error {
	who := &m.gate.who
	*who = m.gate.open.Load().subject(d.caller(flags), m.at.now)
	if !who.Bound() {
		return nil
	}
	switch k {
	case kindPut, kindTxn, kindUploadTxn: // by keys
		return nil
	case kindPiece, kindGrant, kindKeepAlive, kindRevoke:
		return who.Right(kv.AnyUser)
	case kindAuth, kindToken, kindAccess:
		return who.Right(kv.ManageAuth)
	}
	return who.Right(kv.ManageCluster)
}

// mayPut tells whether the caller may put a key: write it and all other keys of
// the lease that it is attached to, and read it where the answer shows what was
// there (etcd, server/etcdserver/apply/auth.go).
func (m *Machine) mayPut(op *kv.Op) error {
	who := &m.gate.who
	err := who.Keys(kv.WriteAccess, op.Key, nil)
	if err == nil && op.Lease != 0 {
		err = m.mayLease(op.Lease)
	}
	if err == nil && op.PrevKV {
		err = who.Keys(kv.ReadAccess, op.Key, nil)
	}
	return err
}

// mayLease tells whether the caller may write all keys of a lease.
func (m *Machine) mayLease(id kv.LeaseID) error {
	if m.gate.who.Root() {
		return nil
	}
	m.lock()
	for key := range m.shared.leases.Keys(id) {
		if err := m.gate.who.Keys(kv.WriteAccess, key, nil); err != nil {
			return err
		}
	}
	return nil
}

// mayTxn tells whether the caller may run t, whichever way it goes.
func (m *Machine) mayTxn(t *kv.Txn) error { return allowTxn(&m.gate.who, t, m.mayPut) }

// allowTxn walks over t whole. It finds the first comparison or operation that
// who may not make; put checks a put.
func allowTxn(who *auth.Subject, t *kv.Txn, put func(*kv.Op) error) error {
	for i := range t.Compare {
		if err := who.Keys(kv.ReadAccess, t.Compare[i].Key, t.Compare[i].End); err != nil {
			return err
		}
	}
	for _, ops := range [...][]kv.Op{t.Success, t.Failure} {
		for i := range ops {
			var err error
			switch op := &ops[i]; op.Kind {
			case kv.OpPut:
				err = put(op)
			case kv.OpDelete:
				if op.PrevKV {
					err = who.Keys(kv.ReadAccess, op.Key, op.End)
				}
				err = cmp.Or(err, who.Keys(kv.WriteAccess, op.Key, op.End))
			case kv.OpRange:
				err = who.Keys(kv.ReadAccess, op.Range.Key, op.Range.End)
			case kv.OpTxn:
				err = allowTxn(who, op.Txn, put)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// ViewAs is [Machine.View] for somebody, who gets what c may see, at the rights
// of the same moment, and else the errors of [kv.Authority]; nil may see
// everything. Any goroutine.
func (m *Machine) ViewAs(c *kv.Caller) View {
	if c == nil {
		return m.View()
	}
	for {
		before := m.Access()
		v := m.View()
		if now := m.gate.open.Load(); now.tables == before {
			v.who = now.subject(callerFrom(c), v.time)
			return v
		}
		v.Close()
	}
}

// MayRead returns nil when these keys may be shown.
func (v View) MayRead(key, end []byte) error { return v.who.Keys(kv.ReadAccess, key, end) }

// MayWatch returns nil when what w asks for may be shown, also if the caller has
// proved who it is before others' rights changed.
func (v View) MayWatch(w *kv.WatchRequest) error { return v.who.Still(kv.ReadAccess, w.Key, w.End) }

// Allow returns nil when t may be run, as far as can be said before it is.
func (v View) Allow(t *kv.Txn) error {
	return allowTxn(&v.who, t, func(op *kv.Op) error { return v.who.Keys(kv.WriteAccess, op.Key, nil) })
}

// mayLeases tells whether the caller may read all keys of leases, which may be
// newer than the view.
func (v View) mayLeases(leases *lease.Table, ids ...kv.LeaseID) error {
	if v.who.Root() {
		return nil
	}
	for _, id := range ids {
		for key := range leases.Keys(id) {
			if err := v.who.Keys(kv.ReadAccess, key, nil); err != nil {
				return err
			}
		}
	}
	if !v.who.Of(v.m.Access()) {
		return kv.ErrAuthOldRevision // as etcd, LeaseTimeToLive
	}
	return nil
}
