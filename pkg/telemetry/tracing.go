package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	// exportTimeout is how long one batch of spans is tried before it is given up.
	exportTimeout = 10 * time.Second
	// shutdownLimit keeps a collector that is away from holding up the end of a process.
	shutdownLimit = 5 * time.Second
	// warnEvery is the least time between two warnings about the collector.
	warnEvery = time.Minute
)

// newTracing makes a provider that exports to the collector, and what ends it.
func newTracing(ctx context.Context, service string, cfg Config, log *slog.Logger) (trace.TracerProvider, func(context.Context) error, error) {
	if cfg.SampleRatio < 0 || cfg.SampleRatio > 1 {
		return nil, nil, fmt.Errorf("sample ratio %v is not between 0 and 1", cfg.SampleRatio)
	}
	endpoint, err := endpointOptions(cfg.OTLPEndpoint)
	if err != nil {
		return nil, nil, err
	}
	// The environment's own attributes come last and win: the operator knows better what to call the service.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(attribute.String("service.name", service)), resource.WithFromEnv())
	if err != nil {
		return nil, nil, fmt.Errorf("describing the service: %w", err)
	}
	otlp, err := otlptracegrpc.New(ctx, append(endpoint,
		otlptracegrpc.WithTimeout(exportTimeout/2),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: exportTimeout / 2, MaxElapsedTime: exportTimeout,
		}))...)
	if err != nil {
		return nil, nil, fmt.Errorf("making the exporter: %w", err)
	}
	export := &exporter{SpanExporter: otlp, log: log}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
		sdktrace.WithResource(about),
		sdktrace.WithBatcher(export, sdktrace.WithExportTimeout(exportTimeout)),
	)
	stop := func(ctx context.Context) error {
		ctx, done := context.WithTimeout(ctx, shutdownLimit)
		defer done()
		// The provider returns early from a context that ends, leaving its export running. Abandoning the export instead
		// makes it return early and leave nothing.
		defer context.AfterFunc(ctx, export.abandon)()
		if err := provider.Shutdown(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("ending traces: %w", err)
		}
		return nil
	}
	return provider, stop, nil
}

func endpointOptions(endpoint string) ([]otlptracegrpc.Option, error) {
	if host, port, err := net.SplitHostPort(endpoint); err == nil && host != "" && port != "" {
		return []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(endpoint), otlptracegrpc.WithInsecure()}, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New("the endpoint is neither host:port nor a URL with http or https")
	}
	return []otlptracegrpc.Option{otlptracegrpc.WithEndpointURL(endpoint)}, nil
}

// exporter keeps failures of the collector away from OpenTelemetry's global error handler, which prints each of them.
type exporter struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu        sync.Mutex
	cancel    context.CancelFunc // ends the export under way
	abandoned bool               // no further exports: shutdown has no more time
	warned    time.Time
	lost      int // spans since the last warning
}

// ExportSpans never fails: spans that the collector does not take are gone, and all that is left is to say so.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.mu.Lock()
	if e.abandoned {
		cancel()
	}
	e.cancel = cancel
	e.mu.Unlock()
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.warn(ctx, err, len(spans))
	}
	return nil
}

// abandon ends the export under way, and lets no other take time.
func (e *exporter) abandon() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.abandoned = true
	if e.cancel != nil {
		e.cancel()
	}
}

func (e *exporter) warn(ctx context.Context, err error, lost int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lost += lost
	if !e.warned.IsZero() && time.Since(e.warned) < warnEvery {
		return
	}
	e.log.WarnContext(ctx, "the trace collector does not take spans", "lost", e.lost, "error", err)
	e.warned, e.lost = time.Now(), 0
}
