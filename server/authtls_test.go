package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// named is a certificate with a common name, which trusted trusts.
func named(t *testing.T, name string, trusted *x509.CertPool) tls.Certificate {
	t.Helper()
	cert, _ := certstest.New(t, name)
	trusted.AddCert(cert.Leaf)
	return cert
}

// addCertified adds root and alice, who have no passwords, and switches
// authentication on.
func addCertified(t *testing.T, ctx context.Context, node *concord.Node) {
	t.Helper()
	for _, user := range []string{"root", "alice"} {
		_, err := node.AddUser(ctx, kv.NewUser{Name: user, NoPassword: true})
		if err == nil {
			_, err = node.AddRole(ctx, user)
		}
		if err == nil {
			_, err = node.GrantRole(ctx, user, user)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := node.GrantPermission(ctx, "alice", kv.Permission{Access: kv.ReadWriteAccess, Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if _, err := node.EnableAuth(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestCertificateIsUser takes the common name of a client's certificate for the
// user, but not of one that comes through the JSON gateway.
func TestCertificateIsUser(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	node, err := concord.Open(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	addCertified(t, ctx, node)
	cert, pool := certstest.New(t, "test")
	clients := x509.NewCertPool()
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}
	alice, eve, root := named(t, "alice", clients), named(t, "eve", clients), named(t, "root", clients)
	addrs, stop := start(t, node, node, server.Config{Addrs: []string{"127.0.0.1:0"}, TLS: secure})
	defer stop()
	put := func(cert *tls.Certificate, key string) error {
		cfg := &tls.Config{RootCAs: pool}
		if cert != nil {
			cfg.Certificates = []tls.Certificate{*cert}
		}
		conn, err := grpc.NewClient("passthrough:"+addrs[0].String(), grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key)})
		return err
	}
	for _, c := range []struct {
		name string
		cert *tls.Certificate
		key  string
		want error
	}{
		{"alice", &alice, "k", nil}, {"alice elsewhere", &alice, "other", rpctypes.ErrGRPCPermissionDenied},
		{"root", &root, "other", nil}, {"no user", &eve, "k", rpctypes.ErrGRPCPermissionDenied},
		{"nobody", nil, "k", rpctypes.ErrGRPCUserEmpty},
	} {
		err := put(c.cert, c.key)
		if (err == nil) != (c.want == nil) || err != nil && err.Error() != c.want.Error() {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{root}}}}
	defer web.CloseIdleConnections()
	resp, err := web.Post("https://"+addrs[0].String()+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"aw=="}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "CommonName") {
		t.Errorf("by the gateway: %d %s, %v", resp.StatusCode, body, err)
	}
}
