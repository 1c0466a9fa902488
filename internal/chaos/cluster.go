package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/internal/loopback"
	"github.com/concord-kv/concord/kv"
)

// patience bounds what must happen in the end. It says nothing of how long that
// takes where nothing else runs: only that a busy machine is no violation.
const patience = 3 * time.Minute

// cluster is the processes under test.
type cluster struct {
	members []*member
	client  *client.Client
	network *network // nil without cuts
}

// member is one process and its disk.
type member struct {
	name, clientAddr, peerAddr, dir string
	args                            []string
	binary, logFile                 string
	disk                            *loopDisk // nil without power cuts
	cmd                             *exec.Cmd
	release                         []func() // the addresses
}

func startCluster(ctx context.Context, p plan) (_ *cluster, err error) {
	c := &cluster{}
	defer func() {
		if err != nil {
			c.stop()
		}
	}()
	for i := range p.members {
		m, err := newMember(p, fmt.Sprintf("n%d", i+1))
		if err != nil {
			return nil, err
		}
		c.members = append(c.members, m)
	}
	peers, err := c.peers(p)
	if err != nil {
		return nil, err
	}
	var endpoints []string
	for _, m := range c.members {
		m.args = []string{
			"serve", "--name", m.name, "--data-dir", filepath.Join(m.dir, "data"),
			"--client-addr", m.clientAddr, "--peer-addr", m.peerAddr, "--peers", peers,
			"--election-timeout", p.election.String(), "--heartbeat-interval", (p.election / 10).String(),
		}
		endpoints = append(endpoints, m.clientAddr)
		if err := m.start(); err != nil {
			return nil, err
		}
	}
	if c.client, err = client.New(client.Config{Endpoints: endpoints, Timeout: patience}); err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	return c, c.introduce(ctx)
}

// newMember chooses addresses and makes the disk; nothing runs yet.
func newMember(p plan, name string) (*member, error) {
	m := &member{
		name: name, binary: p.binary,
		dir: filepath.Join(p.dir, name), logFile: filepath.Join(p.dir, name+".log"),
	}
	for _, addr := range []*string{&m.clientAddr, &m.peerAddr} {
		got, release, err := loopback.Reserve()
		if err != nil {
			return nil, err
		}
		*addr, m.release = got, append(m.release, release)
	}
	var err error
	if slices.Contains(p.kinds, power) {
		m.disk, err = newLoopDisk(filepath.Join(p.dir, name+".img"), m.dir)
	}
	return m, err
}

// peers is the list of members, as each gets it. Where cuts are wanted, it leads
// through the doors of a network.
func (c *cluster) peers(p plan) (string, error) {
	addrs := make([]string, len(c.members))
	for i, m := range c.members {
		addrs[i] = m.peerAddr
	}
	if slices.ContainsFunc(p.kinds, isCut) {
		var err error
		if c.network, err = newNetwork(addrs); err != nil {
			return "", err
		}
		for i := range addrs {
			addrs[i] = c.network.addr(i)
		}
	}
	for i, m := range c.members {
		addrs[i] = m.name + "=" + addrs[i]
	}
	return strings.Join(addrs, ","), nil
}

// introduce tells the network who is who.
func (c *cluster) introduce(ctx context.Context) error {
	if c.network == nil {
		return nil
	}
	for i, m := range c.members {
		s, err := c.client.Status(ctx, m.clientAddr)
		if err != nil {
			return fmt.Errorf("ask %s who it is: %w", m.name, err)
		}
		c.network.know(uint64(s.Member), i)
	}
	return nil
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

// end ends the process as an operator does, and waits for it.
func (m *member) end() error {
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := m.cmd.Wait(); err != nil {
		return fmt.Errorf("%s was told to end, and did so with: %w", m.name, err)
	}
	m.cmd = nil
	return nil
}

// hurt does the fault to a member, heal undoes it.
func (c *cluster) hurt(m *member, kind string) error {
	switch {
	case kind == pauseLeader:
		return m.cmd.Process.Signal(syscall.SIGSTOP)
	case isCut(kind):
		c.network.cut(slices.Index(c.members, m), kind != cutOut, kind != cutIn)
		return nil
	case kind == power:
		if err := m.disk.cut(); err != nil {
			return err
		}
	}
	m.kill()
	return nil
}

func (c *cluster) heal(m *member, kind string) error {
	switch {
	case kind == pauseLeader:
		return m.cmd.Process.Signal(syscall.SIGCONT)
	case isCut(kind):
		c.network.heal()
		return nil
	case kind == power:
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
		for _, release := range m.release {
			release()
		}
	}
	c.members = nil
	if c.network != nil {
		c.network.close()
	}
}

// within repeats try, of ten seconds at most, until it succeeds; the last error
// counts when it does not in time.
func within(ctx context.Context, d time.Duration, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		once, done := context.WithTimeout(ctx, 10*time.Second)
		err := try(once)
		done()
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
	err = within(ctx, patience, func(ctx context.Context) error {
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
		err := within(ctx, patience, func(ctx context.Context) error {
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
	return within(ctx, patience, func(ctx context.Context) error {
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
