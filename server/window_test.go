package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/concord-kv/concord/server"
)

// recorded keeps what was read from a connection.
type recorded struct {
	net.Conn
	mu   sync.Mutex
	read bytes.Buffer
}

func (r *recorded) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.read.Write(p[:n])
	return n, err
}

// TestCallsCostNoPing: the server answers, and sends no ping and no window
// besides, which would be two packets more a call.
func TestCallsCostNoPing(t *testing.T) {
	addrs, stop := start(t, &instant{}, fixed{}, server.Config{})
	var seen *recorded
	conn, err := grpc.NewClient(addrs[0].String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			seen = &recorded{Conn: c} // once: the connection does not break
			return seen, err
		}))
	if err != nil {
		t.Fatal(err)
	}
	const calls = 20
	for range calls {
		if _, err := pb.NewKVClient(conn).Put(t.Context(), &pb.PutRequest{Key: []byte("a"), Value: make([]byte, 4096)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	stop()
	seen.mu.Lock()
	defer seen.mu.Unlock()
	frames := map[http2.FrameType]int{}
	for r := http2.NewFramer(io.Discard, &seen.read); ; {
		f, err := r.ReadFrame()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if ping, ok := f.(*http2.PingFrame); ok && ping.IsAck() {
			continue // the client's
		}
		frames[f.Header().Type]++
	}
	if frames[http2.FrameData] != calls || frames[http2.FramePing] != 0 || frames[http2.FrameWindowUpdate] > 1 {
		t.Errorf("%d calls were answered with %v; want as many DATA, no PING, one WINDOW_UPDATE at most", calls, frames)
	}
}
