package httpserver

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// errorLog returns the log for what net/http writes about single connections. The text is an attribute, so that all lines are of
// one kind for the limit of the log.
func errorLog(to *slog.Logger) *log.Logger {
	return log.New(textLog{to}, "", 0)
}

type textLog struct{ to *slog.Logger }

func (l textLog) Write(text []byte) (int, error) {
	l.to.Log(context.Background(), slog.LevelDebug, "an HTTP request failed", "error", strings.TrimRight(string(text), "\n"))
	return len(text), nil
}
