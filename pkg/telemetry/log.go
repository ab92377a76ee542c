package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"go.opentelemetry.io/otel/trace"
)

// maxValueBytes limits the length of one value in a line. It is large enough for the stack of a panic.
const maxValueBytes = 8 << 10

// newLogger returns the log of a service, and its limiter, which must be closed.
func newLogger(service string, cfg Config, w io.Writer) (*slog.Logger, *Limiter, error) {
	level, err := cfg.level()
	if err != nil {
		return nil, nil, err
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: cut}
	var handler slog.Handler
	switch cfg.LogFormat {
	case "", "text":
		handler = slog.NewTextHandler(w, options)
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, nil, fmt.Errorf("log format %q is not text or json", cfg.LogFormat)
	}
	limiter := NewLimiter(traceHandler{handler})
	return slog.New(limiter).With("service", service), limiter, nil
}

// level returns the configured level; info by default.
func (c Config) level() (level slog.Level, err error) {
	if c.LogLevel == "" {
		return level, nil
	}
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return level, fmt.Errorf("log level %q is not debug, info, warn or error", c.LogLevel)
	}
	return level, nil
}

// cut shortens a value that is too long. It applies to every part of a line, including the message.
func cut(_ []string, attr slog.Attr) slog.Attr {
	switch value := attr.Value.Any().(type) {
	case string:
		if len(value) > maxValueBytes {
			attr.Value = slog.StringValue(shortened(value))
		}
	case error:
		if text := value.Error(); len(text) > maxValueBytes {
			attr.Value = slog.StringValue(shortened(text))
		}
	}
	return attr
}

func shortened(text string) string {
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(text[:maxValueBytes], ""), len(text))
}

// traceHandler adds the ids of the span in the context to a line, so that the line and the trace can be found from each
// other.
type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, record slog.Record) error {
	if trace.SpanContextFromContext(ctx).IsValid() {
		record = withSpan(ctx, record)
	}
	return h.Handler.Handle(ctx, record)
}

// withSpan returns a copy of a line, with the ids of the span in the context if there is one.
func withSpan(ctx context.Context, record slog.Record) slog.Record {
	record = record.Clone()
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return record
}

func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
