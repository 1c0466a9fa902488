package restapi

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/concord-kv/concord/kv"
)

// askLog answers one request about a member's log.
func askLog(level *slog.LevelVar, log *slog.Logger, method, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	for _, r := range LogRoutes(level, log) {
		if r.Method == method {
			r.Serve(w, httptest.NewRequest(method, r.Path, strings.NewReader(body)))
		}
	}
	return w
}

// TestLogLevel: what is set counts at once, what is no level changes nothing, and
// a change is in the log whichever way it goes.
func TestLogLevel(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))
	for _, test := range []struct {
		body, want string
		status     int
		told       string
	}{
		{`{"level":"error"}`, "error", http.StatusOK, "from=info to=error"},
		{`{"level":"Debug"}`, "debug", http.StatusOK, "from=error to=debug"},
		{`{"level":"loud"}`, "debug", http.StatusBadRequest, ""},
		{`{}`, "debug", http.StatusBadRequest, ""},
		{`{"level":"info+2"}`, "info+2", http.StatusOK, "from=debug to=info+2"},
	} {
		out.Reset()
		if w := askLog(level, log, http.MethodPut, test.body); w.Code != test.status {
			t.Errorf("%s: %d %s", test.body, w.Code, w.Body)
		}
		if test.told == "" && out.Len() > 0 || !strings.Contains(out.String(), test.told) {
			t.Errorf("%s: the log says %q", test.body, &out)
		}
		if w := askLog(level, log, http.MethodGet, ""); w.Body.String() != `{"level":"`+test.want+"\"}\n" {
			t.Errorf("after %s: %s", test.body, w.Body)
		}
	}
	log.Info("not heard at info+2")
	if strings.Contains(out.String(), "not heard") {
		t.Errorf("the level does not count: %s", &out)
	}
}

// TestNoLogLevel: a program that gives no level says so.
func TestNoLogLevel(t *testing.T) {
	for method, right := range map[string]kv.Right{http.MethodGet: kv.ReadTelemetry, http.MethodPut: kv.ManageCluster} {
		if w := askLog(nil, slog.New(slog.DiscardHandler), method, `{}`); w.Code != http.StatusNotImplemented {
			t.Errorf("%s: %d %s", method, w.Code, w.Body)
		}
		for _, r := range LogRoutes(nil, nil) {
			if r.Method == method && r.Right != right {
				t.Errorf("%s asks for %v", method, r.Right)
			}
		}
	}
}
