package shim

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/concord-kv/concord/compat/authority"
)

func TestShim(t *testing.T) {
	p := build(t)
	t.Run("flags", func(t *testing.T) { testFlags(t, p) })
	t.Run("version", func(t *testing.T) { testVersion(t, p) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, p) })
	t.Run("alone", func(t *testing.T) { testAlone(t, p) })
	t.Run("environment", func(t *testing.T) { testEnvironment(t, p) })
	t.Run("file", func(t *testing.T) { testFile(t, p) })
	t.Run("auto tls", func(t *testing.T) { testAutoTLS(t, p) })
	t.Run("plain cluster", func(t *testing.T) { testCluster(t, p, "http", nil) })
	t.Run("tls cluster", func(t *testing.T) {
		testCluster(t, p, "https", authority.New(t, "server", "peer", "client"))
	})
}

// helpLine is a flag and its default in a help page.
var helpLine = regexp.MustCompile(`(?m)^  --([a-z0-9-]+)(?: '?(.*?)'?)?$`)

// inWords are defaults that etcd's help gives in words, or not at all.
var inWords = map[string]string{
	"data-dir": "${name}.etcd", "max-concurrent-streams": "math.MaxUint32", "discovery-insecure-transport": "true",
	"backend-bbolt-freelist-type": "map", "watch-progress-notify-interval": "10m", "compaction-batch-limit": "1000",
	"enable-grpc-gateway": "", "memory-mlock": "", "backend-batch-interval": "", "bootstrap-defrag-threshold-megabytes": "",
	"compaction-sleep-interval": "", "downgrade-check-time": "", "snapshot-catchup-entries": "",
	"grpc-keepalive-interval": "2h", "compact-hash-check-time": "1m",
}

// testFlags holds the list of flags and their defaults to etcd's.
func testFlags(t *testing.T, p programs) {
	var pages [2]map[string]string
	for i, program := range []string{p.real, p.etcd} {
		out, err := exec.CommandContext(t.Context(), program, "--help").Output()
		if err != nil {
			t.Fatal(err)
		}
		pages[i] = map[string]string{}
		for _, m := range helpLine.FindAllStringSubmatch(string(out), -1) {
			pages[i][m[1]] = m[2]
		}
	}
	theirs, ours := pages[0], pages[1]
	theirs["config-file"] = "" // among the usages
	delete(ours, "version")
	if len(theirs) != 114 {
		t.Errorf("etcd has %d flags", len(theirs))
	}
	for name, def := range theirs {
		got, ok := ours[name]
		if words, is := inWords[name]; is && words == def {
			def = got
		}
		if !ok || got != def {
			t.Errorf("--%s: %v, default %q, etcd's is %q", name, ok, got, def)
		}
	}
	for name := range ours {
		if _, ok := theirs[name]; !ok {
			t.Errorf("etcd has no --%s", name)
		}
	}
}

func testVersion(t *testing.T, p programs) {
	for _, flag := range []string{"--version", "-version"} {
		out, err := exec.CommandContext(t.Context(), p.etcd, flag).Output()
		if err != nil || !strings.HasPrefix(string(out), "etcd Version: 3.7.3\n") || !strings.Contains(string(out), "\nConcord Version: ") {
			t.Errorf("%s: %q, %v", flag, out, err)
		}
	}
}

// testRefusals: what etcd does not start with, this does not either.
func testRefusals(t *testing.T, p programs) {
	m := newMember(t, p, "m", "http", "http")
	for want, args := range map[string][]string{
		"flag provided but not defined: -nothing":                    {"--nothing"},
		"is not a valid flag":                                        {"gateway"},
		"--advertise-client-urls is required":                        {"--listen-client-urls", m.client},
		"couldn't find local name":                                   m.flags("--initial-cluster", "other="+m.peer),
		"unexpected clusterState":                                    m.flags("--initial-cluster-state", "old"),
		"should be at least as 5 times as":                           m.flags("--heartbeat-interval", "300"),
		"unknown auto-compaction-mode":                               m.flags("--auto-compaction-mode", "none"),
		"must be provided for client url":                            m.flags("--listen-client-urls", strings.Replace(m.client, "http", "https", 1)),
		"unexpected TLS version":                                     m.flags("--tls-min-version", "TLS1.1"),
		"URL scheme must be http, https, unix, or unixs":             m.flags("--listen-client-urls", "ftp://127.0.0.1:1"),
		"expected IP in URL for binding":                             m.flags("--listen-peer-urls", "http://example.test:1"),
		"there is no discovery service":                              m.flags("--discovery-srv", "example.test"),
		"unrecognized level":                                         m.flags("--log-level", "loud"),
		`invalid value "x" for flag -quota-backend-bytes`:            m.flags("--quota-backend-bytes", "x"),
		"cipher suites cannot be configured when only TLS1.3 is ena": m.flags("--tls-min-version", "TLS1.3", "--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
	} {
		m.fails(want, args...)
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "member", "snap"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "member", "snap", "db"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.fails("has data of etcd itself", m.flags()...)
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// testAlone: one member with several addresses, restarted, and made a cluster of
// its own.
func testAlone(t *testing.T, p programs) {
	m := newMember(t, p, "alone", "http", "http")
	second, metrics, pages := reserve(t, "http"), reserve(t, "http"), reserve(t, "http")
	socket := "unix://" + filepath.Join(t.TempDir(), "s")
	args := m.flags("--listen-client-urls", m.client+","+second+","+socket, "--listen-metrics-urls", metrics,
		"--listen-client-http-urls", pages, "--snapshot-count=5", "--auto-compaction-retention=1h", "--pre-vote=false",
		"--strict-reconfig-check", "--max-wals", "5", "--socket-reuse-port", "--log-outputs=stderr", "-v")
	m.start(args...)
	m.ready()
	c := ctl{t, p.etcdctl, []string{"--endpoints", m.client}}
	c.want("OK", "put", "a", "1")
	for _, endpoint := range []string{second, socket} {
		ctl{t, p.etcdctl, []string{"--endpoints", endpoint}}.want("a\n1\n", "get", "a")
	}
	for url, status := range map[string]int{
		metrics + "/health": 200, metrics + "/metrics": 200, metrics + "/version": 404,
		pages + "/version": 200, pages + "/health": 200,
	} {
		if got, body := get(t, url); got != status {
			t.Errorf("%s: %d %s", url, got, body)
		}
	}
	if r, err := http.Get(m.client + "/version"); err == nil {
		r.Body.Close()
		t.Error("HTTP is served beside gRPC, though it has an address of its own")
	}
	for _, flag := range []string{"snapshot-count", "pre-vote"} {
		if n := strings.Count(m.log.all(), `"flag":"`+flag+`"`); n != 1 {
			t.Errorf("--%s is logged %d times", flag, n)
		}
	}
	if strings.Contains(m.log.all(), "max-wals") {
		t.Error("a flag with its default is logged")
	}
	m.stop()
	m.start(args...)
	m.ready()
	c.want("a\n1\n", "get", "a")
	_ = m.end(syscall.SIGKILL) // leaves the socket
	m.start(append(args, "--force-new-cluster")...)
	m.ready()
	c.want("a\n1\n", "get", "a")
	if _, err := c.try("put", "large", strings.Repeat("x", 100_000)); err != nil {
		t.Error(err)
	}
	m.stop()
}

func testEnvironment(t *testing.T, p programs) {
	m := newMember(t, p, "env", "http", "http")
	m.env = []string{
		"ETCD_NAME=env", "ETCD_DATA_DIR=" + m.dir, "ETCD_LISTEN_CLIENT_URLS=" + m.client, "ETCD_ADVERTISE_CLIENT_URLS=" + m.client,
		"ETCD_LISTEN_PEER_URLS=" + m.peer, "ETCD_INITIAL_ADVERTISE_PEER_URLS=" + m.peer, "ETCD_MAX_TXN_OPS=2",
		"ETCD_ENABLE_GRPC_GATEWAY=false", "ETCD_UNHEARD_OF=1", "ETCD_LOG_LEVEL=error",
	}
	m.start("--log-level=info")
	m.ready()
	for _, want := range []string{"unrecognized environment variable", "ETCD_UNHEARD_OF", "shadowed by a flag"} {
		if !strings.Contains(m.log.all(), want) {
			t.Errorf("%q is not in the log", want)
		}
	}
	c := ctl{t, p.etcdctl, []string{"--endpoints", m.client}}
	c.want("env", "member", "list")
	m.stop()
}

func testFile(t *testing.T, p programs) {
	m := newMember(t, p, "file", "http", "http")
	path := filepath.Join(t.TempDir(), "etcd.yaml")
	settings := fmt.Sprintf(`name: 'file'
data-dir: %s
listen-client-urls: %s
advertise-client-urls: %s
listen-peer-urls: %s
initial-advertise-peer-urls: %s
initial-cluster: file=%s
heartbeat-interval: 50
election-timeout: 500
watch-progress-notify-interval: 600000000000
quota-backend-bytes: 0
proxy-refresh-interval: 30000
client-transport-security:
  cert-file:
  client-cert-auth: false
peer-transport-security:
  auto-tls: false
log-outputs: [stderr]
auto-compaction-mode: revision
auto-compaction-retention: "1000"
`, m.dir, m.client, m.client, m.peer, m.peer, m.peer)
	if err := os.WriteFile(path, []byte(settings), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start("--config-file", path, "--name", "another")
	m.ready()
	c := ctl{t, p.etcdctl, []string{"--endpoints", m.client}}
	c.want("file", "member", "list")
	if !strings.Contains(m.log.all(), "proxy-refresh-interval") {
		t.Error("an unknown setting is not in the log")
	}
	m.stop()
}

// testAutoTLS: certificates that are made, and kept.
func testAutoTLS(t *testing.T, p programs) {
	m := newMember(t, p, "auto", "https", "https")
	args := m.flags("--auto-tls", "--peer-auto-tls", "--initial-cluster", "auto="+m.peer)
	m.start(args...)
	m.ready()
	cert := filepath.Join(m.dir, "fixtures", "client", "cert.pem")
	before, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	c := ctl{t, p.etcdctl, []string{"--endpoints", m.client, "--cacert", cert}}
	c.want("OK", "put", "a", "1")
	if out, err := (ctl{t, p.etcdctl, []string{"--endpoints", strings.Replace(m.client, "https", "http", 1), "--command-timeout=2s"}}).try("get", "a"); err == nil {
		t.Errorf("served without TLS: %s", out)
	}
	m.stop()
	m.start(args...)
	m.ready()
	if after, err := os.ReadFile(cert); err != nil || string(before) != string(after) {
		t.Errorf("another certificate: %v", err)
	}
	c.want("a\n1\n", "get", "a")
	m.stop()
}
