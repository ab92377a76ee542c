// Package telemetry gives a service its logger, its metrics registry, its tracer and its admin server.
//
// Everything is handed on explicitly: the package sets no globals, neither slog's nor OpenTelemetry's nor Prometheus's, so
// several services, or several tests, live side by side in one process. Without a collector it is silent and a span costs one
// small allocation; with one that is away it says so once a minute and never makes a message wait.
//
// What must not be logged (tokens, secrets, the text of messages) is left out by the caller; the package cannot know it.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/runnelhq/runnel/pkg/buildinfo"
	"github.com/runnelhq/runnel/pkg/settings"
)

// Config says what a service tells about itself, and where.
type Config struct {
	// LogLevel is debug, info, warn or error. Defaults to info.
	LogLevel string `help:"Lowest level that is logged." enum:"debug,info,warn,error" default:"info"`
	// LogFormat is text or json. Defaults to text.
	LogFormat string `help:"Form of log lines." enum:"text,json" default:"text"`
	// Installation is the value of the label installation of every metric. Defaults to none: no label.
	Installation string `help:"Value of the label installation of every metric, for a Prometheus that scrapes several installations; empty for no label."`
	// OTLPEndpoint is host:port (no TLS) or a URL with http or https. Defaults to none: no traces are made. The variables
	// are those of the OpenTelemetry specification; the others in it (headers, certificates, resource) hold as well.
	OTLPEndpoint string `name:"otlp-endpoint" help:"Collector that takes traces over OTLP/gRPC, as host:port or URL; empty makes no traces." env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT"`
	// SampleRatio is the share of traces that begin here and are recorded; what comes in with a trace follows its decision.
	// 0.1 because a tenth of the messages shows everything and costs little.
	SampleRatio float64 `help:"Share of traces that are recorded, 0 to 1." default:"0.1" range:"0..1"`
}

// Validate checks the settings.
func (c Config) Validate() error {
	if err := settings.CheckRanges("telemetry.", c); err != nil {
		return err
	}
	if _, err := c.level(); err != nil {
		return err
	}
	if c.OTLPEndpoint == "" {
		return nil
	}
	if _, err := endpointOptions(c.OTLPEndpoint); err != nil {
		return fmt.Errorf("telemetry.otlp-endpoint: %w", err)
	}
	return nil
}

// Telemetry is what a service observes itself with.
type Telemetry struct {
	// Log writes the service's log. Lines logged with the context of a span carry its trace_id and span_id. The number of lines
	// of one kind is limited, see Limiter.
	Log *slog.Logger
	// Registry holds the metrics of the process and whatever the service adds.
	Registry *prometheus.Registry
	// TracerProvider makes tracers. Without a collector their spans do nothing.
	TracerProvider trace.TracerProvider
	// Propagator carries traces across gRPC; for NATS there are InjectHeader and ExtractHeader.
	Propagator propagation.TextMapPropagator

	installation string // empty for no label

	limiter  *Limiter                    // nil for Discard
	stop     func(context.Context) error // nil without a collector
	stopOnce sync.Once
	stopErr  error
}

// Start begins telemetry for a service; its log goes to w. The caller ends it with Shutdown.
func Start(ctx context.Context, service string, cfg Config, w io.Writer) (*Telemetry, error) {
	if !utf8.ValidString(cfg.Installation) {
		return nil, errors.New("the name of the installation is not valid UTF-8")
	}
	log, limiter, err := newLogger(service, cfg, w)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{
		Log:            log,
		limiter:        limiter,
		Registry:       prometheus.NewRegistry(),
		TracerProvider: noop.NewTracerProvider(),
		Propagator:     propagation.TraceContext{},
		installation:   cfg.Installation,
	}
	t.Registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewBuildInfoCollector(),
		buildinfo.Collector(),
	)
	if cfg.OTLPEndpoint == "" {
		return t, nil
	}
	provider, stop, err := newTracing(ctx, service, cfg, log)
	if err != nil {
		limiter.Close()
		return nil, fmt.Errorf("starting traces to %q: %w", cfg.OTLPEndpoint, err)
	}
	t.TracerProvider, t.stop = provider, stop
	return t, nil
}

// Discard is telemetry that nobody looks at, for tests and for callers that have none to give.
func Discard() *Telemetry {
	return &Telemetry{
		Log:            slog.New(slog.DiscardHandler),
		Registry:       prometheus.NewRegistry(),
		TracerProvider: noop.NewTracerProvider(),
		Propagator:     propagation.TraceContext{},
	}
}

// Tracing reports whether traces are made at all. Where it is false, a hot path need not prepare anything for them.
func (t *Telemetry) Tracing() bool { return t.stop != nil }

// Tracer is the tracer of a part of the service, which is named by its package path.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.TracerProvider.Tracer(name) }

// Shutdown sends the spans that are still held, for as long as ctx allows but at most shutdownLimit, and gives up on the
// rest. Then it writes the log lines that are held back. It waits for everything telemetry started. Calling it again does
// nothing.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.stopOnce.Do(func() {
		if t.stop != nil {
			t.stopErr = t.stop(ctx)
		}
		if t.limiter != nil {
			t.limiter.Close()
		}
	})
	return t.stopErr
}
