package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

// cluster is the processes under test.
type cluster struct {
	members []*member
	client  *client.Client
}

// member is one process and its disk.
type member struct {
	name, clientAddr, dir string
	args                  []string
	binary, logFile       string
	disk                  *loopDisk // nil without power cuts
	cmd                   *exec.Cmd
}

func startCluster(ctx context.Context, p plan) (_ *cluster, err error) {
	c := &cluster{}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	var peers, endpoints []string
	for i := range p.members {
		ports, err := freePorts(2)
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("n%d", i+1)
		m := &member{
			name: name, clientAddr: ports[0], binary: p.binary,
			dir: filepath.Join(p.dir, name), logFile: filepath.Join(p.dir, name+".log"),
		}
		for _, kind := range p.kinds {
			if kind == "power" && m.disk == nil {
				if m.disk, err = newLoopDisk(filepath.Join(p.dir, name+".img"), m.dir); err != nil {
					return nil, err
				}
			}
		}
		peers = append(peers, name+"="+ports[1])
		endpoints = append(endpoints, m.clientAddr)
		c.members = append(c.members, m)
	}
	for _, m := range c.members {
		m.args = []string{
			"serve", "--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
			"--client-addr", m.clientAddr, "--peers", strings.Join(peers, ","),
		}
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	if c.client, err = client.New(client.Config{Endpoints: endpoints}); err != nil {
		return nil, err
	}
	return c, c.ready(ctx)
}

// freePorts finds ports that nobody listens on at the moment.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

func (m *member) start() error {
	log, err := os.OpenFile(m.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = exec.Command(m.binary, m.args...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	// A member must not outlive this program.
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return m.cmd.Start()
}

func (m *member) kill() {
	if m.cmd != nil && m.cmd.Process != nil {
		_ = m.cmd.Process.Kill() // it may have ended by itself
		_ = m.cmd.Wait()         // its end is what was asked for
		m.cmd = nil
	}
}

// hurt does the fault to the member, heal undoes it.
func (m *member) hurt(kind string) error {
	switch kind {
	case "pause":
		return m.cmd.Process.Signal(syscall.SIGSTOP)
	case "power":
		if err := m.disk.cut(); err != nil {
			return err
		}
	}
	m.kill()
	return nil
}

func (m *member) heal(kind string) error {
	switch kind {
	case "pause":
		return m.cmd.Process.Signal(syscall.SIGCONT)
	case "power":
		if err := m.disk.restore(); err != nil {
			return err
		}
	}
	return m.start()
}

func (c *cluster) stop() {
	if c.client != nil {
		_ = c.client.Close() // nothing hangs on it any more
		c.client = nil
	}
	for _, m := range c.members {
		m.kill()
		if m.disk != nil {
			m.disk.remove()
		}
	}
	c.members = nil
}

// within repeats try until it succeeds; the last error counts when it does not
// in time.
func within(ctx context.Context, d time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return nil
		}
		if pause(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("not within %v: %w", d, err)
		}
	}
}

// leader finds the member that leads.
func (c *cluster) leader(ctx context.Context) (leader *member, err error) {
	err = within(ctx, 30*time.Second, func(ctx context.Context) error {
		for _, m := range c.members {
			s, err := c.client.Status(ctx, m.clientAddr)
			if err == nil && s.Leader != 0 && s.Leader == s.Member {
				leader = m
				return nil
			}
		}
		return errors.New("no member leads")
	})
	return leader, err
}

// ready waits until every member answers and has caught up.
func (c *cluster) ready(ctx context.Context) error {
	for _, m := range c.members {
		err := within(ctx, 60*time.Second, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			one, err := client.New(client.Config{Endpoints: []string{m.clientAddr}})
			if err != nil {
				return err
			}
			defer one.Close()
			_, err = one.Range(ctx, kv.Range{Key: []byte("ready")})
			return err
		})
		if err != nil {
			return fmt.Errorf("member %s is not ready: %w", m.name, err)
		}
	}
	return nil
}

// converge waits until all members have applied one index, and compares their
// state hashes.
func (c *cluster) converge(ctx context.Context) error {
	return within(ctx, 60*time.Second, func(ctx context.Context) error {
		var first kv.Status
		for i, m := range c.members {
			s, err := c.client.Status(ctx, m.clientAddr)
			if err != nil {
				return err
			}
			if i == 0 {
				first = s
			}
			if s.Applied != first.Applied || s.Hash != first.Hash || s.Hash == 0 {
				return fmt.Errorf("members differ: %s has hash %x at %d, %s has %x at %d",
					c.members[0].name, first.Hash, first.Applied, m.name, s.Hash, s.Applied)
			}
		}
		return nil
	})
}
