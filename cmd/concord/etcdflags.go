package main

import (
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// etcdFlag is one flag of etcd 3.7, as 'concord etcd' takes it.
type etcdFlag struct {
	name, def string
	kind      flagKind
	// use says what it does here.
	use string
	// ignored says why it does nothing here; it is logged when the flag is
	// given.
	ignored string
	// refused says why a member does not start with it.
	refused string
}

// flagKind is what the value of a flag is.
type flagKind uint8

const (
	textFlag   flagKind = iota
	boolFlag            // etcd also takes --flag without a value
	numberFlag          // an integer, maybe negative
	timeFlag            // as 1m30s
	urlsFlag            // URLs, parted by commas
	listFlag            // texts, parted by commas
)

// Why flags do nothing here.
const (
	noBolt      = "there is no bbolt file: data is in memory, with a log and snapshots beside it"
	noTracing   = "there is no tracing"
	noDiscovery = "there is no discovery service; name the members with --initial-cluster"
	byBytes     = "snapshots are made by the bytes of the log, and as many are kept as are needed"
	noRotation  = "log files are not rotated; let logrotate do that"
	always      = "it is always so"
)

// etcdFlags are all flags that etcd 3.7.3 lists, with its defaults: what its
// --help names, and --config-file.
var etcdFlags = []etcdFlag{
	{name: "config-file", use: "YAML file with all settings, in place of flags and environment"},

	// The member.
	{name: "name", def: "default", use: "name of this member, for people and in --initial-cluster"},
	{name: "data-dir", use: "directory of this member alone (default NAME.etcd)"},
	{name: "wal-dir", ignored: "the log lies in the data directory"},
	{name: "snapshot-count", def: "10000", kind: numberFlag, ignored: byBytes},
	{name: "snapshot-catchup-entries", def: "5000", kind: numberFlag, ignored: byBytes},
	{name: "max-snapshots", def: "5", kind: numberFlag, ignored: byBytes},
	{name: "max-wals", def: "5", kind: numberFlag, ignored: byBytes},
	{name: "heartbeat-interval", def: "100", kind: numberFlag, use: "milliseconds between a leader's heartbeats"},
	{name: "election-timeout", def: "1000", kind: numberFlag, use: "milliseconds of silence after which a member campaigns"},
	{name: "initial-election-tick-advance", def: "true", kind: boolFlag, ignored: "a member that starts waits for its own time, which is short"},
	{name: "listen-peer-urls", def: "http://localhost:2380", kind: urlsFlag, use: "where to listen for other members"},
	{name: "listen-client-urls", def: "http://localhost:2379", kind: urlsFlag, use: "where to listen for clients"},
	{name: "listen-client-http-urls", kind: urlsFlag, use: "where to listen for HTTP; --listen-client-urls have gRPC alone then"},
	{name: "memory-mlock", def: "false", kind: boolFlag, ignored: noBolt},
	{name: "quota-backend-bytes", def: "0", kind: numberFlag, use: "bytes of data at which the NOSPACE alarm is raised; 0 means 2 GiB, less means none"},
	{name: "backend-bbolt-freelist-type", ignored: noBolt},
	{name: "backend-batch-interval", def: "0s", kind: timeFlag, ignored: noBolt},
	{name: "backend-batch-limit", def: "0", kind: numberFlag, ignored: noBolt},
	{name: "max-txn-ops", def: "128", kind: numberFlag, use: "most operations of a transaction"},
	{name: "max-request-bytes", def: "1572864", kind: numberFlag, use: "most bytes of a request"},
	{name: "max-concurrent-streams", def: "4294967295", kind: numberFlag, use: "most calls under way on one connection"},
	{name: "grpc-keepalive-min-time", def: "5s", kind: timeFlag, use: "least time between a client's pings"},
	{name: "grpc-keepalive-interval", def: "2h0m0s", kind: timeFlag, use: "silence after which the server pings; 0 means never"},
	{name: "grpc-keepalive-timeout", def: "20s", kind: timeFlag, use: "how long it waits for an answer"},
	{name: "socket-reuse-port", def: "false", kind: boolFlag, use: "listen with SO_REUSEPORT"},
	{name: "socket-reuse-address", def: "false", kind: boolFlag, use: "listen with SO_REUSEADDR, as Go does anyway"},
	{name: "enable-grpc-gateway", def: "true", kind: boolFlag, use: "serve the JSON gateway"},
	{name: "raft-read-timeout", def: "5s", kind: timeFlag, ignored: "the transport between members has its own timeouts"},
	{name: "raft-write-timeout", def: "5s", kind: timeFlag, ignored: "the transport between members has its own timeouts"},
	{name: "feature-gates", ignored: "there are no features to switch"},

	// The cluster.
	{name: "initial-advertise-peer-urls", def: "http://localhost:2380", kind: urlsFlag, use: "where other members reach this one"},
	{name: "initial-cluster", def: "default=http://localhost:2380", use: "all members, as NAME=URL, parted by commas"},
	{name: "initial-cluster-state", def: "new", use: "new founds the cluster; existing starts a member that was added to one"},
	{name: "initial-cluster-token", def: "etcd-cluster", use: "name of the cluster while it is founded"},
	{name: "advertise-client-urls", def: "http://localhost:2379", kind: urlsFlag, use: "where clients reach this member"},
	{name: "discovery", refused: noDiscovery},
	{name: "discovery-token", refused: noDiscovery},
	{name: "discovery-endpoints", kind: listFlag, refused: noDiscovery},
	{name: "discovery-dial-timeout", def: "2s", kind: timeFlag, ignored: noDiscovery},
	{name: "discovery-request-timeout", def: "5s", kind: timeFlag, ignored: noDiscovery},
	{name: "discovery-keepalive-time", def: "2s", kind: timeFlag, ignored: noDiscovery},
	{name: "discovery-keepalive-timeout", def: "6s", kind: timeFlag, ignored: noDiscovery},
	{name: "discovery-insecure-transport", def: "true", kind: boolFlag, ignored: noDiscovery},
	{name: "discovery-insecure-skip-tls-verify", def: "false", kind: boolFlag, ignored: noDiscovery},
	{name: "discovery-cert", ignored: noDiscovery},
	{name: "discovery-key", ignored: noDiscovery},
	{name: "discovery-cacert", ignored: noDiscovery},
	{name: "discovery-user", ignored: noDiscovery},
	{name: "discovery-password", ignored: noDiscovery},
	{name: "discovery-fallback", def: "exit", ignored: noDiscovery},
	{name: "discovery-proxy", refused: noDiscovery},
	{name: "discovery-srv", refused: noDiscovery},
	{name: "discovery-srv-name", refused: noDiscovery},
	{name: "strict-reconfig-check", def: "true", kind: boolFlag, use: "refuse changes of members that would leave no majority"},
	{name: "max-learners", def: "1", kind: numberFlag, use: "most learners at a time"},
	{name: "pre-vote", def: "true", kind: boolFlag, ignored: always},
	{name: "auto-compaction-retention", def: "0", use: "history to keep: a duration (hours without a unit), or revisions; 0 keeps all"},
	{name: "auto-compaction-mode", def: "periodic", use: "periodic or revision: what the retention is"},
	{name: "v2-deprecation", def: "write-only", ignored: "there is no v2 store"},

	// Security.
	{name: "cert-file", use: "certificate for clients"},
	{name: "key-file", use: "its key"},
	{name: "client-cert-auth", def: "false", kind: boolFlag, use: "clients must show a certificate of --trusted-ca-file"},
	{name: "client-cert-file", ignored: "the member is no client of its own"},
	{name: "client-key-file", ignored: "the member is no client of its own"},
	{name: "client-crl-file", use: "revoked certificates of clients"},
	{name: "client-cert-allowed-hostname", kind: listFlag, use: "alternative names of which a client's certificate has one"},
	{name: "trusted-ca-file", use: "authorities of clients' certificates, which are required then"},
	{name: "auto-tls", def: "false", kind: boolFlag, use: "make a certificate that signs itself"},
	{name: "peer-cert-file", use: "certificate for other members"},
	{name: "peer-key-file", use: "its key"},
	{name: "peer-client-cert-auth", def: "false", kind: boolFlag, use: "other members must show a certificate of --peer-trusted-ca-file"},
	{name: "peer-client-cert-file", use: "certificate shown to other members, if not --peer-cert-file"},
	{name: "peer-client-key-file", use: "its key"},
	{name: "peer-trusted-ca-file", use: "authorities of members' certificates, which are required then"},
	{name: "peer-cert-allowed-cn", kind: listFlag, use: "common names of which a member's certificate has one"},
	{name: "peer-cert-allowed-hostname", kind: listFlag, use: "alternative names of which a member's certificate has one"},
	{name: "peer-auto-tls", def: "false", kind: boolFlag, use: "make a certificate that signs itself; members are not verified then"},
	{name: "peer-crl-file", use: "revoked certificates of members"},
	{name: "peer-skip-client-san-verification", def: "false", kind: boolFlag, use: "members may come from addresses that their certificates do not name"},
	{name: "self-signed-cert-validity", def: "1", kind: numberFlag, use: "years that a certificate lasts that is made here"},
	{name: "cipher-suites", kind: listFlag, use: "suites of TLS 1.2; weak ones are left out"},
	{name: "cors", def: "*", kind: listFlag, use: "origins of web pages that may call"},
	{name: "host-whitelist", def: "*", kind: listFlag, use: "names by which the member may be called without TLS"},
	{name: "tls-min-version", def: "TLS1.2", use: "TLS1.2 or TLS1.3"},
	{name: "tls-max-version", use: "TLS1.2 or TLS1.3; empty means the newest"},

	// Authentication.
	{name: "auth-token", def: "simple", use: "simple, or jwt with its options"},
	{name: "auth-token-ttl", def: "300", kind: numberFlag, use: "seconds that a simple token lasts without use"},
	{name: "bcrypt-cost", def: "10", kind: numberFlag, ignored: "passwords are hashed with argon2id"},

	// What can be seen of it.
	{name: "enable-pprof", def: "false", kind: boolFlag, use: "serve /debug/pprof/ on the client port"},
	{name: "metrics", def: "basic", ignored: "there is one set of metrics"},
	{name: "listen-metrics-urls", kind: urlsFlag, use: "where to listen for /metrics and /health alone"},
	{name: "logger", def: "zap", ignored: "there is one logger"},
	{name: "log-outputs", def: "default", kind: listFlag, use: "stderr, stdout or files"},
	{name: "log-level", def: "info", use: "debug, info, warn, error, panic or fatal"},
	{name: "log-format", def: "json", use: "json or console"},
	{name: "enable-log-rotation", def: "false", kind: boolFlag, ignored: noRotation},
	{name: "log-rotation-config-json", def: `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`, ignored: noRotation},
	{name: "warning-unary-request-duration", def: "300ms", kind: timeFlag, ignored: "slow requests are not logged"},
	{name: "warning-apply-duration", def: "100ms", kind: timeFlag, ignored: "slow requests are not logged"},
	{name: "enable-distributed-tracing", def: "false", kind: boolFlag, ignored: noTracing},
	{name: "distributed-tracing-address", def: "localhost:4317", ignored: noTracing},
	{name: "distributed-tracing-service-name", def: "etcd", ignored: noTracing},
	{name: "distributed-tracing-instance-id", ignored: noTracing},
	{name: "distributed-tracing-sampling-rate", def: "0", kind: numberFlag, ignored: noTracing},

	// The rest.
	{name: "corrupt-check-time", def: "0s", kind: timeFlag, ignored: "every member hashes what it applies"},
	{name: "compact-hash-check-time", def: "1m0s", kind: timeFlag, ignored: "every member hashes what it applies"},
	{name: "compaction-batch-limit", def: "0", kind: numberFlag, ignored: "compaction runs in small steps"},
	{name: "compaction-sleep-interval", def: "0s", kind: timeFlag, ignored: "compaction runs in small steps"},
	{name: "watch-progress-notify-interval", def: "0s", kind: timeFlag, use: "how long a watch that asks for progress stays silent; 0 means 10 minutes"},
	{name: "bootstrap-defrag-threshold-megabytes", def: "0", kind: numberFlag, ignored: noBolt},
	{name: "downgrade-check-time", def: "5s", kind: timeFlag, ignored: "there is nothing to downgrade to"},
	{name: "force-new-cluster", def: "false", kind: boolFlag, use: "make the data a cluster of this member alone"},
	{name: "unsafe-no-fsync", def: "false", kind: boolFlag, ignored: "what is acknowledged is durable"},
}

// fileOnly are settings that etcd takes from its file only.
var fileOnly = []etcdFlag{
	{name: "client-cert-allowed-cn", kind: listFlag, use: "common names of which a client's certificate has one"},
	{name: "client-skip-client-san-verification", kind: boolFlag, ignored: always},
}

// obsoleteEtcdFlags are those that etcd itself takes and ignores.
var obsoleteEtcdFlags = []string{
	"cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force",
	"max-result-buffer", "max-retry-attempts", "peer-heartbeat-interval", "peer-election-timeout",
	"retry-interval", "snapshot", "v", "vv",
}

// etcdValue is the value of a flag; it implements flag.Value.
type etcdValue struct {
	*etcdFlag
	value string
	given bool
}

// String implements flag.Value.
func (v *etcdValue) String() string { return v.value }

// IsBoolFlag tells package flag that --flag alone is enough.
func (v *etcdValue) IsBoolFlag() bool { return v.etcdFlag != nil && v.kind == boolFlag }

// Set implements flag.Value.
func (v *etcdValue) Set(s string) error {
	if err := v.check(s); err != nil {
		return err
	}
	v.value, v.given = s, true
	return nil
}

func (v *etcdValue) check(s string) (err error) {
	switch v.kind {
	case boolFlag:
		_, err = strconv.ParseBool(s)
	case numberFlag:
		_, err = strconv.ParseInt(s, 0, 64)
	case timeFlag:
		_, err = time.ParseDuration(s)
	case urlsFlag:
		_, err = parseURLs(s)
	}
	return err
}

// parseURLs takes URLs that etcd would take, in their order and each once.
func parseURLs(s string) ([]url.URL, error) {
	var urls []url.URL
	seen := map[string]bool{}
	for _, text := range splitList(s) {
		u, err := url.Parse(text)
		switch {
		case err != nil:
			return nil, err
		case u.Scheme == "unix" || u.Scheme == "unixs":
		case u.Scheme != "http" && u.Scheme != "https":
			return nil, fmt.Errorf("URL scheme must be http, https, unix, or unixs: %s", text)
		case u.Port() == "":
			return nil, fmt.Errorf(`URL address does not have the form "host:port": %s`, text)
		case u.Path != "":
			return nil, fmt.Errorf("URL must not contain a path: %s", text)
		}
		if !seen[u.String()] {
			urls = append(urls, *u)
		}
		seen[u.String()] = true
	}
	return urls, nil
}

func splitList(s string) []string {
	var list []string
	for _, text := range strings.Split(s, ",") {
		if text = strings.TrimSpace(text); text != "" {
			list = append(list, text)
		}
	}
	return list
}

// etcdValues are the values of all flags.
type etcdValues map[string]*etcdValue

func newEtcdValues() etcdValues {
	v := etcdValues{}
	for _, flags := range [][]etcdFlag{etcdFlags, fileOnly} {
		for i := range flags {
			v[flags[i].name] = &etcdValue{etcdFlag: &flags[i], value: flags[i].def}
		}
	}
	return v
}

// addTo makes them flags of fs.
func (v etcdValues) addTo(fs *flag.FlagSet) {
	for i := range etcdFlags {
		name := etcdFlags[i].name
		fs.Var(v[name], name, "")
	}
	for _, name := range obsoleteEtcdFlags {
		fs.Var(&etcdValue{etcdFlag: &etcdFlag{name: name, kind: boolFlag}}, name, "")
	}
}

func (v etcdValues) get(name string) *etcdValue {
	value := v[name]
	if value == nil {
		panic("etcd has no flag --" + name)
	}
	return value
}

func (v etcdValues) text(name string) string { return v.get(name).value }
func (v etcdValues) given(name string) bool  { return v.get(name).given }

// The rest give values that Set has checked, so there is no error.
func (v etcdValues) on(name string) bool {
	on, _ := strconv.ParseBool(v.text(name))
	return on
}

func (v etcdValues) number(name string) int64 {
	n, _ := strconv.ParseInt(v.text(name), 0, 64)
	return n
}

func (v etcdValues) duration(name string) time.Duration {
	d, _ := time.ParseDuration(v.text(name))
	return d
}

func (v etcdValues) urls(name string) []url.URL {
	urls, _ := parseURLs(v.text(name))
	return urls
}

func (v etcdValues) list(name string) []string { return splitList(v.text(name)) }

// help is the flag's line in the help.
func (f *etcdFlag) help() string {
	switch {
	case f.refused != "":
		return "Refused: " + f.refused
	case f.ignored != "":
		return "No effect: " + f.ignored
	}
	return f.use
}
