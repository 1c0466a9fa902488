package concord

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/concord-kv/concord/internal/secret"
	"github.com/concord-kv/concord/kv"
)

// group is how a member finds the others of its cluster by itself. The zero
// value is a member that does not.
type group struct {
	name   string
	size   int
	secret string
	keys   *secret.Ring // of the lines of secret, or of the file's

	secretFile string
	pace       secretPace

	listen    string
	advertise []string
	gossip    string
	seeds     []string
	dns       []string
	seedsFile string
	unicast   bool // no multicast
	listening time.Duration
}

// ClusterOption changes how a member finds its [Cluster].
type ClusterOption func(*group)

// Cluster makes the member one of the cluster of that name: processes that were
// started with the same name and [Secret] find each other, found one cluster,
// and whoever comes later joins it. A member that has been in one goes back to
// it, at whatever address the others are now. The same options may be given at
// every start, by every process.
//
// By default processes are looked for on the local network and on this machine,
// by multicast and gossip; [Join], [JoinDNS] and [JoinFile] say where else.
func Cluster(name string, opts ...ClusterOption) Option {
	return func(c *config) {
		c.group.name = name
		for _, opt := range opts {
			opt(&c.group)
		}
	}
}

// Secret is what all processes of a [Cluster] know, and nobody else: at least 16
// bytes, such as 'concord secret' makes. Members and gossip are encrypted and
// authenticated with keys made from it. Where it has several lines, each is a
// secret: the first is used, all are accepted; see [SecretFile]. With [Peers] members speak TLS with such
// keys, where [PeerTLS] does not say otherwise.
func Secret(s string) Option { return func(c *config) { c.group.secret = s } }

// NewSecret makes a secret of 130 random bits, of letters and digits.
func NewSecret() string { return secret.New() }

// Size is how many processes found the cluster; the default is 3. All must be
// started with the same size, and it has to be more than half of the processes
// that are started without data: then there cannot be two clusters, whatever
// the network does. A cluster has as many voters as it was founded with, until
// its settings say otherwise.
func Size(n int) ClusterOption { return func(g *group) { g.size = n } }

// Join names peer addresses (HOST or HOST:PORT, by default port 2380) at which
// others may be found. One that can be reached is enough; this member's own may
// be among them.
func Join(addrs ...string) ClusterOption {
	return func(g *group) { g.seeds = append(g.seeds, addrs...) }
}

// JoinDNS names what to look for others in: names with A or AAAA records (NAME
// or NAME:PORT, by default port 2380), such as that of a headless service of
// Kubernetes, or with SRV records (_concord-peer._tcp.NAME).
func JoinDNS(names ...string) ClusterOption {
	return func(g *group) { g.dns = append(g.dns, names...) }
}

// JoinFile names a file with a peer address in each line, as for [Join]. It is
// read again when it changes.
func JoinFile(path string) ClusterOption { return func(g *group) { g.seedsFile = path } }

// Listen sets the address for other members; the default is :2380, or the next
// free port when another process has that. advertise are the addresses at which
// others reach it, by default those of this machine's interfaces.
func Listen(addr string, advertise ...string) ClusterOption {
	return func(g *group) { g.listen, g.advertise = addr, advertise }
}

// Gossip sets the address for gossip, TCP and UDP; the default is port 7946, or
// another that is free, on every address of this machine.
func Gossip(addr string) ClusterOption { return func(g *group) { g.gossip = addr } }

// NoMulticast has the member look for others only where it is told to.
func NoMulticast() ClusterOption { return func(g *group) { g.unicast = true } }

// ListenFirst is how long a process of a cluster of [Size] one listens for a
// cluster that is there already, before it founds its own; the default is 3 s.
func ListenFirst(d time.Duration) ClusterOption { return func(g *group) { g.listening = d } }

const (
	defaultSize = 3
	maxSize     = 99
)

// check fills defaults and tells what is wrong with the rest.
func (g *group) check(c *config) error {
	if err := g.loadSecret(); err != nil {
		return err
	}
	if g.secret != "" || g.secretFile != "" {
		var err error
		if g.keys, err = secret.NewRing(g.name, g.secret); err != nil {
			return kv.Errorf(kv.InvalidArgument, "%w", err)
		}
		if c.peerTLS.server == nil {
			c.peerTLS = peerTLS{g.keys.Server(), g.keys.Client, new(peerConns)}
		}
	}
	if g.name == "" {
		return nil
	}
	g.size = cmp.Or(g.size, defaultSize)
	switch {
	case c.peers != nil:
		return kv.Errorf(kv.InvalidArgument, "a member with a list of peers does not look for others; give it the list or the name of its cluster, not both")
	case c.hands.byHand:
		return kv.Errorf(kv.InvalidArgument, "a member of a cluster that forms itself is not run by hand; give it a list of peers instead of the cluster's name")
	case g.keys == nil:
		return kv.Errorf(kv.InvalidArgument, "cluster %q has no secret, and anybody could join it; make one with 'concord secret' and give it to all members", g.name)
	case g.size < 1 || g.size > maxSize:
		return kv.Errorf(kv.InvalidArgument, "a cluster founded by %d processes is out of range; use 1 to %d, best 3 or 5", g.size, maxSize)
	case strings.ContainsFunc(g.name, func(r rune) bool { return r <= ' ' || r == '/' || r == 0x7f }) || len(g.name) > 100:
		return kv.Errorf(kv.InvalidArgument, "cluster name %q is no name; use at most 100 letters, digits and dashes", g.name)
	}
	for _, addr := range g.advertise {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return kv.Errorf(kv.InvalidArgument, "advertised address %q is no HOST:PORT", addr)
		}
	}
	return nil
}

// basePort is where members listen by default, and how many ports after it are
// tried before any free one is taken.
const (
	basePort   = 2380
	portsAfter = 9
	portStep   = 100
)

// open listens for other members.
func (g *group) open() (net.Listener, error) {
	if g.listen != "" {
		return net.Listen("tcp", g.listen)
	}
	for i := range portsAfter + 1 {
		if l, err := net.Listen("tcp", fmt.Sprintf(":%d", basePort+i*portStep)); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", ":0")
}

// defaultName is the host's, with the port where that is not the usual one, so
// that several processes of a host have different names, and the same ones after
// they have lost their disks.
func defaultName(at net.Addr) string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "member"
	}
	host, _, _ = strings.Cut(host, ".")
	if addr, ok := at.(*net.TCPAddr); ok && addr.Port != basePort {
		return fmt.Sprintf("%s-%d", host, addr.Port)
	}
	return host
}
