// Package telemetrytest is shared by tests that check the log of a service.
package telemetrytest

import (
	"strings"
	"sync"
)

// Log records what is written to it, for tests that read the log. It may be used by several goroutines.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns everything that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
