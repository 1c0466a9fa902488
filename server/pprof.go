package server

import (
	"net/http"
	"net/http/pprof"

	"github.com/concord-kv/concord/kv"
)

// addProfiles serves Go's profiles where 'go tool pprof' looks for them. The
// command line is left out: it may hold secrets.
func addProfiles(p *routes) {
	for page, h := range map[string]http.HandlerFunc{
		"": pprof.Index, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
		"cmdline": http.NotFound,
	} {
		p.guarded("/debug/pprof/"+page, kv.ReadTelemetry, h)
	}
}
