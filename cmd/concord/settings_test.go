package main

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/concord-kv/concord/internal/certs"
	"github.com/concord-kv/concord/kv"
)

// TestSafeStart: every combination of environment, address, TLS, --insecure,
// kind of cluster and secret starts or is refused exactly as it must, and what is
// open is said in the log.
func TestSafeStart(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("0123456789abcdef0123456789\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	peers := []string{"n1=127.0.0.1:2380", "n2=127.0.0.1:2480"}
	seen := map[string]int{}
	for _, env := range []string{"dev", "prod"} {
		for _, addr := range []string{"127.0.0.1:2379", "localhost:2379", "[::1]:2379", "0.0.0.0:2379", "10.0.0.1:2379", ":2379"} {
			for _, security := range []string{"none", "tls", "mtls"} {
				for _, insecure := range []bool{false, true} {
					for _, kind := range []string{"single", "list", "cluster"} {
						for _, secrets := range []bool{false, true} {
							s := defaultServeSettings()
							s.Env, s.Name, s.ClientAddr, s.Insecure, s.DataDir = env, "n1", addr, insecure, dir
							if security != "none" {
								s.TLS.Cert, s.TLS.Key = "server.pem", "server.key"
							}
							if security == "mtls" {
								s.TLS.ClientCA = "ca.pem"
							}
							if secrets {
								s.Cluster.SecretFile = secret
							}
							switch kind {
							case "list":
								s.Peers.All = peers
							case "cluster":
								s.Cluster.Name = "c"
							}
							open := !strings.HasPrefix(addr, "127.") && !strings.HasPrefix(addr, "local") && !strings.HasPrefix(addr, "[::1]")
							want, said := "", ""
							switch {
							case kind == "cluster" && !secrets:
								want = "needs a secret"
							case open && security == "none" && !insecure:
								want = "open to the network without TLS"
							case kind == "list" && env == "prod" && !secrets:
								want = "needs a secret between members"
							case open && security == "none":
								said = "INSECURE"
							case open && security == "tls" && env == "dev":
								said = "OPEN"
							}
							what := fmt.Sprintf("--env %s --client-addr %s, %s, insecure %v, %s, secret %v", env, addr, security, insecure, kind, secrets)
							got := outcome(&s)
							if want == "" && got != "starts" || !strings.Contains(got, want) {
								t.Errorf("%s: %q, want %q", what, got, want)
							}
							seen[want+said]++
							if want != "" {
								continue
							}
							var log strings.Builder
							s.TLS.Key = "" // there is none
							s.tellRisks(slog.New(slog.NewTextHandler(&log, nil)))
							if lines := strings.Count(log.String(), "\n"); (said == "") != (lines == 0) || lines > 1 || !strings.Contains(log.String(), said) {
								t.Errorf("%s: the log has %q, want %q", what, log.String(), said)
							}
						}
					}
				}
			}
		}
	}
	if len(seen) != 6 {
		t.Errorf("only these outcomes were seen: %v", seen)
	}
}

func outcome(s *serveSettings) string {
	if err := s.check(); err != nil {
		return err.Error()
	}
	return "starts"
}

// TestSecretFiles: a file with a secret that others may read is refused where it
// counts, and told of elsewhere.
func TestSecretFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := certs.WriteNew(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := "0123456789abcdef0123456789\n"
	good, open := file("good", secret, 0o600), file("open", secret, 0o644)
	token, openToken := file("token", kv.NewSecretToken()+"\n", 0o600), file("open-token", kv.NewSecretToken()+"\n", 0o640|0o004)
	wrong := file("wrong", "sk_concord_x\n", 0o600)
	key := file("key", "x", 0o644)
	for _, c := range []struct {
		env, secret, token, want, said string
	}{
		{"prod", good, token, "starts", "key of a certificate"},
		{"prod", open, token, "chmod 600", ""},
		{"dev", open, "", "starts", "no secret on this machine"},
		{"prod", good, openToken, "chmod 600", ""},
		{"prod", good, wrong, "invalid auth token", ""},
		{"prod", good, filepath.Join(dir, "nowhere"), "no such file", ""},
		{"prod", filepath.Join(dir, "nowhere"), "", "no such file", ""},
		{"prod", file("empty", "\n", 0o600), "", "is empty", ""},
		{"dev", good, token, "of no use with --env dev", ""},
	} {
		s := defaultServeSettings()
		s.Env, s.Name, s.DataDir = c.env, "n1", dir
		s.Cluster.Name, s.Cluster.SecretFile, s.Auth.RootTokenFile = "c", c.secret, c.token
		s.TLS.Cert, s.TLS.Key = key, key
		if got := outcome(&s); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %s", c, got)
		} else if strings.Contains(got, strings.TrimSpace(secret)) || strings.Contains(got, "sk_concord_x") {
			t.Errorf("%+v: the secret is in the error: %s", c, got)
		}
		if c.said == "" {
			continue
		}
		var log strings.Builder
		s.tellRisks(slog.New(slog.NewTextHandler(&log, nil)))
		if !strings.Contains(log.String(), c.said) {
			t.Errorf("%+v: the log has %q", c, log.String())
		}
	}
}

// TestMinVersion: what --tls-min-version takes.
func TestMinVersion(t *testing.T) {
	for value, want := range map[string]string{"1.3": "starts", "1.2": "starts", "1.1": "use 1.3 or 1.2", "": "use 1.3 or 1.2"} {
		s := defaultServeSettings()
		s.TLS.MinVersion = value
		if got := outcome(&s); !strings.Contains(got, want) {
			t.Errorf("%q: %s", value, got)
		}
	}
}
