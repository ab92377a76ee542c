package standalone

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/runnelhq/runnel/pkg/telemetry"
)

// After a kill, the server reports every stream. That is no reason for alarm, and no reason for a line for each.
func TestRebuiltStreamsAreNoAlarm(t *testing.T) {
	var log bytes.Buffer
	limiter := telemetry.NewLimiter(slog.NewTextHandler(&log, nil))
	nats := natsLog{slog.New(limiter)}
	for range 64 {
		nats.Warnf("Filestore [RUNNEL-3] Stream state outdated, last block has additional entries, will rebuild")
		nats.Warnf("Filestore [RUNNEL-4] Stream state detected prior state, could not locate msg block %d", 7)
		nats.Noticef("  Restored %d messages", 12)
	}
	limiter.Close()
	require.NotContains(t, log.String(), "WARN")
	require.LessOrEqual(t, strings.Count(log.String(), "\n"), 6, log.String())
	require.Contains(t, log.String(), "rebuilt")
}

func TestWarningsThatConcernAnOperatorAreLogged(t *testing.T) {
	for want, write := range map[string]func(natsLog){
		"level=WARN": func(l natsLog) {
			l.Warnf("Filestore [X] File system permission denied when flushing stream state, disabling JetStream: %v", "EACCES")
		},
		"level=ERROR": func(l natsLog) { l.Errorf("JetStream out of space, will be DISABLED") },
	} {
		var log bytes.Buffer
		write(natsLog{slog.New(slog.NewTextHandler(&log, nil))})
		require.Contains(t, log.String(), want)
	}
}
