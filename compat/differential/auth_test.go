package differential

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/concord-kv/concord/compat/servers"
)

// steps is a number of its own, because passwords take their time.
var steps = flag.Int("rights", 2000, "how many operations each test of users and rights makes")

// The names and passwords are few, so that operations meet.
var (
	userNames = [...]string{"root", "root", "alice", "alice", "bob", "carol", "dave", ""}
	roleNames = [...]string{"root", "readers", "readers", "writers", "writers", "some", "none", ""}
	passwords = [...]string{"one", "two", "three", ""}
)

// tokens is what one user shows etcd and Concord.
type tokens struct{ user, etcd, concord string }

// authRunner makes random operations in the name of random users.
type authRunner struct {
	*runner
	// jwt tokens are made with one key and good on both.
	jwt     bool
	enabled bool
	// known has the passwords that users have, and current the last tokens.
	known   map[string]string
	current map[string]tokens
	// old are tokens that may not be good any more.
	old []tokens
	// granted counts what roles were given.
	granted map[string]int
}

func TestAuthSimpleOneMember(t *testing.T) { testAuth(t, 1, "simple") }

func TestAuthSimpleThreeMembers(t *testing.T) { testAuth(t, 3, "simple") }

func TestAuthJWTOneMember(t *testing.T) { testAuth(t, 1, "jwt") }

func TestAuthJWTThreeMembers(t *testing.T) { testAuth(t, 3, "jwt") }

func testAuth(t *testing.T, members int, kind string) {
	from := *seed
	if from == 0 {
		from = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d -rights %d", from, *steps)
	spec := kind
	if kind == "jwt" {
		key := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(key, []byte("a secret of both"), 0o600); err != nil {
			t.Fatal(err)
		}
		spec = "jwt,sign-method=HS256,ttl=24h,priv-key=" + key
	}
	r := &authRunner{
		runner: &runner{
			generator: &generator{Rand: rand.New(rand.NewPCG(from, 1)), revision: 1, serializable: members == 1},
			pair:      newPair(t, members, servers.AuthToken(spec)), tb: t, counts: map[string]int{},
		},
		jwt: kind == "jwt", known: map[string]string{}, current: map[string]tokens{}, granted: map[string]int{},
	}
	started := time.Now()
	for i := range *steps {
		if r.step(); r.differ >= *differences {
			t.Fatalf("operation %d of seed %d differs; the operations before:\n%s", i, from, strings.Join(r.last, "\n"))
		}
	}
	t.Logf("%d operations in %v, revision %d: %v", *steps, time.Since(started).Round(time.Second), r.revision, r.counts)
}

// step makes one operation.
func (r *authRunner) step() {
	switch n := r.IntN(1000); {
	// What takes passwords is rare, because Concord's hashes are dear.
	case n < 6 || !r.enabled && n < 300:
		r.prepare()
	case n < 60:
		r.status()
	case n < 70:
		r.login(userNames[r.IntN(len(userNames))])
	case n < 330:
		r.manage()
	case n < 390:
		r.watch()
	case n < 430:
		r.maintain()
	case n < 570:
		r.as("", r.rangeRequest())
	case n < 600:
		q := r.streamRequest()
		withKeys(q)
		r.call(r.somebody(), "RangeStream", q, rangeStream(q))
	case n < 750:
		r.as("", r.put())
	case n < 800:
		r.as("", r.deleteRange())
	case n < 900:
		t := r.txn(2)
		if len(t.Compare)+len(t.Success)+len(t.Failure) > 0 { // etcd lets nobody make one, but not with an old token
			r.as("", t)
		}
	case n < 910:
		r.as("", r.compaction())
	default:
		r.as("", r.leaseRequest())
	}
}

// prepare makes it likely that authentication is on, or gives a user something
// to do.
func (r *authRunner) prepare() {
	if r.enabled {
		user, role := userNames[2+r.IntN(5)], roleNames[1+r.IntN(5)]
		r.as("root", &pb.AuthUserAddRequest{Name: user, Password: passwords[0]})
		r.as("root", &pb.AuthRoleAddRequest{Name: role})
		r.as("root", &pb.AuthUserGrantRoleRequest{User: user, Role: role})
		r.as("root", r.permission(role))
		return
	}
	r.as("", &pb.AuthUserAddRequest{Name: "root", Password: passwords[0]})
	r.as("", &pb.AuthRoleAddRequest{Name: "root"})
	r.as("", &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"})
	if r.chance(50) {
		r.as("", new(pb.AuthEnableRequest))
	}
	r.status()
}

// status asks whether authentication is on.
func (r *authRunner) status() {
	if a := r.as("none", new(pb.AuthStatusRequest)); a.err == nil {
		r.enabled = a.msg.(*pb.AuthStatusResponse).Enabled
	}
}

// login gets tokens for a user, mostly with the right password.
func (r *authRunner) login(user string) {
	req := &pb.AuthenticateRequest{Name: user, Password: passwords[r.IntN(len(passwords))]}
	if known, ok := r.known[user]; ok && r.chance(85) {
		req.Password = known
	}
	var got tokens
	answered := r.compare("Authenticate", req, func(ctx context.Context, c *grpc.ClientConn) answer {
		resp, err := pb.NewAuthClient(c).Authenticate(ctx, req)
		if err == nil {
			if c == r.pair.etcd.Conns[0] {
				got.etcd = resp.Token
			} else {
				got.concord = resp.Token
			}
			resp.Token = "a token"
		} else if strings.Contains(err.Error(), "no password user") {
			// etcd tells that there is such a user; Concord does not.
			err = rpctypes.ErrGRPCAuthFailed
		}
		return answer{resp, err}
	})
	if answered.err != nil {
		return
	}
	got.user = user
	if was, ok := r.current[user]; ok {
		r.old = append(r.old, was)
	}
	r.current[user] = got
}

// somebody is who makes the next call: mostly a user who has logged in, or
// nobody, or one whose token is old or made up.
func (r *authRunner) somebody() tokens {
	switch n := r.IntN(100); {
	case n < 4:
		return tokens{}
	case n < 6:
		made := [...]string{"x", "abcdefghijklmnop.12", "a.b.c", ".", "Bearer"}[r.IntN(5)]
		return tokens{"made up", made, made}
	case n < 10 && len(r.old) > 0:
		return r.old[r.IntN(len(r.old))]
	case n < 45:
		return r.user("root")
	}
	return r.user(userNames[2+r.IntN(4)])
}

// user logs a user in where that has not been done.
func (r *authRunner) user(name string) tokens {
	if _, ok := r.current[name]; !ok && r.enabled {
		r.login(name)
	}
	return r.current[name]
}

// as makes a call in the name of a user: somebody, where none is named.
func (r *authRunner) as(user string, req proto.Message) answer {
	who := tokens{}
	switch user {
	case "":
		who = r.somebody()
	case "none":
	default:
		who = r.user(user)
	}
	withKeys(req)
	a := r.call(who, string(req.ProtoReflect().Descriptor().Name()), req, authCallOf(req))
	if a.err != nil {
		return a
	}
	r.learn(req)
	return a
}

// learn notes what a change has done.
func (r *authRunner) learn(req proto.Message) {
	switch q := req.(type) {
	case *pb.AuthUserAddRequest:
		r.forget(q.Name)
		if !q.GetOptions().GetNoPassword() {
			r.known[q.Name] = q.Password
		}
	case *pb.AuthUserChangePasswordRequest:
		r.forget(q.Name)
		r.known[q.Name] = q.Password
	case *pb.AuthUserDeleteRequest:
		r.forget(q.Name)
		delete(r.known, q.Name)
	case *pb.AuthRoleDeleteRequest:
		r.granted[q.Role] = 0
	case *pb.AuthRoleGrantPermissionRequest:
		r.granted[q.Name]++
	case *pb.AuthDisableRequest:
		r.enabled = false
	case *pb.AuthEnableRequest:
		r.enabled = true
	}
}

// forget is for JSON Web Tokens of a user who has changed: Concord does not take
// them any more, as etcd does not take simple ones; but etcd takes these for
// everything except keys.
func (r *authRunner) forget(user string) {
	if !r.jwt {
		return
	}
	delete(r.current, user)
	r.old = slices.DeleteFunc(r.old, func(t tokens) bool { return t.user == user })
}

// call makes a call with tokens, and forgets those that are not good any more.
func (r *authRunner) call(who tokens, name string, req proto.Message, do call) answer {
	field := [...]string{rpctypes.TokenFieldNameGRPC, rpctypes.TokenFieldNameSwagger}[r.IntN(2)]
	prefix := [...]string{"", "Bearer "}[r.IntN(2)]
	if r.jwt && r.chance(50) { // what one has made the other reads
		who.etcd, who.concord = who.concord, who.etcd
	}
	r.note(fmt.Sprintf("as %q:", who.user))
	a := r.compare(name, req, func(ctx context.Context, c *grpc.ClientConn) answer {
		token := who.concord
		if c == r.pair.etcd.Conns[0] {
			token = who.etcd
		}
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, field, prefix+token)
		}
		return do(ctx, c)
	})
	s := status.Convert(a.err)
	r.counts[fmt.Sprint("= ", s.Message())]++
	if m := s.Message(); m == rpctypes.ErrorDesc(rpctypes.ErrGRPCInvalidAuthToken) || m == rpctypes.ErrorDesc(rpctypes.ErrGRPCAuthOldRevision) {
		if known, ok := r.current[who.user]; ok && (known.etcd == who.etcd || known.etcd == who.concord) && r.chance(60) {
			r.old = append(r.old, known)
			delete(r.current, who.user)
		}
	}
	if len(r.old) > 20 {
		r.old = r.old[10:]
	}
	return a
}

// maxGranted is how many permissions etcd sorts without changing the order of
// those with the same key.
const maxGranted = 12

// permission grants a role some keys, or deletes it where it has many.
func (r *authRunner) permission(role string) proto.Message {
	if r.granted[role] >= maxGranted {
		return &pb.AuthRoleDeleteRequest{Role: role}
	}
	req := &pb.AuthRoleGrantPermissionRequest{Name: role, Perm: &authpb.Permission{
		PermType: authpb.Permission_Type(r.IntN(3)), Key: r.key(), RangeEnd: r.end(),
	}}
	if r.chance(2) {
		req.Perm = nil
	}
	return req
}

// manage changes or asks about users and roles.
func (r *authRunner) manage() {
	who := ""
	if r.chance(50) {
		who = "root"
	}
	user, role := userNames[r.IntN(len(userNames))], roleNames[r.IntN(len(roleNames))]
	switch n := r.IntN(100); {
	case n < 4:
		r.as(who, &pb.AuthUserAddRequest{Name: user, Password: passwords[r.IntN(len(passwords))],
			Options: &authpb.UserAddOptions{NoPassword: r.chance(20)}})
	case n < 6:
		r.as(who, &pb.AuthUserDeleteRequest{Name: user})
	case n < 9:
		r.as(who, &pb.AuthUserChangePasswordRequest{Name: user, Password: passwords[r.IntN(len(passwords))]})
	case n < 29:
		r.as(who, &pb.AuthUserGrantRoleRequest{User: user, Role: role})
	case n < 38:
		r.as(who, &pb.AuthUserRevokeRoleRequest{Name: user, Role: role})
	case n < 44:
		if user == "" { // etcd takes nobody for the user without a name
			user = "eve"
		}
		r.as(who, &pb.AuthUserGetRequest{Name: user})
	case n < 48:
		r.as(who, &pb.AuthUserListRequest{})
	case n < 54:
		r.as(who, &pb.AuthRoleAddRequest{Name: role})
	case n < 58:
		r.as(who, &pb.AuthRoleDeleteRequest{Role: role})
	case n < 64:
		r.as(who, &pb.AuthRoleGetRequest{Role: role})
	case n < 68:
		r.as(who, &pb.AuthRoleListRequest{})
	case n < 88:
		r.as(who, r.permission(role))
	case n < 95:
		r.as(who, &pb.AuthRoleRevokePermissionRequest{Role: role, Key: r.key(), RangeEnd: r.end()})
	case n < 98:
		r.as(who, new(pb.AuthEnableRequest))
	default:
		r.as("", new(pb.AuthDisableRequest))
	}
}
