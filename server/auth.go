package server

import (
	"errors"
	"net/http"
	"time"

	"github.com/concord-kv/concord/internal/etcdapi"
	"github.com/concord-kv/concord/kv"
)

// AuthConfig says how callers prove who they are once they have logged in.
type AuthConfig struct {
	// Token is etcd's --auth-token: "simple", the default, or "jwt" and its
	// options, as in jwt,pub-key=FILE,priv-key=FILE,sign-method=RS256,ttl=10m.
	// All members must have the same.
	Token string
	// TTL is how long a simple token lives without use; default 5 min, etcd's.
	TTL time.Duration
	// Required refuses every call but those for health and version for as long
	// as authentication is off, and to switch it off. The store has to be a
	// [kv.Authority].
	Required bool
}

func (c AuthConfig) tokens() (etcdapi.Tokens, error) { return etcdapi.ParseTokens(c.Token, c.TTL) }

// routes are the pages that a member serves over HTTP, each with what it asks
// of its visitors while authentication is on: none is without.
type routes struct {
	mux *http.ServeMux
	api *etcdapi.API
	// asks is what each pattern asks, for tests.
	asks map[string]string
}

func newRoutes(api *etcdapi.API) *routes {
	return &routes{mux: http.NewServeMux(), api: api, asks: map[string]string{}}
}

// open serves a page that everybody may see.
func (p *routes) open(pattern string, h http.HandlerFunc) {
	p.asks[pattern] = "nothing"
	p.mux.HandleFunc(pattern, h)
}

// byMethod serves what calls a gRPC method with the visitor's credentials, so
// that the table of methods decides.
func (p *routes) byMethod(pattern string, h http.Handler) {
	p.asks[pattern] = "method"
	p.mux.Handle(pattern, h)
}

// guarded serves a page to those with a right.
func (p *routes) guarded(pattern string, need kv.Right, h http.Handler) {
	p.asks[pattern] = "right"
	p.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		switch err := p.api.Admit(r.Context(), r.Header.Values("Authorization"), need); {
		case err == nil:
			h.ServeHTTP(w, r)
		case kv.CodeOf(err) == kv.Unauthenticated:
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, err.Error(), http.StatusUnauthorized)
		case errors.Is(err, kv.ErrPermissionDenied), errors.Is(err, kv.ErrUserNotFound): // who has proved a name that no user has
			http.Error(w, err.Error(), http.StatusForbidden)
		default:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
}
