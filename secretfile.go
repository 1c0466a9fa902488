package concord

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/concord-kv/concord/kv"
)

// SecretFile is [Secret] from a file, with a secret in each line: the first is
// used for what this member sends, all are accepted from others. The file is
// read again while the member runs, so that a secret can be changed without a
// restart: add the new one as the second line on all members, then move it to
// the first on all, then remove the old one on all. After each step the members
// make their connections anew, and after the last one those that were made with
// the old secret are closed. A file that cannot be read, or is no good, leaves
// the secrets as they are, and is named in the log.
func SecretFile(path string) Option { return func(c *config) { c.group.secretFile = path } }

// Times of a change of the secret.
const (
	// secretEvery is how often the file is read.
	secretEvery = time.Second
	// secretGrace is how long connections that were made with a secret that is
	// not accepted any more stay, so that the other side, too, has seen the
	// change and made its own anew.
	secretGrace = 10 * time.Second
)

// secretPace is how fast a change of the secret goes; zero fields mean the
// defaults.
type secretPace struct{ every, grace time.Duration }

// maxSecretFile is the most bytes that are read of a file with secrets.
const maxSecretFile = 64 << 10

func readSecretFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretFile))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return string(data), nil
}

// loadSecret reads the file for the first time.
func (g *group) loadSecret() (err error) {
	switch {
	case g.secretFile == "":
		return nil
	case g.secret != "":
		return kv.Errorf(kv.InvalidArgument, "a secret and a file with secrets are given; keep the file")
	}
	if g.secret, err = readSecretFile(g.secretFile); err != nil {
		return kv.Errorf(kv.InvalidArgument, "the file with the secret: %w; make one with 'concord secret', the same on all members", err)
	}
	return nil
}

// startSecret follows the file with the secrets until the member ends.
func (n *Node) startSecret() {
	g := &n.cfg.group
	if g.secretFile == "" {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.followSecret(ctx)
	}()
	n.onClose("secret", func() error {
		cancel()
		<-ended
		return nil
	})
}

func (n *Node) followSecret(ctx context.Context) {
	g := &n.cfg.group
	tick := time.NewTicker(cmp.Or(g.pace.every, secretEvery))
	defer tick.Stop()
	cut := time.NewTimer(0)
	cut.Stop()
	defer cut.Stop()
	failed := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-cut.C:
			n.cutOffOld()
		case <-tick.C:
			changed, err := n.readSecret()
			if err != nil && err.Error() != failed {
				n.log.Error("the secret of the cluster is not read again; what it was stays in use", "error", err)
			}
			failed = ""
			if err != nil {
				failed = err.Error()
			}
			if changed {
				cut.Reset(cmp.Or(g.pace.grace, secretGrace))
			}
		}
	}
}

// readSecret takes what the file has now.
func (n *Node) readSecret() (changed bool, err error) {
	g := &n.cfg.group
	text, err := readSecretFile(g.secretFile)
	if err == nil {
		changed, err = g.keys.Set(text)
	}
	if err != nil || !changed {
		return false, err
	}
	names := g.keys.Names()
	n.log.Info("the secret of the cluster has changed; connections to other members are made anew", "used", names[0], "accepted", names)
	if n.circle != nil {
		err = n.circle.found.SetGossipKeys(g.keys.Gossip())
	}
	n.transport.Renew()
	return true, err
}

// cutOffOld closes connections whose other side has proved a secret that is not
// accepted any more.
func (n *Node) cutOffOld() {
	closed := 0
	for _, c := range n.cfg.peerTLS.conns.list() {
		if state := c.ConnectionState(); state.HandshakeComplete && !n.cfg.group.keys.Accepts(&state) {
			_ = c.Close() // who uses it is told
			closed++
		}
	}
	if closed > 0 {
		n.log.Warn("connections were closed that others had made with an old secret of the cluster", "connections", closed)
	}
}

// peerConns are the connections with other members that stand. A nil one keeps
// nothing.
type peerConns struct {
	mu  sync.Mutex
	all []*peerConn
}

func (p *peerConns) add(c *peerConn) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, c)
}

func (p *peerConns) remove(c *peerConn) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.all, c); i >= 0 {
		p.all = slices.Delete(p.all, i, i+1)
	}
}

func (p *peerConns) list() []*peerConn {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.all)
}
