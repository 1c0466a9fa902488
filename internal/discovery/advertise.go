package discovery

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// Advertise lists the addresses, as HOST:PORT, at which others can reach a
// listener at addr: addr itself, or, where its host is unspecified, the global
// and private addresses of the interfaces that are up, at most [MaxAddrs], IPv4
// first. Where the machine has a way out, only the addresses that packets leave by
// count, because those of bridges and tunnels are often the same on every machine,
// and no two members may have one address. Loopback is listed only where there is
// nothing else.
func Advertise(addr string) ([]string, error) {
	return advertise(addr, machine{interfaces, outgoing})
}

// machine is where addresses come from.
type machine struct {
	interfaces func() ([]iface, error)
	// outgoing are the addresses from which packets to the rest of the world
	// would be sent, if there are any.
	outgoing func() []netip.Addr
}

// iface is an interface and its addresses.
type iface struct {
	net.Interface
	addrs []netip.Addr
}

func advertise(addr string, m machine) ([]string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("address %q to listen at: %w", addr, err)
	}
	ip, err := netip.ParseAddr(host)
	if host != "" && (err != nil || !ip.IsUnspecified()) {
		return []string{addr}, nil
	}
	list, err := m.interfaces()
	if err != nil {
		return nil, fmt.Errorf("list the addresses of this machine: %w", err)
	}
	found := choose(list, m.outgoing())
	if ip.Is4() { // such a listener takes no other
		found = slices.DeleteFunc(found, netip.Addr.Is6)
	}
	out := make([]string, len(found))
	for i, ip := range found {
		out[i] = net.JoinHostPort(ip.String(), port)
	}
	return out, nil
}

// choose sorts out which addresses are worth telling others.
func choose(list []iface, outgoing []netip.Addr) []netip.Addr {
	var found, loops []netip.Addr
	for _, i := range list {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		for _, ip := range i.addrs {
			ip = ip.Unmap()
			switch {
			case ip.IsLoopback():
				loops = append(loops, ip)
			case ip.IsGlobalUnicast() && ip.Zone() == "" && !slices.Contains(found, ip): // private ones are, too
				found = append(found, ip)
			}
		}
	}
	if len(found) == 0 {
		found = loops
	}
	if slices.ContainsFunc(found, func(ip netip.Addr) bool { return slices.Contains(outgoing, ip) }) {
		// The others may be of a bridge for containers, which every machine
		// has under the same address.
		found = slices.DeleteFunc(found, func(ip netip.Addr) bool { return !slices.Contains(outgoing, ip) })
	}
	slices.SortStableFunc(found, func(a, b netip.Addr) int { return cmp.Compare(a.BitLen(), b.BitLen()) })
	return found[:min(len(found), MaxAddrs)]
}

// mostListed is how many interfaces are looked at. The system is asked about each
// one's addresses, and lists all of them each time; a machine with hundreds of
// containers has as many interfaces, behind its own.
const mostListed = 64

// interfaces lists this machine's that are up.
func interfaces() ([]iface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(i net.Interface) bool { return i.Flags&net.FlagUp == 0 })
	slices.SortFunc(list, func(a, b net.Interface) int { return cmp.Compare(a.Index, b.Index) })
	var out []iface
	for _, i := range list[:min(len(list), mostListed)] {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it is gone by now
		}
		one := iface{Interface: i}
		for _, addr := range addrs {
			if ipnet, ok := addr.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(ipnet.IP); ok {
					one.addrs = append(one.addrs, ip.Unmap())
				}
			}
		}
		out = append(out, one)
	}
	return out, nil
}

// outgoing asks the system's table of routes. Connecting UDP sends nothing; the
// addresses are those that are kept for documentation (RFC 5737, RFC 3849).
func outgoing() []netip.Addr {
	var out []netip.Addr
	for _, dest := range []string{"198.51.100.1:9", "[2001:db8::1]:9"} {
		conn, err := net.Dial("udp", dest)
		if err != nil {
			continue // there is no route
		}
		if addr, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			out = append(out, addr.AddrPort().Addr().Unmap())
		}
		_ = conn.Close() // nothing was sent
	}
	return out
}
