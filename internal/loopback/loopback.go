// Package loopback reserves addresses for processes that tests start, stop and
// start again, and that have to know each other's before they listen.
//
// To listen on port 0, close, and pass the number on, leaves the port to
// whoever asks the kernel next: another test, or the far end of a connection.
package loopback

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports are taken from below those that the kernel gives out by itself: from
// 32768 on Linux, from 49152 by IANA's rule (RFC 6335).
const (
	firstPort = 12000
	lastPort  = 32000
)

// tries bounds the search for a port that nobody uses.
const tries = 1000

// Reserve returns a TCP address on 127.0.0.1 that nobody listens on, and that no
// other Reserve on this machine returns before release is called. A UDP socket
// on the same port is the reservation, so it ends with the process in any case.
// It may be called concurrently.
func Reserve() (addr string, release func(), err error) {
	for range tries {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+rand.IntN(lastPort-firstPort)))
		claim, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			err = l.Close()
		}
		if err == nil {
			return addr, func() { _ = claim.Close() }, nil
		}
		_ = claim.Close()
	}
	return "", nil, errors.New("loopback: no free port was found")
}
