//go:build long

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/concord-kv/concord/client"
	"github.com/concord-kv/concord/kv"
)

// changing is three processes whose secret is changed while they are written to.
type changing struct {
	*life
	members []*process
	addrs   []string
	joins   []string
	files   []string
	clients []*client.Client // of one member each

	acked, failed [3]atomic.Int64
	slowest       [3]atomic.Int64 // ns
}

func newChanging(t *testing.T, secret string) *changing {
	c := &changing{life: newLife(t)}
	for i := range 4 {
		c.addrs, c.joins, c.files = append(c.addrs, c.port()), append(c.joins, c.port()), append(c.files, c.file(fmt.Sprint("secret", i)))
		c.put(i, secret)
	}
	for i := range 3 {
		c.members = append(c.members, c.run(i))
	}
	for i, p := range c.members {
		c.serving(p)
		own, err := client.New(client.Config{Endpoints: c.addrs[i : i+1], NoRequestIDs: true, Timeout: time.Minute}) // which sends nothing twice
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = own.Close() }) // nothing is under way
		c.clients = append(c.clients, own)
	}
	return c
}

// run starts a process, which has found the others or finds them.
func (c *changing) run(i int) *process {
	c.Helper()
	return c.launch(nil, "serve", "--name", fmt.Sprint("n", i), "--cluster", "changing", "--no-multicast", "--gossip-addr", c.port(), "--peer-addr", c.joins[i],
		"--join", strings.Join(c.joins[:3], ","), "--client-addr", c.addrs[i], "--data-dir", fmt.Sprint("d", i), "--secret-file", c.files[i], "--election-timeout", "3s")
}

// put replaces a process's file in one step.
func (c *changing) put(i int, text string) {
	c.Helper()
	if err := os.WriteFile(c.files[i]+".new", []byte(text+"\n"), 0o600); err != nil {
		c.Fatal(err)
	}
	if err := os.Rename(c.files[i]+".new", c.files[i]); err != nil {
		c.Fatal(err)
	}
}

// await waits for what takes seconds, for minutes.
func (c *changing) await(what string, ok func() bool) {
	c.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			c.Fatalf("waited in vain for %s", what)
		}
	}
}

// write writes at one member until ctx ends, and counts.
func (c *changing) write(ctx context.Context, i int) {
	for ctx.Err() == nil {
		began := time.Now()
		if _, err := kv.Put(c.Context(), c.clients[i], fmt.Sprint("key", i), fmt.Sprint(c.acked[i].Load()+1)); err != nil {
			c.failed[i].Add(1)
			c.Errorf("a write at n%d: %v", i, err)
			continue
		}
		c.acked[i].Add(1)
		c.slowest[i].Store(max(c.slowest[i].Load(), int64(time.Since(began))))
	}
}

// more waits until each member has taken some more writes.
func (c *changing) more() {
	c.Helper()
	var from [3]int64
	for i := range from {
		from[i] = c.acked[i].Load()
	}
	c.await("writes at all members", func() bool {
		return !slices.ContainsFunc([]int{0, 1, 2}, func(i int) bool { return c.acked[i].Load() < from[i]+100 })
	})
}

func (c *changing) status(i int) kv.Status {
	c.Helper()
	s, err := c.clients[i].Status(c.Context(), "")
	if err != nil {
		c.Fatal(err)
	}
	return s
}

// TestRotation changes the secret of three processes twice under writes at each
// of them, which are sent once: none fails, nobody leads anew, who has the old
// secret alone stays outside, who has the new one joins, and processes that are
// killed come back with it.
func TestRotation(t *testing.T) {
	secret := strings.TrimSpace(newLife(t).concord("", "secret"))
	first := secret
	c := newChanging(t, secret)
	c.secret("a secret", secret)
	before := c.status(0)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers sync.WaitGroup
	for i := range c.clients {
		writers.Go(func() { c.write(ctx, i) })
	}
	c.more()
	changes := 0
	for range 2 {
		next := strings.TrimSpace(c.concord("", "secret"))
		c.secret("a secret "+fmt.Sprint(changes), next)
		for _, text := range []string{secret + "\n" + next, next + "\n" + secret, next} {
			changes++
			for i := range c.members {
				c.put(i, text)
				c.more() // while members differ
			}
			c.await("all members to use it", func() bool {
				return !slices.ContainsFunc(c.members, func(p *process) bool {
					return strings.Count(p.said(), "the secret of the cluster has changed") < changes
				})
			})
			c.more()
		}
		secret = next
	}
	c.outside(secret)
	c.more()
	stop()
	writers.Wait()
	if after := c.status(0); after.Term != before.Term || after.Leader != before.Leader {
		t.Errorf("%v leads in term %d, before it %v in %d", after.Leader, after.Term, before.Leader, before.Term)
	}
	c.again(first)
	var all, failed int64
	var slowest time.Duration
	for i := range c.members {
		all, failed, slowest = all+c.acked[i].Load(), failed+c.failed[i].Load(), max(slowest, time.Duration(c.slowest[i].Load()))
	}
	t.Logf("%d changes of the file on each of three processes; %d writes acknowledged, %d failed; the slowest took %v", changes, all, failed, slowest.Round(time.Millisecond))
}

// outside starts a process with the first secret alone, which finds nobody, and
// then with the present one, with which it joins.
func (c *changing) outside(secret string) {
	c.Helper()
	stranger := c.run(3)
	c.await("the other secret to be named", func() bool {
		said := c.fails("cluster", "discover", "--cluster", "changing", "--no-multicast", "--secret-file", c.files[3], "--join", c.joins[0])
		return strings.Contains(said, "another secret")
	})
	select {
	case <-stranger.found:
		c.Error("a process with the old secret serves")
	default:
	}
	_ = stranger.cmd.Process.Kill()
	<-stranger.ended
	if err := os.RemoveAll(filepath.Join(c.dir, "d3")); err != nil {
		c.Fatal(err)
	}
	c.put(3, secret)
	c.serving(c.run(3))
	c.env = append(c.env, "CONCORD_ENDPOINTS="+c.addrs[0])
	if all := strings.Fields(c.concord("", "cluster", "members", "-o", "value")); len(all) != 4 {
		c.Errorf("the members are %v", all)
	}
}

// again kills and starts each member, one after the other, and finds what was
// acknowledged, and no secret in what they have said.
func (c *changing) again(first string) {
	c.Helper()
	for i, p := range c.members {
		_ = p.cmd.Process.Kill()
		<-p.ended
		c.clean("the log", []byte(p.said()))
		c.members[i] = c.run(i)
		c.serving(c.members[i])
		for n := range c.members {
			kvs, err := c.clients[i].Range(c.Context(), kv.Range{Key: fmt.Append(nil, "key", n)})
			if want := fmt.Sprint(c.acked[n].Load()); err != nil || len(kvs.KVs) != 1 || string(kvs.KVs[0].Value) != want {
				c.Errorf("n%d has %+v, %v of n%d, want %s", i, kvs, err, n, want)
			}
		}
	}
	if err := c.members[0].cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.Error(err)
	}
	<-c.members[0].ended
	if strings.Contains(c.members[0].said(), first) {
		c.Error("the first secret is in the log")
	}
	c.rest("d0", "d1", "d2", "d3")
}
