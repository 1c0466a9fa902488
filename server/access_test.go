package server_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/concord-kv/concord/internal/certstest"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// ask makes a request; visit sends it and closes what it opened.
func ask(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func visit(t *testing.T, transport *http.Transport, req *http.Request) (*http.Response, string) {
	t.Helper()
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

func TestHostsAndOrigins(t *testing.T) {
	cluster := new(lone)
	cluster.leader.Store(1)
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{HTTP: server.HTTPConfig{
		Hosts: []string{"localhost", "::1"}, Origins: []string{"https://good"},
	}})
	for _, c := range []struct {
		method, path, host, origin string
		code                       int
		allowed                    string
	}{
		{"GET", "/version", "localhost", "", 200, ""},
		{"GET", "/version", "localhost:2379", "https://good", 200, "https://good"},
		{"GET", "/version", "[::1]:2379", "https://bad", 200, ""},
		{"GET", "/version", "bad", "https://good", 421, ""},
		{"POST", "/v3/kv/range", "bad:80", "", 421, ""},
		{"OPTIONS", "/v3/kv/range", "localhost", "https://good", 200, "https://good"},
		{"OPTIONS", "/v3/kv/range", "localhost", "https://bad", 200, ""},
		{"POST", "/v3alpha/kv/range", "localhost", "", 400, ""},
		{"POST", "/v3beta/kv/range", "localhost", "", 400, ""},
		{"POST", "/v3gamma/kv/range", "localhost", "", 404, ""},
	} {
		req := ask(t, c.method, "http://"+addrs[0].String()+c.path, "{}")
		req.Host = c.host
		if c.origin != "" {
			req.Header.Set("Origin", c.origin)
		}
		resp, body := visit(t, new(http.Transport), req)
		if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != c.code || got != c.allowed {
			t.Errorf("%+v: %d, allowed %q: %s", c, resp.StatusCode, got, body)
		}
	}
}

// TestNoGateway serves nothing under /v3 and no metrics.
func TestNoGateway(t *testing.T) {
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), new(lone), server.Config{HTTP: server.HTTPConfig{NoGateway: true, NoMetrics: true}})
	for _, path := range []string{"/v3/kv/range", "/metrics", "/debug/vars"} {
		if resp, _ := visit(t, new(http.Transport), ask(t, "GET", "http://"+addrs[0].String()+path, "")); resp.StatusCode != 404 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

// guardedStore is a store with authentication on.
type guardedStore struct {
	kv.Store
	kv.Authority
}

func (guardedStore) Auth() kv.AuthStatus { return kv.AuthStatus{Enabled: true, Revision: 1} }

// TestCertificateAtGateway: a certificate's name counts for gRPC only, so a
// client that relies on it must not be answered as nobody.
func TestCertificateAtGateway(t *testing.T) {
	cert, pool := certstest.New(t, "test")
	cluster := new(lone)
	cluster.leader.Store(1)
	addrs, _ := start(t, guardedStore{Store: kvtest.NewModel(kv.Limits{})}, cluster, server.Config{TLS: &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven,
	}})
	for _, c := range []struct {
		path string
		cert bool
		code int
	}{{"/v3/kv/range", true, 400}, {"/v3alpha/kv/range", true, 400}, {"/version", true, 200}, {"/version", false, 200}} {
		cfg := &tls.Config{RootCAs: pool}
		if c.cert {
			cfg.Certificates = []tls.Certificate{cert}
		}
		resp, body := visit(t, &http.Transport{TLSClientConfig: cfg}, ask(t, "GET", "https://"+addrs[0].String()+c.path, ""))
		if resp.StatusCode != c.code || c.code == 400 && !strings.Contains(body, "CommonName") {
			t.Errorf("%+v: %d %s", c, resp.StatusCode, body)
		}
	}
}
