package discovery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Times and bounds of seeds.
const (
	// seedsForming is how often a process asks that waits for a cluster, or
	// knows nobody.
	seedsForming = 2 * time.Second
	// seedsFormed is how often one asks that belongs to a cluster.
	seedsFormed = 30 * time.Second
	// askTime is how long the answer of one may take, or of DNS.
	askTime = 5 * time.Second
	// mostAsked is how many addresses are asked in a round, and mostAsking how
	// many at a time.
	mostAsked  = 256
	mostAsking = 16
	// maxFile is the most bytes that are read of a file of seeds.
	maxFile = 64 << 10
	// peerService is the name of peers in SRV records.
	peerService = "_concord-peer._tcp."
)

// seeds asks at the addresses that it was given, found in DNS, or in a file.
type seeds struct {
	cfg      Seeds
	ask      func(context.Context, string) (Announcement, error)
	board    *board
	problems *problems
	news     chan struct{}
}

func seedSources(d *Discovery) ([]source, error) {
	cfg := d.cfg.Seeds
	if len(cfg.Addrs) == 0 && len(cfg.DNS) == 0 && cfg.File == "" {
		return nil, nil
	}
	if d.cfg.Ask == nil {
		return nil, errors.New("there are seeds, and no way to ask them")
	}
	for _, addr := range cfg.Addrs {
		if _, _, err := splitSeed(addr); err != nil {
			return nil, err
		}
	}
	for _, name := range cfg.DNS {
		if _, _, err := splitSeed(name); err != nil {
			return nil, err
		}
	}
	if cfg.Resolver == nil {
		cfg.Resolver = net.DefaultResolver
	}
	s := &seeds{cfg: cfg, ask: d.cfg.Ask, board: d.board, problems: d.problems, news: make(chan struct{}, 1)}
	d.board.announcers = append(d.board.announcers, func() { poke(s.news) })
	return []source{s}, nil
}

// splitSeed reads HOST or HOST:PORT; port is empty for the former.
func splitSeed(addr string) (host, port string, err error) {
	host = addr
	if ip := net.ParseIP(strings.Trim(addr, "[]")); ip != nil {
		host = ip.String()
	} else if strings.Contains(addr, ":") {
		if host, port, err = net.SplitHostPort(addr); err != nil {
			return "", "", fmt.Errorf("address %q is no HOST or HOST:PORT: %w", addr, err)
		}
	}
	switch {
	case host == "" || strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' }):
		return "", "", fmt.Errorf("address %q is no HOST or HOST:PORT", addr)
	case port != "" && !isAddr(net.JoinHostPort(host, port)):
		return "", "", fmt.Errorf("address %q has no port from 1 to 65535", addr)
	}
	return host, port, nil
}

func (s *seeds) name() string { return SourceSeeds }

// run asks, until ctx ends.
func (s *seeds) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.news: // the pause may be another now
		case <-timer.C:
			s.round(ctx)
		}
		pause := seedsForming
		if !s.board.alone() && len(s.board.list()) > 0 {
			pause = seedsFormed
		}
		timer.Reset(jitter(pause))
	}
}

// round looks everything up, and asks all that were found, each once.
func (s *seeds) round(ctx context.Context) {
	r := &round{seeds: s, targets: map[string]bool{}, found: map[string]bool{}}
	hosts := slices.Clone(s.cfg.Addrs)
	if s.cfg.File != "" {
		lines, err := readSeeds(s.cfg.File)
		r.note(ctx, s.cfg.File, err)
		hosts = append(hosts, lines...)
	}
	var wg sync.WaitGroup
	running := make(chan struct{}, mostAsking)
	limited := func(f func()) {
		running <- struct{}{}
		wg.Go(func() {
			defer func() { <-running }()
			f()
		})
	}
	for _, host := range hosts {
		limited(func() { r.note(ctx, host, r.resolve(ctx, host)) })
	}
	for _, name := range s.cfg.DNS {
		limited(func() { r.note(ctx, name, r.lookUp(ctx, name)) })
	}
	wg.Wait()
	for _, addr := range slices.Sorted(maps.Keys(r.found)) {
		limited(func() { r.note(ctx, addr, s.question(ctx, addr)) })
	}
	wg.Wait()
	s.problems.keep(s.name(), func(target string) bool { return r.targets[target] })
}

// question asks one address who is there.
func (s *seeds) question(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	a, err := s.ask(ctx, addr)
	if err != nil {
		return err
	}
	if a.Cluster != s.board.cluster {
		if speakable(a.Cluster) {
			s.board.meet(Stranger{Cluster: a.Cluster, Reason: OtherCluster, Addr: addr, Source: s.name()}, addr)
		}
		return fmt.Errorf("is of cluster %q, not of %q", a.Cluster, s.board.cluster)
	}
	a = a.fit()
	if err := a.check(); err != nil {
		return err
	}
	s.board.hear(a, s.name(), addr, 0)
	return nil
}

// round is what one round has found.
type round struct {
	*seeds

	mu      sync.Mutex
	targets map[string]bool // all that there may be problems with
	found   map[string]bool // IP:PORT
}

// note takes how it went with a target.
func (r *round) note(ctx context.Context, target string, err error) {
	if ctx.Err() != nil {
		return // it was not given the time
	}
	r.mu.Lock()
	r.targets[target] = true
	r.mu.Unlock()
	r.problems.note(r.name(), target, err)
}

func (r *round) add(host, port string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.found) < mostAsked {
		r.found[net.JoinHostPort(host, port)] = true
	}
}

// resolve finds the addresses of HOST or HOST:PORT.
func (r *round) resolve(ctx context.Context, addr string) error {
	host, port, err := splitSeed(addr)
	if err != nil {
		return err // a line of the file
	}
	if port == "" {
		port = strconv.Itoa(DefaultPeerPort)
	}
	return r.addresses(ctx, host, port)
}

// addresses finds the addresses of a host.
func (r *round) addresses(ctx context.Context, host, port string) error {
	if ip := net.ParseIP(host); ip != nil {
		r.add(host, port)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	addrs, err := r.cfg.Resolver.LookupNetIP(ctx, "ip", host)
	for _, addr := range addrs {
		r.add(addr.Unmap().String(), port)
	}
	return err
}

// lookUp finds the addresses of a name in DNS.
func (r *round) lookUp(ctx context.Context, name string) error {
	host, port, err := splitSeed(name)
	switch {
	case err != nil:
		return err
	case port != "":
		return r.addresses(ctx, host, port)
	case strings.HasPrefix(host, "_"):
		return r.services(ctx, host)
	}
	// Either is enough.
	if err := r.services(ctx, peerService+host); err == nil {
		return nil
	}
	return r.addresses(ctx, host, strconv.Itoa(DefaultPeerPort))
}

// services finds the addresses and ports of SRV records (RFC 2782). All count,
// whatever their priority: it is not about sharing load.
func (r *round) services(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	_, records, err := r.cfg.Resolver.LookupSRV(ctx, "", "", name)
	if err != nil {
		return err
	}
	var errs []error
	for _, srv := range records[:min(len(records), mostAsked)] {
		target := strings.TrimSuffix(srv.Target, ".")
		if target == "" || srv.Port == 0 {
			continue // which says that there is no such service
		}
		errs = append(errs, r.addresses(ctx, target, strconv.Itoa(int(srv.Port))))
	}
	if slices.Contains(errs, nil) {
		return nil
	}
	return errors.Join(append(errs, fmt.Errorf("no host of %s has an address", name))...)
}

// readSeeds reads the addresses in a file.
func readSeeds(path string) (addrs []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxFile))
	for lines.Scan() {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line != "" && len(addrs) < mostAsked {
			addrs = append(addrs, line)
		}
	}
	return addrs, lines.Err()
}
