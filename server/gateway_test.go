package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"
	"google.golang.org/grpc/credentials/insecure"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// patience is for what must happen on a machine however busy.
const patience = time.Minute

// post posts to the gateway at base.
func post(t *testing.T, base, path, body string) (code int, text string) {
	t.Helper()
	resp, text := visit(t, new(http.Transport), ask(t, http.MethodPost, base+path, body))
	return resp.StatusCode, text
}

func TestGateway(t *testing.T) {
	cluster := new(lone)
	cluster.leader.Store(1)
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{Limits: kv.Limits{RequestBytes: 1000}})
	base := "http://" + addrs[0].String()
	for _, c := range []struct {
		path, body string
		code       int
		want       string
	}{
		{"/v3/kv/put", `{"key":"YQ==","value":"Yg=="}`, 200, `{"header":{"cluster_id":"1","member_id":"1","revision":"2"}}`},
		{"/v3/kv/range", `{"key":"YQ=="}`, 200, `{"header":{"cluster_id":"1","member_id":"1","revision":"2"},"kvs":[{"key":"YQ==","create_revision":"2","mod_revision":"2","version":"1","value":"Yg=="}],"count":"1"}`},
		{"/v3/kv/range", `{}`, 400, `{"code":3,"message":"etcdserver: key is not provided"}`},
		// Concord's details of errors stay out.
		{"/v3/kv/put", `{"key":"` + strings.Repeat("YWFh", 700) + `"}`, 400, `{"code":3,"message":"etcdserver: request is too large"}`},
		{"/v3/kv/put", `{"key":"YQ==","value":"` + strings.Repeat("YWFh", 1<<20) + `"}`, 400, `{"code":3,"message":"http: request body too large"}`},
		{"/v3/lock/lock", `{"name":"bA==","lease":"9"}`, 500, `{"code":2,"message":"etcdserver: requested lease not found"}`},
		{"/v3/lock/unlock", `{"key":"bA=="}`, 200, `{"header":{"cluster_id":"1","member_id":"1","revision":"2"}}`},
		{"/v3/election/leader", `{"name":"bA=="}`, 500, `{"code":2,"message":"election: no leader"}`},
		{"/v3/nothing", `{}`, 404, `{"code":5,"message":"Not Found"}`},
	} {
		code, text := post(t, base, c.path, c.body)
		var got, want any
		if json.Unmarshal([]byte(text), &got) != nil || json.Unmarshal([]byte(c.want), &want) != nil {
			t.Errorf("%s: no JSON: %s", c.path, text)
		}
		gotText, _ := json.Marshal(got)
		wantText, _ := json.Marshal(want)
		if code != c.code || string(gotText) != string(wantText) {
			t.Errorf("%s %.60s: %d %s, want %d %s", c.path, c.body, code, gotText, c.code, wantText)
		}
	}
}

// TestGatewayStream follows a watch, both ways at once, over a unix socket, and
// ends it with the server.
func TestGatewayStream(t *testing.T) {
	model, cluster := kvtest.NewModel(kv.Limits{}), new(lone)
	cluster.leader.Store(1)
	path := filepath.Join(t.TempDir(), "s")
	// A drain that ends first closes the connection, and a busy machine may
	// have no turn for the last message within the default.
	_, stop := start(t, model, cluster, server.Config{Addrs: []string{"unix:" + path}, Drain: patience})
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	send := func(text string) {
		t.Helper()
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	chunk := func(text string) { send(fmt.Sprintf("%x\r\n%s\r\n", len(text), text)) }
	send("POST /v3/watch HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	chunk(`{"create_request":{"key":"YQ==","watch_id":1}}`)
	lines := bufio.NewReader(c)
	until := func(want string) {
		t.Helper()
		var seen strings.Builder
		for {
			line, err := lines.ReadString('\n')
			seen.WriteString(line)
			if err != nil {
				t.Fatalf("%v before %s, after %s", err, want, &seen)
			}
			if strings.Contains(line, want) {
				return
			}
		}
	}
	until(`"watch_id":"1"`)
	// The request goes on while the answer does.
	chunk(`{"create_request":{"key":"Yg==","watch_id":2}}`)
	until(`"watch_id":"2"`)
	if _, err := kv.Put(t.Context(), model, "b", "1"); err != nil {
		t.Fatal(err)
	}
	until(`"kv":{"key":"Yg=="`)
	ended := make(chan struct{})
	go func() {
		stop()
		close(ended)
	}()
	until(`"message":"etcdserver: server stopped"`)
	<-ended
}

// TestSocket follows a watch over a websocket, and ends with the server.
func TestSocket(t *testing.T) {
	model, cluster := kvtest.NewModel(kv.Limits{}), new(lone)
	cluster.leader.Store(1)
	addrs, stop := start(t, model, cluster, server.Config{Drain: patience, HTTP: server.HTTPConfig{Origins: []string{"http://good"}}})
	dial := func(origin string) (*websocket.Conn, error) {
		cfg, err := websocket.NewConfig("ws://"+addrs[0].String()+"/v3/watch", origin)
		if err != nil {
			t.Fatal(err)
		}
		cfg.Protocol = []string{"Bearer", "token"}
		return websocket.DialConfig(cfg)
	}
	if _, err := dial("http://bad"); err == nil {
		t.Error("an origin that is not allowed was served")
	}
	silent, err := dial("http://good")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ws, err := dial("http://good")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if err := ws.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	receive := func(want string) {
		t.Helper()
		var line string
		if err := websocket.Message.Receive(ws, &line); err != nil || !strings.Contains(line, want) {
			t.Fatalf("%q, %v; want %s", line, err, want)
		}
	}
	if err := websocket.Message.Send(ws, `{"create_request":{"key":"YQ=="}}`); err != nil {
		t.Fatal(err)
	}
	receive(`"created":true`)
	if _, err := kv.Put(t.Context(), model, "a", "1"); err != nil {
		t.Fatal(err)
	}
	receive(`"key":"YQ=="`)
	stop()
	receive(`server stopped`)
	var line string
	if err := websocket.Message.Receive(ws, &line); err == nil {
		t.Errorf("after the end: %q", line)
	}
}

// TestReflection finds the services that are in no global registry.
func TestReflection(t *testing.T) {
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := reflectionpb.NewServerReflectionClient(dial(t, addrs[0].String(), insecure.NewCredentials())).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range []string{"v3lockpb.Lock", "v3electionpb.Election", "etcdserverpb.KV", "v3electionpb.LeaderKey"} {
		if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol}}); err != nil {
			t.Fatal(err)
		}
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetFileDescriptorResponse() == nil {
			t.Errorf("%s: %v", symbol, r)
		}
	}
}

// TestGatewayEndless sends a message without an end where a body may have none:
// nobody keeps it.
func TestGatewayEndless(t *testing.T) {
	cluster := new(lone)
	cluster.leader.Store(1)
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{Limits: kv.Limits{RequestBytes: 1000}})
	ws, err := websocket.Dial("ws://"+addrs[0].String()+"/v3/kv/put", "", "http://"+addrs[0].String()+"/")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	const most, kept = 64 << 20, 32 << 20 // which has what the kernel buffers
	part, sent := `{"key":"`, 0
	for ; sent < most && websocket.Message.Send(ws, part) == nil; sent += len(part) {
		part = strings.Repeat("A", 64<<10)
	}
	if sent > kept {
		t.Errorf("%d bytes of one message were taken", sent)
	}
}
