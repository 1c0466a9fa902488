package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/concord-kv/concord"
)

// sample is a value of each kind that is not a default.
var sample = map[flagKind]string{
	textFlag: "text", boolFlag: "true", numberFlag: "7", timeFlag: "7s",
	urlsFlag: "http://127.0.0.1:7", listFlag: "x,y",
}

func parseFor(t *testing.T, args, env []string) (etcdValues, []note, error) {
	t.Helper()
	return parseEtcd(&globals{std: stdio{out: new(bytes.Buffer), err: new(bytes.Buffer)}}, args, env)
}

// TestEtcdFlagsParse: each flag of the table is taken in all of etcd's forms,
// and the 114 of etcd 3.7 are there; compat/shim compares names and defaults
// with etcd's own.
func TestEtcdFlagsParse(t *testing.T) {
	if len(etcdFlags) != 114 {
		t.Errorf("the table has %d flags", len(etcdFlags))
	}
	for _, f := range etcdFlags {
		if one := f.use != "" && f.ignored == "" && f.refused == "" || f.use == "" && (f.ignored == "") != (f.refused == ""); !one {
			t.Errorf("--%s is not one of used, ignored and refused", f.name)
		}
		value := sample[f.kind]
		forms := [][]string{{"--" + f.name + "=" + value}, {"-" + f.name + "=" + value}}
		if f.kind == boolFlag {
			forms = append(forms, []string{"--" + f.name})
		} else {
			forms = append(forms, []string{"--" + f.name, value}, []string{"-" + f.name, value})
		}
		for _, args := range forms {
			v := newEtcdValues()
			if v.get(f.name).value != f.def || f.def != "" && v.get(f.name).check(f.def) != nil {
				t.Errorf("--%s has the default %q", f.name, v.text(f.name))
			}
			_, _, err := parseFor(t, args, nil)
			if err != nil && strings.Contains(err.Error(), "provided but not defined") {
				t.Errorf("%q: %v", args, err)
			}
			if (f.refused != "") != (err != nil && strings.Contains(err.Error(), noDiscovery)) {
				t.Errorf("%q: %v", args, err)
			}
		}
		if f.kind == numberFlag || f.kind == timeFlag || f.kind == boolFlag || f.kind == urlsFlag {
			if _, _, err := parseFor(t, []string{"--" + f.name + "=:bad:"}, nil); err == nil {
				t.Errorf("--%s takes anything", f.name)
			}
		}
	}
	for _, name := range obsoleteEtcdFlags {
		if _, _, err := parseFor(t, []string{"-" + name}, nil); err != nil {
			t.Errorf("-%s: %v", name, err)
		}
	}
}

func TestEtcdNotes(t *testing.T) {
	v, notes, err := parseFor(t, []string{"--snapshot-count=5", "--wal-dir=x", "--max-wals=5", "--name=a"}, []string{"ETCD_NAME=b", "ETCD_MAX_TXN_OPS=9", "ETCD_X=1", "PATH=x"})
	if err != nil {
		t.Fatal(err)
	}
	if v.text("name") != "a" || v.number("max-txn-ops") != 9 || v.text("data-dir") != "a.etcd" || v.text("initial-cluster") != "a=http://localhost:2380" {
		t.Errorf("name %s, operations %s, %s, %s", v.text("name"), v.text("max-txn-ops"), v.text("data-dir"), v.text("initial-cluster"))
	}
	text := fmt.Sprint(notes)
	for _, want := range []string{"snapshot-count", "wal-dir", "ETCD_NAME", "ETCD_X"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%s is noted %d times", want, strings.Count(text, want))
		}
	}
	if len(notes) != 4 {
		t.Errorf("notes %v", notes)
	}
	if _, _, err := parseFor(t, nil, []string{"ETCD_MAX_TXN_OPS=many"}); err == nil || !strings.Contains(err.Error(), "ETCD_MAX_TXN_OPS") {
		t.Error(err)
	}
}

func TestEtcdFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etcd.yaml")
	for text, check := range map[string]func(v etcdValues, notes string) bool{
		"name: x\n": func(v etcdValues, _ string) bool { return v.text("name") == "x" && v.text("data-dir") == "x.etcd" },
		"watch-progress-notify-interval: 600000000000\nheartbeat-interval: 20\n": func(v etcdValues, _ string) bool {
			return v.duration("watch-progress-notify-interval") == 10*time.Minute && v.number("heartbeat-interval") == 20
		},
		"quota-backend-bytes: 12345678901\nlog-outputs: [stderr, x]\n": func(v etcdValues, _ string) bool {
			return v.quota() == 12345678901 && len(v.list("log-outputs")) == 2
		},
		"client-transport-security:\n  cert-file: c\n  client-cert-auth: true\n  allowed-cn: [a, b]\n  allowed-hostname: [h]\npeer-transport-security:\n  cert-file: p\n  allowed-cn: [q]\n  skip-client-san-verification: true\nsocket-options:\n  reuse-port: true\n": func(v etcdValues, _ string) bool {
			return v.text("cert-file") == "c" && v.on("client-cert-auth") && v.text("client-cert-allowed-cn") == "a,b" &&
				v.text("client-cert-allowed-hostname") == "h" && v.text("peer-cert-file") == "p" && v.text("peer-cert-allowed-cn") == "q" &&
				v.on("peer-skip-client-san-verification") && v.on("socket-reuse-port")
		},
		"proxy: 'off'\nsnapshot-count: 3\n": func(_ etcdValues, notes string) bool {
			return strings.Contains(notes, "proxy") && strings.Contains(notes, "snapshot-count")
		},
		"heartbeat-interval: often\n":     nil,
		"client-transport-security: on\n": nil,
		"- a\n":                           nil,
		"discovery-srv: example.test\n":   nil,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		v, notes, err := parseFor(t, []string{"--name=flag"}, []string{"ETCD_CONFIG_FILE=" + path, "ETCD_MAX_TXN_OPS=1"})
		switch {
		case check == nil:
			if err == nil {
				t.Errorf("%q is taken", text)
			}
		case err != nil:
			t.Errorf("%q: %v", text, err)
		case !check(v, fmt.Sprint(notes)) || v.number("max-txn-ops") != 128 || v.text("name") == "flag":
			t.Errorf("%q became %v", text, v["name"])
		}
	}
}

func TestEtcdMeanings(t *testing.T) {
	for _, c := range []struct {
		retention, mode string
		want            concord.Compaction
		bad             bool
	}{
		{"0", "periodic", concord.Compaction{}, false},
		{"2", "periodic", concord.Compaction{Age: 2 * time.Hour}, false},
		{"90s", "periodic", concord.Compaction{Age: 90 * time.Second}, false},
		{"1000", "revision", concord.Compaction{Revisions: 1000}, false},
		{"5m", "revision", concord.Compaction{}, true},
		{"-1", "periodic", concord.Compaction{}, true},
		{"x", "periodic", concord.Compaction{}, true},
	} {
		v, _, err := parseFor(t, []string{"--auto-compaction-retention=" + c.retention, "--auto-compaction-mode", c.mode}, nil)
		if c.bad != (err != nil) {
			t.Errorf("%+v: %v", c, err)
		} else if err == nil {
			if got, _ := v.compaction(); got != c.want {
				t.Errorf("%+v: %+v", c, got)
			}
		}
	}
	for text, want := range map[string]int64{"0": 2 << 30, "-1": 0, "7": 7} {
		v := newEtcdValues()
		if err := v["quota-backend-bytes"].Set(text); err != nil || v.quota() != want {
			t.Errorf("quota %s: %d, %v", text, v.quota(), err)
		}
	}
	v := newEtcdValues()
	cfg := v.serverConfig(slog.New(slog.DiscardHandler))
	if cfg.Limits.Ops != 128 || cfg.Limits.RequestBytes != 1572864 || cfg.Etcd.MinLeaseTTL != 2*time.Second || cfg.Etcd.Quota != 2<<30 || cfg.KeepAlive.Interval != 2*time.Hour || cfg.HTTP.NoGateway {
		t.Errorf("defaults %+v", cfg)
	}
	urls, err := parseURLs("http://a:1, https://b:2,http://a:1,unix:///x")
	if err != nil || len(urls) != 3 || secured(&urls[0]) || !secured(&urls[1]) || !secured(&url.URL{Scheme: "unixs"}) {
		t.Errorf("%v, %v", urls, err)
	}
	for _, suites := range []string{"TLS_NONE", "TLS_RSA_WITH_RC4_128_SHA"} {
		if ids, err := cipherSuites([]string{suites}, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s became %v", suites, ids)
		}
	}
	if got := asEtcd([]string{"/usr/bin/etcd", "--name", "x"}); len(got) != 3 || got[0] != "etcd" {
		t.Errorf("etcd became %q", got)
	}
	if got := asEtcd([]string{"concord", "get"}); len(got) != 1 {
		t.Errorf("concord became %q", got)
	}
}
