package concordtest

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/lab"
	"github.com/concord-kv/concord/internal/vfs"
)

// member is one of a cluster, through all its lives.
type member struct {
	// Set once.
	name, addr string

	disk *disk
	// empty says that the disk is, and that others have to let the member in.
	empty bool

	// Of the life that it is in, or of the last one.
	running bool
	node    *concord.Node
	lab     *lab.Lab
	log     *journal
}

// disk is one in memory that can be torn out of its machine.
type disk struct {
	vfs.Mem
	out atomic.Bool
}

func newDisk() *disk {
	d := &disk{}
	d.Hook = func(vfs.Op) error {
		if d.out.Load() {
			return syscall.EIO
		}
		return nil
	}
	return d
}

// crash loses what was not synced, some of it or all. Nobody uses the disk.
func (d *disk) crash() {
	d.Crash(rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	d.out.Store(false)
}

// journal is a member's log in that of the test; the dead write nothing.
type journal struct {
	t    testing.TB
	dead atomic.Bool
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	if j.dead.Load() {
		return len(b), nil
	}
	return j.t.Output().Write(b)
}

// open begins a life of m, unless ctx ends first.
func (c *Cluster) open(ctx context.Context, m *member) error {
	c.mu.Lock()
	m.log = &journal{t: c.t}
	m.lab = &lab.Lab{
		Files: m.disk,
		Dial:  func(ctx context.Context, addr string) (net.Conn, error) { return c.net.dial(ctx, m.addr, addr) },
		Now:   func() int64 { return int64(time.Since(c.began)) },
	}
	peers := map[string]string{}
	for _, other := range c.members {
		peers[other.name] = other.addr
	}
	c.mu.Unlock()
	opts := []concord.Option{
		concord.Timing(heartbeat, election),
		concord.Logger(slog.New(slog.NewTextHandler(m.log, nil)).With("member", m.name)),
	}
	opts = append(opts, c.opts...)
	opts = append(opts, concord.Name(m.name), concord.Peers(m.addr, peers), concord.PeerListener(c.net.listen(m.addr)))
	if m.empty && len(peers) > 1 {
		opts = append(opts, concord.Rejoin())
	}
	node, err := concord.Open(lab.With(ctx, m.lab), m.name, opts...)
	if err != nil {
		c.net.hangUp(m.addr)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.node, m.running, m.empty = node, true, false
	return nil
}

// halt marks the end of m's life, and reports whether it was in one.
func (c *Cluster) halt(m *member) (was bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	was, m.running = m.running, false
	return was
}

// end is the end of the test.
func (c *Cluster) end() {
	var group sync.WaitGroup
	for _, m := range c.members {
		if !c.halt(m) {
			continue
		}
		group.Go(func() {
			if err := m.node.Err(); err != nil && !errors.Is(err, concord.ErrRemoved) {
				c.t.Errorf("concordtest: %s has ended by itself: %v", m.name, err)
			}
			if err := m.lab.Member.Kill(); err != nil {
				c.t.Errorf("concordtest: end %s: %v", m.name, err)
			}
		})
	}
	group.Wait()
}
