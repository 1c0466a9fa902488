package server_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/restapi"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/kv/kvtest"
	"github.com/concord-kv/concord/server"
)

// TestREST asks a real member, and one that cannot tell much.
func TestREST(t *testing.T) {
	node, err := concord.Open(t.Context(), t.TempDir(), concord.Name("n1"))
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	if err := node.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	addrs, _ := start(t, node, node, server.Config{HTTP: server.HTTPConfig{Origins: []string{"*"}}})
	transport := new(http.Transport)
	resp, text := visit(t, transport, ask(t, "GET", "http://"+addrs[0].String()+"/v1/cluster/status", ""))
	var s restapi.Status
	if err := json.Unmarshal([]byte(text), &s); err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%v %s: %v", resp.Status, text, err)
	}
	if s.Health.Summary != "1 of 1 voters, survives 0 failures" || len(s.Members) != 1 || s.Members[0].Said == nil ||
		s.Leader != s.Asked || s.Members[0].Role != "leader" || s.Members[0].ID != s.Asked || s.Cluster == "" {
		t.Errorf("%s", text)
	}
	if resp.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("CORS is not the gateway's: %v", resp.Header)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/v1/cluster/leave", "", 409, `"code":"failed_precondition","message":"n1 is the only member that votes; nothing was done","next":"promote`},
		{"POST", "/v1/cluster/leave", `{"member":"n7"}`, 409, "this member is n1"},
		{"POST", "/v1/cluster/remove", `{"member":"n7"}`, 404, `"code":"not_found"`},
		{"POST", "/v1/cluster/remove", `{"member":"n1"} x`, 400, "something behind"},
		{"POST", "/v1/cluster/remove", `{"name":"n1"}`, 400, `unknown field`},
		{"POST", "/v1/cluster/remove", `{"member":"` + strings.Repeat("a", 1<<17) + `"}`, 400, "too large"},
		{"DELETE", "/v1/cluster/remove", "", 405, `"next":"use POST"`},
		{"GET", "/v1/nosuch", "", 404, "GET /v1/cluster/status"},
	} {
		resp, text := visit(t, transport, ask(t, c.method, "http://"+addrs[0].String()+c.path, c.body))
		if resp.StatusCode != c.status || !strings.Contains(text, c.want) || !json.Valid([]byte(text)) {
			t.Errorf("%s %s %.40s: %s %s", c.method, c.path, c.body, resp.Status, text)
		}
	}

	cluster := new(lone)
	cluster.leader.Store(1)
	addrs, _ = start(t, kvtest.NewModel(kv.Limits{}), cluster, server.Config{})
	resp, text = visit(t, transport, ask(t, "GET", "http://"+addrs[0].String()+"/v1/cluster/status", ""))
	if resp.StatusCode != http.StatusNotImplemented || !strings.Contains(text, `"code":"unsupported"`) {
		t.Errorf("%s %s", resp.Status, text)
	}
}
