package loopback

import (
	"net"
	"testing"
)

// TestReserve: addresses differ, can be listened on again and again, and the
// kernel does not give them to others meanwhile.
func TestReserve(t *testing.T) {
	const many = 200
	reserved := map[string]bool{}
	for range many {
		addr, release, err := Reserve()
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		if reserved[addr] {
			t.Fatalf("%s was reserved twice", addr)
		}
		reserved[addr] = true
	}
	var held []net.Listener
	for range many {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		if reserved[l.Addr().String()] {
			t.Errorf("%s is reserved, and the kernel gave it away", l.Addr())
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if reserved[c.LocalAddr().String()] {
			t.Errorf("%s is reserved, and a connection begins there", c.LocalAddr())
		}
		held = append(held, l)
	}
	for addr := range reserved {
		for range 2 {
			l, err := net.Listen("tcp", addr)
			if err != nil {
				t.Fatalf("with %d others: %v", len(held), err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}
