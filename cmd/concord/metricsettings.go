package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/tracing"
	"github.com/concord-kv/concord/server"
)

// metricSettings say where a member's metrics and health are served besides the
// address of clients, and where its metrics are sent.
type metricSettings struct {
	Addr     string        `set:"metrics-addr" usage:"another address, without TLS, for /metrics, /health, /livez and /readyz alone (they are on the client address, too)"`
	Endpoint string        `set:"metrics-endpoint" usage:"collector of OpenTelemetry to send metrics to by OTLP, as http://127.0.0.1:4317 (default: that of OTEL_EXPORTER_OTLP_ENDPOINT, else none are sent)"`
	Protocol string        `set:"metrics-protocol" usage:"how: grpc or http (default: that of OTEL_EXPORTER_OTLP_PROTOCOL, else grpc)"`
	Every    time.Duration `set:"metrics-interval" usage:"how often they are sent (default: that of OTEL_METRIC_EXPORT_INTERVAL, else 1m)"`
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

func (s *metricSettings) config(member string) tracing.Config {
	return tracing.Config{Endpoint: s.Endpoint, Protocol: s.Protocol, Member: member, Version: concord.Version}
}

func (s *metricSettings) check() error {
	if s.Every < 0 {
		return usagef("--metrics-interval %v is negative", s.Every)
	}
	if err := s.config("").Check(); err != nil {
		return usagef("metrics: %w", err)
	}
	return nil
}

// beside sends the metrics of a server while it runs, where that is wanted.
func (s *metricSettings) beside(member string, log *slog.Logger) []besideServer {
	cfg := s.config(member)
	if !cfg.SendsMetrics() {
		return nil
	}
	cfg.Logger = log
	return []besideServer{func(ctx context.Context, srv *server.Server) error {
		metrics, err := tracing.SendMetrics(ctx, cfg, s.Every, srv.Metrics())
		if err != nil {
			return err
		}
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpans)
		defer cancel()
		if err := metrics.Shutdown(last); err != nil {
			log.Warn("the last metrics were not sent", "error", err)
		}
		return nil
	}}
}
