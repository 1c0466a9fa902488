package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/certs"
	"github.com/concord-kv/concord/kv"
	"github.com/concord-kv/concord/server"
)

// etcdQuota is what etcd takes when no quota is given, and its limit of keys is
// the request's; ours is the most that there is.
const (
	etcdQuota    = 2 << 30
	etcdKeyBytes = 64 << 10
	etcdDepth    = 256
)

func (v etcdValues) limits() kv.Limits {
	return kv.Limits{KeyBytes: etcdKeyBytes, RequestBytes: v.number("max-request-bytes"), Ops: int(v.number("max-txn-ops")), Depth: etcdDepth}
}

// compaction is what the two flags about it say.
func (v etcdValues) compaction() (c concord.Compaction, err error) {
	text := v.text("auto-compaction-retention")
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err == nil && n >= 0 && v.text("auto-compaction-mode") == "revision":
		c.Revisions = n
	case err == nil && n >= 0:
		c.Age = time.Duration(n) * time.Hour
	default:
		if c.Age, err = time.ParseDuration(text); err != nil || c.Age < 0 || v.text("auto-compaction-mode") == "revision" {
			return c, usagef("error parsing CompactionRetention: %q is no retention in the mode %s", text, v.text("auto-compaction-mode"))
		}
		return c, nil
	}
	return c, nil
}

// quota is in bytes; 0 means none.
func (v etcdValues) quota() int64 {
	switch n := v.number("quota-backend-bytes"); {
	case n == 0:
		return etcdQuota
	case n < 0:
		return 0
	default:
		return n
	}
}

func (v etcdValues) serverConfig(log *slog.Logger) server.Config {
	interval := v.duration("grpc-keepalive-interval")
	if interval == 0 {
		interval = math.MaxInt64
	}
	election := time.Duration(v.number("election-timeout")) * time.Millisecond
	return server.Config{
		Logger: log, Limits: v.limits(),
		Streams: uint32(min(v.number("max-concurrent-streams"), math.MaxUint32)),
		Etcd: server.EtcdConfig{
			// As etcd: one and a half elections, in whole seconds.
			MinLeaseTTL:   (election*3/2 + time.Second - 1).Truncate(time.Second),
			WatchProgress: v.duration("watch-progress-notify-interval"), Quota: v.quota(),
		},
		Auth: server.AuthConfig{Token: v.text("auth-token"), TTL: time.Duration(v.number("auth-token-ttl")) * time.Second},
		HTTP: server.HTTPConfig{
			Origins: orAll(v.list("cors")), Hosts: orAll(v.list("host-whitelist")), NoGateway: !v.on("enable-grpc-gateway"),
			Profiles: v.on("enable-pprof"),
		},
		KeepAlive: server.KeepAliveConfig{
			MinTime: v.duration("grpc-keepalive-min-time"), Interval: interval,
			Timeout: v.duration("grpc-keepalive-timeout"), OnlyWithCalls: true,
		},
	}
}

// orAll is list, which etcd takes for everything where it is empty.
func orAll(list []string) []string {
	if len(list) == 0 {
		return []string{"*"}
	}
	return list
}

// members are those of --initial-cluster by name, each by its first address.
func (v etcdValues) members() (map[string]string, error) {
	members := map[string]string{}
	for _, item := range splitList(v.text("initial-cluster")) {
		name, text, ok := strings.Cut(item, "=")
		urls, err := parseURLs(text)
		if !ok || err != nil || len(urls) != 1 || urls[0].Host == "" {
			return nil, usagef("--initial-cluster: %q is no NAME=URL", item)
		}
		if members[name] == "" {
			members[name] = urls[0].Host
		}
	}
	own, ok := members[v.text("name")]
	if !ok {
		return nil, usagef("couldn't find local name %q in the initial cluster configuration", v.text("name"))
	}
	advertised := v.urls("initial-advertise-peer-urls")
	if !slices.ContainsFunc(advertised, func(u url.URL) bool { return u.Host == own }) {
		return nil, usagef("--initial-cluster has %s=%s but missing from --initial-advertise-peer-urls=%s", v.text("name"), own, v.text("initial-advertise-peer-urls"))
	}
	return members, nil
}

// nodeOptions are the member's. It belongs to a cluster already when started is
// true; what the flags say of the cluster is of no meaning then.
func (v etcdValues) nodeOptions(log *slog.Logger, started bool) ([]concord.Option, error) {
	members, err := v.members()
	if err != nil && !started {
		return nil, err
	}
	if err != nil {
		members = map[string]string{v.text("name"): v.urls("initial-advertise-peer-urls")[0].Host}
	}
	how, err := v.compaction()
	if err != nil {
		return nil, err
	}
	var clients []string
	for _, u := range v.urls("advertise-client-urls") {
		clients = append(clients, u.String())
	}
	opts := []concord.Option{
		concord.Name(v.text("name")), concord.Logger(log), concord.Limits(v.limits()),
		concord.Timing(time.Duration(v.number("heartbeat-interval"))*time.Millisecond, time.Duration(v.number("election-timeout"))*time.Millisecond),
		concord.Peers("", members), concord.Group(v.text("initial-cluster-token")), concord.ByHand(),
		concord.ClientAddrs(clients...), concord.AutoCompaction(how),
	}
	if v.text("initial-cluster-state") == "existing" && !started {
		opts = append(opts, concord.Reserved())
	}
	return opts, nil
}

// files are the TLS files of one side: clients, where prefix is empty, or peers.
func (v etcdValues) files(prefix string, log *slog.Logger) (certs.Files, error) {
	suites, err := cipherSuites(v.list("cipher-suites"), log)
	return certs.Files{
		Cert: v.text(prefix + "cert-file"), Key: v.text(prefix + "key-file"), CA: v.text(prefix + "trusted-ca-file"),
		RequireClient: v.on(prefix+"client-cert-auth") || v.text(prefix+"trusted-ca-file") != "",
		MinVersion:    tlsVersions[v.text("tls-min-version")], MaxVersion: tlsVersions[v.text("tls-max-version")], Suites: suites,
	}, err
}

// secured finds out whether the URLs of one flag want TLS. All do, or none, but
// for clients'.
func secured(u *url.URL) bool { return u.Scheme == "https" || u.Scheme == "unixs" }

// clientTLS is for listeners with https; nil when there are no certificates.
func (v etcdValues) clientTLS(log *slog.Logger) (*tls.Config, error) {
	f, err := v.files("", log)
	if err != nil {
		return nil, err
	}
	f.CRL, f.AllowedNames, f.AllowedCNs = v.text("client-crl-file"), v.list("client-cert-allowed-hostname"), v.list("client-cert-allowed-cn")
	if f.Cert == "" && f.Key == "" {
		if !v.on("auto-tls") {
			return nil, nil
		}
		if err := v.makeCertificate(&f, "client", "listen-client-urls", "listen-client-http-urls"); err != nil {
			return nil, err
		}
	} else if v.on("auto-tls") {
		log.Warn("ignoring client auto TLS since certs given")
	}
	source, err := certs.Open(f, log)
	if err != nil {
		return nil, err
	}
	return source.Server("h2", "http/1.1")
}

// makeCertificate fills f with a certificate of the member's own, for the hosts
// in the URLs of flags, kept below its data directory.
func (v etcdValues) makeCertificate(f *certs.Files, use string, flags ...string) (err error) {
	var hosts []string
	for _, name := range flags {
		for _, u := range v.urls(name) {
			hosts = append(hosts, u.Hostname())
		}
	}
	years := v.number("self-signed-cert-validity")
	if years <= 0 {
		return usagef("selfSignedCertValidity is invalid,it should be greater than 0")
	}
	f.Cert, f.Key, err = certs.SelfSigned(filepath.Join(v.text("data-dir"), "fixtures", use), hosts, time.Duration(years)*365*24*time.Hour)
	return err
}

// peerTLS is the option for members that speak TLS with each other; nil when
// they do not.
func (v etcdValues) peerTLS(log *slog.Logger) (concord.Option, error) {
	listen := v.urls("listen-peer-urls")
	want := slices.ContainsFunc(listen, func(u url.URL) bool { return secured(&u) })
	for _, u := range append(listen, v.urls("initial-advertise-peer-urls")...) {
		switch {
		case u.Host == "" || strings.HasPrefix(u.Scheme, "unix"):
			return nil, usagef("peer URL %s is no address in a network; members do not use sockets", u.String())
		case secured(&u) != want:
			return nil, usagef("peer URLs have http and https; members speak TLS with each other or they do not")
		}
	}
	if !want {
		if v.text("peer-cert-file") != "" || v.on("peer-auto-tls") {
			log.Warn("the scheme of the peer URLs is http; ignoring peer TLS")
		}
		return nil, nil
	}
	f, err := v.files("peer-", log)
	if err != nil {
		return nil, err
	}
	f.ClientCert, f.ClientKey = v.text("peer-client-cert-file"), v.text("peer-client-key-file")
	f.CRL, f.AllowedNames, f.AllowedCNs = v.text("peer-crl-file"), v.list("peer-cert-allowed-hostname"), v.list("peer-cert-allowed-cn")
	f.MatchAddress = !v.on("peer-skip-client-san-verification")
	if f.Cert == "" && f.Key == "" {
		if !v.on("peer-auto-tls") {
			return nil, usagef("TLS key/cert (--peer-cert-file, --peer-key-file) must be provided for peer URLs with HTTPS scheme")
		}
		f.TrustServer = true
		if err := v.makeCertificate(&f, "peer", "listen-peer-urls"); err != nil {
			return nil, err
		}
	} else if v.on("peer-auto-tls") {
		log.Warn("ignoring peer auto TLS since certs given")
	}
	source, err := certs.Open(f, log)
	if err != nil {
		return nil, err
	}
	cfg, err := source.Server()
	return concord.PeerTLS(cfg, source.Client), err
}

// logLevels are etcd's.
var logLevels = map[string]slog.Level{
	"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
	"panic": slog.LevelError + 4, "fatal": slog.LevelError + 8,
}

// logger makes the log, in lines like etcd's, and sets level, which changes it
// while it runs; close gives its files back.
func (v etcdValues) logger(g *globals, level *slog.LevelVar) (log *slog.Logger, close func() error, err error) {
	from, ok := logLevels[v.text("log-level")]
	if !ok {
		return nil, nil, usagef("unrecognized level: %q", v.text("log-level"))
	}
	level.Set(from)
	var files []*os.File
	close = func() error {
		var errs []error
		for _, f := range files {
			errs = append(errs, f.Close())
		}
		return errors.Join(errs...)
	}
	var outputs []io.Writer
	for _, name := range v.list("log-outputs") {
		switch name {
		case "default", "stderr", "systemd/journal":
			outputs = append(outputs, g.std.err)
		case "stdout":
			outputs = append(outputs, g.std.out)
		default:
			f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, nil, errors.Join(fmt.Errorf("open the log: %w", err), close())
			}
			files, outputs = append(files, f), append(outputs, f)
		}
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: likeZap}
	out := io.MultiWriter(outputs...)
	switch v.text("log-format") {
	case "json":
		return slog.New(slog.NewJSONHandler(out, opts)), close, nil
	case "console":
		return slog.New(slog.NewTextHandler(out, opts)), close, nil
	}
	return nil, nil, errors.Join(usagef("unknown log format: %q", v.text("log-format")), close())
}

// likeZap names the time ts and writes levels small, as etcd's log does.
func likeZap(groups []string, a slog.Attr) slog.Attr {
	switch {
	case len(groups) > 0:
	case a.Key == slog.TimeKey:
		a.Key = "ts"
	case a.Key == slog.LevelKey:
		a.Value = slog.StringValue(strings.ToLower(a.Value.String()))
	}
	return a
}
