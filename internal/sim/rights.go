package sim

import (
	"bytes"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/kv"
)

// warden changes users, roles, permissions and access tokens, and switches
// authentication on and off. Guests are clients that make some of their writes in
// a user's name, or with a token.
type warden struct {
	client
	step    int
	manager *credential // the last token that may manage tokens, if it was made
}

// guest is who the guests are when they are not root or nobody.
const guest = "guest"

// settled are the changes that come first, so that the others can succeed.
var settled = []auth.Change{
	{Op: auth.AddUser, Name: kv.RootName}, {Op: auth.GrantRole, Name: kv.RootName, Role: kv.RootName},
	{Op: auth.AddUser, Name: guest}, {Op: auth.AddRole, Role: "some"}, {Op: auth.GrantRole, Name: guest, Role: "some"}, {Op: auth.Enable},
}

func (d *warden) act() {
	w := d.w
	if w.closing {
		return
	}
	d.move()
	cmd := &command{}
	if d.step > len(settled) && w.load.is(0.4) {
		cmd = d.changeAccess()
	} else {
		c := d.draw()
		cmd.auth = &c
	}
	d.ask(cmd, func(bool) { w.loop.after(w.load.exp(w.opt.load.rights), d.act) })
}

func (d *warden) draw() auth.Change {
	if d.step++; d.step <= len(settled) {
		return settled[d.step-1]
	}
	rnd := d.w.load
	end := ""
	if rnd.is(0.6) {
		end = d.w.key()
	}
	return auth.Change{
		Op: pick(rnd, auth.Enable, auth.Disable, auth.SetPassword, auth.AddUser, auth.DeleteUser, auth.AddRole, auth.DeleteRole,
			auth.GrantRole, auth.RevokeRole, auth.RevokePermission, auth.GrantPermission, auth.GrantPermission, auth.GrantPermission),
		Name: pick(rnd, guest, guest, kv.RootName), Role: pick(rnd, "some", "some", "other", kv.RootName), Hash: pick(rnd, "one", "two"),
		Permission: kv.Permission{Access: pick(rnd, kv.ReadAccess, kv.WriteAccess, kv.ReadWriteAccess, kv.ReadWriteAccess), Key: []byte(d.w.key()), End: []byte(end)},
	}
}

// who is in whose name a client writes.
func (c *client) who() *kv.Caller {
	rnd := c.w.load
	if !c.guest || rnd.is(0.3) {
		return nil
	}
	if known := c.w.people.credentials; len(known) > 0 && rnd.is(0.5) {
		return pick(rnd, known...).caller()
	}
	revision := c.w.model.access.Revision()
	return &kv.Caller{User: pick(rnd, guest, guest, kv.RootName, ""), AuthRevision: revision - pick[uint64](rnd, 0, 0, 0, 1)}
}

// refusal is why a caller may not run a transaction, or nil.
func (m *model) refusal(c *command) error {
	s := m.subject(c.who)
	return m.refusalOf(&s, c.txn)
}

func (m *model) refusalOf(s *auth.Subject, t *kv.Txn) error {
	var first error
	need := func(access kv.Access, key, end []byte) {
		if first == nil {
			first = s.Keys(access, key, end)
		}
	}
	for _, c := range t.Compare {
		need(kv.ReadAccess, c.Key, c.End)
	}
	for _, op := range append(append([]kv.Op(nil), t.Success...), t.Failure...) {
		switch op.Kind {
		case kv.OpTxn:
			if first == nil {
				first = m.refusalOf(s, op.Txn)
			}
			continue
		case kv.OpRange:
			need(kv.ReadAccess, op.Range.Key, op.Range.End)
			continue
		}
		need(kv.WriteAccess, op.Key, op.End)
		if op.PrevKV {
			need(kv.ReadAccess, op.Key, op.End)
		}
		if op.Lease == 0 {
			continue
		}
		for _, key := range m.attached(op.Lease) {
			need(kv.WriteAccess, []byte(key), nil)
		}
	}
	return first
}

// checkAccess compares users, roles and access tokens with the model's.
func (n *node) checkAccess() {
	if got, want := n.proc.machine.Access().Append(nil), n.w.model.access.Append(nil); !bytes.Equal(got, want) {
		violate("%s has users and roles %x, the model %x", n, got, want)
	}
}
