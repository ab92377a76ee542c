package telemetry

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

type failing struct{ sdktrace.SpanExporter }

func (failing) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error {
	return errors.New("connection refused")
}

func TestExporterWarnsOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		e := &exporter{SpanExporter: failing{}, log: slog.New(slog.NewTextHandler(&log, nil))}
		for range 181 { // three minutes, one batch of two spans a second
			require.NoError(t, e.ExportSpans(t.Context(), make([]sdktrace.ReadOnlySpan, 2)))
			time.Sleep(time.Second) // of the bubble's clock
		}
		require.Equal(t, 4, bytes.Count(log.Bytes(), []byte("connection refused")), log.String())
		require.Contains(t, log.String(), "lost=120")
	})
}
