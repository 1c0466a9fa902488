package auth

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/concord-kv/concord/kv"
)

// Tables and tokens have an encoding of our own, made of unsigned varints and
// of strings, which are a length and the bytes. All is in order, so equal ones
// have equal bytes.
//
//	tables     = enabled revision n user… n role… n access…
//	user       = name hash noPassword since n role-name…
//	role       = name n permission…
//	permission = access key end
//	access     = id (32 bytes) name created expires n role-name… n permission…
//	tokens     = n (id (32 bytes) user revision ttl deadline)…

var (
	errShort  = errors.New("users and roles end too early")
	errOrder  = errors.New("users and roles are out of order, or do not fit together")
	errTokens = errors.New("there are more tokens than can be kept")
)

// Append appends the tables to dst.
func (t *Tables) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(appendBool(dst, t.enabled), t.revision)
	dst = binary.AppendUvarint(dst, uint64(len(t.users)))
	for _, u := range t.users {
		dst = u.append(dst)
	}
	dst = binary.AppendUvarint(dst, uint64(len(t.roles)))
	for _, r := range t.roles {
		dst = r.append(dst)
	}
	dst = binary.AppendUvarint(dst, uint64(len(t.access.all)))
	for _, a := range t.access.all {
		dst = a.append(dst)
	}
	return dst
}

func (a *access) append(dst []byte) []byte {
	dst = appendString(append(dst, a.id[:]...), a.label)
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(a.created)), uint64(a.expires))
	dst = binary.AppendUvarint(dst, uint64(len(a.roles)))
	for _, name := range a.roles {
		dst = appendString(dst, name)
	}
	return appendPermissions(dst, a.own)
}

func appendPermissions(dst []byte, list []kv.Permission) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, p := range list {
		dst = binary.AppendUvarint(dst, uint64(p.Access))
		dst = appendString(appendString(dst, p.Key), p.End)
	}
	return dst
}

func (u *user) append(dst []byte) []byte {
	dst = appendBool(appendString(appendString(dst, u.name), u.hash), u.noPassword)
	dst = binary.AppendUvarint(dst, u.since)
	dst = binary.AppendUvarint(dst, uint64(len(u.roles)))
	for _, name := range u.roles {
		dst = appendString(dst, name)
	}
	return dst
}

func (r *role) append(dst []byte) []byte {
	return appendPermissions(appendString(dst, r.name), r.permissions)
}

// AppendChanged appends what c changed last, as it is now: for a hash over the
// effects of changes.
func (t *Tables) AppendChanged(dst []byte, c *Change) []byte {
	dst = binary.AppendUvarint(appendBool(append(dst, byte(c.Op)), t.enabled), t.revision)
	dst = appendString(appendString(dst, c.Name), c.Role)
	if u := t.find([]byte(c.Name)); u != nil {
		dst = u.append(dst)
	}
	if r := t.role(c.Role); r != nil {
		dst = r.append(dst)
	}
	return dst
}

// AppendAccess appends an access token, nothing if there is none with that id:
// for a hash over the effects of changes.
func (t *Tables) AppendAccess(dst []byte, id kv.TokenID) []byte {
	if a := t.accessOf(id); a != nil {
		dst = a.append(dst)
	}
	return dst
}

// Append appends the tokens to dst.
func (t *Tokens) Append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(t.Len()))
	t.byMark.Scan(func(_ uint64, b *Bearer) bool {
		dst = appendString(append(dst, b.ID[:]...), b.User)
		dst = binary.AppendUvarint(dst, b.Revision)
		dst = binary.AppendUvarint(dst, uint64(b.TTL))
		dst = binary.AppendUvarint(dst, uint64(b.Deadline))
		return true
	})
	return dst
}

func appendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendBool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 1)
	}
	return append(dst, 0)
}

// Decode reads what Append has made of tables and then of tokens, and no more;
// old says that the tables are from before there were access tokens. What it
// returns does not alias data.
func Decode(data []byte, old bool) (*Tables, *Tokens, error) {
	r := reader{data: data, old: old}
	t := r.tables()
	tokens := r.tokens()
	if len(r.data) > 0 && r.err == nil {
		r.err = errOrder
	}
	if r.err != nil {
		return nil, nil, r.err
	}
	return t, tokens, nil
}

// reader reads; the first error sticks, and what is read after it is zero.
type reader struct {
	data []byte
	old  bool // see Decode
	err  error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err, r.data = err, nil
	}
}

// most reads a number that is at most that.
func (r *reader) most(most uint64) uint64 {
	n, w := binary.Uvarint(r.data)
	if w <= 0 || n > most {
		r.fail(errShort)
		return 0
	}
	r.data = r.data[w:]
	return n
}

func (r *reader) bool() bool { return r.most(1) == 1 }

func (r *reader) string(most uint64) string {
	n := r.most(min(most, uint64(len(r.data))))
	if n > uint64(len(r.data)) {
		r.fail(errShort)
		return ""
	}
	s := string(r.data[:n])
	r.data = r.data[n:]
	return s
}

// each calls read as often as the number that comes next says. What it reads
// has at least one byte each.
func (r *reader) each(read func()) {
	for n := r.most(uint64(len(r.data))); n > 0 && r.err == nil; n-- {
		read()
	}
}

func (r *reader) tables() *Tables {
	t := &Tables{enabled: r.bool(), revision: r.most(math.MaxUint64)}
	r.each(func() {
		u := &user{name: r.string(kv.MaxAuthName), hash: r.string(maxHash), noPassword: r.bool(), since: r.most(t.revision)}
		r.each(func() { u.roles = append(u.roles, r.string(kv.MaxAuthName)) })
		t.users = append(t.users, u)
	})
	r.each(func() {
		t.roles = append(t.roles, &role{name: r.string(kv.MaxAuthName), permissions: r.permissions()})
	})
	var all []*access
	if !r.old {
		r.each(func() { all = append(all, r.access()) })
	}
	t.access = newAccessList(all)
	if r.err == nil && !t.sound() {
		r.fail(errOrder)
	}
	if r.err != nil {
		return nil
	}
	same := shared{}
	for _, u := range t.users {
		u.grants = same.merge(t, u.roles)
	}
	for _, a := range t.access.all {
		a.grants = t.merge(a.roles, a.own)
	}
	return t
}

func (r *reader) permissions() (list []kv.Permission) {
	r.each(func() {
		p := kv.Permission{Access: kv.Access(r.most(uint64(kv.ReadWriteAccess)))}
		p.Key, p.End = []byte(r.string(math.MaxInt32)), []byte(r.string(math.MaxInt32))
		if !validRange(&p) {
			r.fail(errOrder)
		}
		list = append(list, p)
	})
	return list
}

func (r *reader) access() *access {
	n := kv.AccessToken{ID: r.id(), Name: r.string(kv.MaxTokenName)}
	n.Created, n.Expires = kv.Time(r.most(math.MaxInt64)), kv.Time(r.most(math.MaxInt64))
	var roles []string
	r.each(func() { roles = append(roles, r.string(kv.MaxAuthName)) })
	return newAccess(&n, roles, r.permissions())
}

func (r *reader) id() (id kv.TokenID) {
	if len(r.data) < len(id) {
		r.fail(errShort)
		return id
	}
	r.data = r.data[copy(id[:], r.data):]
	return id
}

// sound tells whether all is in order, each once, and all roles exist.
func (t *Tables) sound() bool {
	if !increasing(t.Users()) || !increasing(t.Roles()) || t.revision == 0 {
		return false
	}
	for _, u := range t.users {
		if u.name == "" || !increasing(u.roles) {
			return false
		}
		for _, name := range u.roles {
			if name != kv.RootName && t.role(name) == nil {
				return false
			}
		}
	}
	for _, r := range t.roles {
		if r.name == "" || !sortedByKey(r.permissions) {
			return false
		}
	}
	return t.soundAccess()
}

// soundAccess tells the same of access tokens.
func (t *Tables) soundAccess() bool {
	labels := map[string]bool{"": false}
	for i, a := range t.access.all {
		if checkID(a.id) != nil || i > 0 && t.access.marks[i-1] >= t.access.marks[i] || labels[a.label] || checkLabel(a.label) != nil ||
			!increasing(a.roles) || !sortedByKey(a.own) {
			return false
		}
		labels[a.label] = a.label != ""
		for _, name := range a.roles {
			if !t.grantable(name) {
				return false
			}
		}
	}
	return len(t.access.all) <= kv.MaxAccessTokens
}

func sortedByKey(list []kv.Permission) bool {
	return slices.IsSortedFunc(list, func(a, b kv.Permission) int { return bytes.Compare(a.Key, b.Key) })
}

func increasing(names []string) bool {
	for i := 1; i < len(names); i++ {
		if names[i-1] >= names[i] {
			return false
		}
	}
	return true
}

func (r *reader) tokens() *Tokens {
	t := NewTokens()
	last := uint64(0)
	r.each(func() {
		var b Bearer
		b.ID = r.id()
		b.User, b.Revision = r.string(kv.MaxAuthName), r.most(math.MaxUint64)
		b.TTL, b.Deadline = kv.Time(r.most(math.MaxInt64)), kv.Time(r.most(math.MaxInt64))
		if r.err == nil && last >= b.ID.Mark() && t.Len() > 0 {
			r.fail(errOrder)
			return
		}
		last = b.ID.Mark()
		if t.Len() == MaxTokens {
			r.fail(errTokens)
			return
		}
		t.set(&b) // forgets none
	})
	return t
}
