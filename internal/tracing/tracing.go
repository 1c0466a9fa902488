// Package tracing tells a collector, by OTLP, where calls spend their time. A
// sampled call is a span; what the member did for it, from the queue to the
// answer, are spans below, and each member that has applied a write adds its own to
// the same trace.
//
// [Metrics] sends the same collectors what Prometheus would find.
//
// Without a [Tracer] nothing of it is in the way of a call. With one, a call that
// is not sampled costs a look at its metadata and a random number.
package tracing

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// DefaultSample is the share of calls without a parent that is sampled.
const DefaultSample = 0.01

// Config says where spans, or metrics, go. OpenTelemetry's own variables stand for what is
// empty, and for headers, certificates, timeouts and queues (OTEL_EXPORTER_OTLP_…,
// OTEL_TRACES_SAMPLER, OTEL_BSP_…, OTEL_RESOURCE_ATTRIBUTES).
// Source: OpenTelemetry, "Environment Variable Specification".
type Config struct {
	// Endpoint is the collector's URL: http:// is plain, https:// is TLS.
	Endpoint string
	// Protocol is "grpc", the default, or "http".
	Protocol string
	// Sample is the share, from 0 to 1, of the calls that bring no decision
	// along; less than 0 is [DefaultSample]. A caller's traceparent decides
	// for its calls.
	Sample float64
	// Member and Version are told with all that is sent.
	Member, Version string
	// Logger is told what cannot be sent; default none. OpenTelemetry has one
	// place for that in a process: the newest Tracer's, or Metrics', counts.
	Logger *slog.Logger
}

// Enabled reports whether the configuration or the environment names an
// endpoint, and nothing switches traces off.
func (c Config) Enabled() bool {
	return c.enabled("TRACES") && os.Getenv("OTEL_TRACES_EXPORTER") != "none"
}

// disabled is whether the environment switches off all that is sent.
func disabled() bool {
	off, _ := strconv.ParseBool(os.Getenv("OTEL_SDK_DISABLED")) // what is no truth value is false
	return off
}

// Check tells what is wrong, if anything.
func (c Config) Check() error {
	if c.Endpoint != "" {
		if u, err := url.Parse(c.Endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("endpoint %q is no URL of a collector; write it as http://127.0.0.1:4317 or https://HOST:PORT", c.Endpoint)
		}
	}
	switch c.Protocol {
	case "", "grpc", "http":
	default:
		return fmt.Errorf("protocol %q is unknown; use grpc or http", c.Protocol)
	}
	if c.Sample > 1 || math.IsNaN(c.Sample) {
		return fmt.Errorf("sample %v is out of range; use 0 to 1, as 0.01 for one call of a hundred", c.Sample)
	}
	_, err := c.sampling()
	return err
}

// sampling is how it is decided which calls are sampled.
type sampling struct {
	share float64
	// alone has callers' decisions not count.
	alone bool
}

// sampling follows the setting, and else the environment.
func (c Config) sampling() (sampling, error) {
	if c.Sample >= 0 {
		return sampling{share: c.Sample}, nil
	}
	share := DefaultSample
	if arg := os.Getenv("OTEL_TRACES_SAMPLER_ARG"); arg != "" {
		var err error
		if share, err = strconv.ParseFloat(arg, 64); err != nil || !(share >= 0 && share <= 1) {
			return sampling{}, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG %q is no share; use 0 to 1", arg)
		}
	}
	switch kind := os.Getenv("OTEL_TRACES_SAMPLER"); kind {
	case "", "parentbased_traceidratio":
		return sampling{share: share}, nil
	case "traceidratio":
		return sampling{share: share, alone: true}, nil
	case "always_on":
		return sampling{share: 1, alone: true}, nil
	case "always_off":
		return sampling{alone: true}, nil
	case "parentbased_always_on":
		return sampling{share: 1}, nil
	case "parentbased_always_off":
		return sampling{}, nil
	default:
		return sampling{}, fmt.Errorf("OTEL_TRACES_SAMPLER %q is unknown; use parentbased_traceidratio, traceidratio, always_on, always_off, parentbased_always_on or parentbased_always_off", kind)
	}
}

// Tracer makes spans and sends them in the background. Its methods may be called
// concurrently. Where the collector does not take them, spans are dropped: calls
// never wait.
type Tracer struct {
	provider  *sdktrace.TracerProvider
	tracer    trace.Tracer
	threshold uint64 // of 2⁶³
	alone     bool
}

// New makes a tracer. It does not wait for the collector.
func New(ctx context.Context, cfg Config) (*Tracer, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	exporter, err := cfg.exporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("send traces to %s: %w", cfg.Endpoint, err)
	}
	about, err := cfg.resource(ctx)
	if err != nil {
		return nil, err
	}
	by, err := cfg.sampling()
	if err != nil {
		return nil, err
	}
	cfg.hear()
	// What is sampled is decided before a span is made.
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	return &Tracer{
		provider: provider, tracer: provider.Tracer(scopeName, trace.WithInstrumentationVersion(cfg.Version)),
		threshold: uint64(by.share * (1 << 63)), alone: by.alone,
	}, nil
}

// scopeName is who made the spans and metrics.
const scopeName = "github.com/concord-kv/concord"

// resource is who sends: this member.
func (c Config) resource(ctx context.Context) (*resource.Resource, error) {
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "concord"), attribute.String("service.version", c.Version),
			attribute.String("service.instance.id", c.Member)),
		resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("describe this member to the collector: %w", err)
	}
	return about, nil
}

// hear has the logger told what cannot be sent.
func (c Config) hear() {
	log := cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("telemetry is not sent", "error", err) }))
}

func (c Config) exporter(ctx context.Context) (sdktrace.SpanExporter, error) {
	if c.over("TRACES") == "http" {
		var opts []otlptracehttp.Option
		if c.Endpoint != "" {
			u, err := c.page("/v1/traces")
			if err != nil {
				return nil, err
			}
			opts = append(opts, otlptracehttp.WithEndpointURL(u))
		}
		return otlptracehttp.New(ctx, opts...)
	}
	var opts []otlptracegrpc.Option
	if c.Endpoint != "" {
		opts = append(opts, otlptracegrpc.WithEndpointURL(c.Endpoint))
	}
	return otlptracegrpc.New(ctx, opts...)
}

// Shutdown sends what is left, until ctx ends.
func (t *Tracer) Shutdown(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// samples decides about a call with that parent, which may be none.
func (t *Tracer) samples(parent trace.SpanContext) bool {
	if parent.IsValid() && !t.alone {
		return parent.IsSampled()
	}
	return rand.Uint64()>>1 < t.threshold
}
