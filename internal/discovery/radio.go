package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// mostInterfaces is how many interfaces are joined; Linux allows a socket 20
// groups (net.ipv4.igmp_max_memberships), and a machine with many containers has
// many interfaces.
const mostInterfaces = 16

// link is a socket of one version of IP, at the port of a group.
type link interface {
	join(*net.Interface) error
	leave(*net.Interface) error
	write(b []byte, on *net.Interface) error
	// read reports whether the packet was sent to a group.
	read(b []byte) (n int, from net.Addr, multicast bool, err error)
	Close() error
}

// sockets is a radio on the machine's interfaces. Several processes of a machine
// have the same port, and each hears all.
type sockets struct {
	link
	v4   bool
	list func() ([]iface, error)
	note func(target string, err error)

	// Owned by who calls follow and send.
	joined []iface
}

// openRadio listens at the group's port. note is told of interfaces that cannot
// be used.
func openRadio(group netip.AddrPort, note func(target string, err error)) (radio, error) {
	network, all := "udp4", "0.0.0.0"
	if group.Addr().Is6() {
		network, all = "udp6", "::"
	}
	lc := net.ListenConfig{Control: shareAddress}
	conn, err := lc.ListenPacket(context.Background(), network, net.JoinHostPort(all, strconv.Itoa(int(group.Port()))))
	if err != nil {
		return nil, err
	}
	open := newLink4
	if group.Addr().Is6() {
		open = newLink6
	}
	l, err := open(conn, net.UDPAddrFromAddrPort(group))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &sockets{link: l, v4: group.Addr().Is4(), list: interfaces, note: note}, nil
}

func (s *sockets) follow() (came bool) {
	list, err := s.list()
	if err != nil {
		s.note("", err)
		return false
	}
	now := usable(list, s.v4)
	for _, old := range s.joined {
		if !containsInterface(now, old) {
			_ = s.leave(&old.Interface) // it has gone: the system has left already
			s.note(old.Name, nil)
		}
	}
	kept := make([]iface, 0, len(now))
	for _, i := range now {
		if !containsInterface(s.joined, i) {
			err := s.join(&i.Interface)
			s.note(i.Name, err)
			if err != nil {
				continue
			}
			came = true
		}
		kept = append(kept, i)
	}
	s.joined = kept
	if len(kept) == 0 && s.v4 { // a machine without IPv6 is nothing to tell of
		s.note("", errors.New("no interface that is up takes multicast"))
	} else {
		s.note("", nil)
	}
	return came
}

// usable picks the interfaces to join, loopback first.
func usable(list []iface, v4 bool) []iface {
	var loops, out []iface
	for _, i := range list {
		has := false
		for _, addr := range i.addrs {
			has = has || addr.Is4() == v4
		}
		switch {
		case !has || i.Flags&net.FlagUp == 0:
		case i.Flags&net.FlagLoopback != 0:
			// It carries multicast without saying so, over IPv4. For IPv6 it has no
			// route, and IPv4's is enough.
			if v4 {
				loops = append(loops, i)
			}
		case i.Flags&net.FlagMulticast != 0:
			out = append(out, i)
		}
	}
	out = append(loops, out...)
	return out[:min(len(out), mostInterfaces)]
}

// containsInterface goes by number and name: one that was made anew may have
// either of an old one.
func containsInterface(list []iface, i iface) bool {
	for _, other := range list {
		if other.Index == i.Index && other.Name == i.Name && other.HardwareAddr.String() == i.HardwareAddr.String() {
			return true
		}
	}
	return false
}

func (s *sockets) send(packet []byte) {
	for _, i := range s.joined {
		s.note(i.Name, s.write(packet, &i.Interface))
	}
}

func (s *sockets) receive(buf []byte) (int, netip.AddrPort, error) {
	for {
		n, from, multicast, err := s.read(buf)
		if err != nil {
			return 0, netip.AddrPort{}, err
		}
		if addr, ok := from.(*net.UDPAddr); ok && multicast {
			from := addr.AddrPort()
			return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
		}
		// What was sent to this machine alone may come from anywhere.
	}
}

func (s *sockets) close() error { return s.link.Close() }

// link4 is IPv4's.
type link4 struct {
	*ipv4.PacketConn
	group *net.UDPAddr
	tells bool // where a packet was sent to
}

func newLink4(conn net.PacketConn, group *net.UDPAddr) (link, error) {
	p := ipv4.NewPacketConn(conn)
	tells := p.SetControlMessage(ipv4.FlagDst, true) == nil
	return link4{p, group, tells}, errors.Join(p.SetMulticastLoopback(true), p.SetMulticastTTL(1))
}

func (l link4) join(i *net.Interface) error  { return l.JoinGroup(i, l.group) }
func (l link4) leave(i *net.Interface) error { return l.LeaveGroup(i, l.group) }

func (l link4) write(b []byte, on *net.Interface) error {
	_, err := l.WriteTo(b, &ipv4.ControlMessage{IfIndex: on.Index}, l.group)
	return err
}

func (l link4) read(b []byte) (int, net.Addr, bool, error) {
	n, cm, from, err := l.ReadFrom(b)
	return n, from, !l.tells || cm != nil && cm.Dst.IsMulticast(), err
}

// link6 is IPv6's.
type link6 struct {
	*ipv6.PacketConn
	group *net.UDPAddr
	tells bool // where a packet was sent to
}

func newLink6(conn net.PacketConn, group *net.UDPAddr) (link, error) {
	p := ipv6.NewPacketConn(conn)
	tells := p.SetControlMessage(ipv6.FlagDst, true) == nil
	return link6{p, group, tells}, errors.Join(p.SetMulticastLoopback(true), p.SetMulticastHopLimit(1))
}

func (l link6) join(i *net.Interface) error  { return l.JoinGroup(i, l.group) }
func (l link6) leave(i *net.Interface) error { return l.LeaveGroup(i, l.group) }

func (l link6) write(b []byte, on *net.Interface) error {
	_, err := l.WriteTo(b, &ipv6.ControlMessage{IfIndex: on.Index}, l.group)
	return err
}

func (l link6) read(b []byte) (int, net.Addr, bool, error) {
	n, cm, from, err := l.ReadFrom(b)
	return n, from, !l.tells || cm != nil && cm.Dst.IsMulticast(), err
}
