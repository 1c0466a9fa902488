package main

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/concord-kv/concord/server"
)

// webSettings say by which names a member may be called over HTTP, and from
// which web pages.
type webSettings struct {
	Hosts   []string `set:"allowed-hosts" usage:"names by which this member may be called over HTTP without TLS and authentication, beside IP addresses, localhost, this host's name and the names in its addresses; *.example.com is all below one, * is all; once given, they hold with authentication, too"`
	Origins []string `set:"allowed-origins" usage:"web pages of other sites that may call, as https://ui.example.com; * is all"`
}

// check tells what is wrong.
func (s *webSettings) check() error {
	for _, host := range s.Hosts {
		if strings.ContainsAny(host, "/: ") || host == "" {
			return usagef("--allowed-hosts %q is no name of a host; write it without scheme and port, as kv.example.com or *.example.com", host)
		}
	}
	for _, origin := range s.Origins {
		u, err := url.Parse(origin)
		if origin != "*" && (err != nil || u.Scheme == "" || u.Host == "" || origin != u.Scheme+"://"+u.Host) {
			return usagef("--allowed-origins %q is no origin of a web page; write it as https://ui.example.com, with the port where it has one", origin)
		}
	}
	return nil
}

// apply sets the server's part. addrs are what others call this member.
func (s *webSettings) apply(cfg *server.Config, addrs ...string) {
	cfg.HTTP.Hosts, cfg.HTTP.Origins = s.Hosts, s.Origins
	for _, addr := range addrs {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			host = addr // it may have no port
		}
		if _, err := netip.ParseAddr(host); err != nil && host != "" && !slices.Contains(cfg.HTTP.Names, host) {
			cfg.HTTP.Names = append(cfg.HTTP.Names, host)
		}
	}
}

// calledBy are the addresses of this member that its settings name.
func (s *serveSettings) calledBy() []string {
	addrs := append([]string{s.ClientAddr, s.Peers.Addr}, s.Cluster.Advertise...)
	if peers, err := parsePeers(s.Peers.All); err == nil {
		addrs = append(addrs, peers[s.Name])
	}
	return addrs
}
