package discovery

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestAddressesToAdvertise(t *testing.T) {
	lo := fakeInterface(1, "lo", "ul", "127.0.0.1", "::1")
	eth := fakeInterface(2, "eth0", "um", "10.0.0.5", "fd00::5", "fe80::5")
	docker := fakeInterface(3, "docker0", "um", "172.17.0.1")
	public := fakeInterface(4, "eth1", "um", "2001:db8::7", "203.0.113.7")
	var many iface
	for i := range 20 {
		many = fakeInterface(5, "many", "um", append(strs(many.addrs), fmt.Sprintf("10.9.0.%d", i+1))...)
	}
	for name, c := range map[string]struct {
		addr string
		list []iface
		out  []string
		want []string
	}{
		"given":               {"10.1.2.3:2380", []iface{lo, eth}, nil, []string{"10.1.2.3:2380"}},
		"given by name":       {"host:2380", []iface{lo, eth}, nil, []string{"host:2380"}},
		"given loopback":      {"127.0.0.1:2380", []iface{lo, eth}, nil, []string{"127.0.0.1:2380"}},
		"every address":       {":2380", []iface{lo, eth}, nil, []string{"10.0.0.5:2380", "[fd00::5]:2380"}},
		"every IPv4 address":  {"0.0.0.0:2380", []iface{lo, eth}, nil, []string{"10.0.0.5:2380"}},
		"every IPv6 address":  {"[::]:2380", []iface{lo, eth}, nil, []string{"10.0.0.5:2380", "[fd00::5]:2380"}},
		"loopback alone":      {"[::]:7", []iface{lo}, nil, []string{"127.0.0.1:7", "[::1]:7"}},
		"nothing":             {":7", nil, nil, nil},
		"down":                {":7", []iface{fakeInterface(2, "eth0", "m", "10.0.0.5"), lo}, nil, []string{"127.0.0.1:7", "[::1]:7"}},
		"link-local alone":    {":7", []iface{fakeInterface(2, "eth0", "um", "fe80::5", "169.254.1.1"), lo}, nil, []string{"127.0.0.1:7", "[::1]:7"}},
		"the way out":         {":7", []iface{docker, public, eth}, []string{"203.0.113.7", "fd00::5"}, []string{"203.0.113.7:7", "[fd00::5]:7"}},
		"a way out unknown":   {":7", []iface{eth}, []string{"203.0.113.7"}, []string{"10.0.0.5:7", "[fd00::5]:7"}},
		"an address twice":    {":7", []iface{eth, fakeInterface(7, "macvlan", "um", "10.0.0.5")}, nil, []string{"10.0.0.5:7", "[fd00::5]:7"}},
		"at most eight":       {":7", []iface{many}, nil, []string{"10.9.0.1:7", "10.9.0.2:7", "10.9.0.3:7", "10.9.0.4:7", "10.9.0.5:7", "10.9.0.6:7", "10.9.0.7:7", "10.9.0.8:7"}},
		"of many the way out": {":7", []iface{many}, []string{"10.9.0.20"}, []string{"10.9.0.20:7"}},
	} {
		got, err := advertise(c.addr, machine{func() ([]iface, error) { return c.list, nil }, func() (out []netip.Addr) {
			for _, addr := range c.out {
				out = append(out, netip.MustParseAddr(addr))
			}
			return out
		}})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
	if _, err := Advertise("no port"); err == nil {
		t.Error("an address without a port was taken")
	}
	bad := machine{func() ([]iface, error) { return nil, errors.New("no list") }, outgoing}
	if _, err := advertise(":1", bad); err == nil {
		t.Error("no list was no error")
	}
}

func strs(addrs []netip.Addr) (out []string) {
	for _, addr := range addrs {
		out = append(out, addr.String())
	}
	return out
}

// This machine's own addresses can be listened at.
func TestAdvertisedAddressesAreThisMachines(t *testing.T) {
	list, err := Advertise(":0")
	if err != nil || len(list) == 0 || len(list) > MaxAddrs {
		t.Fatalf("%v, %v", list, err)
	}
	for _, addr := range list {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Error(err)
			continue
		}
		l.Close()
	}
}
