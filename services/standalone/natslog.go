package standalone

import (
	"fmt"
	"log/slog"
	"strings"
)

// natsLog logs the lines of the embedded NATS server that matter to an operator: its errors, and the warnings in
// natsWarnings. After a kill, the server reports each stream whose index it rebuilds from the files; this is expected,
// and becomes one plain line. All other lines are logged at debug level.
type natsLog struct{ log *slog.Logger }

// natsWarnings are parts of the warnings that concern an operator: the store cannot be written, is full, or has lost data.
var natsWarnings = []string{
	"ermission denied", "limits exceeded", "disabling JetStream", "Can't start JetStream",
	"Error recreating stream", "Error reading metafile", "Missing stream metafile", "checksums do not match",
}

// natsRebuilds is the beginning of the warnings about an index that is rebuilt.
const natsRebuilds = "Filestore ["

// Warnf implements server.Logger.
func (l natsLog) Warnf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, part := range natsWarnings {
		if strings.Contains(text, part) {
			l.log.Warn("the embedded NATS server warns", "text", text)
			return
		}
	}
	if strings.HasPrefix(text, natsRebuilds) {
		l.log.Info("the process did not stop cleanly last time; the index of accepted commands is rebuilt from the files", "detail", text)
		return
	}
	l.log.Debug("the embedded NATS server warns", "text", text)
}

// Errorf implements server.Logger.
func (l natsLog) Errorf(format string, args ...any) {
	l.log.Error("the embedded NATS server reports an error", "text", fmt.Sprintf(format, args...))
}

// Fatalf implements server.Logger.
func (l natsLog) Fatalf(format string, args ...any) { l.Errorf(format, args...) }

// Noticef implements server.Logger.
func (l natsLog) Noticef(format string, args ...any) { l.debug(format, args) }

// Debugf implements server.Logger.
func (l natsLog) Debugf(format string, args ...any) { l.debug(format, args) }

// Tracef implements server.Logger.
func (l natsLog) Tracef(format string, args ...any) { l.debug(format, args) }

func (l natsLog) debug(format string, args []any) {
	l.log.Debug("the embedded NATS server", "text", fmt.Sprintf(format, args...))
}
