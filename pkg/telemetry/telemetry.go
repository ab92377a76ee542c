// Package telemetry gives a service its logger, its metrics registry, its tracer and its admin server.
//
// Everything is passed explicitly: the package sets no globals of slog, OpenTelemetry or Prometheus, so
// several services, or several tests, can run in one process. Without a collector, it exports nothing and a span costs one
// small allocation. If the collector is unavailable, it warns once a minute and never delays a message.
//
// Callers must not log tokens, secrets or the text of messages; the package cannot recognise them.
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

// Config configures the telemetry of a service.
type Config struct {
	// LogLevel is debug, info, warn or error. Defaults to info.
	LogLevel string `help:"Lowest level that is logged." enum:"debug,info,warn,error" default:"info"`
	// LogFormat is text or json. Defaults to text.
	LogFormat string `help:"Form of log lines." enum:"text,json" default:"text"`
	// Installation is the value of the label installation of every metric. Defaults to none: no label.
	Installation string `help:"Value of the label installation of every metric, for a Prometheus that scrapes several installations; empty for no label."`
	// OTLPEndpoint is host:port (no TLS), or a URL with http or https. Defaults to none: no traces are made. Its
	// environment variables are defined by the OpenTelemetry specification. The other variables of that specification
	// (headers, certificates, resource) also take effect.
	OTLPEndpoint string `name:"otlp-endpoint" help:"Collector that takes traces over OTLP/gRPC, as host:port or URL; empty makes no traces." env:"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT"`
	// SampleRatio is the share of traces beginning in this service that are recorded. For a trace that begins elsewhere,
	// the decision made there applies. Defaults to 0.1: a tenth of the messages shows every problem and costs little.
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

// Telemetry contains the log, the metrics and the tracer of a service.
type Telemetry struct {
	// Log writes the service's log. Lines logged with the context of a span carry its trace_id and span_id. The number of lines
	// of one kind is limited, see Limiter.
	Log *slog.Logger
	// Registry contains the metrics of the process and those that the service adds.
	Registry *prometheus.Registry
	// TracerProvider makes tracers. Without a collector, their spans are not recorded.
	TracerProvider trace.TracerProvider
	// Propagator carries traces across gRPC. For NATS, use InjectHeader and ExtractHeader.
	Propagator propagation.TextMapPropagator

	installation string // empty if there is no label

	limiter  *Limiter                    // nil for Discard
	stop     func(context.Context) error // nil without a collector
	stopOnce sync.Once
	stopErr  error
}

// Start begins telemetry for a service and writes its log to w. The caller ends it with Shutdown.
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

// Discard returns telemetry that discards everything, for tests and for callers without telemetry.
func Discard() *Telemetry {
	return &Telemetry{
		Log:            slog.New(slog.DiscardHandler),
		Registry:       prometheus.NewRegistry(),
		TracerProvider: noop.NewTracerProvider(),
		Propagator:     propagation.TraceContext{},
	}
}

// Tracing reports whether traces are made. If it returns false, a hot path need not prepare anything for traces.
func (t *Telemetry) Tracing() bool { return t.stop != nil }

// Tracer returns the tracer for a part of the service. name is the path of the part's package.
func (t *Telemetry) Tracer(name string) trace.Tracer { return t.TracerProvider.Tracer(name) }

// Shutdown exports the remaining spans, for as long as ctx allows but at most shutdownLimit, and drops the rest. Then it
// writes the log lines that are held back. It waits for all goroutines that telemetry started. Further calls have no
// effect.
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
