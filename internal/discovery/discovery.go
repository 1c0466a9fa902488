// Package discovery finds the other processes of a cluster, and tells who they
// say they are and where. It decides nothing: who founds a cluster, who is let in
// and who is a member is up to others, and whoever is met at an address has to
// prove itself to the transport.
//
// All sources run at once, and what one of them cannot do ends neither the others
// nor itself; it is logged once and tried again:
//
//   - a beacon by multicast, on every interface and on loopback, over IPv4 and
//     IPv6: who has the same cluster name and secret on one network or one
//     machine finds the others without being told anything;
//   - gossip, by hashicorp/memberlist: everything known travels to everyone, also
//     where multicast does not;
//   - seeds, which are addresses that a person gave, names in DNS and a file; each
//     is asked who is there.
//
// Everything that is known has a bound, and is forgotten when it was not heard of
// for a while.
package discovery

import (
	"context"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Config configures a Discovery. Cluster and Self are required; a source without
// what it needs is not there.
type Config struct {
	// Cluster is the name that the processes share: at most [MaxName] bytes of
	// printable text.
	Cluster string
	// Self returns what this process says of itself now; Cluster, GossipAddr and
	// Stamp are filled in. It is read whenever something is sent, by one
	// goroutine at a time, and must not call back.
	Self func() Announcement
	// Handler is told what is found; none is allowed.
	Handler Handler
	// Seal keys the beacon; without it there is none.
	Seal cipher.AEAD
	// GossipKeys, of 32 bytes each, key gossip: the first encrypts, any of them
	// decrypts. Without one there is no gossip. See [Discovery.SetGossipKeys].
	GossipKeys [][]byte
	// Multicast says where the beacon is heard.
	Multicast Multicast
	// Gossip says where this process gossips.
	Gossip Gossip
	// Seeds says where to ask. It needs Ask.
	Seeds Seeds
	// Ask asks the process at a peer address who it is, in the way in which peers
	// prove themselves. It is called concurrently, must return when ctx ends, and
	// gets 5 s.
	Ask func(ctx context.Context, peerAddr string) (Announcement, error)
	// Logger is told what cannot be done, once per change; default none.
	Logger *slog.Logger
}

// Multicast is where the beacon is sent to and heard. The zero value is the
// default groups and port, on every interface that is up.
type Multicast struct {
	// Off means no beacon.
	Off bool
	// IPv4 and IPv6 are the groups; default [DefaultIPv4] and [DefaultIPv6]. A
	// group with an invalid address is the default's.
	IPv4, IPv6 netip.Addr
	// Port is UDP's; 0 means [DefaultMulticastPort].
	Port int
}

// Gossip is where this process gossips. The zero value is the default port on
// every address.
type Gossip struct {
	// Off means no gossip.
	Off bool
	// Addr is HOST:PORT to listen at, TCP and UDP. Empty means port
	// [DefaultGossipPort] of every address, or any free one where that is taken.
	// HOST is an IP address, or empty for every address; port 0 is any free one.
	Addr string
	// Advertise is the IP:PORT at which others reach it; empty means where it
	// listens, at the first address that [Advertise] gives.
	Advertise string
}

// Seeds is where to ask who is there.
type Seeds struct {
	// Addrs are peer addresses, HOST or HOST:PORT; without a port it is
	// [DefaultPeerPort]. All addresses of a host are asked.
	Addrs []string
	// DNS are names to look up: _service._proto.NAME for SRV records with ports
	// of their own; NAME:PORT for A and AAAA records; NAME for both, as
	// _concord-peer._tcp.NAME and with [DefaultPeerPort].
	DNS []string
	// File is a path of a file with an address, as in Addrs, in each line. What
	// follows a # is a comment. It need not be there, and is read again when it
	// changes.
	File string
	// Resolver asks DNS; default [net.DefaultResolver].
	Resolver Resolver
}

// Resolver is what seeds need of DNS; [*net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupSRV(ctx context.Context, service, proto, name string) (cname string, addrs []*net.SRV, err error)
}

// Defaults.
const (
	// DefaultPeerPort is of a seed that is given without one.
	DefaultPeerPort = 2380
	// DefaultGossipPort is memberlist's own.
	DefaultGossipPort = 7946
	// DefaultMulticastPort is UDP's for the beacon.
	DefaultMulticastPort = 2384
	// DefaultIPv4 is the beacon's group: of the organization-local scope that is
	// for private use (RFC 2365, section 6.2). The beacon's time to live of 1
	// keeps it on the local network.
	DefaultIPv4 = "239.192.67.78"
	// DefaultIPv6 is the beacon's group: link-local, of the transient ones that
	// need no registration (RFC 4291, section 2.7).
	DefaultIPv6 = "ff12::434e:4344"
)

// Handler is told what is found. One call is made at a time; it may take its
// time, and hears only of the latest state then.
type Handler interface {
	// Found tells of another process of the cluster when it is new, or says
	// something new. One that is not heard of any more is not told of.
	Found(Sighting)
	// Conflict tells of what must not be, once for each pair until it has been
	// forgotten.
	Conflict(Conflict)
	// Stranger tells of a process that does not belong here, once for each until
	// it has been forgotten.
	Stranger(Stranger)
}

// SourceSeeds is the Source of what a process has said that was asked at its peer
// address, which then stands in From.
const SourceSeeds = "seeds"

// Sighting is another process of the cluster, as it was heard of last.
type Sighting struct {
	Announcement
	// Source heard it: multicast4, multicast6, gossip or seeds.
	Source string
	// From is where it was heard: the sender's address, or the peer address that
	// was asked; empty when another process told of it.
	From string
	// Heard is when the process is known to have been there last.
	Heard time.Time
}

// Conflict is two processes that exclude each other.
type Conflict struct {
	Kind ConflictKind
	// A is this process where it is one of the two.
	A, B Announcement
}

// ConflictKind is what is wrong.
type ConflictKind string

const (
	// TwoClusters means that A and B have one name and one secret, and belong to
	// two clusters. They will never be one.
	TwoClusters ConflictKind = "two clusters of one name and secret"
	// Twin means that B says it is this process: its data directory is a copy of
	// this one's, or it is the same.
	Twin ConflictKind = "two processes of one id"
)

// Stranger is a process that does not belong to this cluster.
type Stranger struct {
	// Cluster is the name that it says it belongs to.
	Cluster string
	Reason  Reason
	// Addr is where it was heard.
	Addr   string
	Source string
	Heard  time.Time
}

// Reason is why a stranger is one.
type Reason string

const (
	// OtherCluster means that it has another cluster name.
	OtherCluster Reason = "another cluster name"
	// OtherSecret means that it has the same cluster name, and what it sends was
	// not made with the same secret.
	OtherSecret Reason = "the same cluster name, another secret"
)

// Problem is what a source cannot do at present.
type Problem struct {
	Source string
	// Target is the address, name, file or interface that it is about; empty when
	// it is the source.
	Target string
	Err    error
	Since  time.Time
}

// Discovery is one process's. All methods may be called concurrently.
type Discovery struct {
	cfg      Config
	sources  []source
	board    *board
	problems *problems
	keyring  *memberlist.Keyring // nil without gossip
}

// source is one way to find others.
type source interface {
	// name is one word, for logs.
	name() string
	// run finds others until ctx ends. An error is one that it could do nothing
	// about; it is run again after a while.
	run(ctx context.Context) error
}

// New checks cfg, and does nothing yet.
func New(cfg Config) (*Discovery, error) {
	if cfg.Cluster == "" || !speakable(cfg.Cluster) {
		return nil, fmt.Errorf("cluster name %q: it has 1 to %d bytes of printable text", cfg.Cluster, MaxName)
	}
	if cfg.Self == nil {
		return nil, errors.New("discovery needs to know what this process says of itself")
	}
	return newDiscovery(cfg)
}

func newDiscovery(cfg Config) (*Discovery, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Discovery{cfg: cfg, problems: newProblems(cfg.Logger)}
	d.board = newBoard(cfg, func(err error) { d.problems.note("self", "", err) })
	for _, make := range []func(*Discovery) ([]source, error){multicastSources, gossipSources, seedSources} {
		made, err := make(d)
		if err != nil {
			return nil, err
		}
		d.sources = append(d.sources, made...)
	}
	return d, nil
}

// Run finds others until ctx ends, and returns nil when everything it started
// has ended. It says goodbye to those it gossips with, which takes 0.3 s at most.
// It may be called once.
func (d *Discovery) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, s := range d.sources {
		wg.Go(func() { d.keepRunning(ctx, s) })
	}
	wg.Go(func() { d.board.dispatch(ctx) })
	wg.Wait()
	return nil
}

// Bounds of the time after which a source that has failed is run again.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// keepRunning runs a source again and again until ctx ends.
func (d *Discovery) keepRunning(ctx context.Context, s source) {
	for pause := firstRetry; ctx.Err() == nil; pause = min(2*pause, lastRetry) {
		began := time.Now()
		err := s.run(ctx)
		if ctx.Err() != nil {
			return
		}
		d.problems.note(s.name(), "", err)
		if time.Since(began) > lastRetry {
			pause = firstRetry
		}
		select {
		case <-ctx.Done():
		case <-time.After(jitter(pause)):
		}
	}
}

// Announce has all sources tell the others at once what Self returns now. It
// does not wait for them.
func (d *Discovery) Announce() { d.board.announce() }

// Self is what this process says of itself now, complete with what is filled in:
// what to answer when another one's [Config.Ask] asks.
func (d *Discovery) Self() Announcement {
	a, _ := d.board.speak()
	return a
}

// Known returns the other processes of the cluster that were heard of within
// the last ten minutes, by id.
func (d *Discovery) Known() []Sighting { return d.board.list() }

// Strangers returns the processes that do not belong here, and were heard of
// within the last ten minutes, by cluster name and address.
func (d *Discovery) Strangers() []Stranger { return d.board.strange() }

// Problems returns what cannot be done at present, by source and target.
func (d *Discovery) Problems() []Problem { return d.problems.list() }

// GossipAddr is where this process gossips, as IP:PORT; empty when it does not.
func (d *Discovery) GossipAddr() string { return d.board.gossipAddr() }
