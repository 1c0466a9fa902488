package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/lockpb"
	"github.com/concord-kv/concord/kv"
)

// guarded is a server of a member with users, who have tokens.
type guarded struct {
	*Server
	node   *concord.Node
	conn   *grpc.ClientConn
	tokens map[string]string
}

// newGuarded has root, alice with all rights on keys that begin with k, eve who
// has no role, and bob, who is deleted.
func newGuarded(t *testing.T) *guarded {
	t.Helper()
	ctx := t.Context()
	node, err := concord.Open(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(node, node, Config{Listeners: []net.Listener{l}})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(run) }()
	conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	g := &guarded{Server: s, node: node, conn: conn, tokens: map[string]string{"none": "", "made up": "abcdefghijklmnop.12"}}
	g.addUsers(t)
	return g
}

func (g *guarded) addUsers(t *testing.T) {
	t.Helper()
	ctx, n := t.Context(), g.node
	change := func(_ kv.Header, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"root", "alice", "bob", "eve"} {
		change(n.AddUser(ctx, kv.NewUser{Name: user, Password: "of " + user}))
	}
	change(n.AddRole(ctx, "root"))
	change(n.AddRole(ctx, "app"))
	change(n.GrantPermission(ctx, "app", kv.Permission{Access: kv.ReadWriteAccess, Key: []byte("k"), End: []byte("l")}))
	change(n.GrantRole(ctx, "root", "root"))
	change(n.GrantRole(ctx, "alice", "app"))
	change(n.EnableAuth(ctx))
	for _, user := range []string{"root", "alice", "bob", "eve"} {
		resp, err := pb.NewAuthClient(g.conn).Authenticate(ctx, &pb.AuthenticateRequest{Name: user, Password: "of " + user})
		if err != nil {
			t.Fatal(err)
		}
		g.tokens[user] = resp.Token
	}
	change(n.DeleteUser(ctx, "bob"))
	if _, err := n.Put(ctx, "k/1", "leads the election k"); err != nil { // so that observers need not wait
		t.Fatal(err)
	}
}

// fill gives every field of a message a value that looks like something.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap() || f.Name() == "range_end" || f.Kind() == protoreflect.EnumKind:
		case f.ContainingOneof() != nil && m.WhichOneof(f.ContainingOneof()) != nil:
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(protoreflect.ValueOfString("http://127.0.0.1:1"))
		case f.IsList() && f.Kind() == protoreflect.MessageKind && depth > 0:
			one := m.Mutable(f).List().NewElement()
			fill(one.Message(), depth-1)
			m.Mutable(f).List().Append(one)
		case f.IsList():
		case f.Kind() == protoreflect.BytesKind:
			m.Set(f, protoreflect.ValueOfBytes([]byte("k")))
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString("x"))
		case f.Kind() == protoreflect.Int64Kind && !strings.HasSuffix(string(f.Name()), "revision"):
			m.Set(f, protoreflect.ValueOfInt64(7))
		case f.Kind() == protoreflect.Uint64Kind:
			m.Set(f, protoreflect.ValueOfUint64(7))
		case f.Kind() == protoreflect.MessageKind && depth > 0:
			fill(m.Mutable(f).Message(), depth-1)
		}
	}
}

// call calls a method with a request made by fill and returns how it was
// refused, in etcd's words, or nothing.
func (g *guarded) call(t *testing.T, method, token string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
	}
	service, name, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	found, err := lockpb.New().FindDescriptorByName(protoreflect.FullName(service))
	if err != nil {
		t.Fatal(err)
	}
	m := found.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(name))
	req, resp := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	fill(req, 2)
	stream, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
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
	return refusal(err, resp)
}

// refusal is the error of a call, or what ends a watch, when it is about rights.
func refusal(err error, resp proto.Message) string {
	text := status.Convert(err).Message()
	if reason := resp.ProtoReflect().Descriptor().Fields().ByName("cancel_reason"); reason != nil && text == "" {
		text = resp.ProtoReflect().Get(reason).String()
	}
	for _, e := range []error{
		rpctypes.ErrGRPCPermissionDenied, rpctypes.ErrGRPCUserEmpty, rpctypes.ErrGRPCInvalidAuthToken, rpctypes.ErrGRPCAuthOldRevision,
	} {
		if desc := rpctypes.ErrorDesc(e); strings.HasSuffix(text, desc) {
			return strings.TrimPrefix(desc, "etcdserver: ")
		}
	}
	return ""
}

// open are the methods that everybody may call.
var open = []string{
	"/etcdserverpb.Auth/Authenticate", "/etcdserverpb.Auth/AuthStatus",
	"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/grpc.health.v1.Health/Watch",
	"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
}

// user has what a user without a role may call.
var user = []string{
	"/etcdserverpb.Cluster/MemberList", "/etcdserverpb.Maintenance/Status", "/etcdserverpb.Maintenance/Alarm",
	"/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseKeepAlive", "/etcdserverpb.Lease/LeaseRevoke",
	"/etcdserverpb.Lease/LeaseTimeToLive", "/etcdserverpb.Lease/LeaseLeases",
}

// keyed are the services about keys, and all that may be done with a right to
// the key, but for the compaction.
var keyed = []string{"/etcdserverpb.KV/", "/etcdserverpb.Watch/", "/v3lockpb.", "/v3electionpb."}

// want is how a call must be refused.
func want(method, caller string) string {
	about := func(service string) bool { return strings.HasPrefix(method, service) }
	switch {
	case slices.Contains(open, method):
		if method == "/etcdserverpb.Auth/AuthStatus" && (caller == "made up" || caller == "bob") {
			return "invalid auth token"
		}
		return ""
	case caller == "none":
		return "user name is empty"
	case caller == "made up", caller == "bob":
		return "invalid auth token"
	case caller == "root", slices.Contains(user, method):
		return ""
	case caller == "alice" && method != "/etcdserverpb.KV/Compact" && slices.ContainsFunc(keyed, about):
		return ""
	}
	return "permission denied"
}

// TestMethodsAsk calls every method of every service of a server without a
// token, with one that was made up, with a deleted user's, and as users with
// different rights.
func TestMethodsAsk(t *testing.T) {
	g := newGuarded(t)
	var methods []string
	for service, info := range g.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			methods = append(methods, "/"+service+"/"+m.Name)
		}
	}
	if len(methods) < 54 { // 42 of etcdserverpb, 7 of locks and elections, health, reflection
		t.Errorf("only %d methods: %v", len(methods), methods)
	}
	slices.Sort(methods)
	for _, caller := range []string{"none", "made up", "bob", "eve", "alice", "root"} {
		for _, method := range methods {
			if caller == "root" && (method == "/etcdserverpb.Auth/AuthDisable" || strings.HasPrefix(method, "/v3")) {
				continue // the next ones would not be asked; or would wait for alice's locks
			}
			if got := g.call(t, method, g.tokens[caller]); got != want(method, caller) {
				t.Errorf("%s as %s: refused with %q, want %q", method, caller, got, want(method, caller))
			}
		}
	}
}

// TestPagesAsk visits every page.
func TestPagesAsk(t *testing.T) {
	g := newGuarded(t)
	if len(g.pages.asks) < 10 {
		t.Errorf("only %d pages", len(g.pages.asks))
	}
	for pattern, asks := range g.pages.asks {
		for caller, token := range g.tokens {
			method, path, ok := strings.Cut(pattern, " ")
			if !ok {
				method, path = http.MethodGet, pattern
			}
			r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			w := httptest.NewRecorder()
			g.pages.mux.ServeHTTP(w, r)
			wanted := 0 // any, but those below
			if asks == "right" || asks == "user" && caller != "alice" && caller != "eve" {
				wanted = map[string]int{
					"none": http.StatusUnauthorized, "made up": http.StatusUnauthorized, "bob": http.StatusUnauthorized,
					"alice": http.StatusForbidden, "eve": http.StatusForbidden,
				}[caller]
			}
			refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden
			if refused != (wanted != 0) || refused && w.Code != wanted {
				t.Errorf("%s, which asks for %s, as %s: %d, want %d", pattern, asks, caller, w.Code, wanted)
			}
		}
	}
}

// TestHealthOfGuarded answers probes, which have no token.
func TestHealthOfGuarded(t *testing.T) {
	g := newGuarded(t)
	for _, page := range []string{"/health", "/readyz", "/livez", "/version"} {
		w := httptest.NewRecorder()
		g.pages.mux.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, page, nil))
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d %s", page, w.Code, w.Body)
		}
	}
}

func TestBadAuthToken(t *testing.T) {
	for _, cfg := range []AuthConfig{{Token: "nosuch"}, {TTL: -1}, {Token: "jwt,sign-method=RS256,pub-key=/nonexistent"}} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(nil, nil, Config{Listeners: []net.Listener{l}, Auth: cfg}); kv.CodeOf(err) != kv.InvalidArgument {
			t.Errorf("%+v: %v", cfg, err)
		}
		if c, err := net.Dial("tcp", l.Addr().String()); err == nil {
			_ = c.Close()
			t.Error(fmt.Sprint(cfg, ": the listener was left open"))
		}
	}
}
