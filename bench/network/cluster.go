package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// cluster is the processes of one store, and connections to them.
type cluster struct {
	name      string
	program   string
	args      [][]string // of each member
	processes []*exec.Cmd
	endpoints []string
	tls       *tls.Config
	conns     []*clientv3.Client
	login     login
	// telemetry ends what reads the members' telemetry; nil without.
	telemetry func()
}

// start starts the members and connects to them.
func (s *settings) start(ctx context.Context, name string) (*cluster, error) {
	c := &cluster{name: name, program: s.programs[kind(name)]}
	if c.program == "" {
		return c, errors.New("no such store, or no program for it")
	}
	scheme := "http"
	var cert, key string
	if s.tls || has(name, withTLS) {
		scheme = "https"
		// Files of its own: servers follow files that change, and clients would
		// no longer trust the one that was started first.
		dir := filepath.Join(s.dir, name+"-files")
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			cert, key, c.tls, err = certificate(dir)
		}
		if err != nil {
			return c, err
		}
	}
	var clients, peers, etcdPeers, concordPeers []string
	for i := range s.members {
		client, err := freeAddr()
		if err != nil {
			return c, err
		}
		peer, err := freeAddr()
		if err != nil {
			return c, err
		}
		clients, peers = append(clients, client), append(peers, peer)
		etcdPeers = append(etcdPeers, fmt.Sprintf("n%d=http://%s", i, peer))
		concordPeers = append(concordPeers, fmt.Sprintf("n%d=%s", i, peer))
		c.endpoints = append(c.endpoints, scheme+"://"+client)
	}
	for i := range s.members {
		dir, member := filepath.Join(s.dir, fmt.Sprint(name, i)), fmt.Sprint("n", i)
		args := []string{"serve", "--name", member, "--data-dir", dir, "--client-addr", clients[i], "--log-level", "warn"}
		certFlag, keyFlag := "--tls-cert", "--tls-key"
		if s.members > 1 {
			args = append(args, "--peers", strings.Join(concordPeers, ","))
		}
		if kind(name) == "etcd" {
			args = []string{"--name", member, "--data-dir", dir, "--log-level", "error", "--quota-backend-bytes", "8589934592",
				"--listen-client-urls", c.endpoints[i], "--advertise-client-urls", c.endpoints[i],
				"--listen-peer-urls", "http://" + peers[i], "--initial-advertise-peer-urls", "http://" + peers[i],
				"--initial-cluster", strings.Join(etcdPeers, ",")}
			certFlag, keyFlag = "--cert-file", "--key-file"
		}
		if c.tls != nil {
			args = append(args, certFlag, cert, keyFlag, key)
		}
		c.args = append(c.args, args)
	}
	if has(name, withTelemetry) {
		if err := c.observe(); err != nil {
			return c, err
		}
	}
	c.processes = make([]*exec.Cmd, s.members)
	for i := range c.processes {
		if err := c.launch(i); err != nil {
			return c, err
		}
	}
	if has(name, withUser) || has(name, withToken) {
		if err := c.protect(ctx, has(name, withToken)); err != nil {
			return c, fmt.Errorf("switch authentication on: %w", err)
		}
	}
	return c, c.connect(ctx, slices.Max(s.conns))
}

// twin starts another cluster of the same store, which is to bear more.
func (s *settings) twin(ctx context.Context, of *cluster, more string) (*cluster, error) {
	return s.start(ctx, of.name+"+"+more)
}

// launch starts a member, for the first time or again.
func (c *cluster) launch(i int) error {
	p := exec.Command(c.program, c.args[i]...)
	p.Stderr = os.Stderr
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c.processes[i] = p
	return p.Start()
}

// kill ends a member with SIGKILL.
func (c *cluster) kill(i int) error {
	err := c.processes[i].Process.Kill()
	_ = c.processes[i].Wait() // it was killed
	return err
}

// restart kills all members, starts them and waits until they serve.
func (c *cluster) restart(ctx context.Context) error {
	for i := range c.processes {
		if err := c.kill(i); err != nil {
			return err
		}
	}
	for i := range c.processes {
		if err := c.launch(i); err != nil {
			return err
		}
	}
	return c.ready(ctx)
}

// leader is the place of the leader among the members, or -1.
func (c *cluster) leader(ctx context.Context) int {
	for i, endpoint := range c.endpoints {
		s, err := c.conns[i].Status(ctx, endpoint)
		if err == nil && s.Leader == s.Header.MemberId {
			return i
		}
	}
	return -1
}

// connect makes the connections, the first to the first member and so on, and
// waits until the members take a put.
func (c *cluster) connect(ctx context.Context, conns int) error {
	for i := range conns {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{c.endpoints[i%len(c.endpoints)]}, TLS: c.tls, DialTimeout: 30 * time.Second,
			MaxCallRecvMsgSize: 1 << 30,
			Username:           c.login.user, Password: c.login.password, Token: c.login.token,
		})
		if err != nil {
			return err
		}
		c.conns = append(c.conns, client)
	}
	return c.ready(ctx)
}

// ready waits until all members take a put.
func (c *cluster) ready(ctx context.Context) error {
	for _, client := range c.conns[:min(len(c.conns), len(c.endpoints))] {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		for {
			if _, err := client.Put(ctx, "ready", ""); err == nil {
				break
			} else if ctx.Err() != nil {
				return fmt.Errorf("not ready: %w", err)
			}
		}
	}
	return nil
}

func (c *cluster) stop() {
	for _, conn := range c.conns {
		_ = conn.Close() // the measurement is over
	}
	if c.telemetry != nil {
		c.telemetry()
	}
	for i, p := range c.processes {
		if p != nil && p.Process != nil {
			_ = c.kill(i) // it may be gone
		}
	}
}

// cpu is the CPU time that all members have taken.
func (c *cluster) cpu() (total time.Duration, err error) {
	for _, p := range c.processes {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Process.Pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, fmt.Errorf("stat of process %d is short", p.Process.Pid)
		}
		var user, system int64
		if _, err := fmt.Sscan(fields[11]+" "+fields[12], &user, &system); err != nil {
			return 0, err
		}
		total += time.Duration(user+system) * (time.Second / 100) // ticks, see proc(5)
	}
	return total, nil
}

// memory is a field of the members' status, as VmRSS or VmHWM, in MiB, all
// together.
func (c *cluster) memory(field string) (total float64, err error) {
	for _, p := range c.processes {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid))
		if err != nil {
			return 0, err
		}
		kb := 0.0
		for line := range strings.Lines(string(data)) {
			if rest, ok := strings.CutPrefix(line, field+":"); ok {
				if _, err := fmt.Sscan(rest, &kb); err != nil {
					return 0, err
				}
			}
		}
		if kb == 0 {
			return 0, fmt.Errorf("no %s in a process's status", field)
		}
		total += kb / 1024
	}
	return total, nil
}

// forgetPeak sets VmHWM to what the members take now.
func (c *cluster) forgetPeak() error {
	for _, p := range c.processes {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.Process.Pid), []byte("5"), 0); err != nil {
			return err
		}
	}
	return nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// certificate writes a self-signed one for loopback, and returns its files and
// what a client needs to trust it.
func certificate(dir string) (certFile, keyFile string, _ *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", "", nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", nil, err
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(certFile, certPEM, 0o600); err != nil {
		return "", "", nil, err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return "", "", nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}
