package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// issuing is an authority in a directory of its own.
type issuing struct {
	*Authority
	t   *testing.T
	dir string
}

func newIssuing(t *testing.T) *issuing {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	if _, err := NewAuthority(dir, "test", AuthorityLife); err != nil {
		t.Fatal(err)
	}
	a, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	return &issuing{a, t, dir}
}

func (i *issuing) path(name string) string { return filepath.Join(i.dir, name) }

func (i *issuing) make(file string, c Certificate) Files {
	i.t.Helper()
	f := Files{Cert: i.path(file + ".pem"), Key: i.path(file + ".key"), CA: i.path("ca.pem")}
	if err := i.Issue(f.Cert, f.Key, c); err != nil {
		i.t.Fatal(err)
	}
	return f
}

// TestIssue: servers and clients know each other by what an authority has issued,
// each for its side only.
func TestIssue(t *testing.T) {
	i := newIssuing(t)
	server := i.make("n1", Certificate{Name: "n1", Hosts: []string{"127.0.0.1", "localhost", "*.example.com"}, Server: true})
	server.RequireClient = true
	alice := i.make("alice", Certificate{Name: "alice", Client: true})
	both := i.make("both", Certificate{Name: "both", Hosts: []string{"127.0.0.1"}, Server: true, Client: true})
	elsewhere := i.make("elsewhere", Certificate{Name: "n2", Hosts: []string{"10.0.0.1"}, Server: true})
	stranger := newIssuing(t).make("alice", Certificate{Name: "alice", Client: true})
	stranger.CA = i.path("ca.pem")
	strict := func(f Files) Files { f.RequireClient = true; return f }
	for name, c := range map[string]struct {
		server, client Files
		ok             bool
	}{
		"a client":             {server, alice, true},
		"a peer":               {strict(both), both, true},
		"a server as a client": {server, elsewhere, false},
		"another host":         {strict(elsewhere), alice, false},
		"another authority":    {server, stranger, false},
		"a client as a server": {strict(alice), alice, false},
	} {
		_, serverErr, clientErr := shake(t, serverOf(t, c.server), open(t, c.client, nil).Client())
		if ok := serverErr == nil && clientErr == nil; ok != c.ok {
			t.Errorf("%s: %v, %v", name, serverErr, clientErr)
		}
	}
	leaf := leafOf(t, server.Cert)
	if leaf.IsCA || leaf.Subject.CommonName != "n1" || leaf.VerifyHostname("a.example.com") != nil || len(leaf.AuthorityKeyId) == 0 ||
		leaf.PublicKeyAlgorithm != x509.ECDSA || time.Until(leaf.NotAfter) > CertificateLife || time.Until(leaf.NotAfter) < CertificateLife-time.Hour {
		t.Errorf("%+v", leaf)
	}
	ca := leafOf(t, i.path("ca.pem"))
	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage&x509.KeyUsageCertSign == 0 || len(ca.SubjectKeyId) == 0 {
		t.Errorf("%+v", ca)
	}
	for _, key := range []string{"ca.key", "n1.key", "alice.key"} {
		if info, err := os.Stat(i.path(key)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", key, info.Mode(), err)
		}
	}
}

func leafOf(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".pem")+".key")
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// TestIssueRefuses: nothing is overwritten, and what makes no sense is not signed.
func TestIssueRefuses(t *testing.T) {
	i := newIssuing(t)
	alice := i.make("alice", Certificate{Name: "alice", Client: true})
	if err := i.Issue(alice.Cert, alice.Key, Certificate{Name: "alice", Client: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
	if err := os.Remove(alice.Cert); err != nil {
		t.Fatal(err)
	}
	if err := i.Issue(alice.Cert, alice.Key, Certificate{Name: "alice", Client: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a key was overwritten: %v", err)
	}
	if _, err := NewAuthority(i.dir, "test", AuthorityLife); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an authority was overwritten: %v", err)
	}
	for _, c := range []Certificate{
		{Name: "test", Client: true}, {Name: "", Client: true}, {Name: strings.Repeat("x", maxName+1), Client: true}, {Name: "a\nb", Client: true},
		{Name: "a", Server: true, Hosts: []string{"a b"}}, {Name: "a", Server: true, Hosts: []string{"host:1"}},
		{Name: "a", Server: true, Hosts: []string{""}}, {Name: "a", Server: true, Hosts: []string{"https://x"}},
	} {
		if err := i.Issue(i.path("x.pem"), i.path("x.key"), c); err == nil {
			t.Errorf("signed: %+v", c)
		}
	}
	if _, err := os.Stat(i.path("x.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a key without a certificate was left")
	}
	if _, err := OpenAuthority(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an authority of nothing: %v", err)
	}
	if err := os.Chmod(i.path("ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	exposed := (*ExposedError)(nil)
	if _, err := OpenAuthority(i.dir); !errors.As(err, &exposed) {
		t.Errorf("an authority that everybody has: %v", err)
	}
	short := filepath.Join(t.TempDir(), "short")
	a, err := NewAuthority(short, "short", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Issue(filepath.Join(short, "a.pem"), filepath.Join(short, "a.key"), Certificate{Name: "a", Client: true}); err != nil {
		t.Fatal(err)
	}
	if leaf := leafOf(t, filepath.Join(short, "a.pem")); time.Until(leaf.NotAfter) > time.Minute {
		t.Errorf("it outlives its authority: %v", leaf.NotAfter)
	}
}

// TestCheckSecret: whose files are refused.
func TestCheckSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := WriteNew(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := os.Geteuid() == 0 // whose files a group may read
	for mode, good := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: root, 0o440: root, 0o660: false, 0o644: false, 0o604: false, 0o602: false, 0o777: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := CheckSecret(path); (err == nil) != good {
			t.Errorf("%o: %v", mode, err)
		}
	}
	if CheckSecret(path+"x") == nil {
		t.Error("nothing is a secret")
	}
	if err := CheckSecret(os.DevNull); err != nil {
		t.Error(err)
	}
	if err := WriteNew(path, nil, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("overwritten: %v", err)
	}
}

// TestRenewUnderLoad: certificates are renewed, and their authority replaced,
// while clients come and go: every handshake succeeds, new ones are with the new
// certificate, and connections that stand go on.
func TestRenewUnderLoad(t *testing.T) {
	i := newIssuing(t)
	files := i.make("n1", Certificate{Name: "n1", Hosts: []string{"127.0.0.1"}, Server: true})
	files.RequireClient = true
	alice := i.make("alice", Certificate{Name: "alice", Client: true})
	cfg, err := open(t, files, slog.New(slog.DiscardHandler)).Server()
	if err != nil {
		t.Fatal(err)
	}
	addr, end := serveEchoes(t, cfg)
	defer end()
	client := open(t, alice, nil)
	dial := func() *tls.Conn {
		c, err := tls.Dial("tcp", addr, client.Client())
		if err == nil {
			err = ping(c)
		}
		if err != nil {
			panic(err) // of a handshake, in any goroutine
		}
		return c
	}
	stands := dial()
	defer stands.Close()
	var load sync.WaitGroup
	var made atomic.Int64
	done := make(chan struct{})
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				_ = dial().Close() // it has answered
				made.Add(1)
			}
		})
	}
	for range 10 {
		if _, err := i.Renew(files.Cert, files.Key, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Renew(alice.Cert, alice.Key, time.Hour); err != nil {
			t.Fatal(err)
		}
		want := leafOf(t, files.Cert)
		c := dial()
		if got := c.ConnectionState().PeerCertificates[0]; got.SerialNumber.Cmp(want.SerialNumber) != 0 || got.VerifyHostname("127.0.0.1") != nil {
			t.Errorf("certificate %v, want %v", got.SerialNumber, want.SerialNumber)
		}
		_ = c.Close() // it has answered
		if err := ping(stands); err != nil {
			t.Errorf("a connection that stands: %v", err)
		}
	}
	close(done)
	load.Wait()
	if made.Load() == 0 {
		t.Error("there was no load")
	}
}

// serveEchoes answers until end.
func serveEchoes(t *testing.T, cfg *tls.Config) (addr string, end func()) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			served.Go(func() { echo(conn) })
		}
	})
	return l.Addr().String(), func() {
		_ = l.Close() // who waits for it sees
		served.Wait()
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	for b := make([]byte, 1); ; {
		if _, err := conn.Read(b); err != nil {
			return
		}
		if _, err := conn.Write(b); err != nil {
			return
		}
	}
}

func ping(c *tls.Conn) error {
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}
