package machine

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

// The command about access tokens:
//
//	access     = op (1 byte) id (32 bytes) [name ttl n role… n permission…]
//	permission = access (1 byte) key end
//
// Only accessCreate has what follows the id.
const (
	accessCreate = iota + 1
	accessRevoke
	accessBootstrap
	accessEnsureRoot
)

func appendAccess(dst []byte, op byte, id kv.TokenID) []byte {
	return append(append(dst, byte(kindAccess), 0, op), id[:]...)
}

// EncodeCreateAccess encodes that there is one more access token. Its result is
// a *kv.Header or an error.
func EncodeCreateAccess(dst []byte, t *kv.NewAccessToken) []byte {
	dst = appendBytes(appendAccess(dst, accessCreate, t.ID), t.Name)
	dst = binary.AppendUvarint(dst, milliseconds(t.TTL))
	dst = binary.AppendUvarint(dst, uint64(len(t.Roles)))
	for _, name := range t.Roles {
		dst = appendBytes(dst, name)
	}
	dst = binary.AppendUvarint(dst, uint64(len(t.Permissions)))
	for _, p := range t.Permissions {
		dst = appendBytes(appendBytes(append(dst, byte(p.Access)), p.Key), p.End)
	}
	return dst
}

// EncodeRevokeAccess encodes the end of an access token. Its result is a
// *kv.Header or an error.
func EncodeRevokeAccess(dst []byte, id kv.TokenID) []byte { return appendAccess(dst, accessRevoke, id) }

// EncodeBootstrap encodes that authentication is set up, if nobody has done that
// yet: with the role root, an access token that has it, and switched on. Its
// result is a *kv.Header, or [kv.ErrAuthSetUp].
func EncodeBootstrap(dst []byte, id kv.TokenID) []byte {
	return appendAccess(dst, accessBootstrap, id)
}

// EncodeEnsureRoot encodes that there is an access token with the role root that
// does not expire. Its result is a *kv.Header or an error.
func EncodeEnsureRoot(dst []byte, id kv.TokenID) []byte {
	return appendAccess(dst, accessEnsureRoot, id)
}

// runAccess runs the command about access tokens.
func (m *Machine) runAccess(d *decoder) error {
	op := d.byte()
	n := kv.AccessToken{Created: m.at.now}
	copy(n.ID[:], d.take(uint64(len(n.ID))))
	switch op {
	case accessCreate:
		d.accessToken(&n)
	case accessRevoke, accessBootstrap, accessEnsureRoot:
	default:
		d.fail(errUnknown)
	}
	if d.end() != nil {
		return nil
	}
	old := m.Access()
	next, err := m.changeAccess(old, op, &n)
	if err != nil || next == old {
		return err
	}
	m.at.hash.mix(sum(n.ID[:])^uint64(op), sum(next.AppendAccess(nil, n.ID)))
	m.gate.set(next, m.gate.tokens)
	return nil
}

// changeAccess says what the tables then are, and refuses to whoever may manage
// users and tokens what would make a root of them.
func (m *Machine) changeAccess(old *auth.Tables, op byte, n *kv.AccessToken) (*auth.Tables, error) {
	switch root := m.gate.who.Root(); {
	case root:
	case op == accessCreate && slices.Contains(n.Roles, kv.RootName), op == accessRevoke && old.IsRoot(n.ID),
		op == accessBootstrap, op == accessEnsureRoot:
		return nil, kv.ErrPermissionDenied
	}
	switch op {
	case accessCreate:
		return old.Create(n)
	case accessRevoke:
		return old.Revoke(n.ID)
	case accessBootstrap:
		return old.Bootstrap(n.ID, n.Created)
	}
	return old.EnsureRoot(n.ID, n.Created)
}

// accessToken decodes what accessCreate has behind the id. Expires is a time
// then.
func (d *decoder) accessToken(n *kv.AccessToken) {
	n.Name = string(d.bytes())
	if ttl := d.ttl(); ttl != 0 {
		n.Expires = n.Created.Add(ttl)
	}
	for i := d.uint(); i > 0 && d.err == nil; i-- {
		n.Roles = append(n.Roles, string(d.bytes()))
	}
	for i := d.uint(); i > 0 && d.err == nil; i-- {
		n.Permissions = append(n.Permissions, kv.Permission{Access: kv.Access(d.byte()), Key: d.bytes(), End: d.bytes()})
	}
}

// expireAccess ends the access tokens whose time is over: each entry does first,
// so that nobody has to look at a clock when they look a token up.
func (m *Machine) expireAccess() {
	next, gone := m.Access().Expire(m.at.now)
	for i := range gone {
		m.at.hash.mix(sum(gone[i][:]), uint64(m.at.now))
	}
	m.gate.set(next, m.gate.tokens)
}

// An idle log is told the time for an access token that expires, so that a
// change of leader does not give it the time again that the log stood still. It
// is told each time that a sixty-fourth of what is left has passed, which is by
// how much the token can then live too long, but not more often than beats come
// nor less than once an hour: a token of a year makes an idle cluster write an
// entry an hour.
const (
	accessBeatPart = 64
	accessBeatMost = kv.Time(time.Hour / time.Millisecond)
)

// accessBeat tells whether the time is to be told at now, when it was told last
// at told.
func (a *access) accessBeat(told, now kv.Time) bool {
	next := a.tables.NextExpiry()
	return next != math.MaxInt64 && now-told >= min((next-told)/accessBeatPart, accessBeatMost)
}
