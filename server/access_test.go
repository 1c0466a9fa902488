package server_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/websocket"

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

// pageCase is a request, and what becomes of it; next is in the refusal.
type pageCase struct {
	cfg          server.HTTPConfig
	guarded      bool
	method, host string
	origin, site string
	code         int
	next         string
}

// pageCases are what a browser can be made to send, and what others send.
func pageCases(host string) []pageCase {
	zero := server.HTTPConfig{}
	listed := server.HTTPConfig{Hosts: []string{"*.Example.com"}, Origins: []string{"https://ui.example.com"}, Names: []string{"n1"}}
	etcd := server.HTTPConfig{Hosts: []string{"*"}, Origins: []string{"*"}}
	return []pageCase{
		{cfg: zero, method: "POST", host: "127.0.0.1:2379", code: 200},
		{cfg: zero, method: "POST", host: "[::1]:2379", code: 200},
		{cfg: zero, method: "POST", host: "[::1]", code: 200},
		{cfg: zero, method: "POST", host: "10.1.2.3", code: 200},
		{cfg: zero, method: "POST", host: "LocalHost.:2379", code: 200},
		{cfg: zero, method: "POST", host: "kv.localhost", code: 200},
		{cfg: zero, method: "POST", host: host + ":2379", code: 200},
		{cfg: zero, method: "POST", host: "evil.example:2379", code: 421, next: "--allowed-hosts evil.example"},
		{cfg: zero, method: "POST", host: "127.0.0.1.evil.example", code: 421},
		{cfg: zero, method: "POST", host: "notlocalhost", code: 421},
		// Its own page, by the browser's view, is what rebinding makes of it.
		{cfg: zero, method: "POST", host: "evil.example", origin: "http://evil.example", site: "same-origin", code: 421},
		{cfg: zero, method: "GET", host: "evil.example", code: 421},
		// Who has no credentials can do nothing.
		{cfg: zero, guarded: true, method: "POST", host: "kv.default.svc:2379", code: 200},
		{cfg: zero, guarded: true, method: "POST", host: "localhost", origin: "https://evil.example", code: 403, next: "--allowed-origins https://evil.example"},
		// Pages of other sites.
		{cfg: zero, method: "POST", host: "localhost:2379", origin: "http://localhost:2379", code: 200},
		{cfg: zero, method: "POST", host: "localhost:2379", origin: "http://localhost:2379", site: "same-origin", code: 200},
		{cfg: zero, method: "POST", host: "localhost:2379", origin: "http://localhost:3000", code: 403},
		{cfg: zero, method: "POST", host: "localhost:2379", origin: "null", code: 403},
		{cfg: zero, method: "POST", host: "localhost:2379", site: "cross-site", code: 403},
		{cfg: zero, method: "POST", host: "localhost:2379", site: "same-site", code: 403},
		{cfg: zero, method: "PUT", host: "localhost:2379", site: "cross-site", code: 403},
		{cfg: zero, method: "DELETE", host: "localhost:2379", origin: "https://evil.example", code: 403},
		{cfg: zero, method: "POST", host: "localhost:2379", site: "none", code: 200},
		// What was allowed.
		{cfg: listed, method: "POST", host: "kv.example.com", origin: "https://ui.example.com", site: "cross-site", code: 200},
		{cfg: listed, method: "POST", host: "kv.example.com", origin: "https://evil.example", code: 403},
		{cfg: listed, method: "POST", host: "n1:2379", code: 200},
		{cfg: listed, method: "POST", host: "example.com", code: 421},
		{cfg: listed, method: "POST", host: "evilexample.com", code: 421},
		{cfg: listed, guarded: true, method: "POST", host: "evil.example", code: 421},
		{cfg: etcd, method: "POST", host: "evil.example", origin: "https://evil.example", site: "cross-site", code: 200},
		{cfg: etcd, method: "GET", host: "evil.example", code: 501},
	}
}

// TestPagesOfOthers is what a browser can be made to send to a member by its
// default settings: nothing that writes, or is read by a page whose name was made
// to lead here.
func TestPagesOfOthers(t *testing.T) {
	model := kvtest.NewModel(kv.Limits{})
	cluster := new(lone)
	cluster.leader.Store(1)
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range pageCases(host) {
		var store kv.Store = model
		path := "/v3/kv/range"
		if c.guarded {
			store, path = guardedStore{Store: model}, "/version" // its authority only says that it is on
		}
		addrs, stop := start(t, store, cluster, server.Config{HTTP: c.cfg})
		req := ask(t, c.method, "http://"+addrs[0].String()+path, `{"key":"YQ=="}`)
		req.Host = c.host
		for name, value := range map[string]string{"Origin": c.origin, "Sec-Fetch-Site": c.site} {
			if value != "" {
				req.Header.Set(name, value)
			}
		}
		resp, body := visit(t, new(http.Transport), req)
		stop()
		if c.guarded && c.code == 200 {
			c.code = 405 // POST to a page
		}
		if resp.StatusCode != c.code || !strings.Contains(body, c.next) {
			t.Errorf("%+v: %d %s", c, resp.StatusCode, body)
		}
		allowed := resp.Header.Get("Access-Control-Allow-Origin")
		if want := slices.Contains(c.cfg.Origins, "*") || c.origin != "" && slices.Contains(c.cfg.Origins, c.origin); (allowed != "") != want && c.code != 421 {
			t.Errorf("%+v: pages of %q may read it", c, allowed)
		}
	}
}

// TestSocketsOfOthers: a browser opens websockets for any page, and sends its
// cookies along.
func TestSocketsOfOthers(t *testing.T) {
	cluster := new(lone)
	cluster.leader.Store(1)
	addrs, _ := start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{})
	own := addrs[0].String()
	for origin, want := range map[string]bool{"http://" + own: true, "http://evil.example": false, "http://localhost:1": false} {
		ws, err := websocket.Dial("ws://"+own+"/v3/watch", "", origin)
		if err == nil {
			_ = ws.Close()
		}
		if (err == nil) != want {
			t.Errorf("%s: %v", origin, err)
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
