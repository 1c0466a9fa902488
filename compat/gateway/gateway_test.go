package gateway

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// b64 of "a", "b", "z", "lock", "el" and others.
const (
	a, b, z = "YQ==", "Yg==", "eg=="
)

// routes are all of the gateway's that answer once, with good and bad requests
// in an order in which they can be made.
var routes = []request{
	{path: "/v3/kv/put", body: `{"key":"` + a + `","value":"MQ=="}`},
	{path: "/v3/kv/put", body: `{"key":"` + a + `","value":"Mg==","prev_kv":true}`},
	{path: "/v3/kv/put", body: `{"key":"` + b + `","value":"","lease":"99"}`},
	{path: "/v3/kv/put", body: `{"key":"` + b + `","ignore_value":true}`},
	{path: "/v3/kv/put", body: `{"key":"` + b + `"}`},
	{path: "/v3/kv/put", body: `{}`},
	{path: "/v3/kv/put", body: ``},
	{path: "/v3/kv/put", body: `{`},
	{path: "/v3/kv/put", body: `[]`},
	{path: "/v3/kv/put", body: `{"key":"%%%"}`},
	{path: "/v3/kv/put", body: `{"key":5}`},
	{path: "/v3/kv/put", body: `{"key":"` + a + `","lease":"x"}`},
	{path: "/v3/kv/put", body: `{"key":"` + a + `","unknown":1}`},
	{path: "/v3/kv/put", ours: "/v3alpha/kv/put", body: `{"key":"` + a + `"}`}, // older etcd had it
	{path: "/v3beta/kv/put", body: `{"key":"` + a + `","value":"Mw=="}`},
	{path: "/v3beta/nothing", body: `{}`},
	{path: "/v3/nothing", body: `{}`},
	{path: "/v3/", body: `{}`},
	{path: "/v3", body: `{}`},
	{path: "/v3/kv", body: `{}`},
	{path: "/v3/kv/put/", body: `{}`},
	{method: http.MethodGet, path: "/v3/kv/put"},
	{method: http.MethodPut, path: "/v3/kv/put", body: `{}`},
	{method: http.MethodDelete, path: "/v3/kv/put"},
	{method: http.MethodHead, path: "/v3/kv/put"},
	{method: http.MethodOptions, path: "/v3/kv/put"},
	{method: http.MethodOptions, path: "/nothing"},

	{path: "/v3/kv/range", body: `{"key":"` + a + `"}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","range_end":"` + z + `","sort_order":"DESCEND","sort_target":"KEY"}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","rangeEnd":"` + z + `","sortOrder":2}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","sort_order":"SIDEWAYS"}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","sort_order":17}`},
	{path: "/v3/kv/range", body: `{"key":"AA==","range_end":"AA==","count_only":true}`},
	{path: "/v3/kv/range", body: `{"key":"AA==","range_end":"AA==","limit":"1","keys_only":true,"serializable":true}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","revision":"2"}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","revision":2}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","revision":"9999"}`},
	{path: "/v3/kv/range", body: `{"key":"` + z + `"}`},
	{path: "/v3/kv/range", body: `{}`},
	{path: "/v3/kv/txn", body: `{"compare":[{"target":"VALUE","key":"` + a + `","value":"Mw=="}],"success":[{"request_put":{"key":"` + a + `","value":"NA=="}},{"request_range":{"key":"` + a + `"}}],"failure":[{"request_range":{"key":"` + a + `"}}]}`},
	{path: "/v3/kv/txn", body: `{"compare":[{"target":"CREATE","result":"GREATER","key":"` + a + `","create_revision":"100"}],"success":[{"requestPut":{"key":"` + a + `"}}],"failure":[{"requestDeleteRange":{"key":"` + b + `","prev_kv":true}}]}`},
	{path: "/v3/kv/txn", body: `{"success":[{"request_put":{"key":"` + a + `"}},{"request_put":{"key":"` + a + `"}}]}`},
	{path: "/v3/kv/txn", body: `{"success":[{"request_txn":{"success":[{"request_range":{"key":"` + a + `"}}]}}]}`},
	{path: "/v3/kv/txn", body: `{"compare":[{"target":"VERSION","key":""}]}`},
	{path: "/v3/kv/txn", body: `{}`},
	{path: "/v3/kv/deleterange", body: `{"key":"` + b + `","range_end":"` + z + `","prev_kv":true}`},
	{path: "/v3/kv/deleterange", body: `{"key":"` + a + `","prev_kv":true}`},
	{path: "/v3/kv/deleterange", body: `{}`},
	{path: "/v3/kv/compaction", body: `{"revision":"3","physical":true}`},
	{path: "/v3/kv/compaction", body: `{"revision":"3"}`},
	{path: "/v3/kv/compaction", body: `{"revision":"999"}`},
	{path: "/v3/kv/compaction", body: `{}`},
	{path: "/v3/kv/range", body: `{"key":"` + a + `","revision":"1"}`},

	{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"1001"}`},
	{path: "/v3/lease/grant", body: `{"TTL":600,"ID":1002}`},
	{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"1001"}`},
	{path: "/v3/lease/grant", body: `{"TTL":"10000000000"}`},
	{path: "/v3/lease/grant", body: `{"TTL":"x"}`},
	{path: "/v3/kv/put", body: `{"key":"bGVhc2Vk","lease":"1001"}`},
	{path: "/v3/lease/timetolive", body: `{"ID":"1001","keys":true}`},
	{path: "/v3/lease/timetolive", body: `{"ID":"77"}`},
	{path: "/v3/kv/lease/timetolive", body: `{"ID":"1001"}`},
	{path: "/v3/lease/leases", body: `{}`},
	{path: "/v3/kv/lease/leases", body: `{}`},
	{path: "/v3/lease/keepalive", body: `{"ID":"1001"}`},
	{path: "/v3/lease/keepalive", body: `{"ID":"77"}`},
	{path: "/v3/lease/keepalive", body: `{"ID":"1001"}{"ID":"1001"}`},
	{path: "/v3/lease/keepalive", body: `{`},
	{path: "/v3/lease/revoke", body: `{"ID":"77"}`},
	{path: "/v3/kv/lease/revoke", body: `{"ID":"1002"}`},
	{path: "/v3/lease/revoke", body: `{"ID":"1001"}`},

	{path: "/v3/cluster/member/list", body: `{}`},
	{path: "/v3/cluster/member/list", body: `{"linearizable":true}`},
	{path: "/v3/cluster/member/add", body: `{"peerURLs":["x"]}`},
	{path: "/v3/cluster/member/add", body: `{}`},
	{path: "/v3/cluster/member/remove", body: `{"ID":"77"}`},
	{path: "/v3/cluster/member/update", body: `{"ID":"77","peerURLs":["http://127.0.0.1:1"]}`},
	{path: "/v3/cluster/member/promote", body: `{"ID":"77"}`},

	{path: "/v3/maintenance/alarm", body: `{"action":"SHOUT"}`},
	{path: "/v3/maintenance/status", body: `{}`},
	{path: "/v3/maintenance/defragment", body: `{}`},
	{path: "/v3/maintenance/hash", body: `{}`},
	{path: "/v3/maintenance/hashkv", body: `{"revision":"0"}`},
	{path: "/v3/maintenance/hashkv", body: `{"revision":"999"}`},
	{path: "/v3/maintenance/transfer-leadership", body: `{"targetID":"77"}`},

	{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"2001"}`},
	{path: "/v3/lock/lock", body: `{"name":"bA==","lease":"2001"}`},
	{path: "/v3/lock/lock", body: `{"name":"bA==","lease":2001}`},
	{path: "/v3/lock/lock", body: `{"name":"bA==","lease":"77"}`},
	{path: "/v3/lock/lock", body: `{"name":"bA==","lease":"x"}`},
	{path: "/v3/lock/lock", body: `{`},
	{path: "/v3/lock/unlock", body: `{"key":"bC83ZDE="}`},
	{path: "/v3/lock/unlock", body: `{"key":"bC83ZDE="}`},
	{path: "/v3/lock/unlock", body: `{}`},
	{method: http.MethodGet, path: "/v3/lock/lock"},
	{path: "/v3/lock/nothing", body: `{}`},
	{path: "/v3/lock/lock", body: `{"lease":"2001"}`},
	{path: "/v3/lock/unlock", body: `{"key":"LzdkMQ=="}`},
	{path: "/v3/election/leader", body: `{"name":"ZQ=="}`},
	{path: "/v3/election/campaign", body: `{"name":"ZQ==","lease":"2001","value":"b25l"}`},
	{path: "/v3/election/campaign", body: `{"name":"ZQ==","lease":"2001","value":"dHdv"}`},
	{path: "/v3/election/campaign", body: `{"name":"ZQ==","lease":"77"}`},
	{path: "/v3/election/leader", body: `{"name":"ZQ=="}`},
	{path: "/v3/election/observe", body: `{"name":"ZQ=="}`, lines: 1},
	{path: "/v3/election/observe", body: `{`},
	{path: "/v3/election/proclaim", body: `{"value":"eA=="}`},
	{path: "/v3/election/proclaim", body: `{"leader":{"name":"ZQ==","key":"ZS83ZDE=","rev":"1","lease":"2001"},"value":"eA=="}`},
	{path: "/v3/election/proclaim", body: `{"leader":{"name":"ZQ==","rev":"1","lease":"2001"},"value":"eA=="}`},
	{path: "/v3/election/resign", body: `{}`},
	{path: "/v3/election/resign", body: `{"leader":{"name":"ZQ==","key":"ZS83ZDE=","rev":"1","lease":"2001"}}`},
	{path: "/v3/election/resign", body: `{"leader":{"lease":"2001"}}`},
	{path: "/v3/lease/revoke", body: `{"ID":"2001"}`},
}

// upkeep are alarms and downgrades.
var upkeep = []request{
	{path: "/v3/maintenance/alarm", body: `{}`},
	{path: "/v3/maintenance/alarm", body: `{"action":"ACTIVATE","memberID":"5","alarm":"NOSPACE"}`},
	{method: http.MethodGet, path: "/health"},
	{method: http.MethodGet, path: "/health?exclude=NOSPACE"},
	{path: "/v3/kv/put", body: `{"key":"` + a + `"}`},
	{path: "/v3/maintenance/alarm", body: `{"action":"DEACTIVATE","memberID":"5","alarm":"NOSPACE"}`},
	{path: "/v3/maintenance/alarm", body: `{"action":"ACTIVATE","memberID":"5","alarm":"CORRUPT"}`},
	{method: http.MethodGet, path: "/health"},
	{method: http.MethodGet, path: "/readyz/data_corruption"},
	{path: "/v3/maintenance/alarm", body: `{"action":"DEACTIVATE","memberID":"5","alarm":"CORRUPT"}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"VALIDATE","version":"x"}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"VALIDATE","version":"3.6.0"}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"VALIDATE","version":"2.0.0"}`},
	{path: "/v3/maintenance/downgrade", body: `{"action":"CANCEL"}`},
}

func TestUpkeep(t *testing.T) {
	p := newPair(t)
	for _, r := range upkeep {
		p.compare(r)
	}
	t.Logf("%d requests", p.count)
}

func TestRoutes(t *testing.T) {
	p := newPair(t)
	for _, r := range routes {
		p.compare(r)
	}
	p.election()
	p.member()
	t.Logf("%d requests", p.count)
}

func TestAuth(t *testing.T) {
	p := newPair(t)
	p.auth()
	t.Logf("%d requests", p.count)
}

// election proclaims and resigns with the revision that the campaign gave.
func (p *pair) election() {
	p.t.Helper()
	p.compare(request{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"2002"}`})
	won := p.compare(request{path: "/v3/election/campaign", body: `{"name":"ZQ==","lease":"2002","value":"b25l"}`})
	for i := range won {
		p.ids[i] = string(sub(p.t, won[i], "leader"))
	}
	p.compare(request{path: "/v3/election/proclaim", body: `{"leader":${id},"value":"eA=="}`})
	p.compare(request{path: "/v3/election/leader", body: `{"name":"ZQ=="}`})
	p.compare(request{path: "/v3/election/resign", body: `{"leader":${id}}`})
	p.compare(request{path: "/v3/election/leader", body: `{"name":"ZQ=="}`})
}

// member adds a learner and removes it.
func (p *pair) member() {
	p.t.Helper()
	added := p.compare(request{path: "/v3/cluster/member/add", body: `{"peerURLs":["http://127.0.0.1:1"],"isLearner":true}`})
	for i := range added {
		p.ids[i] = string(sub(p.t, sub(p.t, added[i], "member"), "ID"))
	}
	p.compare(request{path: "/v3/cluster/member/promote", body: `{"ID":${id}}`})
	p.compare(request{path: "/v3/cluster/member/update", body: `{"ID":${id},"peerURLs":["http://127.0.0.1:2"]}`})
	p.compare(request{path: "/v3/cluster/member/remove", body: `{"ID":${id}}`})
	p.compare(request{path: "/v3/cluster/member/remove", body: `{"ID":${id}}`})
}

// auth makes users, enables authentication and uses tokens.
func (p *pair) auth() {
	p.t.Helper()
	for _, r := range []request{
		{path: "/v3/auth/status", body: `{}`},
		{path: "/v3/auth/enable", body: `{}`},
		{path: "/v3/auth/authenticate", body: `{"name":"root","password":"x"}`},
		{path: "/v3/auth/user/add", body: `{"name":"root","password":"root"}`},
		{path: "/v3/auth/user/add", body: `{"name":"root","password":"root"}`},
		{path: "/v3/auth/user/add", body: `{"name":"alice","password":"alice"}`},
		{path: "/v3/auth/user/add", body: `{}`},
		{path: "/v3/auth/role/add", body: `{"name":"root"}`},
		{path: "/v3/auth/role/add", body: `{"name":"reader"}`},
		{path: "/v3/auth/role/add", body: `{}`},
		{path: "/v3/auth/role/grant", body: `{"name":"reader","perm":{"permType":"READ","key":"` + a + `"}}`},
		{path: "/v3/auth/role/grant", body: `{"name":"nobody","perm":{"permType":"READ","key":"` + a + `"}}`},
		{path: "/v3/auth/role/grant", body: `{"name":"reader"}`},
		{path: "/v3/auth/role/get", body: `{"role":"reader"}`},
		{path: "/v3/auth/role/get", body: `{"role":"nobody"}`},
		{path: "/v3/auth/role/list", body: `{}`},
		{path: "/v3/auth/user/grant", body: `{"user":"root","role":"root"}`},
		{path: "/v3/auth/user/grant", body: `{"user":"alice","role":"reader"}`},
		{path: "/v3/auth/user/grant", body: `{"user":"alice","role":"nobody"}`},
		{path: "/v3/auth/user/get", body: `{"name":"alice"}`},
		{path: "/v3/auth/user/get", body: `{"name":"nobody"}`},
		{path: "/v3/auth/user/list", body: `{}`},
		{path: "/v3/auth/user/changepw", body: `{"name":"alice","password":"secret"}`},
		{path: "/v3/auth/enable", body: `{}`},
		{path: "/v3/auth/status", body: `{}`},
		{path: "/v3/auth/authenticate", body: `{"name":"alice","password":"wrong"}`},
	} {
		p.compare(r)
	}
	p.compare(request{path: "/v3/lease/grant", body: `{"TTL":"600","ID":"2002"}`})
	p.withTokens()
	for _, r := range []request{
		{path: "/v3/auth/role/revoke", body: `{"role":"reader","key":"` + a + `"}`},
		{path: "/v3/auth/role/revoke", body: `{"role":"reader","key":"` + a + `"}`},
		{path: "/v3/auth/user/revoke", body: `{"name":"alice","role":"reader"}`},
		{path: "/v3/auth/user/revoke", body: `{"name":"alice","role":"reader"}`},
		{path: "/v3/auth/user/delete", body: `{"name":"alice"}`},
		{path: "/v3/auth/user/delete", body: `{"name":"alice"}`},
		{path: "/v3/auth/role/delete", body: `{"role":"reader"}`},
		{path: "/v3/auth/role/delete", body: `{"role":"reader"}`},
		{path: "/v3/auth/disable", body: `{}`},
	} {
		p.compare(r)
		if strings.Contains(r.path, "/user/") || strings.Contains(r.path, "/role/") {
			p.login("root", "root") // the auth revision has moved
		}
	}
	p.tokens = [2]string{}
	p.compare(request{path: "/v3/auth/status", body: `{}`})
	p.compare(request{path: "/v3/kv/range", body: `{"key":"` + a + `"}`})
}

func (p *pair) login(name, password string) {
	p.t.Helper()
	got := p.compare(request{path: "/v3/auth/authenticate", body: fmt.Sprintf(`{"name":%q,"password":%q}`, name, password)})
	for i := range got {
		if err := json.Unmarshal(sub(p.t, got[i], "token"), &p.tokens[i]); err != nil {
			p.t.Fatal(err)
		}
	}
}

// withTokens makes requests as nobody, as somebody unknown, as a user and as
// root, and ends as root.
func (p *pair) withTokens() {
	p.t.Helper()
	requests := []request{
		{path: "/v3/kv/range", body: `{"key":"` + a + `"}`},
		{path: "/v3/kv/range", body: `{"key":"` + b + `"}`},
		{path: "/v3/kv/put", body: `{"key":"` + a + `"}`},
		{path: "/v3/auth/user/list", body: `{}`},
		{path: "/v3/maintenance/status", body: `{}`},
		{path: "/v3/maintenance/hash", body: `{}`},
		{path: "/v3/cluster/member/list", body: `{}`},
		{path: "/v3/watch", body: `{"create_request":{"key":"` + b + `"}}`, lines: 1},
		{path: "/v3/watch", body: `{"create_request":{"key":"` + a + `"}}`, lines: 1},
		{path: "/v3/lock/lock", body: `{"name":"bA==","lease":"2002"}`},
		{path: "/v3/election/leader", body: `{"name":"ZQ=="}`},
		{path: "/v3/lock/unlock", body: `{"key":"bC83ZDI="}`},
	}
	for _, as := range []func(){
		func() {},
		func() { p.tokens = [2]string{"nonsense", "nonsense"} },
		func() { p.tokens = [2]string{}; p.login("alice", "secret") },
		func() { p.tokens = [2]string{}; p.login("root", "root") },
	} {
		as()
		for _, r := range requests {
			p.compare(r)
		}
	}
}

func sub(t *testing.T, text []byte, name string) json.RawMessage {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil || fields[name] == nil {
		t.Fatalf("no %s in %.200s", name, text)
	}
	return fields[name]
}

// TestPages compares what is beside the gateway.
func TestPages(t *testing.T) {
	p := newPair(t)
	for _, path := range []string{
		"/version", "/health", "/health?serializable=true", "/health?serializable=false", "/health?exclude=NOSPACE", "/health?exclude=X&exclude=",
		"/livez", "/livez?verbose", "/livez/serializable_read", "/livez/serializable_read?verbose", "/livez/nothing", "/livez?exclude=serializable_read&verbose",
		"/readyz", "/readyz/data_corruption", "/readyz/serializable_read?verbose=1", "/readyz/linearizable_read", "/readyz/non_learner?verbose",
		"/readyz?exclude=linearizable_read&exclude=nothing", "/", "/nothing", "/v2/keys", "/versions",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions} {
			p.compare(request{method: method, path: path})
		}
	}
	p.verbose("/readyz?verbose")
	p.verbose("/readyz?verbose&exclude=data_corruption")
	p.vars()
	p.metrics()
	t.Logf("%d requests", p.count)
}

// verbose compares lists whose order is a matter of chance in etcd. Concord's may
// have checks of its own besides.
func (p *pair) verbose(path string) {
	p.t.Helper()
	var lists [2][]string
	for i := range p.bases {
		_, text := p.send(i, request{method: http.MethodGet, path: path})
		lists[i] = strings.SplitAfter(string(text), "\n")
		slices.Sort(lists[i])
	}
	p.count++
	lists[1] = slices.DeleteFunc(lists[1], func(line string) bool {
		return strings.HasSuffix(line, " ok\n") && !slices.Contains(lists[0], line)
	})
	if !slices.Equal(lists[0], lists[1]) {
		p.t.Errorf("%s: etcd %q, concord %q", path, lists[0], lists[1])
	}
}

// metrics compares the names that both have, with their kinds and help, and
// looks for those that dashboards and etcd's own tests use.
func (p *pair) metrics() {
	p.t.Helper()
	var said [2]map[string]string
	for i := range p.bases {
		p.send(i, request{method: http.MethodPost, path: "/v3/kv/put", body: `{"key":"` + a + `"}`})
		p.send(i, request{method: http.MethodPost, path: "/v3/kv/deleterange", body: `{"key":"` + a + `"}`})
		_, text := p.send(i, request{method: http.MethodGet, path: "/metrics"})
		said[i] = map[string]string{}
		for line := range strings.Lines(string(text)) {
			if words := strings.SplitN(strings.TrimSpace(line), " ", 4); len(words) == 4 && words[0] == "#" {
				said[i][words[2]+" "+words[1]] = words[3]
			}
		}
	}
	for _, name := range []string{
		"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_id", "etcd_server_version",
		"etcd_server_go_version", "etcd_cluster_version", "etcd_server_leader_changes_seen_total", "etcd_server_proposals_committed_total",
		"etcd_server_proposals_applied_total", "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
		"etcd_mvcc_put_total", "etcd_mvcc_delete_total", "etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision",
		"etcd_debugging_mvcc_compact_revision", "etcd_disk_wal_fsync_duration_seconds", "etcd_network_client_grpc_received_bytes_total",
		"etcd_network_client_grpc_sent_bytes_total", "grpc_server_started_total", "grpc_server_handled_total", "grpc_server_msg_received_total",
		"grpc_server_msg_sent_total", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes",
		"process_open_fds", "process_max_fds", "process_start_time_seconds", "go_goroutines", "go_threads", "go_info",
	} {
		if said[0][name+" TYPE"] == "" || said[1][name+" TYPE"] == "" {
			p.t.Errorf("%s: etcd %q, concord %q", name, said[0][name+" TYPE"], said[1][name+" TYPE"])
		}
	}
	for what, ours := range said[1] {
		if theirs, ok := said[0][what]; ok && theirs != ours && !(strings.HasPrefix(what, "go_") && strings.HasSuffix(what, " HELP")) {
			p.t.Errorf("%s: etcd %q, concord %q", what, theirs, ours)
		}
	}
	p.count++
}

// vars compares the kind of what package expvar says.
func (p *pair) vars() {
	p.t.Helper()
	for i := range p.bases {
		r, text := p.send(i, request{method: http.MethodGet, path: "/debug/vars"})
		if r.Code != http.StatusOK || r.Type != "application/json; charset=utf-8" || len(sub(p.t, text, "memstats")) == 0 || len(sub(p.t, text, "cmdline")) == 0 {
			p.t.Errorf("/debug/vars of %d: %d %s", i, r.Code, r.Type)
		}
	}
	p.count++
	p.compare(request{path: "/debug/vars"})
}
