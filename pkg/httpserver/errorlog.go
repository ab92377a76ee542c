package httpserver

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// ErrorLog returns a log for libraries that write text: each line has the given message, and what the library wrote as its
// attribute. So lines that differ in their text are of one kind, and limited together.
func ErrorLog(to *slog.Logger, level slog.Level, message string) *log.Logger {
	return log.New(textLog{to, level, message}, "", 0)
}

type textLog struct {
	to      *slog.Logger
	level   slog.Level
	message string
}

func (l textLog) Write(text []byte) (int, error) {
	l.to.Log(context.Background(), l.level, l.message, "error", strings.TrimRight(string(text), "\n"))
	return len(text), nil
}
