package concord

import (
	"context"
	"errors"
	"time"

	"github.com/concord-kv/concord/internal/auth"
	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/observe"
)

var _ kv.Authority = (*Node)(nil)

// Auth implements [kv.Guard].
func (n *Node) Auth() kv.AuthStatus {
	t := n.machine.Access()
	return kv.AuthStatus{Enabled: t.Enabled(), Revision: t.Revision()}
}

// AuthStatus implements [kv.Guard].
func (n *Node) AuthStatus(ctx context.Context) (kv.AuthStatus, error) {
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return kv.AuthStatus{}, err
	}
	s := n.Auth()
	s.Header = n.header()
	return s, nil
}

// header describes what this member has applied.
func (n *Node) header() kv.Header {
	view := n.machine.View()
	defer view.Close()
	return view.Header()
}

// EnableAuth implements [kv.Guard].
func (n *Node) EnableAuth(ctx context.Context) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.Enable})
}

// DisableAuth implements [kv.Guard].
func (n *Node) DisableAuth(ctx context.Context) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.Disable})
}

func (n *Node) changeAuth(ctx context.Context, c auth.Change) (kv.Header, error) {
	return n.headerCall(ctx, observe.OpAuth, func(dst []byte) []byte { return machine.EncodeAuth(dst, &c) })
}

// Authorize implements [kv.Guard]. For the rights to manage and to take backups
// it asks a majority first what has been applied, but where there is none to be
// had within an election time-out, what this member knows decides: then a backup
// may be what is needed most.
func (n *Node) Authorize(ctx context.Context, r kv.Right) error {
	err := n.authorize(ctx, r)
	if err != nil {
		tellRefused(ctx, n.figures.events.hub.Load(), 0, err)
	}
	return err
}

// authorize is Authorize as a part of a call that is told of.
func (n *Node) authorize(ctx context.Context, r kv.Right) error {
	if kv.CallerOf(ctx) == nil {
		return nil
	}
	if r != kv.AnyUser && r != kv.ReadTelemetry {
		short, cancel := context.WithTimeout(ctx, n.cfg.election)
		_ = n.barrier(short, kv.Strong)
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	s := n.machine.Subject(n.caller(ctx))
	return s.Right(r)
}

// CheckPassword implements [kv.Guard].
func (n *Node) CheckPassword(ctx context.Context, user, password string) (authRevision uint64, err error) {
	c := n.begin(ctx, observe.OpAuthenticate)
	authRevision, err = n.checkPassword(ctx, user, password)
	if c != nil {
		n.tellLogin(user, err)
		n.end(ctx, c, err)
	}
	return authRevision, err
}

func (n *Node) checkPassword(ctx context.Context, user, password string) (authRevision uint64, err error) {
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return 0, err
	}
	t := n.machine.Access()
	hash, err := t.Password(user)
	if errors.Is(err, kv.ErrAuthNotEnabled) {
		return 0, err
	}
	right, busy := n.logins.check(ctx, hash, password)
	switch {
	case busy != nil:
		return 0, busy
	case err != nil:
		return 0, err
	case !right:
		return 0, kv.ErrAuthFailed
	}
	return t.Revision(), nil
}

// AddUser implements [kv.Users].
func (n *Node) AddUser(ctx context.Context, u kv.NewUser) (kv.Header, error) {
	c := auth.Change{Op: auth.AddUser, Name: u.Name, Hash: u.Hash, NoPassword: u.NoPassword}
	// Before the password is hashed, which is dear.
	if err := n.Authorize(ctx, kv.ManageAuth); err != nil {
		return kv.Header{}, err
	}
	var err error
	switch {
	case u.NoPassword:
	case u.Hash != "":
		err = checkHash(u.Hash)
	default:
		c.Hash, err = n.logins.hash(ctx, u.Password)
	}
	if err != nil {
		return kv.Header{}, err
	}
	return n.changeAuth(ctx, c)
}

// SetPassword implements [kv.Users].
func (n *Node) SetPassword(ctx context.Context, name, password string) (kv.Header, error) {
	if err := n.Authorize(ctx, kv.ManageAuth); err != nil {
		return kv.Header{}, err
	}
	c := auth.Change{Op: auth.SetPassword, Name: name}
	if password != "" {
		var err error
		if c.Hash, err = n.logins.hash(ctx, password); err != nil {
			return kv.Header{}, err
		}
	}
	return n.changeAuth(ctx, c)
}

// asked reads users and roles as linearizable reads do, when the caller may.
func (n *Node) asked(ctx context.Context, may func(auth.Subject) error) (*auth.Tables, kv.Header, error) {
	if err := n.barrier(ctx, kv.Strong); err != nil {
		return nil, kv.Header{}, err
	}
	// Rights of after the tables: what is refused since is not shown.
	t := n.machine.Access()
	return t, n.header(), may(n.machine.Subject(n.caller(ctx)))
}

// User implements [kv.Users].
func (n *Node) User(ctx context.Context, name string) (kv.User, kv.Header, error) {
	t, h, err := n.asked(ctx, func(s auth.Subject) error { return s.AskUser(name) })
	if err != nil {
		return kv.User{}, kv.Header{}, err
	}
	u, err := t.User(name)
	return u, h, err
}

// Users implements [kv.Users].
func (n *Node) Users(ctx context.Context) ([]string, kv.Header, error) {
	t, h, err := n.asked(ctx, func(s auth.Subject) error { return s.Right(kv.ManageAuth) })
	if err != nil {
		return nil, kv.Header{}, err
	}
	return t.Users(), h, nil
}

// DeleteUser implements [kv.Users].
func (n *Node) DeleteUser(ctx context.Context, name string) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.DeleteUser, Name: name})
}

// GrantRole implements [kv.Users].
func (n *Node) GrantRole(ctx context.Context, user, role string) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.GrantRole, Name: user, Role: role})
}

// RevokeRole implements [kv.Users].
func (n *Node) RevokeRole(ctx context.Context, user, role string) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.RevokeRole, Name: user, Role: role})
}

// AddRole implements [kv.Roles].
func (n *Node) AddRole(ctx context.Context, name string) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.AddRole, Role: name})
}

// AuthRole implements [kv.Roles].
func (n *Node) AuthRole(ctx context.Context, name string) (kv.AuthRole, kv.Header, error) {
	t, h, err := n.asked(ctx, func(s auth.Subject) error { return s.AskRole(name) })
	if err != nil {
		return kv.AuthRole{}, kv.Header{}, err
	}
	r, err := t.Role(name)
	return r, h, err
}

// AuthRoles implements [kv.Roles].
func (n *Node) AuthRoles(ctx context.Context) ([]string, kv.Header, error) {
	t, h, err := n.asked(ctx, func(s auth.Subject) error { return s.Right(kv.ManageAuth) })
	if err != nil {
		return nil, kv.Header{}, err
	}
	return t.Roles(), h, nil
}

// DeleteRole implements [kv.Roles].
func (n *Node) DeleteRole(ctx context.Context, name string) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.DeleteRole, Role: name})
}

// GrantPermission implements [kv.Roles].
func (n *Node) GrantPermission(ctx context.Context, role string, p kv.Permission) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.GrantPermission, Role: role, Permission: p})
}

// RevokePermission implements [kv.Roles].
func (n *Node) RevokePermission(ctx context.Context, role string, key, end []byte) (kv.Header, error) {
	return n.changeAuth(ctx, auth.Change{Op: auth.RevokePermission, Role: role, Permission: kv.Permission{Key: key, End: end}})
}

// AddToken implements [kv.Tokens].
func (n *Node) AddToken(ctx context.Context, t kv.Token) (kv.Header, error) {
	if t.TTL <= 0 {
		return kv.Header{}, kv.ErrInvalidTTL
	}
	if t.TTL > kv.MaxTTL {
		return kv.Header{}, kv.ErrTTLTooLarge
	}
	return n.headerCommand(kv.WithoutCaller(ctx), func(dst []byte) []byte { return machine.EncodeToken(dst, &t) })
}

// TokenCaller implements [kv.Tokens].
func (n *Node) TokenCaller(ctx context.Context, id kv.TokenID) (kv.Caller, error) {
	hour := auth.Hour(time.Now())
	c, half, ok := n.machine.Token(id, hour)
	if !ok {
		if err := n.barrier(ctx, kv.Strong); err != nil {
			return kv.Caller{}, err
		}
		if c, half, ok = n.machine.Token(id, hour); !ok {
			return kv.Caller{}, kv.ErrInvalidAuthToken
		}
	}
	if half {
		n.renew(ctx, id)
	}
	return c, nil
}

// renew gives a token its whole time again, unless another call is about to. A
// failure does no harm: the token is good still.
func (n *Node) renew(ctx context.Context, id kv.TokenID) {
	if _, busy := n.logins.renewing.LoadOrStore(id, true); busy {
		return
	}
	defer n.logins.renewing.Delete(id)
	// The call waits for it, and may need no majority itself.
	ctx, cancel := context.WithTimeout(ctx, n.cfg.election)
	defer cancel()
	_, err := n.propose(kv.WithoutCaller(ctx), func(dst []byte) []byte { return machine.EncodeRenewToken(dst, id) })
	if err != nil {
		n.log.Debug("token not renewed", "error", err)
	}
}

// RevokeToken implements [kv.Tokens].
func (n *Node) RevokeToken(ctx context.Context, id kv.TokenID) (kv.Header, error) {
	return n.headerCommand(ctx, func(dst []byte) []byte { return machine.EncodeRevokeToken(dst, id) })
}
