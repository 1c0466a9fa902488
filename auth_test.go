package concord

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
)

// as makes calls in the name of a user who has just proved who it is.
func as(t testing.TB, n *Node, user string) context.Context {
	return kv.WithCaller(t.Context(), kv.Caller{User: user, AuthRevision: n.Auth().Revision})
}

// guarded gives a member root (with the password "secret"), alice, who reads and
// writes a..c, and bob, who reads b, and switches authentication on.
func guarded(t testing.TB, n *Node) {
	t.Helper()
	ctx := t.Context()
	do := func(_ kv.Header, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(n.AddUser(ctx, kv.NewUser{Name: "root", Password: "secret"}))
	do(n.GrantRole(ctx, "root", "root"))
	for user, p := range map[string]kv.Permission{
		"alice": {Access: kv.ReadWriteAccess, Key: []byte("a"), End: []byte("c")},
		"bob":   {Access: kv.ReadAccess, Key: []byte("b")},
	} {
		do(n.AddUser(ctx, kv.NewUser{Name: user, NoPassword: true}))
		do(n.AddRole(ctx, user))
		do(n.GrantRole(ctx, user, user))
		do(n.GrantPermission(ctx, user, p))
	}
	do(n.EnableAuth(ctx))
}

// wantErr fails unless err is want.
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// Every call of a store and a cluster is refused to who may not make it, on the
// member that has just switched authentication on and on the others.
func TestEveryCallChecksItsCaller(t *testing.T) {
	nodes := openCluster(t, 3)
	guarded(t, nodes[0])
	for _, n := range nodes {
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		anonymous := kv.WithCaller(t.Context(), kv.Caller{})
		for name, call := range storeCalls(n) {
			wantErr(t, name+" of nobody", call(anonymous), kv.ErrUserEmpty)
			if err := call(as(t, n, "root")); err != nil {
				t.Errorf("%s of root: %v", name, err)
			}
		}
		for name, call := range adminCalls(n) {
			wantErr(t, name+" of nobody", call(anonymous), kv.ErrUserEmpty)
			wantErr(t, name+" of alice", call(as(t, n, "alice")), kv.ErrPermissionDenied)
			wantErr(t, name+" of someone who is no user", call(as(t, n, "mallory")), kv.ErrUserNotFound)
		}
	}
}

// storeCalls are calls that root may make.
func storeCalls(n *Node) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"range": func(ctx context.Context) error {
			_, err := n.Range(ctx, kv.Range{Key: []byte("x")})
			return err
		},
		"eventual range": func(ctx context.Context) error {
			_, err := n.Range(ctx, kv.Range{Key: []byte("x"), Level: kv.Eventual})
			return err
		},
		"get": func(ctx context.Context) error {
			if _, err := n.Get(ctx, "nothing", kv.Strong); !errors.Is(err, kv.ErrKeyNotFound) {
				return err
			}
			return nil
		},
		"put": func(ctx context.Context) error {
			_, err := n.Put(ctx, "x", "y")
			return err
		},
		"large put": func(ctx context.Context) error {
			_, err := n.Put(ctx, "x", strings.Repeat("y", 1<<20+1))
			return err
		},
		"read-only transaction": func(ctx context.Context) error {
			_, err := n.Txn(ctx, kv.Txn{Compare: []kv.Compare{{Key: []byte("x")}}})
			return err
		},
		"watch": func(ctx context.Context) error {
			for _, err := range n.Watch(ctx, kv.WatchRequest{Key: []byte("x")}) {
				return err
			}
			return nil
		},
		"grant and revoke": func(ctx context.Context) error {
			l, err := n.Grant(ctx, kv.Grant{TTL: time.Minute})
			if err != nil {
				return err
			}
			if _, err := n.KeepAlive(ctx, l.ID); err != nil {
				return err
			}
			if _, err := n.TimeToLive(ctx, l.ID, true); err != nil {
				return err
			}
			_, err = n.Revoke(ctx, l.ID)
			return err
		},
		"leases": func(ctx context.Context) error {
			_, err := n.Leases(ctx)
			return err
		},
		"members": func(ctx context.Context) error {
			_, err := n.Members(ctx)
			return err
		},
		"settings": func(ctx context.Context) error { return n.SetSettings(ctx, n.Settings()) },
		"users": func(ctx context.Context) error {
			_, _, err := n.Users(ctx)
			return err
		},
	}
}

// adminCalls are calls that only root may make; nobody succeeds with them here.
func adminCalls(n *Node) map[string]func(context.Context) error {
	header := func(_ kv.Header, err error) error { return err }
	return map[string]func(context.Context) error{
		"compact":   func(ctx context.Context) error { return header(n.Compact(ctx, 1)) },
		"add":       func(ctx context.Context) error { _, err := n.AddMember(ctx, kv.Member{}); return err },
		"remove":    func(ctx context.Context) error { return n.RemoveMember(ctx, 1) },
		"promote":   func(ctx context.Context) error { return n.PromoteMember(ctx, 1) },
		"update":    func(ctx context.Context) error { return n.UpdateMember(ctx, kv.Member{ID: 1}) },
		"move":      func(ctx context.Context) error { return n.MoveLeader(ctx, 0) },
		"backup":    func(ctx context.Context) error { return n.Backup(ctx, nil) },
		"alarm":     func(ctx context.Context) error { _, err := n.SetAlarm(ctx, kv.Alarm{}, true); return err },
		"downgrade": func(ctx context.Context) error { return n.SetDowngrade(ctx, "1.0.0") },
		"settings":  func(ctx context.Context) error { return n.SetSettings(ctx, Settings{}) },

		"enable":       func(ctx context.Context) error { return header(n.EnableAuth(ctx)) },
		"disable":      func(ctx context.Context) error { return header(n.DisableAuth(ctx)) },
		"add user":     func(ctx context.Context) error { return header(n.AddUser(ctx, kv.NewUser{Name: "eve"})) },
		"user":         func(ctx context.Context) error { _, _, err := n.User(ctx, "root"); return err },
		"users":        func(ctx context.Context) error { _, _, err := n.Users(ctx); return err },
		"delete user":  func(ctx context.Context) error { return header(n.DeleteUser(ctx, "bob")) },
		"password":     func(ctx context.Context) error { return header(n.SetPassword(ctx, "root", "x")) },
		"grant role":   func(ctx context.Context) error { return header(n.GrantRole(ctx, "alice", "root")) },
		"revoke role":  func(ctx context.Context) error { return header(n.RevokeRole(ctx, "root", "root")) },
		"add role":     func(ctx context.Context) error { return header(n.AddRole(ctx, "r")) },
		"role":         func(ctx context.Context) error { _, _, err := n.AuthRole(ctx, "bob"); return err },
		"roles":        func(ctx context.Context) error { _, _, err := n.AuthRoles(ctx); return err },
		"delete role":  func(ctx context.Context) error { return header(n.DeleteRole(ctx, "bob")) },
		"revoke token": func(ctx context.Context) error { return header(n.RevokeToken(ctx, kv.TokenID{})) },
		"create token": func(ctx context.Context) error {
			_, _, err := n.CreateToken(ctx, kv.NewAccessToken{ID: kv.TokenID{1}})
			return err
		},
		"access tokens":       func(ctx context.Context) error { _, _, err := n.AccessTokens(ctx); return err },
		"revoke access token": func(ctx context.Context) error { return header(n.RevokeAccessToken(ctx, kv.TokenID{1})) },
		"can": func(ctx context.Context) error {
			_, err := n.Can(ctx, kv.Question{User: "bob", Key: []byte("b")})
			return err
		},
		"grant permission": func(ctx context.Context) error {
			return header(n.GrantPermission(ctx, "alice", kv.Permission{Key: []byte("z")}))
		},
		"revoke permission": func(ctx context.Context) error {
			return header(n.RevokePermission(ctx, "bob", []byte("b"), nil))
		},
		"manage cluster": func(ctx context.Context) error { return n.Authorize(ctx, kv.ManageCluster) },
		"telemetry":      func(ctx context.Context) error { return n.Authorize(ctx, kv.ReadTelemetry) },
	}
}

// An old proof is refused by name; what has changed counts at once, also after
// a restart.
func TestRightsFollowTheRevision(t *testing.T) {
	dir := t.TempDir()
	n := open(t, dir)
	guarded(t, n)
	alice := as(t, n, "alice")
	if _, err := n.Put(alice, "a", "1"); err != nil {
		t.Fatal(err)
	}
	_, err := n.Put(alice, "c", "1")
	wantErr(t, "put elsewhere", err, kv.ErrPermissionDenied)
	if _, err := n.AddRole(as(t, n, "root"), "another"); err != nil {
		t.Fatal(err)
	}
	_, err = n.Put(alice, "a", "2")
	wantErr(t, "put with an old proof", err, kv.ErrAuthOldRevision)
	_, err = n.Range(alice, kv.Range{Key: []byte("a")})
	wantErr(t, "range with an old proof", err, kv.ErrAuthOldRevision)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n = open(t, dir)
	if s, err := n.AuthStatus(t.Context()); err != nil || !s.Enabled || s.Revision != n.Auth().Revision {
		t.Errorf("after reopening: %+v, %v", s, err)
	}
	_, err = n.Put(as(t, n, "bob"), "b", "1")
	wantErr(t, "put of who may read", err, kv.ErrPermissionDenied)
	if _, err := n.DisableAuth(as(t, n, "root")); err != nil {
		t.Fatal(err)
	}
	_, err = n.Put(kv.WithCaller(t.Context(), kv.Caller{}), "z", "1")
	wantErr(t, "put of nobody while authentication is off", err, nil)
}

// A watch ends when the right to it does, also when nothing happens in its
// range, and not when others' rights change.
func TestWatchEndsWithItsRight(t *testing.T) {
	n := open(t, t.TempDir())
	guarded(t, n)
	batches := make(chan kv.WatchBatch)
	ended := make(chan error, 1)
	ctx := as(t, n, "bob")
	go func() {
		for batch, err := range n.Watch(ctx, kv.WatchRequest{Key: []byte("b")}) {
			if err != nil {
				ended <- err
				return
			}
			batches <- batch
		}
	}()
	<-batches
	if _, err := n.AddRole(t.Context(), "of others"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Put(t.Context(), "b", "1"); err != nil {
		t.Fatal(err)
	}
	if b := <-batches; len(b.Events) != 1 || string(b.Events[0].KV.Value) != "1" {
		t.Errorf("got %+v", b)
	}
	if _, err := n.RevokePermission(t.Context(), "bob", []byte("b"), nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		wantErr(t, "the watch", err, kv.ErrPermissionDenied)
	case b := <-batches:
		t.Errorf("got %+v", b)
	}
}

func TestPasswords(t *testing.T) {
	n := open(t, t.TempDir())
	ctx := t.Context()
	_, err := n.CheckPassword(ctx, "root", "secret")
	wantErr(t, "password while authentication is off", err, kv.ErrAuthNotEnabled)
	guarded(t, n)
	old, err := bcrypt.GenerateFromPassword([]byte("from etcd"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []kv.NewUser{{Name: "imported", Hash: string(old)}, {Name: "empty"}} {
		if _, err := n.AddUser(ctx, u); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		user, password string
		want           error
	}{
		{"root", "secret", nil},
		{"root", "Secret", kv.ErrAuthFailed},
		{"root", "", kv.ErrAuthFailed},
		{"imported", "from etcd", nil},
		{"imported", "from", kv.ErrAuthFailed},
		{"empty", "", nil},
		{"alice", "", kv.ErrNoPasswordUser},
		{"nobody", "", kv.ErrAuthFailed},
		{"root", strings.Repeat("x", kv.MaxPassword+1), kv.ErrAuthFailed},
	} {
		revision, err := n.CheckPassword(ctx, c.user, c.password)
		wantErr(t, c.user+"/"+c.password, err, c.want)
		if err == nil && revision != n.Auth().Revision {
			t.Errorf("%s proved it at %d, want %d", c.user, revision, n.Auth().Revision)
		}
	}
	if _, err := n.SetPassword(ctx, "root", ""); err != nil {
		t.Fatal(err)
	}
	_, err = n.CheckPassword(ctx, "root", "")
	wantErr(t, "a password that was taken away", err, kv.ErrAuthFailed)
	_, err = n.AddUser(ctx, kv.NewUser{Name: "x", Password: strings.Repeat("x", kv.MaxPassword+1)})
	wantErr(t, "a long password", err, kv.ErrPasswordTooLong)
	for _, hash := range []string{"plain", "$2a$31$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "$argon2id$v=19$m=4000000000,t=2,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdA"} {
		if _, err := n.AddUser(ctx, kv.NewUser{Name: "x", Hash: hash}); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("hash %q: %v", hash, err)
		}
	}
}

// A token is good on every member at once, until the member has applied that it
// is revoked or that its user has changed.
func TestTokensAreGoodEverywhere(t *testing.T) {
	nodes := openCluster(t, 3)
	ctx := t.Context()
	guarded(t, nodes[0])
	add := func(id byte, user string, ttl time.Duration) error {
		revision := nodes[0].Auth().Revision
		_, err := nodes[0].AddToken(ctx, kv.Token{ID: kv.TokenID{id}, Caller: kv.Caller{User: user, AuthRevision: revision}, TTL: ttl})
		return err
	}
	everywhere := func(id byte, user string, want error) {
		t.Helper()
		for _, n := range nodes {
			if err := n.Ready(ctx); err != nil { // has applied what was acknowledged
				t.Fatal(err)
			}
			c, err := n.TokenCaller(ctx, kv.TokenID{id})
			wantErr(t, "token", err, want)
			if c.User != user {
				t.Errorf("token %d stands for %q, want %q", id, c.User, user)
			}
		}
	}
	wantErr(t, "add", errors.Join(add(1, "alice", time.Hour), add(2, "alice", time.Hour), add(3, "bob", time.Millisecond)), nil)
	wantErr(t, "a token of nobody", add(4, "mallory", time.Hour), kv.ErrAuthFailed)
	wantErr(t, "a token without time", add(4, "bob", 0), kv.ErrInvalidTTL)
	everywhere(1, "alice", nil)
	everywhere(9, "", kv.ErrInvalidAuthToken)
	_, err := nodes[1].RevokeToken(ctx, kv.TokenID{1})
	wantErr(t, "revoke", err, nil)
	everywhere(1, "", kv.ErrInvalidAuthToken)
	stale := nodes[0].Auth().Revision
	_, err = nodes[1].SetPassword(ctx, "alice", "new")
	wantErr(t, "password", err, nil)
	everywhere(2, "", kv.ErrInvalidAuthToken)
	_, err = nodes[0].AddToken(ctx, kv.Token{ID: kv.TokenID{5}, Caller: kv.Caller{User: "bob", AuthRevision: stale}, TTL: time.Hour})
	wantErr(t, "a token of an old proof", err, kv.ErrAuthOldRevision)
	wantErr(t, "add", add(6, "bob", time.Hour), nil)
	_, err = nodes[0].DisableAuth(ctx)
	wantErr(t, "disable", err, nil)
	everywhere(6, "", kv.ErrInvalidAuthToken)
	wantErr(t, "a token while authentication is off", add(7, "bob", time.Hour), kv.ErrAuthNotEnabled)
}

// A caller who was let in by a member that does not know yet what others have
// decided is refused by what the majority has applied, and does not have to log
// in again because somebody's rights have changed.
func TestTokensAreDecidedByTheMajority(t *testing.T) {
	nodes := openCluster(t, 3)
	ctx := t.Context()
	guarded(t, nodes[0])
	id := kv.TokenID{1}
	caller := kv.Caller{User: "alice", AuthRevision: nodes[0].Auth().Revision}
	_, err := nodes[0].AddToken(ctx, kv.Token{ID: id, Caller: caller, TTL: time.Hour})
	wantErr(t, "add", err, nil)
	// As each member lets the caller in now.
	callers := make([]context.Context, len(nodes))
	for i, n := range nodes {
		c, err := n.TokenCaller(ctx, id)
		wantErr(t, "token", err, nil)
		callers[i] = kv.WithCaller(ctx, c)
	}
	calls := func(n *Node) map[string]func(context.Context) error {
		all := storeCalls(n)
		calls := map[string]func(context.Context) error{
			"put": func(ctx context.Context) error { _, err := n.Put(ctx, "a", "1"); return err },
			"range": func(ctx context.Context) error {
				_, err := n.Range(ctx, kv.Range{Key: []byte("a")})
				return err
			},
			"watch": func(ctx context.Context) error {
				for _, err := range n.Watch(ctx, kv.WatchRequest{Key: []byte("a")}) {
					return err
				}
				return nil
			},
			"oneself": func(ctx context.Context) error { _, _, err := n.User(ctx, "alice"); return err },
		}
		for _, name := range []string{"grant and revoke", "leases"} {
			calls[name] = all[name]
		}
		return calls
	}
	everywhere := func(when string, want error) {
		t.Helper()
		for i, n := range nodes {
			for name, call := range calls(n) {
				wantErr(t, name+" "+when, call(callers[i]), want)
			}
		}
	}
	everywhere("with a good token", nil)
	_, err = nodes[0].AddRole(ctx, "of others")
	wantErr(t, "add role", err, nil)
	everywhere("after a change of others' rights", nil)
	_, err = nodes[0].GrantPermission(ctx, "alice", kv.Permission{Access: kv.ReadAccess, Key: []byte("a"), End: []byte("c")})
	wantErr(t, "grant", err, nil)
	for i, n := range nodes {
		_, err := n.Put(callers[i], "a", "2")
		wantErr(t, "put after a change of the right to it", err, kv.ErrPermissionDenied)
	}
	_, err = nodes[0].RevokeToken(ctx, id)
	wantErr(t, "revoke", err, nil)
	everywhere("with a token that is revoked", kv.ErrInvalidAuthToken)
}

// Passwords wait for each other, but not too many of them, and who gives up
// makes room.
func TestPasswordsWaitInABoundedQueue(t *testing.T) {
	l := &logins{slots: make(chan struct{}, 1)}
	l.slots <- struct{}{} // another is under way
	l.under.Add(1)
	ctx, giveUp := context.WithCancel(t.Context())
	var waiting sync.WaitGroup
	for range mostWaiting {
		waiting.Go(func() {
			_, err := l.check(ctx, "", "x")
			wantErr(t, "a password that waits", err, context.Canceled)
		})
	}
	for l.under.Load() <= mostWaiting {
		runtime.Gosched()
	}
	_, err := l.check(t.Context(), "", "x")
	wantErr(t, "one password too many", err, kv.ErrOverloaded)
	_, err = l.hash(t.Context(), "x")
	wantErr(t, "a new password beside them", err, kv.ErrOverloaded)
	giveUp()
	waiting.Wait()
	<-l.slots
	if _, err := l.check(t.Context(), "", "x"); err != nil {
		t.Errorf("a password afterwards: %v", err)
	}
}

// callerStore is a store as a user sees it who may read and write everything.
type callerStore struct{ *Node }

func (s callerStore) ctx(ctx context.Context) context.Context {
	return kv.WithCaller(ctx, kv.Caller{User: "everything", AuthRevision: s.Auth().Revision})
}

func (s callerStore) Range(ctx context.Context, r kv.Range) (kv.RangeResult, error) {
	return s.Node.Range(s.ctx(ctx), r)
}

func (s callerStore) Txn(ctx context.Context, t kv.Txn) (kv.TxnResult, error) {
	return s.Node.Txn(s.ctx(ctx), t)
}

func (s callerStore) Watch(ctx context.Context, w kv.WatchRequest) iter.Seq2[kv.WatchBatch, error] {
	return s.Node.Watch(s.ctx(ctx), w)
}

func (s callerStore) Grant(ctx context.Context, g kv.Grant) (kv.LeaseResult, error) {
	return s.Node.Grant(s.ctx(ctx), g)
}

func (s callerStore) KeepAlive(ctx context.Context, id kv.LeaseID) (kv.LeaseResult, error) {
	return s.Node.KeepAlive(s.ctx(ctx), id)
}

func (s callerStore) Revoke(ctx context.Context, id kv.LeaseID) (kv.Header, error) {
	return s.Node.Revoke(s.ctx(ctx), id)
}

func (s callerStore) TimeToLive(ctx context.Context, id kv.LeaseID, keys bool) (kv.LeaseResult, error) {
	return s.Node.TimeToLive(s.ctx(ctx), id, keys)
}

func (s callerStore) Leases(ctx context.Context) (kv.LeasesResult, error) {
	return s.Node.Leases(s.ctx(ctx))
}

// To who may do everything with keys, a store is what it is without
// authentication. (Compaction is not about keys.)
func TestStoreOfAUserIsAStore(t *testing.T) {
	kvtest.Run(t, func(t *testing.T) kv.Store {
		n := open(t, t.TempDir())
		guarded(t, n)
		ctx := t.Context()
		_, err := n.AddUser(ctx, kv.NewUser{Name: "everything", NoPassword: true})
		_, err2 := n.AddRole(ctx, "everything")
		_, err3 := n.GrantRole(ctx, "everything", "everything")
		_, err4 := n.GrantPermission(ctx, "everything", kv.Permission{Access: kv.ReadWriteAccess, Key: []byte{0}, End: []byte{0}})
		if err := errors.Join(err, err2, err3, err4); err != nil {
			t.Fatal(err)
		}
		return callerStore{n}
	}, kvtest.Options{})
}

// whenHealthy makes a change of members again for as long as the cluster is not
// healthy enough for it.
func whenHealthy(t *testing.T, n *Node, change func() error) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		err := change()
		if !errors.Is(err, kv.ErrUnhealthyCluster) || n.Ready(ctx) != nil {
			return err
		}
	}
}

// The name in which a change of members is asked for goes along to the leader,
// and is looked at once more where the change is made.
func TestMembersChangeInTheCallersName(t *testing.T) {
	nodes := openCluster(t, 3)
	guarded(t, nodes[0])
	for i, n := range nodes {
		if err := n.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		m := kv.Member{Name: fmt.Sprint("learner", i), Learner: true, PeerAddrs: []string{fmt.Sprintf("192.0.2.%d:1", i+1)}}
		err := whenHealthy(t, n, func() (err error) {
			m, err = n.AddMember(as(t, n, "root"), m)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		change := []machine.MemberChange{{Op: machine.RemoveMember, Member: kv.Member{ID: m.ID}}}
		// Past the check on the way.
		err = whenHealthy(t, n, func() error { return n.changeHere(as(t, n, "alice"), change) })
		if !errors.Is(err, kv.ErrNotLeader) {
			wantErr(t, "removal by alice", err, kv.ErrPermissionDenied)
		}
		err = whenHealthy(t, n, func() error { return n.RemoveMember(as(t, n, "root"), m.ID) })
		wantErr(t, "removal by root", err, nil)
	}
	members, err := nodes[0].Members(as(t, nodes[0], "bob"))
	if err != nil || len(members) != 3 {
		t.Errorf("members %v, %v", members, err)
	}
}
