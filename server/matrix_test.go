package server

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/concordtest"
	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/kv"
)

// matrixPatience is how long one call may take on a busy machine.
const matrixPatience = time.Minute

// The words in which calls are refused.
var (
	nobody   = kv.ErrUserEmpty.Message
	badToken = kv.ErrInvalidAuthToken.Message
	denied   = kv.ErrPermissionDenied.Message
)

// credential is what a caller shows.
type credential struct {
	name, token string
	// refused is how all calls are that ask for anything; empty for a good
	// token, which may do what may lists.
	refused string
	may     []need
}

// want is how a call must be refused; empty where it must not.
func (c *credential) want(n need) string {
	switch {
	case n == nothing, n == goodToken && c.refused != badToken:
		return ""
	case c.refused != "":
		return c.refused
	case n == anyUser, n == ownToken && strings.HasPrefix(c.token, kv.TokenPrefix), slices.Contains(c.may, root), slices.Contains(c.may, n):
		return ""
	case n == both && slices.Contains(c.may, reads) && slices.Contains(c.may, writes):
		return ""
	}
	return denied
}

// post is one member's server, as its callers reach it.
type post struct {
	*Server
	conn *grpc.ClientConn
	web  *http.Client
	base string
	end  func() error
}

func newPost(t *testing.T, node *concord.Node) *post {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(node, node, Config{Listeners: []net.Listener{l}, HTTP: HTTPConfig{Profiles: true}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	addr := l.Addr().String()
	conn, err := grpc.NewClient("passthrough:"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	return &post{s, conn, web, "http://" + addr, func() error {
		web.CloseIdleConnections()
		err := conn.Close()
		stop()
		return errors.Join(err, <-done)
	}}
}

// castle is a cluster with authentication on, whose members all serve.
type castle struct {
	t       *testing.T
	cluster *concordtest.Cluster
	posts   []*post
	schema  *lockpb.Schema
}

const castleMembers = 3

func newCastle(t *testing.T) *castle {
	t.Helper()
	f := &castle{t: t, cluster: concordtest.Start(t, castleMembers), schema: lockpb.New()}
	f.open()
	t.Cleanup(f.close)
	f.furnish()
	return f
}

func (f *castle) open() {
	f.t.Helper()
	for i := range castleMembers {
		f.posts = append(f.posts, newPost(f.t, f.cluster.Node(i)))
	}
}

func (f *castle) close() {
	for _, p := range f.posts {
		if err := p.end(); err != nil {
			f.t.Error(err)
		}
	}
	f.posts = nil
}

// must ends the test on the error of a change.
func (f *castle) must(_ any, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// furnish makes what the rows find, and switches authentication on.
func (f *castle) furnish() {
	f.t.Helper()
	ctx, n := f.t.Context(), f.cluster.Node(0)
	for _, id := range []kv.LeaseID{keyLease, sessionLease} {
		f.must(n.Grant(ctx, kv.Grant{ID: id, TTL: time.Hour}))
	}
	for _, key := range []string{"in/key", "out/key"} {
		f.must(kv.Put(ctx, n, key, "x"))
	}
	f.must(n.Txn(ctx, kv.Txn{Success: []kv.Op{{Kind: kv.OpPut, Key: []byte("in/leased"), Lease: keyLease}}}))
	for _, r := range rows() {
		if strings.HasSuffix(r.method, "/Lock") || strings.HasSuffix(r.method, "/Campaign") {
			if got := f.ask(f.posts[0], &r, ""); got != "" {
				f.t.Fatal(got)
			}
		}
	}
	f.must(n.AddUser(ctx, kv.NewUser{Name: kv.RootName, NoPassword: true}))
	f.must(n.AddRole(ctx, kv.RootName))
	f.must(n.GrantRole(ctx, kv.RootName, kv.RootName))
	f.must(n.AddRole(ctx, "inside"))
	f.must(n.GrantPermission(ctx, "inside", inside(kv.ReadWriteAccess)))
	f.must(n.AddUser(ctx, kv.NewUser{Name: "insider", Password: "sesame"}))
	f.must(n.GrantRole(ctx, "insider", "inside"))
	f.must(n.AddUser(ctx, kv.NewUser{Name: "gone", Password: "sesame"}))
	f.must(n.EnableAuth(ctx))
	for i := range castleMembers {
		f.must(f.cluster.Node(i).AuthStatus(ctx)) // it knows
	}
}

// login is the session token of a user.
func (f *castle) login(user string) string {
	f.t.Helper()
	r, err := pb.NewAuthClient(f.posts[1].conn).Authenticate(f.t.Context(), &pb.AuthenticateRequest{Name: user, Password: "sesame"})
	f.must(r, err)
	return r.Token
}

// token makes an access token.
func (f *castle) token(t kv.NewAccessToken) (secret string) {
	f.t.Helper()
	secret = kv.NewSecretToken()
	var err error
	if t.ID, err = kv.ParseSecretToken(secret); err != nil {
		f.t.Fatal(err)
	}
	_, _, err = f.cluster.Node(1).CreateToken(f.t.Context(), t)
	f.must(nil, err)
	return secret
}

// credentials has one of each kind.
func (f *castle) credentials() []credential {
	f.t.Helper()
	keys := func(a kv.Access, key, end string) kv.NewAccessToken {
		return kv.NewAccessToken{Permissions: []kv.Permission{{Access: a, Key: []byte(key), End: []byte(end)}}}
	}
	role := func(name string) kv.NewAccessToken { return kv.NewAccessToken{Roles: []string{name}} }
	everything := role(kv.RootName)
	everything.TTL = time.Second
	expired := f.token(everything)
	everything.TTL = 0
	revoked := f.token(everything)
	unknown := kv.NewSecretToken()
	all := []credential{
		{name: "nobody", refused: nobody},
		{name: "a made-up token", token: "abcdefghijklmnop.12", refused: badToken},
		{name: "an unknown access token", token: unknown, refused: badToken},
		{name: "a mistyped access token", token: unknown[:len(unknown)-1] + "~", refused: badToken},
		{name: "an expired access token", token: expired, refused: badToken},
		{name: "a revoked access token", token: revoked, refused: badToken},
		{name: "the session of a user who is gone", token: f.login("gone"), refused: badToken},
		{name: "an access token of nothing", token: f.token(kv.NewAccessToken{Name: "idle"})},
		{name: "a reading access token", token: f.token(keys(kv.ReadAccess, "in/", "in0")), may: []need{reads}},
		{name: "a writing access token", token: f.token(keys(kv.WriteAccess, "in/", "in0")), may: []need{writes}},
		{name: "an access token with a role", token: f.token(role("inside")), may: []need{reads, writes}},
		{name: "an access token of other keys", token: f.token(keys(kv.ReadWriteAccess, "out/", "out0")), may: []need{outside}},
		{name: "an access token of the cluster", token: f.token(role(kv.ClusterRole)), may: []need{cluster}},
		{name: "an access token of users", token: f.token(role(kv.AuthAdminRole)), may: []need{auth}},
		{name: "an access token of backups", token: f.token(role(kv.BackupRole)), may: []need{backup}},
		{name: "an access token of telemetry", token: f.token(role(kv.TelemetryRole)), may: []need{profiles}},
		{name: "an access token of root", token: f.token(role(kv.RootName)), may: []need{root}},
		{name: "the session of a user", token: f.login("insider"), may: []need{reads, writes}},
	}
	f.must(f.cluster.Node(2).DeleteUser(f.t.Context(), "gone"))
	f.revoke(2, revoked)
	f.cluster.Advance(2 * time.Second)
	return all
}

// revoke revokes an access token by a member.
func (f *castle) revoke(member int, secret string) {
	f.t.Helper()
	id, err := kv.ParseSecretToken(secret)
	f.must(id, err)
	f.must(f.cluster.Node(member).RevokeAccessToken(f.t.Context(), id))
}

func inside(a kv.Access) kv.Permission {
	return kv.Permission{Access: a, Key: []byte("in/"), End: []byte("in0")}
}

// methods are all that a server has.
func (p *post) methods() (all []string) {
	for service, info := range p.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			all = append(all, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(all)
	return all
}

func (f *castle) method(name string) protoreflect.MethodDescriptor {
	f.t.Helper()
	service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	found, err := f.schema.FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		f.t.Fatal(err)
	}
	return found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
}

// routesOf are the gateway's paths to a method.
func routesOf(m protoreflect.MethodDescriptor) (paths []string) {
	if strings.HasPrefix(string(m.FullName()), "v3") { // those of locks and elections are made by us
		return []string{lockpb.Route(m)}
	}
	rule, ok := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
	if !ok || rule == nil {
		return nil
	}
	for _, r := range append([]*annotations.HttpRule{rule}, rule.AdditionalBindings...) {
		paths = append(paths, r.GetPost())
	}
	return paths
}

// ask calls a method, and tells how it was refused: empty where it was not.
func (f *castle) ask(p *post, r *row, token string) string {
	ctx, cancel := context.WithTimeout(f.t.Context(), matrixPatience)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
	}
	m := f.method(r.method)
	req, resp := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	if err := protojson.Unmarshal([]byte(r.body), req); err != nil {
		return "wrong row: " + err.Error()
	}
	stream, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, r.method)
	if err == nil {
		if err = stream.SendMsg(req); errors.Is(err, io.EOF) {
			err = nil // refused already, and what comes says why
		}
	}
	if err == nil && !m.IsStreamingClient() {
		err = stream.CloseSend()
	}
	if err == nil {
		err = stream.RecvMsg(resp)
	}
	text := status.Convert(err).Message()
	if reason := m.Output().Fields().ByName("cancel_reason"); reason != nil {
		text += resp.Get(reason).String()
	}
	return refusalIn(text)
}

// refusalIn finds the words of a refusal.
func refusalIn(text string) string {
	for _, words := range []string{nobody, badToken, denied, kv.ErrAuthOldRevision.Message, context.DeadlineExceeded.Error()} {
		if strings.Contains(text, words) {
			return words
		}
	}
	return ""
}

// visited is one request over HTTP.
type visited struct{ method, path, body, token string }

// visit makes a request over HTTP and tells the same, and the status.
func (f *castle) visit(p *post, v visited) (refused string, code int) {
	ctx, cancel := context.WithTimeout(f.t.Context(), matrixPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, v.method, p.base+v.path, strings.NewReader(v.body))
	if err != nil {
		return err.Error(), 0
	}
	req.Header.Set("Content-Type", "application/json")
	if v.token != "" {
		req.Header.Set("Authorization", "Bearer "+v.token)
	}
	resp, err := p.web.Do(req)
	if err != nil {
		return err.Error(), 0
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n') // all that streams answer at once
	if err != nil && !errors.Is(err, io.EOF) {
		return err.Error(), resp.StatusCode
	}
	return refusalIn(line), resp.StatusCode
}

// askAll asks one member for everything with every credential, and returns how
// many answers it looked at. The gateway, which calls the same methods, it asks
// with one of three of them, in turn.
func (f *castle) askAll(p *post, all []credential, when string, turn int) (n int) {
	for i := range all {
		c := &all[i]
		for _, r := range rows() {
			want := c.want(r.need)
			if r.once && want == "" {
				continue
			}
			n++
			if got := f.ask(p, &r, c.token); got != want {
				f.t.Errorf("%s: %s %s with %s: refused with %q, want %q", when, r.method, r.body, c.name, got, want)
			}
			if (i+turn)%castleMembers != 0 {
				continue
			}
			for _, path := range routesOf(f.method(r.method)) {
				n++
				if got, code := f.visit(p, visited{http.MethodPost, path, r.body, c.token}); got != want {
					f.t.Errorf("%s: %s %s with %s: %d, refused with %q, want %q", when, path, r.body, c.name, code, got, want)
				}
			}
		}
		n += f.visitAll(p, c, when)
	}
	return n
}

// visitAll visits every page.
func (f *castle) visitAll(p *post, c *credential, when string) (n int) {
	codes := map[string]int{nobody: http.StatusUnauthorized, badToken: http.StatusUnauthorized, denied: http.StatusForbidden}
	for pattern := range p.pages.asks {
		page, _ := pageOf(pattern)
		want := c.want(page.need)
		if page.once && want == "" {
			continue
		}
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			method, path = http.MethodGet, pattern
		}
		n++
		got, code := f.visit(p, visited{method, strings.ReplaceAll(path, "{name}", "nosuch"), page.body, c.token})
		if page.open && code != http.StatusOK || got != want || want != "" && code != codes[want] || want == "" && (code == http.StatusUnauthorized || code == http.StatusForbidden || code == 0) {
			f.t.Errorf("%s: %s with %s: %d, refused with %q, want %q", when, pattern, c.name, code, got, want)
		}
	}
	return n
}

// pageOf is what a route asks, if anybody has said.
func pageOf(pattern string) (page, bool) {
	if pg, ok := pages[pattern]; ok {
		return pg, true
	}
	for part, pg := range parts {
		if strings.HasPrefix(pattern, part) {
			return pg, true
		}
	}
	return page{}, false
}

// complete fails where a method or route has no row, or a row none of them.
func (f *castle) complete() {
	f.t.Helper()
	p, asked := f.posts[0], map[string]bool{}
	for _, r := range rows() {
		asked[r.method] = true
	}
	served := p.methods()
	for _, method := range served {
		if !asked[method] {
			f.t.Errorf("nobody has said what %s asks", method)
		}
		delete(asked, method)
	}
	if len(asked) > 0 || len(served) < 54 {
		f.t.Errorf("%d methods; not served are %v", len(served), asked)
	}
	for pattern, asks := range p.pages.asks {
		if _, ok := pageOf(pattern); !ok && asks != "method" {
			f.t.Errorf("nobody has said what %s asks", pattern)
		}
	}
	for pattern := range pages {
		if p.pages.asks[pattern] == "" {
			f.t.Errorf("there is no %s", pattern)
		}
	}
}

// TestRights asks every method, every route of the gateway and every page of each
// of three members with every kind of credential: at first, right after another
// member leads, and after all were started again. (What is said of a turn in
// askAll has each member, over these three, ask the gateway with each of them.)
func TestRights(t *testing.T) {
	f := newCastle(t)
	f.complete()
	all := f.credentials()
	turn := 0
	each := func(when string) {
		turn++
		var group sync.WaitGroup
		counts := make([]int, castleMembers)
		for i, p := range f.posts {
			group.Go(func() { counts[i] = f.askAll(p, all, fmt.Sprintf("%s, n%d", when, i+1), turn+i) })
		}
		group.Wait()
		t.Logf("%s: %d answers of each member", when, counts[0])
	}
	each("at first")
	f.must(nil, f.cluster.Node(f.cluster.Leader()).MoveLeader(t.Context(), 0))
	each("after another leads")
	f.close()
	for i := range castleMembers {
		f.cluster.Restart(i)
		f.cluster.WaitReady()
	}
	f.open()
	each("after a restart")
}
