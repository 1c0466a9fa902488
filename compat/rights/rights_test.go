package rights

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/concord-kv/concord/compat/processes"
)

// patience is how long one call may take on a busy machine.
const patience = time.Minute

// caller is who calls.
type caller struct {
	name  string
	token string
	// certificate is the common name of the certificate, with TLS.
	certificate string
}

// users have the rights that their names say: the insider to read and write what
// begins with in/, the outsider what begins with out/.
var users = map[string][]clientv3.PermissionType{
	"insider": {clientv3.PermissionType(clientv3.PermReadWrite)}, "outsider": {clientv3.PermissionType(clientv3.PermReadWrite)},
	"reader": {clientv3.PermissionType(clientv3.PermRead)}, "writer": {clientv3.PermissionType(clientv3.PermWrite)},
	"idle": nil, "gone": nil, "root": nil,
}

// secret makes JSON Web Tokens.
var secret = []byte("a secret of all servers")

// world is a cluster with users, on which authentication is on.
type world struct {
	*processes.Cluster
	t       *testing.T
	jwt     bool
	callers []caller
	conns   map[string]*grpc.ClientConn
	clients map[string]*http.Client
}

func newWorld(t *testing.T, p processes.Programs, cfg processes.Config, tokens string) *world {
	t.Helper()
	if tokens == "jwt" {
		file := filepath.Join(t.TempDir(), "secret")
		must(t, os.WriteFile(file, secret, 0o600))
		cfg.Flags = []string{"--auth-token", "jwt,sign-method=HS256,ttl=1h,priv-key=" + file}
	}
	w := &world{Cluster: p.Start(t, cfg), t: t, jwt: tokens == "jwt", conns: map[string]*grpc.ClientConn{}, clients: map[string]*http.Client{}}
	w.prepare()
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// prepare makes what the calls need, and the callers.
func (w *world) prepare() {
	w.t.Helper()
	ctx, c := w.t.Context(), w.Client(w.t, nil)
	do := func(_ any, err error) {
		w.t.Helper()
		must(w.t, err)
	}
	for _, id := range []clientv3.LeaseID{lease, sessions} {
		do(pb.NewLeaseClient(c.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(id), TTL: 3600}))
	}
	do(c.Put(ctx, inside, "x", clientv3.WithLease(lease)))
	do(c.Put(ctx, outside, "x", clientv3.WithLease(lease)))
	do(v3lockpb.NewLockClient(c.ActiveConnection()).Lock(ctx, &v3lockpb.LockRequest{Name: key("in/lock"), Lease: sessions}))
	do(v3electionpb.NewElectionClient(c.ActiveConnection()).Campaign(ctx, &v3electionpb.CampaignRequest{Name: key("in/election"), Lease: sessions, Value: key("x")}))
	for _, user := range slices.Sorted(maps.Keys(users)) {
		do(c.UserAdd(ctx, user, "of "+user))
		do(c.RoleAdd(ctx, user))
		do(c.UserGrantRole(ctx, user, user))
		for _, p := range users[user] {
			if user == "outsider" {
				do(c.RoleGrantPermission(ctx, user, "out/", "out0", p))
			} else {
				do(c.RoleGrantPermission(ctx, user, "in/", "in0", p))
			}
		}
	}
	do(c.AuthEnable(ctx))
	gone := w.login("gone")
	do(w.as("root").UserDelete(ctx, "gone"))
	w.callers = []caller{{name: "nobody"}, {name: "a made-up token", token: "abcdefghijklmnop.7"}, {name: "nonsense", token: "x"}, {name: "no token of JSON", token: "a.b.c"}}
	if !w.jwt {
		// etcd takes a JSON Web Token of a user who is gone; Concord does not.
		w.callers = append(w.callers, caller{name: "a user who is gone", token: gone})
	}
	for _, user := range []string{"idle", "insider", "outsider", "reader", "writer", "root"} {
		w.callers = append(w.callers, caller{name: user, token: w.login(user)})
	}
	if w.jwt {
		w.callers = append(w.callers, w.signed()...)
	}
	if keys := w.Authority(); keys != nil {
		for _, name := range []string{"insider", "reader", "root", "stranger"} {
			keys.Issue(name)
			w.callers = append(w.callers, caller{name: "the certificate of " + name, certificate: name})
		}
		w.callers = append(w.callers, caller{name: "the certificate of root and the token of the reader", certificate: "root", token: w.login("reader")})
	}
}

// as is a client of a user.
func (w *world) as(user string) *clientv3.Client {
	w.t.Helper()
	return w.Client(w.t, func(c *clientv3.Config) { c.Username, c.Password = user, "of "+user })
}

// login gets a token, which every member takes.
func (w *world) login(user string) string {
	w.t.Helper()
	ctx := w.t.Context()
	r, err := w.Client(w.t, nil).Authenticate(ctx, user, "of "+user)
	must(w.t, err)
	return r.Token
}

// signed are callers with tokens that we make.
func (w *world) signed() (all []caller) {
	w.t.Helper()
	status, err := w.Client(w.t, nil).AuthStatus(w.t.Context())
	must(w.t, err)
	now, later := time.Now().Add(-time.Hour).Unix(), time.Now().Add(time.Hour).Unix()
	for _, c := range []struct {
		name, user string
		age        uint64
		until      int64
		key        []byte
	}{
		{"a good token", "insider", 0, later, secret},
		{"a token that is over", "root", 0, now, secret},
		{"an old token of root", "root", 1, later, secret},
		{"an old token", "insider", 1, later, secret},
		{"a token of nobody", "nobody", 0, later, secret},
		{"a foreign token", "root", 0, later, []byte("another secret")},
	} {
		claims := jwt.MapClaims{"username": c.user, "revision": status.AuthRevision - c.age, "exp": c.until}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(c.key)
		must(w.t, err)
		all = append(all, caller{name: c.name, token: token})
	}
	return all
}

func (w *world) tls(certificate string) *tls.Config {
	if keys := w.Authority(); keys != nil {
		return keys.Client(certificate)
	}
	return nil
}

// conn is a connection to a member with a certificate.
func (w *world) conn(member int, certificate string) *grpc.ClientConn {
	w.t.Helper()
	name := fmt.Sprint(member, certificate)
	if c := w.conns[name]; c != nil {
		return c
	}
	how := insecure.NewCredentials()
	if cfg := w.tls(certificate); cfg != nil {
		how = credentials.NewTLS(cfg)
	}
	_, addr, _ := strings.Cut(w.Endpoints()[member], "://")
	c, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(how))
	must(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	w.conns[name] = c
	return c
}

func (w *world) http(certificate string) *http.Client {
	if w.clients[certificate] == nil {
		transport := &http.Transport{TLSClientConfig: w.tls(certificate)}
		w.t.Cleanup(transport.CloseIdleConnections)
		w.clients[certificate] = &http.Client{Transport: transport}
	}
	return w.clients[certificate]
}

// answers has what came of each call of each caller, by gRPC and by each route.
type answers map[string]string

// ask makes calls of a member in the name of all callers that may be let.
func (w *world) ask(ctx context.Context, member int, list []call, let func(*caller) bool) answers {
	all := answers{}
	for i := range w.callers {
		who := &w.callers[i]
		if !let(who) {
			continue
		}
		for i := range list {
			c := &list[i]
			name := strings.TrimSpace(fmt.Sprintf("%s: %s %s", who.name, c.method, c.what))
			all[name] = ask(ctx, w.conn(member, who.certificate), c, who.token)
			for _, path := range routes(c.method) {
				all[name+" by "+path] = askHTTP(ctx, w.http(who.certificate), w.Endpoints()[member]+path, c, who.token)
			}
		}
	}
	return all
}

func everybody(*caller) bool { return true }

// mayNot leaves out who might do what is not to be done yet.
func mayNot(c *caller) bool { return !strings.Contains(c.name, "root") }

// all makes all calls that leave no trace.
func (w *world) all(ctx context.Context, member int) answers {
	got := w.ask(ctx, member, calls(), everybody)
	maps.Copy(got, w.ask(ctx, member, last(), mayNot))
	return got
}

// of has the answers to one caller.
func (a answers) of(caller string) answers {
	some := maps.Clone(a)
	maps.DeleteFunc(some, func(name, _ string) bool { return !strings.HasPrefix(name, caller+": ") })
	return some
}

// compare compares etcd's answers with Concord's.
func (a answers) compare(t *testing.T, when string, got answers) {
	t.Helper()
	if len(got) != len(a) {
		t.Errorf("%s: %d answers, etcd %d", when, len(got), len(a))
	}
	for _, name := range slices.Sorted(maps.Keys(a)) {
		if want := a[name]; !same(name, want, got[name]) {
			t.Errorf("%s, %s\n   etcd: %s\nconcord: %s", when, name, want, got[name])
		}
	}
}

// same reports whether an answer is etcd's, or differs as it may.
func same(name, etcd, concord string) bool {
	for _, c := range append(calls(), last()...) {
		if !strings.Contains(name, ": "+c.method) {
			continue
		}
		switch {
		case c.ours:
			return concord == "yes"
		case strings.HasSuffix(c.method, "/Observe") && (etcd == "Unknown: EOF" || etcd == "200: "):
			return concord != etcd && concord != "yes" // etcd does not say why it ends
		case strings.HasSuffix(c.method, "/MemberAdd") && strings.Contains(etcd, "already exist"): // asked for twice
			return concord == etcd || strings.Contains(concord, "too many learner members")
		case c.leader && strings.Contains(etcd, "bad leader transferee"):
			return concord == etcd || strings.Contains(concord, rpctypes.ErrorDesc(rpctypes.ErrGRPCNotLeader))
		}
	}
	return etcd == concord
}

// TestRights compares every answer of three members of Concord with that of
// etcd.
func TestRights(t *testing.T) {
	programs, err := processes.Build(t.TempDir())
	must(t, err)
	// Nobody's answers over TLS are those without, because etcd takes who shows
	// a certificate without a name for a user without a name, and the gateway's
	// requests for those of its own certificate.
	var nobody answers
	for _, security := range []processes.Security{processes.Plain, processes.TLS} {
		for _, tokens := range []string{"simple", "jwt"} {
			t.Run(fmt.Sprintf("%s %s", security, tokens), func(t *testing.T) {
				ctx := t.Context()
				etcd := newWorld(t, programs, processes.Config{Server: processes.Etcd, Members: 1, Security: security}, tokens)
				want := etcd.all(ctx, 0)
				if nobody == nil {
					nobody = want.of("nobody")
				}
				maps.Copy(want, nobody)
				w := newWorld(t, programs, processes.Config{Server: processes.Concord, Members: 3, Security: security}, tokens)
				wantComplete(t, w.served(ctx))
				each := func(when string) {
					for i := range w.Members {
						want.compare(t, fmt.Sprintf("%s, member %d", when, i), w.all(ctx, i))
						w.pages(ctx, i, when)
					}
				}
				each("at first")
				w.moveLeader(ctx)
				each("after a change of the leader")
				for i := range w.Members {
					w.Stop(i)
					w.Start(i)
				}
				each("after a restart")
				root := func(c *caller) bool { return c.name == "root" }
				etcd.ask(ctx, 0, last(), root).compare(t, "at the end", w.ask(ctx, 0, last(), root))
				t.Logf("%d answers of each member, three times", len(want))
			})
		}
	}
}

// served lists the methods that a server has, as it describes itself.
func (w *world) served(ctx context.Context) (methods []string) {
	w.t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(w.conn(0, "")).ServerReflectionInfo(ctx)
	must(w.t, err)
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		w.t.Helper()
		must(w.t, stream.Send(r))
		answer, err := stream.Recv()
		must(w.t, err)
		return answer
	}
	list := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	for _, s := range list.GetListServicesResponse().GetService() {
		answer := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: s.Name}})
		for _, data := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := new(descriptorpb.FileDescriptorProto)
			must(w.t, proto.Unmarshal(data, file))
			for _, service := range file.Service {
				if file.GetPackage()+"."+service.GetName() != s.Name {
					continue
				}
				for _, m := range service.Method {
					methods = append(methods, "/"+s.Name+"/"+m.GetName())
				}
			}
		}
	}
	if len(methods) < 50 {
		w.t.Errorf("only %d methods: %q", len(methods), methods)
	}
	return methods
}

// moveLeader has another member lead.
func (w *world) moveLeader(ctx context.Context) {
	w.t.Helper()
	for _, c := range w.callers {
		if c.name == "root" {
			ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, c.token)
		}
	}
	var status [3]*pb.StatusResponse
	for i := range status {
		var err error
		status[i], err = pb.NewMaintenanceClient(w.conn(i, "")).Status(ctx, &pb.StatusRequest{})
		must(w.t, err)
	}
	for i, s := range status {
		if s.Leader == s.Header.MemberId {
			_, err := pb.NewMaintenanceClient(w.conn(i, "")).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: status[(i+1)%3].Header.MemberId})
			must(w.t, err)
			return
		}
	}
	w.t.Fatal("nobody leads")
}

// pages asks for what is beside the gateway. etcd shows everything to everybody;
// Concord shows what is not for monitoring to root alone.
func (w *world) pages(ctx context.Context, member int, when string) {
	w.t.Helper()
	for _, who := range w.callers {
		for path, open := range map[string]bool{
			"/version": true, "/health": true, "/livez": true, "/readyz": true, "/metrics": true, "/debug/vars": false,
		} {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.Endpoints()[member]+path, nil)
			must(w.t, err)
			if who.token != "" {
				req.Header.Set("Authorization", "Bearer "+who.token)
			}
			resp, err := w.http(who.certificate).Do(req)
			must(w.t, err)
			var body bytes.Buffer
			_, err = body.ReadFrom(resp.Body)
			must(w.t, err)
			must(w.t, resp.Body.Close())
			want := http.StatusOK
			if !open && who.name != "root" && who.name != "an old token of root" {
				want = http.StatusForbidden
			}
			if got := resp.StatusCode; got != want && (want == http.StatusOK || got != http.StatusUnauthorized) {
				w.t.Errorf("%s, member %d: %s of %s: %d, want %d", when, member, path, who.name, got, want)
			}
		}
	}
}
