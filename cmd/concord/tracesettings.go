package main

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/concord-kv/concord"
	"github.com/concord-kv/concord/internal/tracing"
	"github.com/concord-kv/concord/server"
)

// traceSettings say where the spans of sampled calls go.
type traceSettings struct {
	Endpoint string `set:"trace-endpoint" usage:"collector of OpenTelemetry to send traces to by OTLP, as http://127.0.0.1:4317 (default: that of OTEL_EXPORTER_OTLP_ENDPOINT, else none are made)"`
	Protocol string `set:"trace-protocol" usage:"how: grpc or http (default: that of OTEL_EXPORTER_OTLP_PROTOCOL, else grpc)"`
	Sample   string `set:"trace-sample" usage:"share of calls without a traceparent to trace, from 0 to 1 (default: that of OTEL_TRACES_SAMPLER_ARG, else 0.01)"`

	// tracer is nil where nothing is traced.
	tracer *tracing.Tracer
}

// lastSpans is how long the end of a member waits for its last spans, and for its
// last metrics, to be sent.
const lastSpans = 2 * time.Second

func (s *traceSettings) config(member string) (tracing.Config, error) {
	c := tracing.Config{Endpoint: s.Endpoint, Protocol: s.Protocol, Sample: -1, Member: member, Version: concord.Version}
	if s.Sample != "" {
		var err error
		if c.Sample, err = strconv.ParseFloat(s.Sample, 64); err != nil || c.Sample < 0 {
			return c, usagef("--trace-sample %q is no share; use 0 to 1, as 0.01 for one call of a hundred", s.Sample)
		}
	}
	if err := c.Check(); err != nil {
		return c, usagef("traces: %w", err)
	}
	return c, nil
}

// start makes the tracer, where one is wanted; end sends what it still has.
func (s *traceSettings) start(ctx context.Context, member string, log *slog.Logger) (end func(), err error) {
	end = func() {}
	c, err := s.config(member)
	if err != nil || !c.Enabled() {
		return end, err
	}
	c.Logger = log
	if s.tracer, err = tracing.New(ctx, c); err != nil {
		return end, err
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), lastSpans)
		defer cancel()
		if err := s.tracer.Shutdown(ctx); err != nil {
			log.Warn("the last traces were not sent", "error", err)
		}
	}, nil
}

func (s *traceSettings) options() []concord.Option {
	if s.tracer == nil {
		return nil
	}
	return []concord.Option{concord.Observe(s.tracer.Observer())}
}

func (s *traceSettings) apply(cfg *server.Config) {
	if s.tracer != nil {
		cfg.Tracing = s.tracer
	}
}
