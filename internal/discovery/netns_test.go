//go:build linux && netns

package discovery

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// These tests make network namespaces, for which they need root and the ip tool
// of iproute2: make discovery-netns.

// space is a network namespace.
type space struct{ name string }

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func newSpace(t *testing.T, word string) space {
	t.Helper()
	s := space{fmt.Sprintf("concord-%d-%s", os.Getpid(), word)}
	ip(t, "netns", "add", s.name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", s.name).Run() })
	s.ip(t, "link", "set", "lo", "up")
	return s
}

func (s space) ip(t *testing.T, args ...string) {
	t.Helper()
	ip(t, append([]string{"-n", s.name}, args...)...)
}

// plug connects s to the bridge br0 of hub, with an address.
func (s space) plug(t *testing.T, hub space, dev, addr string) {
	t.Helper()
	port := "p" + s.name[strings.LastIndex(s.name, "-")+1:]
	s.ip(t, "link", "add", dev, "type", "veth", "peer", "name", port, "netns", hub.name)
	hub.ip(t, "link", "set", port, "master", "br0", "up")
	s.ip(t, "addr", "add", addr, "dev", dev)
	s.ip(t, "link", "set", dev, "up")
}

func newHub(t *testing.T, word string) space {
	t.Helper()
	hub := newSpace(t, word)
	hub.ip(t, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
	hub.ip(t, "link", "set", "br0", "up")
	return hub
}

// proc is a child in a namespace.
type proc struct {
	spec   childSpec
	events chan childEvent
	stdin  io.Closer
	found  map[uint64]Sighting
	gossip string
}

func (s space) start(t *testing.T, spec childSpec) *proc {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", s.name, os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &proc{spec: spec, events: make(chan childEvent, 1000), stdin: in, found: map[uint64]Sighting{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.events)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var e childEvent
			if err := json.Unmarshal(lines.Bytes(), &e); err == nil {
				p.events <- e
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		<-read
		if err := cmd.Wait(); err != nil {
			t.Errorf("child %d: %v", spec.ID, err)
		}
	})
	return p
}

// until takes events until ok says so.
func (p *proc) until(t *testing.T, what string, ok func(childEvent) bool) time.Duration {
	t.Helper()
	bound := time.After(60 * time.Second)
	for {
		select {
		case e, open := <-p.events:
			if !open {
				t.Fatalf("child %d ended before %s", p.spec.ID, what)
			}
			if e.Found != nil {
				p.found[e.Found.ID] = *e.Found
			}
			if e.Gossip != "" {
				p.gossip = e.Gossip
			}
			if ok(e) {
				return e.After
			}
		case <-bound:
			t.Fatalf("child %d waits for %s in vain; it knows %v", p.spec.ID, what, p.found)
		}
	}
}

// knows waits until p has found all others, and knows where they gossip.
func (p *proc) knows(t *testing.T, ids ...uint64) {
	t.Helper()
	after := p.until(t, fmt.Sprint(ids), func(childEvent) bool {
		return !slices.ContainsFunc(ids, func(id uint64) bool { return id != p.spec.ID && p.found[id].GossipAddr == "" })
	})
	t.Logf("%d knows %v after %v", p.spec.ID, ids, after)
}

func TestNetnsOnlyLoopback(t *testing.T) {
	s := newSpace(t, "lo")
	var procs []*proc
	for id := range uint64(3) {
		procs = append(procs, s.start(t, childSpec{ID: id + 1, Cluster: "c"}))
	}
	for _, p := range procs {
		p.knows(t, 1, 2, 3)
	}
	survey := s.start(t, childSpec{Cluster: "c", Survey: 3 * time.Second})
	survey.until(t, "findings", func(e childEvent) bool {
		if e.Findings != nil && (len(e.Findings.Known) != 3 || len(e.Findings.Strangers) > 0) {
			t.Errorf("a survey finds %+v", e.Findings)
		}
		return e.Findings != nil
	})
	for name, spec := range map[string]childSpec{"other cluster": {Cluster: "d"}, "other secret": {Cluster: "c", Secret: 1}} {
		spec.Survey = 3 * time.Second
		s.start(t, spec).until(t, "findings", func(e childEvent) bool {
			if e.Findings != nil && (len(e.Findings.Known) != 0 || len(e.Findings.Strangers) != 3) {
				t.Errorf("%s: a survey finds %+v", name, e.Findings)
			}
			return e.Findings != nil
		})
	}
}

func TestNetnsOneNetwork(t *testing.T) {
	hub := newHub(t, "hub")
	var procs []*proc
	for id := range uint64(3) {
		s := newSpace(t, fmt.Sprint("n", id+1))
		s.plug(t, hub, "eth0", fmt.Sprintf("10.77.0.%d/24", id+1))
		procs = append(procs, s.start(t, childSpec{ID: id + 1, Cluster: "c"}))
	}
	for _, p := range procs {
		p.knows(t, 1, 2, 3)
	}
	s := newSpace(t, "foe")
	s.plug(t, hub, "eth0", "10.77.0.9/24")
	foe := s.start(t, childSpec{ID: 9, Cluster: "c", Secret: 1})
	for _, p := range append(procs, foe) {
		p.until(t, "a stranger", func(e childEvent) bool { return e.Stranger != nil && e.Stranger.Reason == OtherSecret })
		if _, ok := p.found[9]; ok || p == foe && len(p.found) > 0 {
			t.Error("processes with different secrets found each other")
		}
	}
}

// A network that comes later is followed, and one whose address changes.
func TestNetnsNetworkComesAndMoves(t *testing.T) {
	hub := newHub(t, "hub")
	a, b := newSpace(t, "a"), newSpace(t, "b")
	a.plug(t, hub, "eth0", "10.77.0.1/24")
	first := a.start(t, childSpec{ID: 1, Cluster: "c"})
	second := b.start(t, childSpec{ID: 2, Cluster: "c"})
	second.until(t, "gossip on loopback", func(e childEvent) bool { return strings.HasPrefix(e.Gossip, "127.") })
	b.plug(t, hub, "eth0", "10.77.0.2/24")
	for _, p := range []*proc{first, second} {
		p.until(t, "the other, there", func(childEvent) bool {
			other := p.found[3-p.spec.ID]
			return strings.HasPrefix(other.GossipAddr, "10.77.0.")
		})
	}
	b.ip(t, "addr", "flush", "dev", "eth0", "scope", "global")
	b.ip(t, "addr", "add", "10.77.0.22/24", "dev", "eth0")
	first.until(t, "the other's new address", func(childEvent) bool {
		return strings.HasPrefix(first.found[2].GossipAddr, "10.77.0.22:")
	})
}

// Where multicast does not go, gossip does: 2 is on two networks, and tells those
// on each of the other's.
func TestNetnsGossipReachesFurther(t *testing.T) {
	one, two := newHub(t, "hub1"), newHub(t, "hub2")
	a, b, c := newSpace(t, "a"), newSpace(t, "b"), newSpace(t, "c")
	a.plug(t, one, "eth0", "10.77.0.1/24")
	b.plug(t, one, "eth0", "10.77.0.2/24")
	b.plug(t, two, "eth1", "10.78.0.2/24")
	c.plug(t, two, "eth0", "10.78.0.3/24")
	first := a.start(t, childSpec{ID: 1, Cluster: "c"})
	third := c.start(t, childSpec{ID: 3, Cluster: "c"})
	b.start(t, childSpec{ID: 2, Cluster: "c"}).knows(t, 1, 2, 3)
	first.knows(t, 1, 2, 3)
	third.knows(t, 1, 2, 3)
	for _, s := range []Sighting{first.found[3], third.found[1]} {
		if s.Source != "gossip" || s.From != "" {
			t.Errorf("%d was heard by %s from %q", s.ID, s.Source, s.From)
		}
	}
}
