package discovery

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// Times of gossip.
const (
	// tending is how often others are looked for that this process does not
	// gossip with yet.
	tending = time.Second
	// settled is how often a process of a cluster looks whether its own address
	// is still this machine's; one that waits for a cluster does so every time.
	settled = 10 * time.Second
	// goodbye is how long saying it may take: a turn or two of gossip, each of
	// 200 ms. Who does not hear it finds out.
	goodbye = 300 * time.Millisecond
	// streamTime bounds a connection in which all is exchanged.
	streamTime = 5 * time.Second
	// mostJoins is how many processes are joined at a time.
	mostJoins = 8
)

// everywhere is every address to listen at, IPv6's too where there are such.
const everywhere = "0.0.0.0"

// gossip is hashicorp/memberlist, an implementation of SWIM (Das, Gupta,
// Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group
// Membership Protocol", DSN 2002). Announcements travel as broadcasts and in the
// exchange of all state; of its own failure detector only signs of life are used.
type gossip struct {
	cfg      Gossip
	keys     *memberlist.Keyring
	board    *board
	problems *problems
	logger   *slog.Logger
	machine  machine
	changed  chan struct{} // there is something new, of this process or another
	queue    *memberlist.TransmitLimitedQueue

	mu      sync.Mutex
	members func() int // how many gossip, in the present session
}

func gossipSources(d *Discovery) ([]source, error) {
	cfg := d.cfg.Gossip
	if cfg.Off || len(d.cfg.GossipKeys) == 0 {
		return nil, nil
	}
	if err := checkGossipKeys(d.cfg.GossipKeys); err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(d.cfg.GossipKeys, d.cfg.GossipKeys[0])
	if err != nil {
		return nil, err
	}
	d.keyring = ring
	if cfg.Addr != "" {
		if _, _, err := splitListen(cfg.Addr); err != nil {
			return nil, err
		}
	}
	if _, err := netip.ParseAddrPort(cfg.Advertise); cfg.Advertise != "" && err != nil {
		return nil, fmt.Errorf("gossip address %q to advertise: %w", cfg.Advertise, err)
	}
	g := &gossip{
		cfg: cfg, keys: ring, board: d.board, problems: d.problems, logger: d.cfg.Logger,
		machine: machine{interfaces, outgoing}, changed: make(chan struct{}, 1), members: func() int { return 1 },
	}
	g.queue = &memberlist.TransmitLimitedQueue{NumNodes: g.count, RetransmitMult: memberlist.DefaultLANConfig().RetransmitMult}
	d.board.announcers = append(d.board.announcers, func() { poke(g.changed) })
	d.board.relays = append(d.board.relays, func(a Announcement, age time.Duration) {
		g.broadcast(a, age)
		poke(g.changed) // it may be one to join
	})
	return []source{g}, nil
}

// splitListen reads the address to listen at.
func splitListen(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("gossip address %q: %w", addr, err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("gossip address %q has no port", addr)
	}
	if host == "" {
		host = everywhere
	}
	if net.ParseIP(host) == nil {
		return "", 0, fmt.Errorf("gossip address %q: its host is no IP address", addr)
	}
	return host, int(n), nil
}

func (g *gossip) name() string { return "gossip" }

func (g *gossip) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members()
}

// errMoved ends a session whose address is not this machine's any more.
var errMoved = errors.New("the address of this machine has changed")

// run gossips at one address of this machine.
func (g *gossip) run(ctx context.Context) error {
	err := g.session(ctx)
	for errors.Is(err, errMoved) && ctx.Err() == nil {
		g.logger.Info("discovery: gossip moves to another address of this machine")
		err = g.session(ctx)
	}
	return err
}

func (g *gossip) session(ctx context.Context) (err error) {
	w, err := g.listen()
	if err != nil {
		return err
	}
	at, err := g.advertised(w.GetAutoBindPort())
	if err != nil {
		return errors.Join(err, w.Shutdown())
	}
	self, _ := g.board.speak()
	list, err := memberlist.Create(g.config(self.ID, at, w))
	if err != nil {
		return errors.Join(err, w.Shutdown())
	}
	g.use(list.NumMembers)
	g.board.gossips(at.String())
	g.problems.note(g.name(), "", nil)
	defer func() {
		g.board.gossips("")
		if late := list.Leave(goodbye); late != nil {
			g.logger.Debug("discovery: nobody heard that gossip ends", "error", late)
		}
		g.use(func() int { return 1 })
		err = errors.Join(err, list.Shutdown())
	}()
	return g.tend(ctx, list, w, at)
}

// use says how many gossip in the present session.
func (g *gossip) use(count func() int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.members = count
}

// listen opens the ports.
func (g *gossip) listen() (*wire, error) {
	if g.cfg.Addr != "" {
		host, port, err := splitListen(g.cfg.Addr)
		if err != nil {
			return nil, err
		}
		return newWire(host, port, g.quiet())
	}
	return g.listenDefault(everywhere, DefaultGossipPort)
}

// listenDefault opens the port, or another where that is taken.
func (g *gossip) listenDefault(host string, port int) (*wire, error) {
	w, err := newWire(host, port, g.quiet())
	if err == nil {
		return w, nil
	}
	w, second := newWire(host, 0, g.quiet())
	if second != nil {
		return nil, second
	}
	g.logger.Info("discovery: gossip takes another port", "port", w.GetAutoBindPort(), "because", err)
	return w, nil
}

// advertised is where others reach this process.
func (g *gossip) advertised(port int) (netip.AddrPort, error) {
	all, err := g.reachable(port)
	if err == nil && len(all) == 0 {
		err = errors.New("this machine has no address to gossip at")
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	return all[0], nil
}

// reachable lists all addresses at which others reach this process.
func (g *gossip) reachable(port int) ([]netip.AddrPort, error) {
	at := g.cfg.Advertise
	if at == "" {
		host, _, _ := net.SplitHostPort(g.cfg.Addr) // it was checked; none is every address
		at = net.JoinHostPort(host, strconv.Itoa(port))
	}
	list, err := advertise(at, g.machine)
	if err != nil {
		return nil, err
	}
	out := make([]netip.AddrPort, len(list))
	for i, addr := range list {
		if out[i], err = netip.ParseAddrPort(addr); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// config is memberlist's, for a local network. The name is the process's id and
// a number drawn anew: memberlist lets no name that is in use have another
// address.
func (g *gossip) config(id uint64, at netip.AddrPort, w *wire) *memberlist.Config {
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = fmt.Sprintf("%016x-%08x", id, rand.Uint32())
	cfg.Keyring = g.keys // of all sessions: it follows SetGossipKeys
	cfg.Transport = w
	cfg.AdvertiseAddr, cfg.AdvertisePort = at.Addr().String(), int(at.Port())
	cfg.TCPTimeout = streamTime
	cfg.EnableCompression = false // what is sent is small
	cfg.Delegate = delegate{g}
	cfg.Logger = g.quiet()
	return cfg
}

// idOf reads the id in a name that config made; 0 is another name.
func idOf(name string) uint64 {
	text, _, _ := strings.Cut(name, "-")
	id, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return 0
	}
	return id
}

// quiet is a logger for memberlist, which logs what strangers do and what tending
// mends.
func (g *gossip) quiet() *log.Logger { return log.New(lines{g.logger}, "", 0) }

// lines logs each line that it is given.
type lines struct{ to *slog.Logger }

func (l lines) Write(p []byte) (int, error) {
	l.to.Debug("discovery: gossip", "text", strings.TrimSpace(string(p)))
	return len(p), nil
}

// tend keeps this process in touch with all that are known, until ctx ends or
// its own address is gone.
func (g *gossip) tend(ctx context.Context, list *memberlist.Memberlist, w *wire, at netip.AddrPort) error {
	j := joiner{list: list, problems: g.problems, ended: func() bool { return w.ctx.Err() != nil }, next: map[string]attempt{}, running: make(chan struct{}, mostJoins)}
	defer j.wg.Wait()
	defer w.interrupt()
	ticker := time.NewTicker(tending)
	defer ticker.Stop()
	told, looked := uint64(0), time.Now()
	for {
		if self, ok := g.board.speak(); ok && self.Stamp != told {
			g.broadcast(self, 0)
			told = self.Stamp
		}
		met := map[uint64]bool{}
		for _, n := range list.Members() {
			met[idOf(n.Name)] = true
		}
		j.join(g.board.gossipers(met))
		if since := time.Since(looked); since >= settled || since >= tending/2 && g.board.alone() {
			looked = time.Now()
			if all, err := g.reachable(int(at.Port())); err == nil && !slices.Contains(all, at) {
				return errMoved
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-g.changed:
		case <-ticker.C:
		}
	}
}
