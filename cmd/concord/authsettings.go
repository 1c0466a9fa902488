package main

import (
	"errors"
	"log/slog"
	"net"

	"github.com/concord-kv/concord/internal/certs"
)

// authSettings say how callers prove who they are.
type authSettings struct {
	Token         string `set:"auth-token" usage:"what a login gives: simple, or jwt,sign-method=M,pub-key=FILE,priv-key=FILE,ttl=D; the same on all members"`
	RootTokenFile string `set:"root-token-file" usage:"file with the access token that is root, in prod; it is made good again if it is not (default: one is made at the first start, in root.token of the data directory)"`
}

func (s *authSettings) check(env string) error {
	if s.RootTokenFile == "" {
		return nil
	}
	if env != "prod" {
		return usagef("--root-token-file is of no use with --env %s, which has no authentication by itself; use --env prod, or 'concord auth enable'", env)
	}
	_, err := readRootToken(s.RootTokenFile)
	return err
}

// prod tells whether nobody may do anything who has not proved who it is.
func (s *serveSettings) prod() bool { return s.Env == "prod" }

// tellRisks says in the log what is open, once: these are a person's decisions,
// and somebody else may read the log.
func (s *serveSettings) tellRisks(log *slog.Logger) {
	host, _, _ := net.SplitHostPort(s.ClientAddr) // it was checked
	open := !isLoopback(host)
	switch {
	case s.Insecure && open && s.TLS.Cert == "":
		log.Warn("INSECURE: clients are served without TLS, off loopback, because --insecure says so: whoever is on the way reads and changes what they send and get, tokens and passwords too", "address", s.ClientAddr)
	case !s.prod() && open && s.TLS.ClientCA == "":
		log.Warn("OPEN: until authentication is switched on, everybody who reaches this address may do everything; --env prod has it on from the start", "address", s.ClientAddr)
	}
	if s.Cluster.exposed != nil {
		log.Warn("the secret of the cluster is no secret on this machine; --env prod refuses it", "error", s.Cluster.exposed)
	}
	for _, path := range []string{s.TLS.Key, s.TLS.PeerKey} {
		if path == "" {
			continue
		}
		if exposed := (*certs.ExposedError)(nil); errors.As(certs.CheckSecret(path), &exposed) {
			log.Warn("the key of a certificate is no secret on this machine", "error", exposed)
		}
	}
}
