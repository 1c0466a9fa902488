package server

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
)

// Serving says what a listener is for.
type Serving uint8

// What a listener can be for. The zero Serving is everything.
const (
	// Everything is gRPC and HTTP.
	Everything Serving = iota
	// OnlyGRPC and OnlyHTTP are one of the two.
	OnlyGRPC
	OnlyHTTP
	// OnlyHealth is HTTP with /metrics, /health, /livez and /readyz alone.
	OnlyHealth
)

// Listen returns l for Config.Listeners with a use and security of its own:
// cfg takes the place of Config.TLS, nil means without TLS. One server can so
// listen on ports with TLS and without, and on some for its metrics only.
func Listen(l net.Listener, cfg *tls.Config, what Serving) net.Listener {
	return &listener{l, withProtocols(cfg, what), what}
}

// listener is a listener with its own use and security.
type listener struct {
	net.Listener
	tls  *tls.Config
	what Serving
}

func withProtocols(cfg *tls.Config, what Serving) *tls.Config {
	if cfg == nil {
		return nil
	}
	// In the order in which they are taken where a client offers several: gRPC's
	// clients offer HTTP/2 alone, and who offers both, as curl, browsers and
	// Prometheus do, wants pages, which are served over HTTP/1.
	protocols := []string{"http/1.1", "h2"}
	switch what {
	case OnlyGRPC:
		protocols = []string{"h2"}
	case OnlyHTTP, OnlyHealth:
		protocols = []string{"http/1.1"}
	}
	cfg = cfg.Clone()
	cfg.NextProtos = protocols
	if perClient := cfg.GetConfigForClient; perClient != nil {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			cfg, err := perClient(hello)
			if cfg != nil {
				cfg = cfg.Clone()
				cfg.NextProtos = protocols
			}
			return cfg, err
		}
	}
	return cfg
}

var errProtocol = errors.New("server: this address does not serve that protocol")

// allows decides on a connection by its first bytes.
func (what Serving) allows(http2 bool) error {
	if http2 && what >= OnlyHTTP || !http2 && what == OnlyGRPC {
		return errProtocol
	}
	return nil
}

// healthKey is the key of OnlyHealth in the contexts of requests.
type healthKey struct{}

// withListener keeps in the context of requests what c's listener is for.
func withListener(ctx context.Context, c net.Conn) context.Context {
	if s, ok := c.(*conn); ok && s.what == OnlyHealth {
		ctx = context.WithValue(ctx, healthKey{}, true)
	}
	return ctx
}

// limited hides all but health and metrics from requests on OnlyHealth.
type limited struct{ next http.Handler }

// ServeHTTP implements [http.Handler].
func (l limited) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if only, _ := r.Context().Value(healthKey{}).(bool); only {
		page, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		switch page {
		case "metrics", "health", "livez", "readyz":
		default:
			http.NotFound(w, r)
			return
		}
	}
	l.next.ServeHTTP(w, r)
}

// peerScheme goes before the peer addresses of members, as etcd's clients expect
// URLs.
func peerScheme(cluster any) string {
	if c, ok := cluster.(interface{ PeerScheme() string }); ok {
		return c.PeerScheme()
	}
	return "http"
}
