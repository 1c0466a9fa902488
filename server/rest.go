package server

import (
	"crypto/tls"
	"errors"
	"net/http"
	"strings"

	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
)

// addREST serves Concord's own API about the cluster, about access tokens, and
// what more there is.
func addREST(p *routes, store kv.Store, cluster kv.Cluster, more ...restapi.Route) {
	all := append(append(restapi.Routes(cluster), restapi.TokenRoutes(store)...), more...)
	for _, route := range all {
		p.rest(route)
	}
	p.open(restapi.Prefix, restapi.NoRoute(all))
}

// rest serves a route to those with its right, whose name goes along.
func (p *routes) rest(route restapi.Route) {
	pattern := route.Method + " " + route.Path
	if p.asks[pattern] = "right"; route.Right == kv.AnyUser {
		p.asks[pattern] = "user"
	}
	p.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, err := p.api.Enter(r.Context(), r.Header.Values("Authorization"), ownCertificate(r), route.Right)
		if errors.Is(err, kv.ErrUserNotFound) { // who has proved a name that no user has
			err = kv.WithNext(kv.Errorf(kv.PermissionDenied, "no user has the name of the caller: %w", err), "add the user, or show a token")
		}
		if err != nil {
			restapi.Refuse(w, err)
			return
		}
		route.Serve(w, r.WithContext(ctx))
	})
}

// ownCertificate is the connection of a request whose certificate may say who
// makes it. A browser shows the certificate for pages of others too, but sends
// none of their requests as JSON without asking first, and then no certificate.
func ownCertificate(r *http.Request) *tls.ConnectionState {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		return nil
	}
	return r.TLS
}
