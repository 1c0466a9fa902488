package server

import (
	"context"
	"crypto/tls"
	"net"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/concord-kv/concord/internal/certstest"
)

// identity is a certificate that signs itself, for both sides.
func identity(t testing.TB, name string) (server, client *tls.Config) {
	t.Helper()
	cert, pool := certstest.New(t, name)
	own := []tls.Certificate{cert}
	return &tls.Config{Certificates: own, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven},
		&tls.Config{Certificates: own, RootCAs: pool, ServerName: "127.0.0.1"}
}

// TestCertificateIsSeen: the handshake that the splitter made is told to gRPC,
// with the chain that was verified, for whoever asks who calls.
func TestCertificateIsSeen(t *testing.T) {
	secure, trusting := identity(t, "alice")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{TLS: withProtocols(secure, Everything)}.withDefaults()
	s := newSplitter(cfg, l.Addr(), newLimits(cfg))
	ctx, cancel := context.WithCancel(t.Context())
	accepting := make(chan error, 1)
	go func() { accepting <- s.accept(ctx, l) }()
	names := make(chan string, 1)
	g := grpc.NewServer(grpc.Creds(splitCredentials{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		name := "nobody"
		if p, ok := peer.FromContext(stream.Context()); ok {
			if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
				name = info.State.VerifiedChains[0][0].Subject.CommonName
			}
		}
		names <- name
		return nil
	}))
	serving := make(chan error, 1)
	go func() { serving <- g.Serve(s.grpc) }()
	none := trusting.Clone()
	none.Certificates = nil
	for want, secure := range map[string]*tls.Config{"alice": trusting, "nobody": none} {
		conn, err := grpc.NewClient("passthrough:"+l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(secure)))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Invoke(t.Context(), "/any/Method", nil, nil) // the answer makes no difference
		_ = conn.Close()
		if got := <-names; got != want {
			t.Errorf("seen as %s, want %s", got, want)
		}
	}
	cancel()
	_ = l.Close()
	g.Stop()
	if err := <-accepting; err != nil {
		t.Error(err)
	}
	if err := <-serving; err != nil {
		t.Error(err)
	}
	s.wait()
}

// TestHandedOnStays: who has a connection from the splitter keeps it when the
// server stops at that moment: the bound on sorting is over by then.
func TestHandedOnStays(t *testing.T) {
	cfg := Config{}.withDefaults()
	l := newLimits(cfg)
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			client, raw := net.Pipe()
			s := newSplitter(cfg, raw.LocalAddr(), l)
			ctx, cancel := context.WithCancel(t.Context())
			s.admit(ctx, raw, &listener{what: Everything})
			if _, err := client.Write([]byte(http2Preface)); err != nil {
				t.Fatal(err)
			}
			c, err := s.grpc.Accept()
			if err != nil {
				t.Fatal(err)
			}
			cancel()
			synctest.Wait()
			go func() { _, _ = client.Write([]byte("more")) }()
			got := make([]byte, 8)
			if n, err := c.Read(got); err != nil || string(got[:n]) != http2Preface {
				t.Fatalf("%q, %v", got[:n], err)
			}
			if n, err := c.Read(got); err != nil || string(got[:n]) != "more" {
				t.Fatalf("%q, %v", got[:n], err)
			}
			_ = c.Close()
			_ = client.Close()
		})
	}
}
