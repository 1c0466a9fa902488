package server

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// listen listens on host:port, or on the unix socket of unix:path or
// unix://path.
func listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return listenUnix(strings.TrimPrefix(path, "//"))
	}
	return net.Listen("tcp", addr)
}

// listenUnix takes the place of a socket that a process has left behind which
// ended without closing it.
func listenUnix(path string) (net.Listener, error) {
	l, err := net.Listen("unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) || !abandoned(path) {
		return l, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return net.Listen("unix", path)
}

// abandoned reports whether path is a socket on which nobody listens.
func abandoned(path string) bool {
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
