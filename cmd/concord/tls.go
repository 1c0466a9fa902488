package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"slices"

	"github.com/spf13/pflag"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/internal/certs"
)

// tlsVersions are the versions of TLS by etcd's names.
var tlsVersions = map[string]uint16{"TLS1.2": tls.VersionTLS12, "TLS1.3": tls.VersionTLS13}

// cipherSuites finds suites by name. Those that Go takes for weak are left out,
// with a warning; none of TLS 1.3 can be chosen.
func cipherSuites(names []string, log *slog.Logger) ([]uint16, error) {
	var ids []uint16
	for _, name := range names {
		is := func(s *tls.CipherSuite) bool { return s.Name == name }
		if i := slices.IndexFunc(tls.CipherSuites(), is); i >= 0 {
			ids = append(ids, tls.CipherSuites()[i].ID)
		} else if slices.ContainsFunc(tls.InsecureCipherSuites(), is) {
			log.Warn("weak cipher suite left out", "suite", name)
		} else {
			return nil, usagef("unexpected TLS cipher suite %q", name)
		}
	}
	if len(names) > 0 && len(ids) == 0 {
		return nil, usagef("--cipher-suites names weak suites only; leave it out, or add a better one")
	}
	return ids, nil
}

// tlsSettings are the settings of a member about TLS.
type tlsSettings struct {
	Cert     string `set:"tls-cert" usage:"certificate shown to clients (PEM); with it they have to speak TLS"`
	Key      string `set:"tls-key" usage:"its key; files are read again when they change"`
	ClientCA string `set:"tls-client-ca" usage:"authorities one of which must have signed each client's certificate"`
	PeerCert string `set:"peer-tls-cert" usage:"certificate shown to other members; with it all of them have to speak TLS"`
	PeerKey  string `set:"peer-tls-key" usage:"its key"`
	PeerCA   string `set:"peer-tls-ca" usage:"authorities one of which must have signed each member's certificate"`

	MinVersion string `set:"tls-min-version" usage:"oldest version of TLS that clients may speak: 1.3, or 1.2 with suites that have forward secrecy"`
}

// minVersions are the values of --tls-min-version.
var minVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

// check tells which settings lack others.
func (s *tlsSettings) check(peers bool) error {
	switch {
	case minVersions[s.MinVersion] == 0:
		return usagef("--tls-min-version %q is none; use 1.3 or 1.2", s.MinVersion)
	case (s.Cert == "") != (s.Key == ""):
		return usagef("--tls-cert and --tls-key belong together; give both")
	case s.ClientCA != "" && s.Cert == "":
		return usagef("--tls-client-ca is of no use without --tls-cert and --tls-key")
	case (s.PeerCert == "") != (s.PeerKey == "") || (s.PeerCert == "") != (s.PeerCA == ""):
		return usagef("--peer-tls-cert, --peer-tls-key and --peer-tls-ca belong together; give all three")
	case s.PeerCert != "" && !peers:
		return usagef("--peer-tls-cert is of no use without --peers; name all members there")
	}
	return nil
}

// server is for the client port; nil without TLS.
func (s *tlsSettings) server(log *slog.Logger) (*tls.Config, error) {
	if s.Cert == "" {
		return nil, nil
	}
	source, err := certs.Open(certs.Files{
		Cert: s.Cert, Key: s.Key, CA: s.ClientCA, RequireClient: s.ClientCA != "", MinVersion: minVersions[s.MinVersion],
	}, log)
	if err != nil {
		return nil, err
	}
	return source.Server("h2", "http/1.1")
}

// peers are the options for TLS between members, none without.
func (s *tlsSettings) peers(log *slog.Logger) ([]concord.Option, error) {
	if s.PeerCert == "" {
		return nil, nil
	}
	source, err := certs.Open(certs.Files{
		Cert: s.PeerCert, Key: s.PeerKey, CA: s.PeerCA, RequireClient: true, MinVersion: tls.VersionTLS13,
	}, log)
	if err != nil {
		return nil, err
	}
	cfg, err := source.Server()
	return []concord.Option{concord.PeerTLS(cfg, source.Client)}, err
}

// clientTLS are the flags of commands that talk to members over TLS.
type clientTLS struct{ ca, cert, key, serverName string }

func (c *clientTLS) addFlags(flags *pflag.FlagSet) {
	for _, f := range []struct {
		to               *string
		name, env, usage string
	}{
		{&c.ca, "tls-ca", "CONCORD_CLIENT_TLS_CA", "authorities of the members' certificates, if not the system's; endpoints without a scheme are https then"},
		{&c.cert, "tls-cert", "CONCORD_CLIENT_TLS_CERT", "certificate to show to members"},
		{&c.key, "tls-key", "CONCORD_CLIENT_TLS_KEY", "its key"},
		{&c.serverName, "tls-server-name", "CONCORD_CLIENT_TLS_SERVER_NAME", "name in the members' certificates, if not the endpoint's host"},
	} {
		flags.StringVar(f.to, f.name, os.Getenv(f.env), f.usage+" ("+f.env+")")
	}
}

// set gives cfg what the flags say.
func (c *clientTLS) set(cfg *client.Config) error {
	if *c == (clientTLS{}) {
		return nil
	}
	if (c.cert == "") != (c.key == "") {
		return usagef("--tls-cert and --tls-key belong together; give both")
	}
	source, err := certs.Open(certs.Files{Cert: c.cert, Key: c.key, CA: c.ca}, nil)
	if err != nil {
		return err
	}
	cfg.TLS = source.Client()
	cfg.TLS.ServerName = c.serverName
	return nil
}
