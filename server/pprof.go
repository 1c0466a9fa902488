package server

import (
	"net/http"
	"net/http/pprof"
	"strings"

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

// hidden stands for what a page does not show.
const hidden = "***"

// withoutSecrets returns a command line in which the values of flags that are
// secrets, by their names, are hidden.
func withoutSecrets(args []string) []string {
	shown := make([]string, 0, len(args))
	next := false // this is the value of a secret flag
	for _, arg := range args {
		name, _, given := strings.Cut(arg, "=")
		secret := strings.HasPrefix(name, "-") && isSecret(strings.TrimLeft(name, "-"))
		switch {
		case secret && given:
			arg = name + "=" + hidden
		case next && !secret:
			arg = hidden
		}
		shown, next = append(shown, arg), secret && !given
	}
	return shown
}

// isSecret tells by a flag's name whether its value is one. A path to a file with
// a secret is none.
func isSecret(flag string) bool {
	if strings.HasPrefix(flag, "no-") || strings.HasSuffix(flag, "-file") || strings.HasSuffix(flag, "-ttl") {
		return false
	}
	return strings.Contains(flag, "secret") || strings.Contains(flag, "password") || strings.Contains(flag, "token")
}
