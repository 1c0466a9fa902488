package concord

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/concord-kv/concord/internal/discovery"
	"github.com/concord-kv/concord/internal/memberfile"
	"github.com/concord-kv/concord/kv"
)

// circle is what a member of a [Cluster] knows of the others from discovery: who
// they say they are, and where. All of it is a hint: whoever is met there has to
// prove itself to the transport.
type circle struct {
	found *discovery.Discovery
	self  atomic.Pointer[discovery.Announcement]
	// hear is told of every process that is new or elsewhere.
	hear func(addrs ...string)
	node *Node

	mu      sync.Mutex
	changed chan struct{} // closed when another has taken its place
}

var _ discovery.Handler = (*circle)(nil)

// gather starts to look for the other processes of the cluster. What this one
// says of itself follows the file that it was started with, until belong.
func (n *Node) gather(id memberfile.File, at net.Addr, h *peerHandler) error {
	g := &n.cfg.group
	if len(g.advertise) == 0 {
		addrs, err := discovery.Advertise(at.String())
		if err != nil {
			return fmt.Errorf("find the addresses of this machine: %w; say at which address others reach this member", err)
		}
		g.advertise = addrs
	}
	c := &circle{node: n, changed: make(chan struct{}), hear: h.learn}
	c.self.Store(&discovery.Announcement{
		ClusterID: id.Cluster, ID: id.ID, Name: n.cfg.name, PeerAddrs: g.advertise,
		ClientAddrs: n.cfg.clientAddrs, Incarnation: id.Incarnation, Version: Version,
	})
	cfg := discovery.Config{
		Cluster: g.name, Self: func() discovery.Announcement { return *c.self.Load() }, Handler: c,
		Seal: g.keys.Beacon(), GossipKeys: g.keys.Gossip(),
		Multicast: discovery.Multicast{Off: g.unicast}, Gossip: discovery.Gossip{Addr: g.gossip},
		Seeds: discovery.Seeds{Addrs: g.seeds, DNS: g.dns, File: g.seedsFile},
		Ask:   n.askWho, Logger: n.log,
	}
	var err error
	if c.found, err = discovery.New(cfg); err != nil {
		return kv.Errorf(kv.InvalidArgument, "%w", err)
	}
	n.circle = c
	h.circle.Store(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.found.Run(ctx) // which never fails
	}()
	n.onClose("discovery", func() error {
		cancel()
		<-ended
		return nil
	})
	return nil
}

// Found implements discovery.Handler.
func (c *circle) Found(s discovery.Sighting) {
	c.hear(reached(s)...)
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Conflict implements discovery.Handler.
func (c *circle) Conflict(x discovery.Conflict) {
	switch x.Kind {
	case discovery.TwoClusters:
		c.node.log.Error("another cluster of this name and secret is in reach; they will never be one: give one of them another name, or end it and start its members on new directories, and they join this one",
			"cluster", kv.ClusterID(x.A.ClusterID), "other", kv.ClusterID(x.B.ClusterID), "member", x.B.Name, "addresses", x.B.PeerAddrs)
	case discovery.Twin:
		c.node.log.Error("another process has this member's id: one data directory is a copy of the other; end one of them and give it an empty directory",
			"id", kv.MemberID(x.B.ID), "member", x.B.Name, "addresses", x.B.PeerAddrs)
	}
}

// Stranger implements discovery.Handler.
func (c *circle) Stranger(s discovery.Stranger) {
	c.node.log.Info("a process that does not belong here was heard", "its-cluster", s.Cluster, "reason", s.Reason, "address", s.Addr, "by", s.Source)
}

// answer tells another process who this one is.
func (c *circle) answer() ([]byte, error) {
	if c == nil {
		return nil, errNotStarted
	}
	return json.Marshal(c.found.Self())
}

// askWho asks the process at addr who it is.
func (n *Node) askWho(ctx context.Context, addr string) (a discovery.Announcement, err error) {
	answer, err := n.transport.Call(ctx, addr, []byte{callWho})
	if err != nil {
		return a, err
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return a, fmt.Errorf("answer of the process at %s: %w", addr, err)
	}
	return a, nil
}

// belong says to which cluster this process belongs from now on.
func (c *circle) belong(cluster uint64) {
	if c == nil {
		return
	}
	a := *c.self.Load()
	a.ClusterID = cluster
	c.self.Store(&a)
	c.found.Announce()
}

// others are the addresses of all that were heard of.
func (c *circle) others() (addrs []string) {
	if c == nil {
		return nil
	}
	for _, s := range c.found.Known() {
		addrs = append(addrs, reached(s)...)
	}
	return addrs
}

// addrs is where a member of this cluster said it is.
func (c *circle) addrs(id kv.MemberID) []string {
	if c == nil {
		return nil
	}
	known := c.found.Known()
	i := slices.IndexFunc(known, func(s discovery.Sighting) bool { return kv.MemberID(s.ID) == id })
	if i < 0 || known[i].ClusterID != c.self.Load().ClusterID {
		return nil
	}
	return reached(known[i])
}

// reached are the addresses at which a process says it is, and the one at which
// it has answered, which may be another where addresses are translated.
func reached(s discovery.Sighting) []string {
	if s.Source != discovery.SourceSeeds || slices.Contains(s.PeerAddrs, s.From) {
		return s.PeerAddrs
	}
	return append(slices.Clip(s.PeerAddrs), s.From)
}

// news is closed when somebody was heard of anew; nil without discovery.
func (c *circle) news() <-chan struct{} {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}
