package auth

import "github.com/concord-kv/concord/kv"

// Subject is a caller as the tables know it: what every check is made on. The
// zero Subject may do everything. It is a small value and costs no memory.
type Subject struct {
	tables   *Tables // nil for the zero Subject, and while authentication is off
	user     *user   // nil when there is none of that name
	access   *access // whose user is an access token
	revision uint64
	named    bool
	// gone says that the token is not good which the caller has shown. One
	// with no revision then is no session's.
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

// Shown is what a caller has shown to prove who it is: its name, the revision at
// which a password was checked, and the mark of a token.
type Shown struct {
	Name     []byte
	Revision uint64
	Mark     uint64
}

// Bearer looks a caller up who has shown a token, of which b is kept; nil means
// that it is none of a session, but may be an access token. A token that is good
// at now proves who that is now, as in etcd; its revision is that of the
// password.
func (t *Tables) Bearer(c Shown, b *Bearer, now kv.Time) Subject {
	s := t.Subject(c.Name, c.Revision)
	if s.tables == nil {
		return s
	}
	if b == nil && c.Revision == 0 && s.named {
		return t.byAccess(c.Name, c.Mark)
	}
	if s.gone = b == nil || now >= b.Deadline || b.User != string(c.Name); s.gone {
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
// before: changes of others' rights and the end of a session's token do not
// matter, the end of its own rights does, and so does a new password, a new user
// of the same name, or the end of its access token.
func (s *Subject) Still(a kv.Access, key, end []byte) error {
	switch {
	case s.tables == nil:
		return nil
	case s.gone && s.revision == 0:
		return kv.ErrInvalidAuthToken
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
	case r == kv.AnyUser || s.user.grants.root || s.user.grants.rights&(1<<r) != 0:
		return nil
	}
	return kv.ErrPermissionDenied
}

// Root tells whether the caller may do everything, however old the proof: what
// etcd asks before it looks at the keys of a lease.
func (s *Subject) Root() bool {
	return s.tables == nil || s.user != nil && s.user.grants.root && s.Right(kv.AnyUser) == nil
}

// AskUser returns nil when the caller may see that user's roles: it is that
// user, or may manage users.
func (s *Subject) AskUser(name string) error {
	err := s.Right(kv.ManageAuth)
	if err != nil && s.user != nil && s.access == nil && s.user.name == name && !s.gone && !s.outlived() {
		return nil
	}
	return err
}

// AskAccess returns nil when the caller may see all access tokens, or with it
// the one that it has shown, which is all that it may see then.
func (s *Subject) AskAccess() (own *kv.AccessToken, err error) {
	if err = s.Right(kv.ManageAuth); err != nil && s.access != nil {
		t := s.access.public()
		return &t, nil
	}
	return nil, err
}

// Ask returns nil when the caller may see what somebody may do: it may manage
// users, or the question is about itself.
func (s *Subject) Ask(q *kv.Question) error {
	if q.User == "" && s.access != nil && s.access.id == q.Token {
		return nil
	}
	return s.AskUser(q.User)
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

// Of tells whether s was looked up in tables with these users and roles.
func (s *Subject) Of(t *Tables) bool {
	return s.tables == t || s.tables != nil && s.tables.enabled == t.enabled && s.tables.revision == t.revision
}
