package sim

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
)

// aboutRights is what a command has to do with who may do what.
type aboutRights struct {
	auth   *auth.Change
	access *accessChange
	who    *kv.Caller // in whose name the command is run, if in anybody's
}

// accessChange is a change of access tokens: one of the four is set.
type accessChange struct {
	create               *kv.NewAccessToken
	revoke, ensure, boot kv.TokenID
}

func (a *accessChange) encode() []byte {
	switch none := (kv.TokenID{}); {
	case a.create != nil:
		return machine.EncodeCreateAccess(nil, a.create)
	case a.revoke != none:
		return machine.EncodeRevokeAccess(nil, a.revoke)
	case a.ensure != none:
		return machine.EncodeEnsureRoot(nil, a.ensure)
	}
	return machine.EncodeBootstrap(nil, a.boot)
}

// String describes the change for people.
func (a *accessChange) String() string {
	if a.create != nil {
		return fmt.Sprintf("create access token %v %q of %v, roles %v", a.create.ID, a.create.Name, a.create.TTL, a.create.Roles)
	}
	return fmt.Sprintf("revoke access token %v, ensure %v, bootstrap %v", a.revoke, a.ensure, a.boot)
}

// credential is an access token as those who show it know it. It may be revoked,
// expired, or never have been made.
type credential struct {
	id   kv.TokenID
	name string
}

func (c *credential) caller() *kv.Caller {
	return &kv.Caller{User: kv.TokenUser(c.id, c.name), Token: c.id.Mark()}
}

// kept is how many tokens people remember to have heard of.
const kept = 8

// changeAccess draws a change of access tokens, some of them in the name of one.
func (d *warden) changeAccess() *command {
	rnd := d.w.load
	c := &command{aboutRights: aboutRights{access: d.drawAccess()}}
	switch known := d.w.people.credentials; {
	case d.manager != nil && rnd.is(0.3):
		c.who = d.manager.caller()
	case len(known) > 0 && rnd.is(0.3):
		c.who = pick(rnd, known...).caller()
	}
	return c
}

func (d *warden) drawAccess() *accessChange {
	w, rnd := d.w, d.w.load
	known := w.people.credentials
	if len(known) > 0 && rnd.is(0.3) {
		return &accessChange{revoke: pick(rnd, known...).id}
	}
	n := &credential{id: d.newID(), name: pick(rnd, "", "", "", "app")}
	w.people.credentials = append(known, n)[max(0, len(known)+1-kept):]
	switch {
	case rnd.is(0.05):
		n.name = kv.RootName // as the first is called that is ensured
		return &accessChange{ensure: n.id}
	case rnd.is(0.02):
		n.name = kv.RootName
		return &accessChange{boot: n.id}
	}
	t := &kv.NewAccessToken{ID: n.id, Name: n.name}
	if rnd.is(0.7) {
		t.TTL = rnd.between(50*time.Millisecond, 5*time.Second).Round(time.Millisecond)
	}
	t.Roles = pick(rnd, nil, []string{"some"}, []string{"some", "other"}, []string{kv.AuthAdminRole}, []string{kv.RootName})
	if len(t.Roles) > 0 && t.Roles[0] == kv.AuthAdminRole {
		d.manager = n
	}
	if rnd.is(0.5) {
		t.Permissions = []kv.Permission{{Access: kv.ReadWriteAccess, Key: []byte("k"), End: []byte(pick(rnd, "l", "k002"))}}
	}
	return &accessChange{create: t}
}

// newID is the id of a token that nobody has seen.
func (d *warden) newID() (id kv.TokenID) {
	binary.BigEndian.PutUint64(id[:], d.w.load.Uint64()|1)
	return id
}

// modelToken is an access token of the model: when it is good, in as few words
// as there are. What it may do then is in the tables.
type modelToken struct {
	user    string  // the caller's name
	expires kv.Time // 0 is never
	since   int64   // when it was asked for
	ttl     time.Duration
}

// advance moves the model on to the time of an entry.
func (m *model) advance(w *world, now kv.Time) {
	m.now = max(m.now, now)
	for id, t := range m.tokens {
		if t.expires != 0 && t.expires <= m.now {
			w.checkNotEarly("access token", t.since, t.ttl)
			w.tally.expired++
			delete(m.tokens, id)
		}
	}
	m.access, _ = m.access.Expire(m.now)
}

// subject is a caller as the tables know it. Whether its access token is good
// the model finds out for itself.
func (m *model) subject(c *kv.Caller) auth.Subject {
	if c.Token == 0 {
		return m.access.Subject([]byte(c.User), c.AuthRevision)
	}
	s := m.access.Bearer(auth.Shown{Name: []byte(c.User), Mark: c.Token}, nil, m.now)
	good := !m.access.Enabled()
	for id, t := range m.tokens {
		good = good || id.Mark() == c.Token && t.user == c.User
	}
	if known := s.Right(kv.AnyUser) == nil; known != good {
		violate("the access token of %q is good: %v, the model says %v", c.User, known, good)
	}
	return s
}

// changeAccess makes a change of access tokens, or says why not.
func (m *model) changeAccess(c *command) error {
	a := c.access
	if c.who != nil {
		s := m.subject(c.who)
		if err := s.Right(kv.ManageAuth); err != nil {
			return err
		}
		forRoot := a.create == nil && m.access.IsRoot(a.revoke) || a.create != nil && len(a.create.Roles) > 0 && a.create.Roles[0] == kv.RootName
		if !s.Root() && (forRoot || a.create == nil && a.revoke == kv.TokenID{}) {
			return kv.ErrPermissionDenied
		}
	}
	var next *auth.Tables
	id, err := kv.TokenID{}, error(nil)
	switch none := (kv.TokenID{}); {
	case a.create != nil:
		n := kv.AccessToken{ID: a.create.ID, Name: a.create.Name, Roles: a.create.Roles, Permissions: a.create.Permissions, Created: m.now}
		if a.create.TTL != 0 {
			n.Expires = m.now.Add(a.create.TTL)
		}
		id = n.ID
		next, err = m.access.Create(&n)
	case a.revoke != none:
		next, err = m.access.Revoke(a.revoke)
	case a.ensure != none:
		id = a.ensure
		next, err = m.access.EnsureRoot(id, m.now)
	default:
		id = a.boot
		next, err = m.access.Bootstrap(id, m.now)
	}
	if err != nil {
		return err
	}
	m.access = next
	if id == (kv.TokenID{}) {
		delete(m.tokens, a.revoke)
	} else {
		made, _ := next.AccessToken(id)
		m.tokens[id] = &modelToken{user: kv.TokenUser(id, made.Name)}
	}
	if a.create != nil && a.create.TTL != 0 {
		t := m.tokens[id]
		t.expires, t.since, t.ttl = m.now.Add(a.create.TTL), c.started, a.create.TTL
	}
	if got := len(m.access.AccessTokens()); got != len(m.tokens) {
		violate("there are %d access tokens, the model has %d", got, len(m.tokens))
	}
	return nil
}

// checkAccessOverdue: a token outlives its deadline only for as long as nobody
// leads who could write the time into the log.
func (w *world) checkAccessOverdue(slack kv.Time) {
	leader := w.leader()
	if leader == nil {
		return
	}
	now := kv.Time(leader.state.ClusterTime(leader.now()))
	slack += kv.Time(0).Add(w.quiet())
	for id, t := range w.model.tokens {
		if t.expires != 0 && now > t.expires+slack {
			violate("access token %v should have expired at %d, and it is %d", id, t.expires, now)
		}
	}
}

// onlooker watches in the name of an access token, where nothing may ever happen
// in its range: only a change of rights wakes it, as it does Node.Watch.
type onlooker struct {
	caller  *kv.Caller
	ask     kv.WatchRequest
	at      *node
	life    uint64
	changed <-chan struct{}
}

// mostOnlookers is how many there are at a time.
const mostOnlookers = 6

// look lets somebody begin to watch at a member that has just applied something.
func (w *world) look(n *node) {
	p := &w.people
	if len(p.credentials) == 0 || len(p.onlookers) >= mostOnlookers || !w.rnd.is(0.05) {
		return
	}
	o := &onlooker{caller: pick(w.rnd, p.credentials...).caller(), ask: kv.WatchRequest{Key: []byte("k001")}, at: n, life: n.life}
	o.changed = n.proc.machine.AccessChanged()
	v := n.proc.machine.ViewAs(o.caller)
	defer v.Close()
	if v.MayRead(o.ask.Key, o.ask.End) == nil {
		p.onlookers = append(p.onlookers, o)
	}
}

// wakeOnlookers: who may watch no more was told, and the watch ends.
func (w *world) wakeOnlookers(n *node) {
	w.look(n)
	left := w.people.onlookers[:0]
	for _, o := range w.people.onlookers {
		if o.at == n && o.life == n.life && !o.goesOn(w) || o.at.life != o.life || !o.at.up() {
			continue
		}
		left = append(left, o)
	}
	w.people.onlookers = left
}

func (o *onlooker) goesOn(w *world) bool {
	told := false
	select {
	case <-o.changed:
		told = true
		o.changed = o.at.proc.machine.AccessChanged()
	default:
	}
	v := o.at.proc.machine.ViewAs(o.caller)
	defer v.Close()
	err := v.MayWatch(&o.ask)
	if err != nil && !told {
		violate("a watch of %q at %s lost its right (%v), and nobody was told", o.caller.User, o.at, err)
	}
	if err != nil {
		w.tally.cut++
	}
	return err == nil
}
