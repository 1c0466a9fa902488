package main

import (
	"fmt"
	"net"

	"github.com/concord-kv/concord/server"
)

// metricSettings say where a member's metrics and health are served besides the
// address of clients.
type metricSettings struct {
	Addr string `set:"metrics-addr" usage:"another address, without TLS, for /metrics, /health, /livez and /readyz alone (they are on the client address, too)"`
}

// listen adds the listener to the server's, if there is one.
func (s *metricSettings) listen(cfg *server.Config) error {
	if s.Addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("--metrics-addr: %w", err)
	}
	cfg.Logger.Info("metrics and health are served", "address", l.Addr().String())
	cfg.Listeners = append(cfg.Listeners, server.Listen(l, nil, server.OnlyHealth))
	return nil
}
