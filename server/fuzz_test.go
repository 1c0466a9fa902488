package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/kv"
)

// canary is the value that nobody may see without a right.
const canary = "a-canary-that-sings-for-root-alone"

const (
	// memoryBase is what any input may cost, whatever its length: buffers of a
	// connection and of its compressors, and what the member does meanwhile.
	memoryBase = 4 << 20
	// passwordMemory is what it takes to check one: argon2id's 19 MiB, of which
	// the node has a few under way at a time.
	passwordMemory = 24 << 20
	// memoryGrowth is how many bytes of memory a byte of an input may cost in
	// all, garbage included. The dearest are lists of empty messages.
	memoryGrowth = 64
	// patience ends streams that have nothing more to say.
	patience = 20 * time.Millisecond
)

// fortress is a server with authentication on, before the eyes of strangers.
type fortress struct {
	*Server
	node    *concord.Node
	conn    *grpc.ClientConn
	pipe    *bufconn.Listener
	methods []string
	before  kv.Status
	auth    uint64
}

func newFortress(f *testing.F) *fortress {
	f.Helper()
	ctx := f.Context()
	node, err := concord.Open(ctx, f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = node.Close() }) // an error was shown by what the test saw
	pipe := bufconn.Listen(1 << 20)
	s, err := New(node, node, Config{Listeners: []net.Listener{pipe}, HTTP: HTTPConfig{Profiles: true}})
	if err != nil {
		f.Fatal(err)
	}
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(run) }()
	conn, err := grpc.NewClient("passthrough:fortress", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = conn.Close()
		stop()
		if err := <-done; err != nil {
			f.Error(err)
		}
	})
	_, e1 := node.Put(ctx, "k", canary)
	_, e2 := node.AddUser(ctx, kv.NewUser{Name: "root", Password: canary})
	_, e3 := node.AddRole(ctx, "root")
	_, e4 := node.GrantRole(ctx, "root", "root")
	_, e5 := node.EnableAuth(ctx)
	if err := errors.Join(e1, e2, e3, e4, e5); err != nil {
		f.Fatal(err)
	}
	x := &fortress{Server: s, node: node, conn: conn, pipe: pipe, before: node.Status(), auth: node.Auth().Revision}
	for service, info := range s.grpc.GetServiceInfo() {
		for _, m := range info.Methods {
			x.methods = append(x.methods, "/"+service+"/"+m.Name)
		}
	}
	slices.Sort(x.methods)
	return x
}

// besiege runs one attempt, of size bytes, and looks at what it has done.
func (x *fortress) besiege(t *testing.T, size, base int, attempt func() (seen []byte)) {
	t.Helper()
	before := allocated()
	seen := attempt()
	if cost, most := allocated()-before, uint64(base+memoryGrowth*size); cost > most {
		t.Errorf("%d bytes cost %d bytes of memory; at most %d are in order", size, cost, most)
	}
	if bytes.Contains(seen, []byte(canary)) {
		t.Errorf("a stranger was shown the value: %q", seen)
	}
	if st := x.node.Status(); st.Revision != x.before.Revision || st.Keys != x.before.Keys || x.node.Auth().Revision != x.auth || !x.node.Auth().Enabled {
		t.Errorf("a stranger has changed the state from %+v to %+v", x.before, st)
	}
}

func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

// raw is a message that is neither encoded nor decoded.
type raw []byte

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.(raw))}, nil
}

func (rawCodec) Unmarshal(b mem.BufferSlice, v any) error {
	*v.(*raw) = b.Materialize()
	return nil
}

// FuzzMethods sends any bytes as the message of any method, with any token, to a
// server where nobody may do anything without one.
func FuzzMethods(f *testing.F) {
	x := newFortress(f)
	for i := range x.methods {
		f.Add(uint8(i), []byte{}, "")
		f.Add(uint8(i), []byte("\n\x01k\x12\x01v"), "abc.1")
	}
	txn := uint8(slices.Index(x.methods, "/etcdserverpb.KV/Txn"))
	f.Add(txn, []byte("\n\x05\x10\x01\x1a\x01k\x12\x07\x0a\x05\x0a\x01k\x12\x00\x1a\x07\x1a\x05\x0a\x01k\x12\x00"), "sk_concord_x")
	f.Add(txn, bytes.Repeat([]byte{0x12, 0}, 30_000), "")
	f.Add(txn, bytes.Repeat([]byte{0x12, 4, 0x22, 2, 0x12, 0}, 5_000), "")
	deep := []byte{0x12, 0}
	for range 30 {
		deep = append([]byte{0x12, byte(len(deep) + 2), 0x22, byte(len(deep))}, deep...)
	}
	f.Add(txn, deep, "a.b.c")
	f.Fuzz(func(t *testing.T, method uint8, message []byte, token string) {
		name := x.methods[int(method)%len(x.methods)]
		base := memoryBase
		if name == "/etcdserverpb.Auth/Authenticate" {
			base += passwordMemory
		}
		x.besiege(t, len(message)+len(token), base, func() []byte { return x.call(t, name, message, token) })
	})
}

// call sends one message and returns what is answered, also in errors.
func (x *fortress) call(t *testing.T, method string, message []byte, token string) []byte {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if token != "" && !strings.ContainsFunc(token, func(r rune) bool { return r < ' ' || r > '~' }) {
		ctx = metadata.AppendToOutgoingContext(ctx, "token", token, "authorization", token)
	}
	stream, err := x.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(rawCodec{}))
	if err == nil {
		err = stream.SendMsg(raw(message))
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = stream.CloseSend()
	}
	var seen []byte
	timer := time.AfterFunc(time.Minute, cancel)
	defer timer.Stop()
	for err == nil {
		if strings.HasSuffix(method, "/Watch") || strings.HasSuffix(method, "/LeaseKeepAlive") {
			timer.Reset(patience) // their streams outlast the requests
		}
		var answer raw
		if err = stream.RecvMsg(&answer); err == nil {
			seen = append(seen, answer...)
		}
	}
	return append(seen, status.Convert(err).Message()...)
}

// FuzzHTTP sends any request to the pages and the JSON gateway of such a server.
func FuzzHTTP(f *testing.F) {
	x := newFortress(f)
	for pattern := range x.pages.asks {
		method, path, ok := strings.Cut(pattern, " ")
		if !ok {
			method, path = http.MethodGet, pattern
		}
		f.Add([]byte(method + " " + path + " HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x.1\r\n\r\n"))
	}
	post := func(path, body string) []byte {
		return []byte("POST " + path + " HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\n" + body)
	}
	f.Add(post("/v3/kv/range", "d\r\n{\"key\":\"aw==\"\r\n1\r\n}\r\n0\r\n\r\n"))
	f.Add(post("/v3beta/kv/txn", "19\r\n{\"success\":[{},{},{},{}]}\r\n0\r\n\r\n"))
	f.Add(post("/v3/watch", "23\r\n{\"create_request\":{\"key\":\"aw==\"}}  \r\n0\r\n\r\n"))
	f.Add(post("/v3/auth/authenticate", "1d\r\n{\"name\":\"root\",\"password\":\"\"}\r\n0\r\n\r\n"))
	f.Add([]byte("PUT /v1/cluster/autopilot HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(data)))
		if err != nil || strings.Contains(r.Header.Get("Authorization"), "Basic") {
			return
		}
		wait := time.Minute
		if strings.Contains(r.URL.Path, "watch") || strings.Contains(r.URL.Path, "keepalive") {
			wait = patience
		}
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()
		x.besiege(t, len(data), memoryBase+passwordMemory, func() []byte {
			w := httptest.NewRecorder()
			x.http.Handler.ServeHTTP(w, r.WithContext(ctx))
			return append([]byte(w.Header().Get("Location")), w.Body.Bytes()...)
		})
	})
}

// FuzzConnection sends any bytes to the port for clients: HTTP/2 frames, HTTP/1,
// websockets, or nothing of them.
func FuzzConnection(f *testing.F) {
	x := newFortress(f)
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	f.Add([]byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	f.Add([]byte(preface + "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\xff\xff\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678"))
	f.Add([]byte(preface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x3c\x01\x04\x00\x00\x00\x01\x83\x86\x44\x16/etcdserverpb.KV/Range\x41\x01a\x40\x0ccontent-type\x10application/grpc\x00\x00\x05\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00"))
	f.Add([]byte("GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"))
	f.Add([]byte("GET /v3/watch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nOrigin: http://a\r\nSec-WebSocket-Version: 13\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: Bearer, x\r\n\r\n\x81\x82\x00\x00\x00\x00{}\x88\x80\x00\x00\x00\x00"))
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"))
	f.Add([]byte("PRI"))
	f.Fuzz(func(t *testing.T, data []byte) {
		x.besiege(t, len(data), memoryBase+passwordMemory, func() []byte {
			conn, err := x.pipe.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }() // ends with the connection
			_, _ = conn.Write(data)                          // which may have been closed
			_ = conn.Close()
			x.deserted(t)
			return nil
		})
	})
}

// deserted waits until all connections are gone.
func (x *fortress) deserted(t *testing.T) {
	t.Helper()
	deadline := time.After(time.Minute)
	for x.split.open.Load() > 0 {
		select {
		case <-deadline:
			t.Fatalf("%d connections are left", x.split.open.Load())
		case <-time.After(100 * time.Microsecond):
		}
	}
}
