package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

// cluster is the processes under test, and their network and disk.
type cluster struct {
	plan    plan
	members []*member
	client  *client.Client
	disk    *disk // of the last member
	unload  func()
}

// member is one process.
type member struct {
	name, space, host string
	log               string
	args              []string
	cmd               *exec.Cmd
}

func (m *member) addr() string { return m.host + ":2379" }

// size is how many members there are; the last one has the disk.
const size = 3

// memoryLimit is each member's, the least that there may be.
const memoryLimit = "64MiB"

// start makes the network and the disk and starts the members.
func (c *cluster) start(ctx context.Context) (err error) {
	for _, args := range []string{"link set lo up", "link add br0 type bridge", "addr add 10.77.0.1/24 dev br0", "link set br0 up"} {
		if _, err := command("ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	secret := filepath.Join(c.plan.dir, "secret")
	if err := os.WriteFile(secret, []byte(strings.Repeat("canary", 8)), 0o600); err != nil {
		return err
	}
	var peers, endpoints []string
	for i := range size {
		m := &member{
			name: fmt.Sprintf("n%d", i+1), space: fmt.Sprintf("concord-%d-%d", os.Getpid(), i),
			host: fmt.Sprintf("10.77.0.%d", 11+i), log: filepath.Join(c.plan.dir, fmt.Sprintf("n%d.log", i+1)),
		}
		c.members = append(c.members, m)
		peers, endpoints = append(peers, m.name+"="+m.host+":2380"), append(endpoints, m.addr())
		if err := m.connect(i); err != nil {
			return err
		}
	}
	if c.disk, err = newDisk(c.plan.dir); err != nil {
		return err
	}
	for i, m := range c.members {
		dir := filepath.Join(c.plan.dir, m.name)
		if i == size-1 {
			dir = filepath.Join(c.disk.mount, m.name)
		}
		m.args = []string{
			"netns", "exec", m.space, c.plan.binary, "serve", "--insecure", "--name", m.name, "--data-dir", dir, "--secret-file", secret,
			"--client-addr", m.addr(), "--peer-addr", m.host + ":2380", "--peers", strings.Join(peers, ","), "--memory-limit", memoryLimit,
		}
		if err := m.start(); err != nil {
			return err
		}
	}
	if c.client, err = client.New(client.Config{Endpoints: endpoints, Timeout: 5 * time.Second}); err != nil {
		return err
	}
	load, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); c.load(load) }()
	c.unload = func() { stop(); <-done }
	return nil
}

// connect gives member i a network namespace on the bridge.
func (m *member) connect(i int) error {
	if _, err := command("ip", "netns", "add", m.space); err != nil {
		return err
	}
	for _, args := range []string{
		fmt.Sprintf("link add p%d type veth peer name eth0 netns %s", i, m.space),
		fmt.Sprintf("link set p%d master br0 up", i),
		fmt.Sprintf("-n %s addr add %s/24 dev eth0", m.space, m.host),
		fmt.Sprintf("-n %s link set eth0 up", m.space), fmt.Sprintf("-n %s link set lo up", m.space),
	} {
		if _, err := command("ip", strings.Fields(args)...); err != nil {
			return err
		}
	}
	return nil
}

// part has what members send each other vanish where the one is victim, or lets
// it through again.
func (c *cluster) part(victim *member, how string) error {
	for _, m := range c.members {
		if m == victim {
			continue
		}
		for _, way := range [][2]*member{{m, victim}, {victim, m}} {
			if _, err := command("ip", "-n", way[0].space, "route", how, "blackhole", way[1].host+"/32"); err != nil {
				return err
			}
		}
	}
	return nil
}

// start runs the member; ip executes it in its own place, so that it gets the
// signals.
func (m *member) start() error {
	log, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	m.cmd = exec.Command("ip", m.args...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return m.cmd.Start()
}

// kill is kill -9.
func (m *member) kill() {
	end(m.cmd)
	m.cmd = nil
}

func end(cmd *exec.Cmd) {
	if cmd != nil && cmd.Process != nil {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // its end is what was asked for
	}
}

// load puts a key fifty times a second, whatever that gives, so that there is
// something to measure. A put that waits does not keep others from being sent.
func (c *cluster) load(ctx context.Context) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	places := make(chan struct{}, 100)
	for {
		select {
		case <-ctx.Done():
			for range cap(places) {
				places <- struct{}{}
			}
			return
		case <-tick.C:
		}
		select {
		case places <- struct{}{}:
			go func() {
				defer func() { <-places }()
				_, _ = kv.Put(ctx, c.client, "load", []byte("value")) // faults are what this is about
			}()
		default:
		}
	}
}

// leader finds the member that leads.
func (c *cluster) leader(ctx context.Context) (leader *member, err error) {
	err = within(ctx, func(ctx context.Context) error {
		for _, m := range c.members {
			s, err := c.client.Status(ctx, m.addr())
			if err == nil && s.Leader != 0 && s.Leader == s.Member {
				leader = m
				return nil
			}
		}
		return errors.New("no member leads")
	})
	return leader, err
}

// follower moves leadership away from m if it leads.
func (c *cluster) follower(ctx context.Context, m *member) error {
	return within(ctx, func(ctx context.Context) error {
		switch leader, err := c.leader(ctx); {
		case err != nil:
			return err
		case leader != m:
			return nil
		}
		return errors.Join(c.client.MoveLeader(ctx, 0), errors.New("moving leadership"))
	})
}

// stop ends everything, in the order in which things hang on each other.
func (c *cluster) stop() error {
	if c.unload != nil {
		c.unload()
		_ = c.client.Close() // nothing hangs on it any more
	}
	var errs []error
	if c.disk != nil {
		errs = append(errs, c.disk.thaw(), c.disk.throttle(0, nil))
	}
	for _, m := range c.members {
		m.kill()
		_, err := command("ip", "netns", "delete", m.space)
		errs = append(errs, err)
	}
	if c.disk != nil {
		errs = append(errs, c.disk.remove())
	}
	return errors.Join(errs...)
}

// patience bounds what must happen in the end.
const patience = 3 * time.Minute

// within repeats try, of ten seconds at most, until it succeeds.
func within(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		once, done := context.WithTimeout(ctx, 10*time.Second)
		err := try(once)
		done()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", patience, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return text, nil
}
