package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
)

// HTTPConfig configures what is served over HTTP/1 beside gRPC.
type HTTPConfig struct {
	// Origins are the origins of web pages that may call: etcd's --cors. None,
	// or "*", means all.
	Origins []string
	// Hosts are the names by which this server may be called without TLS:
	// etcd's --host-whitelist. None, or "*", means all. A list keeps pages of
	// others, whose name was made to lead here, from calling (DNS rebinding).
	Hosts []string
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
	// certified refuses users by certificate: see refuseCertificate.
	certified func() bool
	next      http.Handler
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
	if r.TLS == nil {
		if host := hostOf(r); !listed(a.cfg.Hosts, host) {
			http.Error(w, fmt.Sprintf(unknownHost, host), http.StatusMisdirectedRequest)
			return
		}
	} else if a.refuseCertificate(r) {
		http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
		return
	}
	if origin := r.Header.Get("Origin"); listed(a.cfg.Origins, "*") {
		allowOrigin(w.Header(), "*")
	} else if listed(a.cfg.Origins, origin) {
		allowOrigin(w.Header(), origin)
	} else if isSocket(r) && origin != "" {
		http.Error(w, "the origin "+origin+" is not allowed", http.StatusForbidden)
		return
	}
	if r.Method == http.MethodOptions {
		return
	}
	a.next.ServeHTTP(w, r)
}

// unknownHost is etcd's hint to the reader of a refusal, in our words.
const unknownHost = `
This server is not known by the name in the Host header, %q.

Use TLS, with which every name is allowed, or add the name to the list of hosts
(--host-whitelist). The list guards against DNS rebinding (CVE-2018-5702).
`

// refuseCertificate reports whether r comes from a user known by certificate to
// the gateway, where that name does not count: better no answer than one to
// nobody (CVE-2018-16886).
func (a *access) refuseCertificate(r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, gatewayPath) || !a.certified() {
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

// listed reports whether a list that is empty or has "*" in it, or name, allows
// name.
func listed(list []string, name string) bool {
	return len(list) == 0 || slices.Contains(list, "*") || slices.Contains(list, name)
}

func allowOrigin(h http.Header, origin string) {
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
