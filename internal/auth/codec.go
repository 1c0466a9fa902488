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
//	tables     = enabled revision n user… n role…
//	user       = name hash noPassword since n role-name…
//	role       = name n permission…
//	permission = access key end
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
	dst = binary.AppendUvarint(appendString(dst, r.name), uint64(len(r.permissions)))
	for _, p := range r.permissions {
		dst = binary.AppendUvarint(dst, uint64(p.Access))
		dst = appendString(appendString(dst, p.Key), p.End)
	}
	return dst
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

// Decode reads what Append has made of tables and then of tokens, and no more.
// What it returns does not alias data.
func Decode(data []byte) (*Tables, *Tokens, error) {
	r := reader{data: data}
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
		e := &role{name: r.string(kv.MaxAuthName)}
		r.each(func() {
			p := kv.Permission{Access: kv.Access(r.most(uint64(kv.ReadWriteAccess)))}
			p.Key, p.End = []byte(r.string(math.MaxInt32)), []byte(r.string(math.MaxInt32))
			if !validRange(&p) {
				r.fail(errOrder)
			}
			e.permissions = append(e.permissions, p)
		})
		t.roles = append(t.roles, e)
	})
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
	return t
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
		if r.name == "" || !slices.IsSortedFunc(r.permissions, func(a, b kv.Permission) int { return bytes.Compare(a.Key, b.Key) }) {
			return false
		}
	}
	return true
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
		if len(r.data) < len(b.ID) {
			r.fail(errShort)
			return
		}
		r.data = r.data[copy(b.ID[:], r.data):]
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
