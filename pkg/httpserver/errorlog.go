package httpserver

import (
	"context"
	"log" //nolint:depguard // net/http takes one
	"log/slog"
)

// errorLog returns the log for what net/http writes about single connections. The text is an attribute, so that all lines are of
// one kind for the limit of the log.
func errorLog(to *slog.Logger) *log.Logger {
	return slog.NewLogLogger(oneKind{to.Handler()}, slog.LevelDebug)
}

type oneKind struct{ slog.Handler }

func (h oneKind) Handle(ctx context.Context, record slog.Record) error {
	line := slog.NewRecord(record.Time, record.Level, "an HTTP request failed", record.PC)
	line.AddAttrs(slog.String("error", record.Message))
	return h.Handler.Handle(ctx, line)
}
