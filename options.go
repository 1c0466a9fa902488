package concord

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/concord-kv/concord/internal/machine"
	"github.com/concord-kv/concord/internal/replica"
	"github.com/concord-kv/concord/internal/vfs"
	"github.com/concord-kv/concord/kv"
)

// Option changes how [Open] opens a member.
type Option func(*config)

// config is what the options make. The zero value of each field is its default.
type config struct {
	dir         string
	name        string
	peerAddr    string
	peers       map[string]string
	listener    net.Listener
	clientAddrs []string
	heartbeat   time.Duration
	election    time.Duration
	limits      kv.Limits
	snapshot    int64
	rejoin      bool
	hands       hands
	group       group
	peerTLS     peerTLS
	ears
	site
}

// Name names the member for people and among [Peers]; the default is "n1". A
// member of a [Cluster] has the host's name by default, with the port where that
// is not 2380, and keeps it.
func Name(name string) Option { return func(c *config) { c.name = name } }

// Peers makes the member one of a cluster whose founding members are known:
// names and peer addresses of all, this one included. own is the address to
// listen on (HOST:PORT); give the same list to every member.
func Peers(own string, all map[string]string) Option {
	return func(c *config) { c.peerAddr, c.peers = own, all }
}

// PeerListener gives the listener for other members, instead of one on the
// address of [Peers]. The member closes it.
func PeerListener(l net.Listener) Option { return func(c *config) { c.listener = l } }

// ClientAddrs are the addresses at which the program around the member serves
// clients; other members and clients learn them from the member list.
func ClientAddrs(addrs ...string) Option { return func(c *config) { c.clientAddrs = addrs } }

// Timing sets how often a leader is heard (default 100 ms) and how long a
// member waits for it before it campaigns (default 1 s; at least five
// heartbeats). They must be the same on all members. A zero keeps the default.
func Timing(heartbeat, election time.Duration) Option {
	return func(c *config) { c.heartbeat, c.election = heartbeat, election }
}

// Limits bounds what a request may ask; see [kv.Limits] for the defaults.
func Limits(l kv.Limits) Option { return func(c *config) { c.limits = l } }

// SnapshotEvery sets how many bytes of log make a new snapshot; the default is
// the larger of 64 MiB and the size of the last one, so that at most two bytes
// are written for each byte of data.
func SnapshotEvery(bytes int64) Option { return func(c *config) { c.snapshot = bytes } }

// Rejoin lets a member whose data directory is damaged, or new, join its cluster
// again under a new identity, as a learner that gets its data from the others
// and is then promoted. A damaged directory is renamed, not deleted; one that is
// sound is used as it is. It needs [Peers].
func Rejoin() Option { return func(c *config) { c.rejoin = true } }

// Logger receives the member's log; the default discards it.
func Logger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

// withFS replaces the file system, for tests.
func withFS(fs vfs.FS) Option { return func(c *config) { c.fs = fs } }

// withLevel makes the program one that understands another level, for tests.
func withLevel(level uint32) Option { return func(c *config) { c.hands.programLevel = level } }

// withStray makes the member's state go wrong, for tests.
func withStray(stray func(replica.Machine) replica.Machine) Option {
	return func(c *config) { c.hands.stray = stray }
}

// level is that of the commands and formats that this program understands.
func (c *config) level() uint32 { return cmp.Or(c.hands.programLevel, machine.ProgramLevel) }

// check fills defaults and tells what is wrong with the rest.
func (c *config) check() error {
	if c.dir == "" {
		return kv.Errorf(kv.InvalidArgument, "the data directory is empty; name one")
	}
	if c.name == "" && c.group.name == "" {
		c.name = "n1"
	}
	if c.heartbeat == 0 {
		c.heartbeat = 100 * time.Millisecond
	}
	if c.election == 0 {
		c.election = max(time.Second, 10*c.heartbeat)
	}
	if c.heartbeat < time.Millisecond || c.election < 5*c.heartbeat {
		return kv.Errorf(kv.InvalidArgument, "election timeout %v is under five heartbeat intervals of %v; raise it, or heartbeat oftener", c.election, c.heartbeat)
	}
	c.limits = c.limits.WithDefaults()
	if c.limits.KeyBytes < 1 || c.limits.KeyBytes > 64<<10 {
		return kv.Errorf(kv.InvalidArgument, "key limit of %d bytes is out of range; use 1 to 65536", c.limits.KeyBytes)
	}
	if c.limits.Depth > machine.MaxDepth {
		return kv.Errorf(kv.InvalidArgument, "nesting limit of %d is out of range; use 1 to %d", c.limits.Depth, machine.MaxDepth)
	}
	if c.limit != 0 && c.limit < leastMemory {
		return kv.Errorf(kv.InvalidArgument, "memory limit of %d bytes is out of range; use %d MiB or more, or 0 for none", c.limit, leastMemory>>20)
	}
	if c.logger == nil {
		c.logger = slog.New(slog.DiscardHandler)
	}
	if c.fs == nil {
		c.fs = vfs.OS()
	}
	if err := c.group.check(c); err != nil {
		return err
	}
	return c.checkPeers()
}

// together tells whether the member is one of several, or may become one.
func (c *config) together() bool { return c.peers != nil || c.group.name != "" }

// checkPeers tells what is wrong with a list of peers.
func (c *config) checkPeers() error {
	if c.peers == nil {
		if c.rejoin && c.group.name == "" {
			return kv.Errorf(kv.InvalidArgument, "a member without peers has nobody to rejoin; restore a backup with 'concord backup restore'")
		}
		return nil
	}
	if c.hands.reserved && len(c.peers) < 2 {
		return kv.Errorf(kv.InvalidArgument, "a member that was added to a cluster has nobody to ask; the list of peers must name others, too")
	}
	if _, ok := c.peers[c.name]; !ok {
		return kv.Errorf(kv.InvalidArgument, "member %q is not among its peers; the list must name every member, this one too", c.name)
	}
	addrs := map[string]string{}
	for name, addr := range c.peers {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return kv.Errorf(kv.InvalidArgument, "peer %s: address %q is no HOST:PORT", name, addr)
		}
		if other, ok := addrs[addr]; ok {
			return kv.Errorf(kv.InvalidArgument, "peers %s and %s have one address, %s", other, name, addr)
		}
		addrs[addr] = name
	}
	if c.peerAddr == "" && c.listener == nil {
		return fmt.Errorf("peers are given but no address to listen on: %w", errNoPeerAddr)
	}
	return nil
}

var errNoPeerAddr = kv.Errorf(kv.InvalidArgument, "give this member's own peer address")
