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
	// exportTimeout is the time limit for exporting one batch of spans.
	exportTimeout = 10 * time.Second
	// shutdownLimit prevents an unavailable collector from delaying the end of a process.
	shutdownLimit = 5 * time.Second
	// warnEvery is the minimum time between two warnings about the collector.
	warnEvery = time.Minute
)

// newTracing makes a provider that exports to the collector, and the function that ends it.
func newTracing(ctx context.Context, service string, cfg Config, log *slog.Logger) (trace.TracerProvider, func(context.Context) error, error) {
	if cfg.SampleRatio < 0 || cfg.SampleRatio > 1 {
		return nil, nil, fmt.Errorf("sample ratio %v is not between 0 and 1", cfg.SampleRatio)
	}
	endpoint, err := endpointOptions(cfg.OTLPEndpoint)
	if err != nil {
		return nil, nil, err
	}
	// Attributes from the environment come last and take precedence, because the operator knows better how to name the
	// service.
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
		// If ctx ends, Shutdown would return early while its export still runs. Abandoning the export also makes Shutdown
		// return early, and leaves nothing running.
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

// exporter hides failures of the collector from OpenTelemetry's global error handler, which prints each of them.
type exporter struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu        sync.Mutex
	cancel    context.CancelFunc // ends the running export
	abandoned bool               // shutdown has no more time, so no further exports are made
	warned    time.Time
	lost      int // number of spans lost since the last warning
}

// ExportSpans never returns an error. If the collector does not accept spans, they are lost, and ExportSpans only logs a
// warning.
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

// abandon ends the running export and prevents further ones.
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
