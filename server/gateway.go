package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/concord-kv/concord/internal/lockpb"
)

const (
	// pipeBytes is the buffer of the pipe between the gateway and gRPC.
	pipeBytes = 256 << 10
	// jsonGrowth is how much larger than its message a request in JSON may
	// be: base64 makes four bytes of three, and numbers are longer than that.
	jsonGrowth = 2
	// jsonMarks is how many braces and commas an operation of a transaction may
	// have: one with all fields of a range has 16.
	jsonMarks = 16
)

// gateway serves the gRPC server's methods as JSON over HTTP, in the shapes of
// etcd's gateway. It calls them by a connection inside the process, so that they
// meet everything that other calls meet.
type gateway struct {
	// Set by newGateway, then read only.
	pipe  *bufconn.Listener
	conn  *grpc.ClientConn
	mux   *runtime.ServeMux
	limit int64 // of the body of a request, or one message of a stream
	holds *arrivals

	// ending has clients of websockets send no more; over closes their
	// connections.
	ending, over context.Context
	hangUp, kill context.CancelFunc

	// sockets are the websocket connections that are served.
	sockets sync.WaitGroup
}

// newGateway makes a gateway to the server that serves its pipe. Requests may
// have about limit bytes, and lists of ops operations.
func newGateway(limit int64, ops int, holds *arrivals) (*gateway, error) {
	g := &gateway{pipe: bufconn.Listen(pipeBytes), limit: limit * jsonGrowth, holds: holds}
	g.ending, g.hangUp = context.WithCancel(context.Background())
	g.over, g.kill = context.WithCancel(context.Background())
	var err error
	g.conn, err = grpc.NewClient("passthrough:///gateway",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	g.mux = runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, newShapes(g.limit, ops)))
	return g, errors.Join(g.register(), g.registerSessions())
}

// register adds etcd's routes.
func (g *gateway) register() error {
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		gw.RegisterKVHandler, gw.RegisterWatchHandler, gw.RegisterLeaseHandler,
		gw.RegisterClusterHandler, gw.RegisterMaintenanceHandler, gw.RegisterAuthHandler,
	} {
		if err := register(context.Background(), g.mux, g.conn); err != nil {
			return err
		}
	}
	return nil
}

// shapes reads and writes JSON as etcd's gateway does.
type shapes struct {
	*runtime.HTTPBodyMarshaler
	limit int64 // of one message
	marks int   // of one message: see boundedReader
}

func newShapes(limit int64, ops int) shapes {
	return shapes{&runtime.HTTPBodyMarshaler{Marshaler: &runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}}, limit, jsonMarks * mostElements(ops)}
}

// NewDecoder bounds each message, which is read whole before gRPC sees it, also
// where a body has no end: a stream's, or a websocket's.
func (s shapes) NewDecoder(r io.Reader) runtime.Decoder {
	from := &boundedReader{from: r}
	d := s.HTTPBodyMarshaler.NewDecoder(from)
	held, ok := r.(*heldBody)
	return runtime.DecoderFunc(func(v any) error {
		if ok {
			defer held.whole()
		}
		from.left, from.marks = s.limit, s.marks
		return d.Decode(v)
	})
}

// boundedReader fails after left bytes, and after more than marks of what begins
// an object or an element: small ones make much more memory than they have bytes.
type boundedReader struct {
	from  io.Reader
	left  int64
	marks int
}

var errMarks = errors.New("the message has too many objects and elements")

// Read implements [io.Reader].
func (r *boundedReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, &http.MaxBytesError{}
	}
	n, err := r.from.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if r.marks -= bytes.Count(p[:n], []byte{'{'}) + bytes.Count(p[:n], []byte{','}); r.marks < 0 {
		return 0, errMarks
	}
	return n, err
}

// Marshal leaves of errors, alone or at the end of a stream, what etcd's have.
func (s shapes) Marshal(v any) ([]byte, error) {
	switch v := v.(type) {
	case *spb.Status:
		v.Details = nil
	case map[string]proto.Message:
		if st, ok := v["error"].(*spb.Status); ok {
			st.Details = nil
		}
	}
	return s.HTTPBodyMarshaler.Marshal(v)
}

// registerSessions adds the routes of Lock and Election.
func (g *gateway) registerSessions() error {
	schema := lockpb.New()
	for _, service := range []protoreflect.ServiceDescriptor{schema.Lock, schema.Election} {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			serve := g.unary
			if m.IsStreamingServer() {
				serve = g.stream
			}
			err := g.mux.HandlePath(http.MethodPost, lockpb.Route(m), func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
				g.serveSession(w, r, m, serve)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// answer is where the answer to a request goes.
type answer struct {
	w   http.ResponseWriter
	r   *http.Request
	out runtime.Marshaler
}

// serveSession decodes a request for m and calls it, as the generated code does
// for other services.
func (g *gateway) serveSession(w http.ResponseWriter, r *http.Request, m protoreflect.MethodDescriptor, serve func(context.Context, protoreflect.MethodDescriptor, proto.Message, answer) error) {
	in, out := runtime.MarshalerForRequest(g.mux, r)
	ctx, err := runtime.AnnotateContext(r.Context(), g.mux, r, lockpb.FullMethod(m), runtime.WithHTTPPathPattern(lockpb.Route(m)))
	if err == nil {
		request := lockpb.NewMessage(m.Input()).Interface()
		if err = in.NewDecoder(r.Body).Decode(request); err != nil && !errors.Is(err, io.EOF) {
			err = status.Error(codes.InvalidArgument, err.Error())
		} else {
			err = serve(ctx, m, request, answer{w, r, out})
		}
	}
	if err != nil {
		runtime.HTTPError(ctx, g.mux, out, w, r, err)
	}
}

func (g *gateway) unary(ctx context.Context, m protoreflect.MethodDescriptor, request proto.Message, a answer) error {
	var md runtime.ServerMetadata
	resp := lockpb.NewMessage(m.Output()).Interface()
	err := g.conn.Invoke(ctx, lockpb.FullMethod(m), request, resp, grpc.Header(&md.HeaderMD), grpc.Trailer(&md.TrailerMD))
	if err != nil {
		return err
	}
	runtime.ForwardResponseMessage(runtime.NewServerMetadataContext(ctx, md), g.mux, a.out, a.w, a.r, resp)
	return nil
}

func (g *gateway) stream(ctx context.Context, m protoreflect.MethodDescriptor, request proto.Message, a answer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := g.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, lockpb.FullMethod(m))
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(request), stream.CloseSend()); err != nil {
		return err
	}
	header, err := stream.Header()
	if err != nil {
		return err
	}
	ctx = runtime.NewServerMetadataContext(ctx, runtime.ServerMetadata{HeaderMD: header})
	runtime.ForwardResponseStream(ctx, g.mux, a.out, a.w, a.r, func() (proto.Message, error) {
		resp := lockpb.NewMessage(m.Output()).Interface()
		return resp, stream.RecvMsg(resp)
	})
	return nil
}

// twoWay are the streams of which a client may send requests for as long as it
// gets answers. Their bodies have no bound, but each message in them has.
var twoWay = map[string]bool{"/v3/watch": true, "/v3/lease/keepalive": true}

// ServeHTTP serves one request: a websocket's, or a plain one.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isSocket(r) {
		g.serveSocket(w, r)
		return
	}
	// Calls may wait and stream for as long as they like. A connection that
	// cannot have these set has no limit to lift.
	c := http.NewResponseController(w)
	if twoWay[r.URL.Path] {
		_ = c.SetReadDeadline(time.Time{})
		_ = c.EnableFullDuplex()
	} else {
		r.Body = http.MaxBytesReader(w, newPacedBody(r, c), g.limit)
	}
	held := g.holds.body(r.Body, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer held.arrival.end()
	r.Body = held
	g.mux.ServeHTTP(w, r)
}

// close waits until no websocket is left, and closes what is left when ctx ends.
// Calls must be ending by then, and hangUp called.
func (g *gateway) close(ctx context.Context) {
	left := make(chan struct{})
	go func() {
		g.sockets.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-ctx.Done():
	}
	g.kill()
	<-left
	_ = g.conn.Close()
}
