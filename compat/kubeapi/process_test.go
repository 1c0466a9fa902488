package kubeapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take on a busy machine.
const patience = 2 * time.Minute

// grace is how long a server may still log that its store was away: its client
// waits before it tries a connection again.
const grace = 15 * time.Second

// token is the administrator's.
const token = "administrator"

// server is a kube-apiserver.
type server struct {
	name    string // also the last word of its address for others, which nobody dials
	addr    string
	dir     string
	flags   []string
	process *exec.Cmd
	client  *http.Client
}

// newServer makes a server that is not started yet, and its files.
func newServer(t *testing.T, name, addr string, flags ...string) *server {
	t.Helper()
	s := &server{name: name, addr: addr, dir: filepath.Join(t.TempDir(), name)}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody makes accounts for namespaces here. The store has ten seconds to show
	// that it is well, because the machine may be busy.
	s.flags = append([]string{
		"--etcd-servers=" + os.Getenv("ENDPOINTS"), "--bind-address=" + host, "--secure-port=" + port,
		"--advertise-address=192.0.2." + name, "--service-cluster-ip-range=10.0.0.0/24", "--cert-dir=" + s.dir,
		"--authorization-mode=Node,RBAC", "--disable-admission-plugins=ServiceAccount", "--token-auth-file=" + filepath.Join(s.dir, "tokens"),
		"--service-account-issuer=https://kubernetes.default.svc", "--event-ttl=" + eventTTL.String(),
		"--etcd-healthcheck-timeout=10s", "--etcd-readycheck-timeout=10s",
	}, flags...)
	if ca := os.Getenv("CA"); ca != "" {
		s.flags = append(s.flags, "--etcd-cafile="+ca, "--etcd-certfile="+os.Getenv("CERT"), "--etcd-keyfile="+os.Getenv("KEY"))
	}
	key := filepath.Join(s.dir, "accounts.key")
	s.flags = append(s.flags, "--service-account-key-file="+key, "--service-account-signing-key-file="+key)
	err = errors.Join(os.MkdirAll(s.dir, 0o700), writeKey(key),
		os.WriteFile(filepath.Join(s.dir, "tokens"), []byte(token+`,admin,admin,"system:masters"`+"\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.end(os.Kill)
		if text, err := os.ReadFile(s.log()); t.Failed() {
			t.Logf("log of server %s (%v):\n%s", name, err, text[max(0, len(text)-6000):])
		}
	})
	return s
}

// writeKey makes the key that service accounts' tokens are signed with.
func writeKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

func (s *server) log() string { return filepath.Join(s.dir, "log") }

// launch starts the process, with more flags, and waits until it says that it is
// ready.
func (s *server) launch(t *testing.T, more ...string) {
	t.Helper()
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() // the process has its own
	s.process = exec.Command(os.Getenv("KUBE_APISERVER"), append(s.flags, more...)...)
	s.process.Stdout, s.process.Stderr = log, log
	s.process.Env = append(os.Environ(), "TZ=UTC")
	if err := s.process.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "server "+s.name+" ready", func() bool { return s.ready(t.Context()) == nil })
}

// end ends the process by a signal.
func (s *server) end(sig os.Signal) {
	if s.process == nil {
		return
	}
	_ = s.process.Process.Signal(sig) // it may have ended
	_ = s.process.Wait()
	s.process = nil
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// stop ends the process as its operator does.
func (s *server) stop() { s.end(syscall.SIGTERM) }

// ready asks the page that load balancers ask.
func (s *server) ready(ctx context.Context) error {
	if err := s.trust(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	status, text, err := s.page(ctx, "/readyz?verbose")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d: %s", status, text)
	}
	return err
}

// trust makes the client that knows the server's certificate, which the server
// makes when it first starts.
func (s *server) trust() error {
	if s.client != nil {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(s.dir, "apiserver.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return errors.New("no certificate yet")
	}
	s.client = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true,
	}}
	return nil
}

// page gets what is not an object.
func (s *server) page(ctx context.Context, path string) (int, string, error) {
	answer, err := s.open(ctx, call{method: http.MethodGet, path: path})
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), errors.Join(err, answer.Body.Close())
}

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(patience); !condition(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not %s within %v", what, patience)
		}
	}
}

// control asks for something to be done to a member of the store.
func control(t *testing.T, what string, member int) {
	t.Helper()
	answer, err := http.Post(fmt.Sprintf("%s/%s?member=%d", os.Getenv("CONTROL"), what, member), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err := errors.Join(err, answer.Body.Close()); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s %d: %d %s, %v", what, member, answer.StatusCode, text, err)
	}
}

// members is how many the store has.
func members() int { return strings.Count(os.Getenv("ENDPOINTS"), ",") + 1 }

// uncached says that the server keeps no watch cache.
func (s *server) uncached() bool { return slices.Contains(s.flags, "--watch-cache=false") }

// streams says that the server reads by RangeStream, as it does by default.
func (s *server) streams() bool {
	return !slices.Contains(s.flags, "--feature-gates=EtcdRangeStream=false")
}
