package transport

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/concord-kv/concord/internal/certstest"
)

// secured is loopback with TLS around it.
type secured struct{ cfg *tls.Config }

func newSecured(t testing.TB) secured {
	t.Helper()
	cert, pool := certstest.New(t, "member")
	return secured{&tls.Config{
		Certificates: []tls.Certificate{cert},
		RootCAs:      pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
	}}
}

func (s secured) listen(t testing.TB) net.Listener {
	return tls.NewListener(loopback{}.listen(t), s.cfg)
}

func (s secured) dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&tls.Dialer{Config: s.cfg}).DialContext(ctx, "tcp", addr)
}

// TestOverTLS: everything works when listener and dialer speak TLS, and a peer
// without it gets nowhere.
func TestOverTLS(t *testing.T) {
	on := newSecured(t)
	got := make(chan int, 10)
	a, b := pair(t, on, func(_ *Config, r *recorder) {
		r.receive = func(_ uint64, _ Channel, p []byte) { got <- len(p) }
		r.stream = func(_ uint64, _ []byte, in io.Reader) error { _, err := io.Copy(io.Discard, in); return err }
		r.call = func(_ string, p []byte) ([]byte, error) { return p, nil }
	})
	for _, size := range []int{0, 100, inlineBytes + 1, 1 << 20} {
		if !a.Send(2, Append, make([]byte, size)) {
			t.Fatal("not sent")
		}
		if n := <-got; n != size {
			t.Errorf("%d bytes became %d", size, n)
		}
	}
	if err := a.SendStream(t.Context(), 2, nil, func(w io.Writer) error { _, err := w.Write(make([]byte, 1<<20)); return err }); err != nil {
		t.Error(err)
	}
	if p, err := b.Call(t.Context(), a.addr, []byte("x")); err != nil || string(p) != "x" {
		t.Errorf("call: %q, %v", p, err)
	}
	c := start(t, loopback{}, 3, nil)
	c.SetPeer(1, a.addr)
	for c.Peers()[0].Err == nil {
		<-time.After(time.Millisecond)
	}
	b.stop()
	a.want(t, false, 2)
}
