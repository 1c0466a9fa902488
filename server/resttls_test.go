package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"testing"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/server"
)

// TestRESTByCertificate takes the name in a certificate for the user, where the
// request could not come from a page of somebody else.
func TestRESTByCertificate(t *testing.T) {
	node, err := concord.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	addCertified(t, t.Context(), node)
	cert, pool := certstest.New(t, "test")
	clients := x509.NewCertPool()
	secure := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients}
	alice, eve, root := named(t, "alice", clients), named(t, "eve", clients), named(t, "root", clients)
	addrs, stop := start(t, node, node, server.Config{Addrs: []string{"127.0.0.1:0"}, TLS: secure})
	defer stop()
	for _, c := range []struct {
		cert                  *tls.Certificate
		method, path, content string
		status                int
		want                  string
	}{
		{&alice, "GET", "status", "application/json", 200, "1 of 1 voters"},
		{&alice, "GET", "status", "application/json; charset=utf-8", 200, ""},
		{&alice, "GET", "status", "", 401, "user name is empty"},
		{&alice, "POST", "leave", "text/plain", 401, ""},
		{&alice, "POST", "leave", "application/json", 403, "permission denied"},
		{&eve, "POST", "leave", "application/json", 403, "no user has the name"},
		{&root, "POST", "leave", "application/json", 409, "the only member that votes"},
		{nil, "GET", "status", "application/json", 401, ""},
	} {
		cfg := &tls.Config{RootCAs: pool}
		if c.cert != nil {
			cfg.Certificates = []tls.Certificate{*c.cert}
		}
		req := ask(t, c.method, "https://"+addrs[0].String()+"/v1/cluster/"+c.path, "")
		req.Header.Set("Content-Type", c.content)
		resp, text := visit(t, &http.Transport{TLSClientConfig: cfg}, req)
		if resp.StatusCode != c.status || !strings.Contains(text, c.want) {
			t.Errorf("%s %s as %q: %s %s", c.method, c.path, c.content, resp.Status, text)
		}
	}
}
