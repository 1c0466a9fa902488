package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// HTTPConfig configures what is served over HTTP/1 beside gRPC. The zero value
// keeps web pages of others out.
type HTTPConfig struct {
	// Origins are the origins of web pages that may call, as
	// https://ui.example.com: etcd's --cors. "*" is all, which is etcd's default;
	// none are the pages of this server. A browser's writes and websockets for
	// other pages are refused.
	Origins []string
	// Hosts are the names by which this server may be called without TLS, beside
	// IP addresses, localhost, the name of this machine and Names: etcd's
	// --host-whitelist. "*" is all, which is etcd's default, and *.example.com all
	// below one. This keeps out pages whose name was made to lead here (DNS
	// rebinding). Without Hosts it is left out while authentication is on: such a
	// page has no credentials.
	Hosts []string
	// Names are names of this server that its addresses have.
	Names []string
	// NoGateway leaves the JSON gateway (/v3/…) out.
	NoGateway bool
	// NoMetrics leaves /metrics and /debug/vars out.
	NoMetrics bool
	// Profiles adds /debug/pprof/, for those who may read telemetry: etcd's
	// --enable-pprof.
	Profiles bool
}

// access is what a request meets first. As in etcd's server/embed/serve.go it
// gives old names of the gateway's paths their present one, refuses unknown
// hosts and says which origins may call.
type access struct {
	cfg HTTPConfig
	// own are the names of this machine.
	own []string
	// guarded is whether authentication is on.
	guarded func() bool
	// sites tells what a browser sends for pages of others.
	sites http.CrossOriginProtection
	next  http.Handler
}

func newAccess(cfg HTTPConfig, guarded func() bool, next http.Handler) *access {
	a := &access{cfg: cfg, guarded: guarded, next: next}
	if host, err := os.Hostname(); err == nil { // without a name it has one less
		short, _, _ := strings.Cut(host, ".")
		a.own = []string{host, short}
	}
	return a
}

// gatewayNames are the paths that the gateway had in older versions of etcd.
var gatewayNames = []string{"/v3alpha/", "/v3beta/"}

const gatewayPath = "/v3/"

// ServeHTTP implements [http.Handler].
func (a *access) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for _, name := range gatewayNames {
		if rest, ok := strings.CutPrefix(r.URL.Path, name); ok {
			r.URL.Path, r.URL.RawPath = gatewayPath+rest, ""
		}
	}
	r.TLS = tlsOf(r.Context())
	if host := hostOf(r); r.TLS == nil && !a.knows(r, host) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		http.Error(w, fmt.Sprintf(unknownHost, host), http.StatusMisdirectedRequest)
		return
	}
	if r.TLS != nil && a.refuseCertificate(r) {
		http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
		return
	}
	if origin := r.Header.Get("Origin"); slices.Contains(a.cfg.Origins, "*") {
		allowOrigin(w.Header(), "*")
	} else if origin != "" && slices.Contains(a.cfg.Origins, origin) {
		allowOrigin(w.Header(), origin)
	} else if a.crosses(r) {
		http.Error(w, fmt.Sprintf(unknownOrigin, origin), http.StatusForbidden)
		return
	}
	if r.Method == http.MethodOptions {
		return
	}
	a.next.ServeHTTP(w, r)
}

// unknownHost is etcd's hint to the reader of a refusal, in our words.
const unknownHost = `
This server is not known by the name in the Host header, %[1]q.

Use its IP address, TLS or authentication, with which every name is allowed, or
add the name to the list of hosts: --allowed-hosts %[1]s (of concord etcd:
--host-whitelist). The list guards against DNS rebinding (CVE-2018-5702).
`

// unknownOrigin is for the one who makes web pages.
const unknownOrigin = `
A web page of another site (Origin %[1]q) may not write here, nor open websockets.

If it should, add its origin: --allowed-origins %[1]s (of concord etcd: --cors).
`

// knows reports whether this server may be called as host without TLS.
func (a *access) knows(r *http.Request, host string) bool {
	if health, _ := r.Context().Value(healthKey{}).(bool); health {
		return true // what it shows is for all, and monitors call it by many names
	}
	if addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && addr.Network() == "unix" {
		return true // where no browser comes
	}
	if len(a.cfg.Hosts) == 0 && a.guarded() {
		return true
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	// Names below localhost lead nowhere else (RFC 6761, section 6.3).
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return true // no name, so nobody can have made it lead here
	}
	for _, list := range [][]string{a.cfg.Hosts, a.cfg.Names, a.own} {
		if slices.ContainsFunc(list, func(name string) bool { return covers(strings.ToLower(name), host) }) {
			return true
		}
	}
	return false
}

// covers reports whether name, which may be * or begin with *., stands for host.
func covers(name, host string) bool {
	if parent, ok := strings.CutPrefix(name, "*"); ok && (parent == "" || parent[0] == '.') {
		return strings.HasSuffix(host, parent)
	}
	return name == host
}

// crosses reports whether r is a browser's for the page of another site, and
// may change something: a websocket may, too.
func (a *access) crosses(r *http.Request) bool {
	if isSocket(r) {
		r = &http.Request{Method: http.MethodPost, Header: r.Header, Host: r.Host, URL: r.URL}
	}
	return a.sites.Check(r) != nil
}

// refuseCertificate reports whether r comes from a user known by certificate to
// the gateway, where that name does not count: better no answer than one to
// nobody (CVE-2018-16886).
func (a *access) refuseCertificate(r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, gatewayPath) || !a.guarded() {
		return false
	}
	return slices.ContainsFunc(r.TLS.VerifiedChains, func(chain []*x509.Certificate) bool {
		return len(chain) > 0 && chain[0].Subject.CommonName != ""
	})
}

// hostOf is the name by which the client called.
func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}

func allowOrigin(h http.Header, origin string) {
	if origin != "*" {
		h.Add("Vary", "Origin")
	}
	h.Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	h.Add("Access-Control-Allow-Origin", origin)
	h.Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
}

// tlsKey is the key of a connection's TLS state in the contexts of its requests:
// net/http does not see it, because the splitter has done the handshake.
type tlsKey struct{}

func withTLS(ctx context.Context, c net.Conn) context.Context {
	if s, ok := c.(*conn); ok && s.tls != nil {
		return context.WithValue(ctx, tlsKey{}, s.tls)
	}
	return ctx
}

func tlsOf(ctx context.Context) *tls.ConnectionState {
	state, _ := ctx.Value(tlsKey{}).(*tls.ConnectionState)
	return state
}
