package auth

import "github.com/concord-kv/concord/kv"

// Subject is a caller as the tables know it: what every check is made on. The
// zero Subject may do everything. It is a small value and costs no memory.
type Subject struct {
	tables   *Tables // nil for the zero Subject, and while authentication is off
	user     *user   // nil when there is none of that name
	revision uint64
	named    bool
	// gone says that the token is not good which the caller has shown.
	gone bool
}

// Subject looks a caller up. One without a name has proved nothing.
func (t *Tables) Subject(name []byte, revision uint64) Subject {
	switch {
	case !t.enabled:
		return Subject{}
	case len(name) == 0:
		return Subject{tables: t}
	}
	return Subject{tables: t, user: t.find(name), revision: revision, named: true}
}

// Bearer looks a caller up who has shown a token, of which b is kept; nil means
// that nothing is. A token that is good at now proves who that is now, as in
// etcd; its revision is that of the password.
func (t *Tables) Bearer(name []byte, revision uint64, b *Bearer, now kv.Time) Subject {
	s := t.Subject(name, revision)
	if s.tables == nil {
		return s
	}
	if s.gone = b == nil || now >= b.Deadline || b.User != string(name); s.gone {
		return s
	}
	s.revision = b.Revision
	if s.gone = s.user == nil || s.outlived(); !s.gone {
		s.revision = t.revision
	}
	return s
}

// Bound tells whether there is anything that s may not do.
func (s *Subject) Bound() bool {
	return s.tables != nil && (s.user == nil || !s.user.grants.root || s.gone || s.stale())
}

// stale tells that users, roles or permissions have changed since the caller
// proved who it is. (0 is below any revision.)
func (s *Subject) stale() bool { return s.revision < s.tables.revision }

// Keys returns nil when the caller may now read or write all keys that key and
// end select; else [kv.ErrUserEmpty], [kv.ErrAuthOldRevision] or
// [kv.ErrPermissionDenied].
func (s *Subject) Keys(a kv.Access, key, end []byte) error {
	switch {
	case s.tables == nil:
		return nil
	case s.gone:
		return kv.ErrInvalidAuthToken
	case s.revision == 0:
		return kv.ErrUserEmpty
	case s.stale():
		return kv.ErrAuthOldRevision
	}
	return s.granted(a, key, end)
}

func (s *Subject) granted(a kv.Access, key, end []byte) error {
	if s.user == nil {
		return kv.ErrPermissionDenied
	}
	g := s.user.grants
	list := g.read
	if a == kv.WriteAccess {
		list = g.write
	}
	if g.root || covers(list, key, end) {
		return nil
	}
	return kv.ErrPermissionDenied
}

// Still returns nil when the caller may go on with what [Subject.Keys] allowed
// before: changes of others' rights and the end of a token do not matter, the
// end of its own rights does, and so does a new password, or a new user of the
// same name.
func (s *Subject) Still(a kv.Access, key, end []byte) error {
	switch {
	case s.tables == nil:
		return nil
	case s.revision == 0:
		return kv.ErrUserEmpty
	case s.outlived():
		return kv.ErrInvalidAuthToken
	}
	return s.granted(a, key, end)
}

// outlived tells that the user or the password has changed since the caller
// proved who it is.
func (s *Subject) outlived() bool { return s.user != nil && s.revision < s.user.since }

// Right returns nil when the caller has a right that is not about keys. As in
// etcd, a change of rights since the caller proved who it is does not matter
// here, and [kv.AnyUser] may also be somebody who proved a name that no user
// has; but the proof must not be older than the user's password.
func (s *Subject) Right(r kv.Right) error {
	switch {
	case s.tables == nil:
		return nil
	case !s.named:
		return kv.ErrUserEmpty
	case s.gone || s.outlived():
		return kv.ErrInvalidAuthToken
	case s.user == nil && r != kv.AnyUser:
		return kv.ErrUserNotFound
	case s.user == nil && s.stale(): // perhaps deleted since
		return kv.ErrInvalidAuthToken
	case r == kv.AnyUser || s.user.grants.root:
		return nil
	}
	return kv.ErrPermissionDenied
}

// Root tells whether the caller may do everything, however old the proof: what
// etcd asks before it looks at the keys of a lease.
func (s *Subject) Root() bool { return s.tables == nil || s.Right(kv.ManageCluster) == nil }

// AskUser returns nil when the caller may see that user's roles: it is that
// user, or may manage users.
func (s *Subject) AskUser(name string) error {
	err := s.Right(kv.ManageAuth)
	if err != nil && s.user != nil && s.user.name == name && !s.gone && !s.outlived() {
		return nil
	}
	return err
}

// AskRole returns nil when the caller may see that role: it has the role, or may
// manage roles.
func (s *Subject) AskRole(name string) error {
	err := s.Right(kv.ManageAuth)
	if err != nil && s.user != nil && !s.gone && !s.outlived() {
		for _, r := range s.user.roles {
			if r == name {
				return nil
			}
		}
	}
	return err
}

// Of tells whether s was looked up in these tables.
func (s *Subject) Of(t *Tables) bool { return s.tables == t }
