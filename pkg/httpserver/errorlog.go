package httpserver

import (
	"context"
	"log" //nolint:depguard // net/http requires a log.Logger
	"log/slog"
)

// errorLog returns the log for net/http's lines about single connections. The text of a line is an attribute, so that the
// limit of the log treats all these lines as one kind.
func errorLog(to *slog.Logger) *log.Logger {
	return slog.NewLogLogger(oneKind{to.Handler()}, slog.LevelDebug)
}

type oneKind struct{ slog.Handler }

func (h oneKind) Handle(ctx context.Context, record slog.Record) error {
	line := slog.NewRecord(record.Time, record.Level, "an HTTP request failed", record.PC)
	line.AddAttrs(slog.String("error", record.Message))
	return h.Handler.Handle(ctx, line)
}
